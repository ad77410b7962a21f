/* SPDX-License-Identifier: Apache-2.0 */
#include "base/traceparent.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

enum { TRACE_AT = 3, SPAN_AT = 36, FLAGS_AT = 53 };

/* Lower case only: hex_decode takes both. */
static bool hex_field(const char *text, size_t size, uint8_t *bytes)
{
	uint8_t any = 0;

	for (size_t i = 0; i < 2 * size; i++)
		if (!(text[i] >= '0' && text[i] <= '9') && !(text[i] >= 'a' && text[i] <= 'f'))
			return false;
	if (hex_decode(text, 2 * size, bytes) < 0)
		return false;
	for (size_t i = 0; i < size; i++)
		any |= bytes[i];
	return any || size == 1;
}

bool traceparent_read(const char *text, size_t len, struct trace_context *ret)
{
	struct trace_context c;

	if (len != TRACEPARENT_LEN || memcmp(text, "00-", 3) != 0 || text[SPAN_AT - 1] != '-' ||
	    text[FLAGS_AT - 1] != '-' || !hex_field(text + TRACE_AT, sizeof c.trace, c.trace) ||
	    !hex_field(text + SPAN_AT, sizeof c.span, c.span) ||
	    !hex_field(text + FLAGS_AT, sizeof c.flags, &c.flags))
		return false;
	if (ret)
		*ret = c;
	return true;
}

void traceparent_write(const struct trace_context *c, char text[TRACEPARENT_LEN + 1])
{
	char trace[2 * TRACE_ID_SIZE + 1], span[2 * SPAN_ID_SIZE + 1];

	hex_encode(c->trace, sizeof c->trace, trace);
	hex_encode(c->span, sizeof c->span, span);
	(void)snprintf(text, TRACEPARENT_LEN + 1, "00-%s-%s-%02x", trace, span, c->flags);
}
