/* SPDX-License-Identifier: Apache-2.0 */

/* What others may write to a queue at a broker. What is accepted must come out the same when it is
 * written and read again. */

#include "base/traceparent.h"
#include "queue/message.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct queue_message m = {0}, again = {0};
	struct err e = {""};
	struct buf b;

	(void)traceparent_read((const char *)data, size, NULL);
	if (queue_message_read(data, size, &m, &e) < 0) {
		assert(e.msg[0]);
		return 0;
	}
	buf_init(&b, QUEUE_MESSAGE_BYTES_MAX);
	assert(queue_message_write(&m, &b) == 0);
	assert(queue_message_read(b.data, b.len, &again, NULL) == 0);
	assert(memcmp(&m, &again, sizeof m) == 0);
	buf_fini(&b);
	return 0;
}
