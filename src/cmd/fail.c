/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cmd.h"

#include <stdarg.h>
#include <stdio.h>

int cmd_fail(int status, const struct err *e)
{
	(void)fprintf(stderr, "kiln: %s\n", e->msg);
	return status;
}

int cmd_fail_text(int status, const char *fmt, ...)
{
	va_list ap;

	(void)fputs("kiln: ", stderr);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	return status;
}
