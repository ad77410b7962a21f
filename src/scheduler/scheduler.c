/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <errno.h>
#include <stdlib.h>

enum {
	PREFETCH_PER_SLOT = 2,
	PREFETCH_MIN = 8,
	PREFETCH_ADMITTED = 2, /* times that one tenant's bound fits in */
	SWEEP_MS = 1000,
	RUNNERLESS_MS = 3000, /* a runner that is made anew is back sooner */
	STALL_MS = 1000,      /* a tick that is so late tells of a process that stood still */
};

/* All jobs for which pick says yes, as an array that the caller frees: the map changes while jobs
 * go. NULL when memory is gone. */
static struct job **collect_jobs(struct scheduler *s, bool (*pick)(const struct job *j),
				 size_t *ret_n)
{
	struct job **all = calloc(map_count(&s->jobs) + 1, sizeof(struct job *));
	size_t cursor = 0;
	struct job *j;

	*ret_n = 0;
	if (!all)
		return NULL;
	MAP_FOREACH (j, cursor, &s->jobs)
		if (!pick || pick(j))
			all[(*ret_n)++] = j;
	return all;
}

static void for_each_job(struct scheduler *s, bool (*pick)(const struct job *j),
			 void (*act)(struct job *j))
{
	size_t n;
	AUTO_FREE struct job **all = collect_jobs(s, pick, &n);

	for (size_t i = 0; all && i < n; i++)
		act(all[i]);
}

ssize_t scheduler_language_index(const struct scheduler *s, const char *name)
{
	for (size_t i = 0; i < language_count(s->cfg.languages); i++)
		if (str_eq(language_at(s->cfg.languages, i)->name, name))
			return (ssize_t)i;
	return -1;
}

/* ---- dispatch ---- */

static bool may_run(void *ctx, size_t language)
{
	const struct scheduler *s = ctx;

	return choice_can_run(s->choice, language);
}

static void on_dispatch(struct deferred *d)
{
	struct scheduler *s = container_of(d, struct scheduler, dispatch);
	struct lane_item *item;

	while (!s->closing && choice_any(s->choice)) {
		struct job *j;

		item = lanes_take(s->lanes, may_run, s);
		if (!item)
			break;
		j = container_of(item, struct job, lane);
		job_start(j, runner_choose(s, j->language, NULL));
	}
	waiting_tell(s);
}

void scheduler_dispatch_soon(struct scheduler *s)
{
	if (!s->closing)
		defer_call(s->defer, &s->dispatch);
}

/* ---- things to try again ---- */

static void on_retry_timer(uv_timer_t *timer)
{
	struct scheduler *s = timer->data;
	int64_t now_us = clock_monotonic_us();
	struct job *j, *tmp;
	struct list due;

	list_init(&due);
	LIST_FOREACH_SAFE (j, tmp, &s->retries, retry_link) {
		if (j->retry_at_us > now_us)
			continue;
		list_unlink(&j->retry_link);
		list_push_back(&due, &j->retry_link);
	}
	while ((j = LIST_FIRST(&due, struct job, retry_link))) {
		list_unlink(&j->retry_link);
		j->retry(j);
	}
	if (list_empty(&s->retries))
		(void)uv_timer_stop(&s->retry_timer);
}

void scheduler_retry(struct job *j, void (*retry)(struct job *j))
{
	enum { TICK_MS = 50 };
	struct scheduler *s = j->scheduler;

	j->retry = retry;
	j->retry_at_us = clock_monotonic_us() + (int64_t)backoff_next_ms(&j->backoff) * 1000;
	list_push_back(&s->retries, &j->retry_link);
	if (!uv_is_active((uv_handle_t *)&s->retry_timer))
		(void)uv_timer_start(&s->retry_timer, on_retry_timer, TICK_MS, TICK_MS);
}

/* ---- leases ---- */

static void renew_rows(struct scheduler *s);

