/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Ctrl-C (SIGINT) and SIGTERM as something to be counted, for commands that have to tidy up before
 * they end: between interrupt_begin and interrupt_end the two do not end the process. A signal that
 * the process was started to ignore (nohup, a job in the background) is left ignored.
 */

#include "base/err.h"

#include <signal.h>
#include <stdbool.h>

struct interrupt {
	int fd;		 /* readable when there is more to count */
	unsigned count;	 /* signals so far */
	unsigned enough; /* so many end a wait; set by the owner at any time */
	sigset_t before;
};

int interrupt_begin(struct interrupt *i, struct err *e);
void interrupt_end(struct interrupt *i);

/* Whether there have been enough. Never waits. */
bool interrupt_reached(struct interrupt *i);
