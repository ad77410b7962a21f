/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <errno.h>
#include <stdlib.h>

enum {
	SWEEP_LIMIT = 500,
	SCAN_LIMIT = 500,
	PRUNE_LIMIT = 500,
	PRUNE_EVERY_MS = 60 * 1000,
	RECOVER_RETRY_MS = 1000,
	SWEEP_IDLE_MS = 10 * 1000,
};

static void scan(struct scheduler *s);
static void sweep_every_lease(struct scheduler *s);

/* ---- deadlines and leases ---- */

/* A task that the sweep moved: queued ones need a message, final ones have waiters. */
void recover_moved(struct scheduler *s, const struct store_ticket *t)
{
	uint8_t payload = (uint8_t)t->state;

	if (t->state == TASK_QUEUED) {
		struct job *j = map_get(&s->jobs, &t->id, sizeof t->id);

		/* Our own, whose lease could not be renewed: it starts over when this attempt is
		 * through, since its message is with us. */
		if (j)
			j->again = true;
		else
			publisher_requeue(s->cfg.publisher, t);
		return;
	}
	metric_add(METRIC_TASKS_FINISHED, 1, t->language, task_state_name(t->state));
	cache_drop(s->cfg.cache, CACHE_SPEC, &t->id);
	bus_publish(s->cfg.bus, BUS_FINISHED, &t->id, &payload, sizeof payload);
}

/*
 * Whether a lease that has ended says anything about its owner. While the store could not be
 * reached, or stood still, nobody could renew: every owner gets the time of a whole lease after
 * that, and so it does when this process has only just come to see the rows.
 */
static bool leases_tell(struct scheduler *s)
{
	int64_t now_us = clock_monotonic_us();

	if (s->cfg.sole_owner)
		return true;
	if (store_health(s->cfg.store, NULL) < 0) {
		s->store_since_us = 0;
		return false;
	}
	if (!s->store_since_us)
		s->store_since_us = now_us;
	return now_us - s->store_since_us >= s->cfg.lease_ms * 1000;
}

bool recover_note_answer(struct scheduler *s, int64_t asked_us, int code)
{
	int64_t now_us = clock_monotonic_us();
	bool late = now_us - asked_us > s->cfg.lease_ms * 1000 / LEASE_RENEWALS;

	if (late || code == -EAGAIN)
		s->store_since_us = now_us;
	return late;
}

static void ask_sweep(struct scheduler *s, bool every_lease, store_done_cb done)
{
	s->sweeping = true;
	s->swept_us = clock_monotonic_us();
	s->requests++;
	s->sweep = (struct store_sweep){
		.req = {.done = done, .ctx = s},
		.now_us = store_now_us(s->cfg.store),
		.every_lease = every_lease,
		.error_code = "scheduler_lost",
		.error_message = "the process that followed the task ended",
		.limit = SWEEP_LIMIT,
	};
	store_sweep(s->cfg.store, &s->sweep);
}

static void prune(struct scheduler *s);

static void on_swept(struct store_req *req, int code)
{
	struct scheduler *s = req->ctx;

	s->sweeping = false;
	s->requests--;
	(void)recover_note_answer(s, s->swept_us, code);
	for (size_t i = 0; code == 0 && i < s->sweep.n; i++)
		recover_moved(s, &s->sweep.tickets[i]);
	if (code == 0)
		free(s->sweep.tickets);
	scheduler_check_closed(s);
}

/* The rows of a sole owner are what it has in hand and in its queue: with neither, a sweep would
 * find nothing, and only keep an idle machine awake. Now and then it looks all the same. */
static bool may_rest(const struct scheduler *s, bool idle)
{
	return idle && s->cfg.sole_owner && !queue_is_durable(s->cfg.queue) &&
	       clock_monotonic_us() - s->swept_us < SWEEP_IDLE_MS * INT64_C(1000);
}

void recover_sweep(struct scheduler *s, bool idle)
{
	if (s->closing)
		return;
	if (!s->recovered) {
		if (!s->recovering)
			recover_start(s);
		return;
	}
	if (!may_rest(s, idle) && leases_tell(s) && !s->sweeping)
		ask_sweep(s, false, on_swept);
	prune(s);
}

/* ---- at start ---- */