static void on_renewed(struct store_req *req, int code)
{
	struct scheduler *s = req->ctx;
	bool late = recover_note_answer(s, s->renewed_us, code);

	s->renewing = false;
	free(TAKE_PTR(s->renewed));
	s->requests--;
	for (size_t i = 0; code == 0 && i < s->renew.n; i++) {
		struct job *j = map_get(&s->jobs, &s->renew.cancelling[i], sizeof(struct uuid));

		if (j)
			job_cancel(j);
	}
	if (code == 0)
		free(s->renew.cancelling);
	if (late && code == 0 && !s->closing)
		renew_rows(s); /* what was just written may have ended already */
	scheduler_check_closed(s);
}

static int compare_owners(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Those in whose names tasks are claimed, each once, in an array that the caller frees. */
static uint64_t *collect_owners(struct scheduler *s, size_t *ret_n)
{
	uint64_t *owners = calloc(map_count(&s->jobs) + 1, sizeof *owners);
	size_t cursor = 0, n = 0, unique = 0;
	struct job *j;

	*ret_n = 0;
	if (!owners)
		return NULL;
	MAP_FOREACH (j, cursor, &s->jobs)
		if (j->claim == CLAIM_PENDING || j->claim == CLAIM_WON)
			owners[n++] = j->owner;
	qsort(owners, n, sizeof *owners, compare_owners);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || owners[i] != owners[i - 1])
			owners[unique++] = owners[i];
	*ret_n = unique < STORE_SWEEP_MAX ? unique : STORE_SWEEP_MAX;
	return owners;
}

static void renew_rows(struct scheduler *s)
{
	size_t n = 0;

	if (s->renewing)
		return;
	s->renewed = collect_owners(s, &n);
	if (n == 0) {
		free(TAKE_PTR(s->renewed));
		return;
	}
	s->renewing = true;
	s->renewed_us = clock_monotonic_us();
	s->requests++;
	s->renew = (struct store_renew){
		.req = {.done = on_renewed, .ctx = s},
		.owners = s->renewed,
		.n_owners = n,
		.lease_until_us = store_now_us(s->cfg.store) + s->cfg.lease_ms * 1000,
	};
	store_renew(s->cfg.store, &s->renew);
}

static void renew_runners(struct scheduler *s)
{
	Kiln__Frame frame = KILN__FRAME__INIT;
	Kiln__Renew m = KILN__RENEW__INIT;
	struct runner *r, *tmp;

	m.lease_ms = (uint32_t)s->cfg.lease_ms;
	frame.kind_case = KILN__FRAME__KIND_RENEW;
	frame.renew = &m;
	/* To idle ones too: a runner drops a scheduler that says nothing. */
	LIST_FOREACH_SAFE (r, tmp, &s->runners, link)
		if (r->greeted)
			(void)wire_conn_send(r->conn, &frame);
}

/* A machine that was paused, or a process that was stopped, has heard nobody and renewed nothing:
 * that says nothing about the others. What they sent is still to be read, since timers come first
 * in a turn of the loop, and leases that ran out meanwhile are renewed before a sweep sees them. */
static bool stood_still(struct scheduler *s)
{
	int64_t now_us = clock_monotonic_us();
	int64_t late_us = s->ticked_us ? now_us - s->ticked_us - SWEEP_MS * 1000 : 0;
	struct runner *r;

	s->ticked_us = now_us;
	if (late_us < STALL_MS * 1000)
		return false;
	log_warn("scheduler", "this process stood still", LOG_INT("ms", late_us / 1000));
	LIST_FOREACH (r, &s->runners, link)
		r->heard_us = now_us;
	renew_runners(s);
	renew_rows(s);
	return true;
}

static void on_renew_timer(uv_timer_t *timer)
{
	struct scheduler *s = timer->data;

	if (clock_monotonic_us() - s->ticked_us < 2 * STALL_MS * 1000)
		runners_drop_silent(s);
	renew_runners(s);
	renew_rows(s);
}

/* ---- what others tell ---- */

static void on_cancel(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		      size_t len)
{
	struct scheduler *s = ctx;
	struct job *j = map_get(&s->jobs, id, sizeof *id);

	(void)topic;
	(void)payload;
	(void)len;
	if (j)
		job_cancel(j);
}

