/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Tasks of a scheduler that is gone. Its leases end by themselves; but where it shared runners with
 * others, these know sooner: a runner kills what it runs for a connection that has ended, and tells
 * one of the schedulers that are left. The release is fenced by the owner, so nothing happens where
 * the task was put back, finished or claimed anew meanwhile, and a runner that lies can only cost
 * another scheduler's tasks an attempt.
 */

#include "scheduler/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Runners have fewer slots than that all together in any reasonable fleet; the rest waits for its
 * lease. */
enum { ORPHANS_MAX = 4096 };

struct orphan {
	struct scheduler *scheduler;
	struct store_release release;
};

static void on_released(struct store_req *req, int code)
{
	struct orphan *o = req->ctx;
	struct scheduler *s = o->scheduler;

	s->orphans--;
	s->requests--;
	if (code == 0) {
		log_info("scheduler", "took over from a scheduler that is gone",
			 LOG_TASK(&o->release.id));
		recover_moved(s, &o->release.ticket);
	}
	free(o);
	scheduler_check_closed(s);
}

int orphan_take(struct scheduler *s, const Kiln__Orphaned *m)
{
	struct orphan *o;

	if (m->task.len != sizeof o->release.id || !m->owner)
		return -EBADMSG;
	if (s->closing || s->orphans == ORPHANS_MAX)
		return 0;
	o = calloc(1, sizeof *o);
	if (!o)
		return -ENOMEM;
	o->scheduler = s;
	o->release = (struct store_release){
		.req = {.done = on_released, .ctx = o},
		.owner = m->owner,
		.counts = true,
		.now_us = store_now_us(s->cfg.store),
		.error_code = "scheduler_lost",
		.error_message = "the process that followed the task ended",
	};
	memcpy(&o->release.id, m->task.data, sizeof o->release.id);
	s->orphans++;
	s->requests++;
	store_release(s->cfg.store, &o->release);
	return 0;
}
