/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Calls put off to the end of the current turn of the loop. Every asynchronous verb in Kiln
 * completes through a callback that never runs inside the call that asked for it; an embedded
 * implementation that knows its answer at once uses this to keep that promise.
 *
 * Order is kept. A call that is made while others run is run in the same turn.
 */

#include "base/list.h"

#include <uv.h>

struct defer;

struct deferred {
	struct list link; /* list_init before the first use */
	void (*call)(struct deferred *d);
};

int defer_new(uv_loop_t *loop, struct defer **ret_defer);

/* Puts d at the end of the queue; nothing happens when it is queued already. */
void defer_call(struct defer *d, struct deferred *call);

/* Takes it out of the queue where it is in. */
void defer_cancel(struct deferred *call);

/* Runs what is queued, then frees; its loop handles close in the background. */
void defer_close(struct defer *d);
