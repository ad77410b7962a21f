/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Answers of a server: where one ends, which depends on its head, and whether its body has what it
 * should have. HTTP/1.1 with a Content-Length or in chunks, nothing else.
 */

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the whole answer at the start of b once all of it is there, 0 before, -EBADMSG where it
 * is none. */
int64_t answer_length(const struct buf *b);

/* The body of a whole answer; chunks are put together in place, so that it may be asked for once.
 */
char *answer_body(struct buf *b, size_t *ret_len);

/* Whether the JSON text has exactly this string where an RFC 6901 pointer without escapes leads
 * ("/0/files/stdout"). */
bool answer_has(const char *body, size_t len, const char *pointer, const char *expect);
