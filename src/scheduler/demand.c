/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

/*
 * What a manager of pods that come and go with demand needs of the scheduler, and tells it: how
 * busy each runner is, what waits, and for which languages there will be a runner as soon as it is
 * needed.
 */

void scheduler_watch_runners(struct scheduler *s, scheduler_heard_cb heard, void *ctx)
{
	s->heard = heard;
	s->heard_ctx = ctx;
}

void demand_heard(const struct runner *r, unsigned slots, unsigned used, uint64_t tasks)
{
	const struct scheduler *s = r->scheduler;

	if (s->heard)
		s->heard(s->heard_ctx, r->pod, slots, used, tasks);
}

void scheduler_drain_runner(struct scheduler *s, const char *pod)
{
	Kiln__Frame frame = KILN__FRAME__INIT;
	Kiln__Drain m = KILN__DRAIN__INIT;
	struct runner *r = runner_find(s, pod);

	if (!r || !r->greeted)
		return;
	/* It says so itself, by a heartbeat without slots; that it has no more tasks from here does
	 * not wait for that. */
	r->draining = true;
	frame.kind_case = KILN__FRAME__KIND_DRAIN;
	frame.drain = &m;
	(void)wire_conn_send(r->conn, &frame);
	scheduler_runners_changed(s);
}

void scheduler_offer_language(struct scheduler *s, const char *language, bool yes)
{
	ssize_t i = scheduler_language_index(s, language);
	struct language *l;

	if (i < 0)
		return;
	l = language_at(s->cfg.languages, (size_t)i);
	s->offered[i] = yes;
	/* Nothing of it is consumed while there is no runner, and what waits must be known. */
	(void)queue_follow(s->cfg.queue, language, yes);
	/* Its version is known with the first runner. */
	if (yes && !l->installed)
		(void)language_set_status(l, true, NULL);
	if (yes)
		report_languages(s);
}

bool demand_any_offered(const struct scheduler *s)
{
	for (size_t i = 0; i < language_count(s->cfg.languages); i++)
		if (s->offered[i])
			return true;
	return false;
}

/* Jobs that were delivered here and have no runner yet. */
static uint64_t count_jobs(const struct scheduler *s, size_t language)
{
	const struct job *j;
	size_t cursor;
	uint64_t n = 0;

	MAP_FOREACH (j, cursor, &s->jobs)
		n += j->language == language && j->state == JOB_WAITING;
	return n;
}

bool scheduler_count_waiting(const struct scheduler *s, const char *language, uint64_t *ret_waiting)
{
	ssize_t i = scheduler_language_index(s, language);
	struct queue_depth depth;
	uint64_t n = 0;

	if (queue_check(s->cfg.queue, NULL) < 0 || !s->recovered)
		return false;
	for (int c = 0; c < _TASK_CLASS_MAX; c++) {
		queue_get_depth(s->cfg.queue, language, (enum task_class)c, &depth);
		n += depth.ready;
	}
	if (i >= 0)
		n += count_jobs(s, (size_t)i) + waiting_elsewhere(s, (size_t)i);
	*ret_waiting = n;
	return true;
}
