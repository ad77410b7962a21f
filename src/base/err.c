/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *err_text(int code)
{
	const char *text = strerrordesc_np(code < 0 ? -code : code);

	return text ? text : "unknown error";
}

/* Appends ": suffix"; a message that does not fit is cut, never refused. */
static void append(struct err *e, const char *suffix)
{
	size_t len = strnlen(e->msg, sizeof e->msg);

	if (len + 1 < sizeof e->msg)
		(void)snprintf(e->msg + len, sizeof e->msg - len, ": %s", suffix);
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	(void)vsnprintf(e->msg, sizeof e->msg, fmt, ap);
	va_end(ap);
	return code;
}

int err_errno(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	(void)vsnprintf(e->msg, sizeof e->msg, fmt, ap);
	va_end(ap);
	append(e, err_text(code));
	return code;
}

int err_wrap(struct err *e, int code, const char *fmt, ...)
{
	char inner[ERR_MSG_MAX];
	va_list ap;

	if (!e)
		return code;
	memcpy(inner, e->msg, sizeof inner);
	inner[sizeof inner - 1] = '\0';
	va_start(ap, fmt);
	(void)vsnprintf(e->msg, sizeof e->msg, fmt, ap);
	va_end(ap);
	append(e, inner);
	return code;
}