/* The next tick of the sweep timer goes on from here. */
static void try_again(struct scheduler *s, int code)
{
	log_warn("scheduler", "could not read what was left behind; trying again",
		 LOG_STR("reason", err_text(code)));
	s->recovering = false;
}

/* Tasks newer than the start are published by whoever inserts them. */
static bool is_old(const struct scheduler *s, const struct uuid *id)
{
	return __builtin_memcmp(id, &s->scan_until, sizeof *id) < 0;
}

static void on_scanned(struct store_req *req, int code)
{
	struct scheduler *s = req->ctx;
	size_t n = s->scan.n;
	bool more = code == 0 && n == SCAN_LIMIT;

	s->requests--;
	if (code < 0) {
		try_again(s, code);
		scheduler_check_closed(s);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (is_old(s, &s->scan.tickets[i].id))
			publisher_requeue(s->cfg.publisher, &s->scan.tickets[i]);
		else
			more = false;
	}
	if (n)
		s->scan.after = s->scan.tickets[n - 1].id;
	free(s->scan.tickets);
	s->scan.tickets = NULL;
	if (more && !s->closing)
		scan(s);
	else
		s->recovered = true;
	scheduler_check_closed(s);
}

static void scan(struct scheduler *s)
{
	struct uuid after = s->scan.after;

	s->requests++;
	s->scan = (struct store_scan){
		.req = {.done = on_scanned, .ctx = s},
		.after = after,
		.limit = SCAN_LIMIT,
	};
	store_scan(s->cfg.store, &s->scan);
}

/* Queued ones among what was moved are found by the scan that follows. */
static void on_every_lease_swept(struct store_req *req, int code)
{
	struct scheduler *s = req->ctx;
	size_t n = s->sweep.n;

	s->sweeping = false;
	s->requests--;
	if (code < 0) {
		try_again(s, code);
		scheduler_check_closed(s);
		return;
	}
	if (n)
		log_info("scheduler", "tasks of an earlier life were put back",
			 LOG_INT("tasks", n));
	free(s->sweep.tickets);
	if (n == SWEEP_LIMIT) {
		sweep_every_lease(s);
		return;
	}
	scheduler_consume(s);
	recover_start(s);
	scheduler_check_closed(s);
}

static void sweep_every_lease(struct scheduler *s)
{
	ask_sweep(s, true, on_every_lease_swept);
}

/* Consuming begins only when no lease is left to be voided: a new claim must not be swept away. */
void recover_start(struct scheduler *s)
{
	s->recovering = true;
	if (!s->started_us) {
		s->started_us = store_now_us(s->cfg.store);
		uuid7_floor(s->started_us, &s->scan_until);
	}
	if (s->cfg.sole_owner && !s->consuming) {
		sweep_every_lease(s);
		return;
	}
	scheduler_consume(s);
	if (queue_is_durable(s->cfg.queue))
		s->recovered = true;
	else
		scan(s);
}

/* ---- retention ---- */

static void on_pruned(struct store_req *req, int code)
{
	struct scheduler *s = req->ctx;

	s->pruning = false;
	s->requests--;
	if (code == 0 && s->prune.n == PRUNE_LIMIT)
		s->next_prune_us = 0; /* more is waiting: at the next tick */
	scheduler_check_closed(s);
}

/* Often enough that nothing outlives a short retention by much. */
static int64_t prune_every_ms(int64_t retention_ms)
{
	return retention_ms < PRUNE_EVERY_MS ? retention_ms : PRUNE_EVERY_MS;
}

static void prune(struct scheduler *s)
{
	int64_t now_us = clock_monotonic_us();

	if (!s->cfg.retention_ms || s->pruning || now_us < s->next_prune_us)
		return;
	s->next_prune_us = now_us + prune_every_ms(s->cfg.retention_ms) * 1000;
	s->pruning = true;
	s->requests++;
	s->prune = (struct store_prune){
		.req = {.done = on_pruned, .ctx = s},
		.now_us = store_now_us(s->cfg.store),
		.before_us = store_now_us(s->cfg.store) - s->cfg.retention_ms * 1000,
		.limit = PRUNE_LIMIT,
	};
	store_prune(s->cfg.store, &s->prune);
}