static void on_delivered(void *ctx, struct queue_delivery *d)
{
	struct scheduler *s = ctx;

	if (s->closing)
		queue_hand_back(s->cfg.queue, d);
	else
		job_delivered(s, d);
}

static void on_queue_state(void *ctx, int code, const char *message)
{
	struct scheduler *s = ctx;

	if (code == 0) {
		log_info("scheduler", "the queue is back");
		return;
	}
	log_warn("scheduler", "the queue is lost", LOG_STR("reason", message));
	for_each_job(s, NULL, job_queue_lost);
}

static const struct queue_consumer_ops consumer_ops = {
	.delivered = on_delivered,
	.state = on_queue_state,
};

/* ---- gauges and the periodic sweep ---- */

/* Returns how many tasks the queues hold, as far as they tell. */
static uint64_t observe_queues(const struct scheduler *s)
{
	int64_t now_us = store_now_us(s->cfg.store);
	struct queue_depth d;
	uint64_t held = 0;

	for (size_t i = 0; i < language_count(s->cfg.languages); i++) {
		const char *name = language_at(s->cfg.languages, i)->name;

		for (int c = 0; c < _TASK_CLASS_MAX; c++) {
			const char *class = task_class_name((enum task_class)c);

			queue_get_depth(s->cfg.queue, name, (enum task_class)c, &d);
			held += (uint64_t)d.ready + d.unacked;
			metric_set(METRIC_QUEUE_MESSAGES, (double)d.ready, name, class, "ready");
			metric_set(METRIC_QUEUE_MESSAGES, (double)d.unacked, name, class,
				   "unacked");
			metric_set(METRIC_QUEUE_OLDEST_SECONDS,
				   d.oldest_us ? (double)(now_us - d.oldest_us) / 1e6 : 0, name,
				   class);
		}
	}
	return held;
}

static bool is_stranded(const struct job *j);

static void on_sweep_timer(uv_timer_t *timer)
{
	struct scheduler *s = timer->data;
	struct scheduler_stats stats;
	uint64_t queued;

	scheduler_get_stats(s, &stats);
	metric_set(METRIC_RUNNERS, (double)stats.runners);
	metric_set(METRIC_RUNNER_SLOTS, (double)stats.busy, "busy");
	metric_set(METRIC_RUNNER_SLOTS, (double)(stats.slots - stats.busy), "idle");
	standbys_observe(s);
	queued = observe_queues(s);
	report_languages_again(s);
	runners_drop_retired(s);
	/* Others may have a runner for them. */
	for_each_job(s, is_stranded, job_abandon);
	tenants_read(s);
	if (!stood_still(s))
		recover_sweep(s, queued == 0 && map_count(&s->jobs) == 0);
}

void scheduler_get_stats(const struct scheduler *s, struct scheduler_stats *ret_stats)
{
	const struct runner *r;

	*ret_stats = (struct scheduler_stats){.waiting = lanes_count(s->lanes)};
	LIST_FOREACH (r, &s->runners, link) {
		if (!r->greeted || r->draining)
			continue;
		ret_stats->runners++;
		ret_stats->slots += r->slots;
		ret_stats->busy += r->busy;
	}
}

bool scheduler_is_ready(const struct scheduler *s, struct buf *why)
{
	struct scheduler_stats stats;

	scheduler_get_stats(s, &stats);
	if (why && s->closing)
		(void)buf_append_str(why, "the server is shutting down");
	else if (why && !s->recovered)
		(void)buf_append_str(why, "the queues are being rebuilt from the store");
	else if (why && !stats.runners)
		(void)buf_append_str(why, "no runner is connected");
	return !s->closing && s->recovered && (stats.runners || demand_any_offered(s));
}

const struct task_isolation *scheduler_isolation(const struct scheduler *s)
{
	const struct runner *r = LIST_FIRST(&s->runners, struct runner, link);

	return r && r->greeted ? &r->isolation : NULL;
}

/* ---- life ---- */

