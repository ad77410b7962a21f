/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A pipe that is read when there is something. Outlives its owner's interest until the loop has
 * closed the handle. */

#include "base/cleanup.h"
#include "base/err.h"

#include <uv.h>

struct watch {
	uv_poll_t poll; /* its data is the watch */
	int fd;		/* non-blocking */
	void *owner;	/* NULL once freed: no call comes after that */
};

/* Takes the descriptor, also on failure, and begins. */
int watch_new_consume(uv_loop_t *loop, int fd, uv_poll_cb readable, void *owner,
		      struct watch **ret_watch, struct err *e);
void watch_free(struct watch *w); /* accepts NULL; closes the descriptor */
DEFINE_CLEANUP(struct watch, watch_free);
