/* SPDX-License-Identifier: Apache-2.0 */

/* What a runner that was taken over could send to its spawner: the check of requests and limits,
 * and the table of what is allowed, which stand before everything that the spawner does. */

#include "sandbox/protocol.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BOXES = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	union sandbox_request request = {0};
	struct sandbox_limits limits = {0};

	if (size < 1)
		return 0;
	for (unsigned state = 0; state <= _SANDBOX_BOX_STATE_MAX; state++)
		(void)sandbox_permit(data[0], state);
	data++;
	size--;
	if (size <= sizeof request) {
		memcpy(&request, data, size);
		if (sandbox_request_check(&request, size, data[-1] % 32, BOXES) == 0 &&
		    request.h.box >= BOXES)
			abort();
	}
	memcpy(&limits, data, size < sizeof limits ? size : sizeof limits);
	if (sandbox_limits_check(&limits) == 0 &&
	    (!limits.cpu_usec || !limits.wall_usec || !limits.memory_bytes || !limits.processes ||
	     limits.disk_bytes > limits.memory_bytes))
		abort();
	return 0;
}