static void init_timers(struct scheduler *s)
{
	uv_timer_t *timers[] = {&s->renew_timer, &s->sweep_timer, &s->retry_timer,
				&s->claim_timer, &s->close_timer, &s->tell_timer};

	for (size_t i = 0; i < ARRAY_SIZE(timers); i++) {
		(void)uv_timer_init(s->loop, timers[i]);
		timers[i]->data = s;
		s->open_handles++;
	}
}

static bool holds(void *ctx, const struct uuid *id)
{
	const struct scheduler *s = ctx;

	return map_get(&s->jobs, id, sizeof *id);
}

static int open_reconciler(struct scheduler *s)
{
	const struct reconciler_config cfg = {
		.store = s->cfg.store,
		.queue = s->cfg.queue,
		.publisher = s->cfg.publisher,
		.queue_url = s->cfg.queue_url,
		.holds = holds,
		.ctx = s,
	};

	return reconciler_open(s->loop, &cfg, &s->reconciler, NULL);
}

static void on_reconciler_closed(void *ctx)
{
	struct scheduler *s = ctx;

	s->requests--;
	scheduler_check_closed(s);
}

int scheduler_new(uv_loop_t *loop, const struct scheduler_config *cfg,
		  struct scheduler **ret_scheduler, struct err *e)
{
	struct scheduler *s = calloc(1, sizeof *s);

	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->loop = loop;
	s->cfg = *cfg;
	s->dispatch.call = on_dispatch;
	list_init(&s->dispatch.link);
	list_init(&s->runners);
	list_init(&s->retries);
	list_init(&s->claims);
	list_init(&s->others);
	map_init(&s->jobs);
	arc4random_buf(&s->id, sizeof s->id);
	s->intake = calloc(language_count(cfg->languages) + 1, sizeof *s->intake);
	s->offered = calloc(language_count(cfg->languages) + 1, sizeof *s->offered);
	if (!s->intake || !s->offered ||
	    choice_new(language_count(cfg->languages), &s->choice) < 0 ||
	    lanes_new(language_count(cfg->languages), cfg->weights,
		      &(struct lanes_limit){tenants_running_max, s}, &s->lanes) < 0 ||
	    defer_new(loop, &s->defer) < 0 ||
	    bus_subscribe(cfg->bus, BUS_CANCEL, on_cancel, s) < 0 || waiting_listen(s) < 0 ||
	    standbys_open(s) < 0 || open_reconciler(s) < 0) {
		bus_unsubscribe(cfg->bus, BUS_CANCEL, on_cancel, s);
		waiting_stop(s);
		lanes_free(s->lanes);
		choice_free(s->choice);
		defer_close(s->defer);
		free(s->intake);
		free(s->offered);
		free(s->standbys);
		free(s);
		return err_set(e, -ENOMEM, "out of memory");
	}
	init_timers(s);
	*ret_scheduler = s;
	return 0;
}

/* What a scheduler has taken is out of the reach of the others: so it takes nothing of a language
 * that none of its runners has, and else not much more than these can soon use. But a broker's
 * queue is first in, first out: there so much is taken that behind all that one tenant may have,
 * others are seen. */
static size_t choose_prefetch(struct scheduler *s, size_t language)
{
	size_t slots = choice_slots(s->choice, language), prefetch;

	if (!slots)
		return 0;
	prefetch = slots * PREFETCH_PER_SLOT;
	if (prefetch < PREFETCH_MIN)
		prefetch = PREFETCH_MIN;
	if (queue_is_durable(s->cfg.queue))
		prefetch += PREFETCH_ADMITTED * s->cfg.admit_max;
	return prefetch;
}

void scheduler_consume(struct scheduler *s)
{
	int64_t now_us = clock_monotonic_us();
	struct err e = {0};

	if (!s->consuming)
		queue_set_consumer(s->cfg.queue, &consumer_ops, s);
	s->consuming = true;
	for (size_t i = 0; i < language_count(s->cfg.languages); i++) {
		struct intake_state *in = &s->intake[i];
		size_t prefetch = choose_prefetch(s, i);

		if (prefetch == in->prefetch)
			continue;
		in->prefetch = prefetch;
		in->stopped_us = prefetch ? 0 : now_us;
		if (queue_consume(s->cfg.queue, language_at(s->cfg.languages, i)->name, prefetch,
				  &e) < 0)
			log_error("scheduler", "could not consume", LOG_STR("reason", e.msg));
	}
}

