/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The header of W3C Trace Context, https://www.w3.org/TR/trace-context/: version 00, which is all
 * that there is, as lower-case hex: "00-TRACE-SPAN-FLAGS".
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRACE_ID_SIZE = 16, SPAN_ID_SIZE = 8, TRACEPARENT_LEN = 55 };
enum { TRACE_FLAG_SAMPLED = 1 };

struct trace_context {
	uint8_t trace[TRACE_ID_SIZE]; /* not all zero */
	uint8_t span[SPAN_ID_SIZE];   /* likewise: the span that what follows is a part of */
	uint8_t flags;
};

/* False, and *ret untouched, for what cannot be gone on with. ret may be NULL. */
bool traceparent_read(const char *text, size_t len, struct trace_context *ret);

void traceparent_write(const struct trace_context *c, char text[TRACEPARENT_LEN + 1]);
