/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A message as bytes, for brokers. Lines of "name value" behind a line that names the format:
 *
 *	kiln 1
 *	id 0198c6a2-7c1e-7e4b-9a55-3b8f2c6d1e70
 *	class normal
 *	language python
 *	tenant acme
 *	enqueued_us 1767225600000000
 *
 * Readers pass over names that they do not know, so that a newer Kiln may add some. What is read
 * comes from a broker that others may write to: it is refused unless every field is what this Kiln
 * could have written.
 */

#include "base/buf.h"
#include "queue/queue.h"

enum { QUEUE_MESSAGE_BYTES_MAX = 1024 };

/* Appends. -EINVAL for a language or tenant that no message can carry, or b's error. */
int queue_message_write(const struct queue_message *m, struct buf *b);

/* -EBADMSG with a message that says what is wrong. traceparent is not part of the bytes. */
int queue_message_read(const void *bytes, size_t len, struct queue_message *ret_message,
		       struct err *e);
