/* SPDX-License-Identifier: Apache-2.0 */
#include "base/signals.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

int signals_ignore_pipe(struct err *e)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};

	if (sigaction(SIGPIPE, &ignore, NULL) < 0)
		return err_errno(e, -errno, "could not ignore SIGPIPE");
	return 0;
}

void signals_default_pipe(void)
{
	const struct sigaction normal = {.sa_handler = SIG_DFL};

	(void)sigaction(SIGPIPE, &normal, NULL);
}