void scheduler_runners_changed(struct scheduler *s)
{
	if (s->consuming && !s->closing)
		scheduler_consume(s);
}

static bool is_stranded(const struct job *j)
{
	const struct intake_state *in = &j->scheduler->intake[j->language];

	return j->state == JOB_WAITING && in->stopped_us &&
	       clock_monotonic_us() - in->stopped_us > RUNNERLESS_MS * INT64_C(1000);
}

void scheduler_start(struct scheduler *s)
{
	uint64_t renew_ms = (uint64_t)s->cfg.lease_ms / LEASE_RENEWALS;

	(void)uv_timer_start(&s->renew_timer, on_renew_timer, renew_ms, renew_ms);
	(void)uv_timer_start(&s->sweep_timer, on_sweep_timer, SWEEP_MS, SWEEP_MS);
	publisher_sweep(s->cfg.publisher, true);
	recover_start(s);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct scheduler *s = handle->data;
	void (*closed)(void *) = s->closed;
	void *ctx = s->closed_ctx;

	if (--s->open_handles)
		return;
	lanes_free(s->lanes);
	choice_free(s->choice);
	map_fini(&s->jobs);
	free(s->intake);
	free(s->offered);
	free(s->standbys);
	free(s->tenants);
	free(s);
	if (closed)
		closed(ctx);
}

static void shut(struct scheduler *s)
{
	struct runner *r, *tmp;

	bus_unsubscribe(s->cfg.bus, BUS_CANCEL, on_cancel, s);
	waiting_stop(s);
	LIST_FOREACH_SAFE (r, tmp, &s->runners, link)
		runner_free(r);
	defer_cancel(&s->dispatch);
	defer_close(s->defer);
	uv_close((uv_handle_t *)&s->renew_timer, on_handle_closed);
	uv_close((uv_handle_t *)&s->sweep_timer, on_handle_closed);
	uv_close((uv_handle_t *)&s->retry_timer, on_handle_closed);
	uv_close((uv_handle_t *)&s->tell_timer, on_handle_closed);
	uv_close((uv_handle_t *)&s->claim_timer, on_handle_closed);
	uv_close((uv_handle_t *)&s->close_timer, on_handle_closed);
}

void scheduler_check_closed(struct scheduler *s)
{
	if (!s->closing || map_count(&s->jobs) || s->requests ||
	    uv_is_closing((uv_handle_t *)&s->close_timer))
		return;
	shut(s);
}

/* The time for an orderly end is up: what still runs is stopped and put back into the queue. Jobs
 * with a request in flight go when it comes back; those whose row could not be written by the next
 * second are left to their lease. */
static void on_close_timer(uv_timer_t *timer)
{
	struct scheduler *s = timer->data;

	for_each_job(s, NULL, job_abandon);
}

static bool is_waiting(const struct job *j)
{
	return j->state == JOB_WAITING;
}

void scheduler_close(struct scheduler *s, int64_t grace_ms, void (*closed)(void *ctx), void *ctx)
{
	s->closing = true;
	s->closed = closed;
	s->closed_ctx = ctx;
	publisher_sweep(s->cfg.publisher, false);
	s->requests++;
	reconciler_close(s->reconciler, on_reconciler_closed, s);
	for (size_t i = 0; i < language_count(s->cfg.languages); i++)
		(void)queue_consume(s->cfg.queue, language_at(s->cfg.languages, i)->name, 0, NULL);
	/* What waits goes back; what was sent to a runner is given its time. */
	for_each_job(s, is_waiting, job_abandon);
	(void)uv_timer_start(&s->close_timer, on_close_timer, (uint64_t)grace_ms, 1000);
	scheduler_check_closed(s);
}

void scheduler_hurry(struct scheduler *s)
{
	if (!uv_is_closing((uv_handle_t *)&s->close_timer))
		(void)uv_timer_start(&s->close_timer, on_close_timer, 0, 1000);
}
