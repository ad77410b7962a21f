/* SPDX-License-Identifier: Apache-2.0 */
#include "outbox/reconciler.h"

#include "base/clock.h"
#include "base/log.h"
#include "observe/metrics.h"
#include "outbox/dead.h"
#include "store/outbox.h"

#include <errno.h>
#include <stdlib.h>

enum {
	TICK_MS = 200,
	SCAN_MAX = 500,
	ROUND_MS = 5000,  /* between two rounds */
	AGAIN_MS = 60000, /* between two times for the same task */
};

struct reconciler {
	struct reconciler_config cfg;
	uv_timer_t timer;
	bool busy;	     /* a scan or what follows from it is in flight */
	int64_t round_at_us; /* monotonic: the next begins no sooner */
	struct store_scan scan;
	struct store_outbox_put put;
	struct uuid *lost; /* SCAN_MAX */
	struct dead *dead;
	bool closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* ---- closing ---- */

static void on_timer_closed(uv_handle_t *handle)
{
	struct reconciler *r = handle->data;
	void (*closed)(void *) = r->closed;
	void *ctx = r->closed_ctx;

	free(r->lost);
	free(r);
	closed(ctx);
}

static void on_dead_closed(void *ctx)
{
	struct reconciler *r = ctx;

	r->dead = NULL;
	uv_close((uv_handle_t *)&r->timer, on_timer_closed);
}

static void end_step(struct reconciler *r)
{
	r->busy = false;
	if (r->closing)
		dead_close(r->dead, on_dead_closed, r);
}

/* ---- one step ---- */

/* A note that it cannot be in its queue any more: it was published before all that is there. */
static bool is_lost(const struct reconciler *r, const struct store_ticket *t, int64_t now_us)
{
	int64_t horizon_us = queue_horizon(r->cfg.queue, t->language, t->class, now_us);
	int64_t published_us = t->queued_us ? t->queued_us : uuid7_time_us(&t->id);

	if (t->boxed || !horizon_us || published_us >= horizon_us)
		return false;
	if (t->queued_us && t->queued_us > now_us - AGAIN_MS * INT64_C(1000))
		return false;
	return !r->cfg.holds(r->cfg.ctx, &t->id);
}

static void on_put(struct store_req *req, int code)
{
	struct reconciler *r = req->ctx;

	if (code == 0 && r->put.n_put) {
		log_warn("outbox", "tasks that no queue had are queued again",
			 LOG_INT("tasks", r->put.n_put));
		metric_add(METRIC_TASKS_FOUND_LOST, (double)r->put.n_put, "queue");
		publisher_nudge(r->cfg.publisher);
	}
	end_step(r);
}

static void put_back(struct reconciler *r, size_t n)
{
	r->put = (struct store_outbox_put){.req = {.done = on_put, .ctx = r},
					   .ids = r->lost,
					   .n = n,
					   .now_us = store_now_us(r->cfg.store)};
	store_outbox_put(r->cfg.store, &r->put);
}

static void on_scanned(struct store_req *req, int code)
{
	struct reconciler *r = req->ctx;
	int64_t now_us = store_now_us(r->cfg.store);
	size_t n_lost = 0;

	for (size_t i = 0; code == 0 && i < r->scan.n; i++)
		if (is_lost(r, &r->scan.tickets[i], now_us))
			r->lost[n_lost++] = r->scan.tickets[i].id;
	if (code < 0 || r->scan.n < SCAN_MAX) {
		r->scan.after = (struct uuid){0};
		r->round_at_us = clock_monotonic_us() + ROUND_MS * INT64_C(1000);
	} else {
		r->scan.after = r->scan.tickets[r->scan.n - 1].id;
	}
	if (code == 0)
		free(r->scan.tickets);
	if (n_lost && !r->closing)
		put_back(r, n_lost);
	else
		end_step(r);
}

static void on_tick(uv_timer_t *timer)
{
	struct reconciler *r = timer->data;
	struct uuid after = r->scan.after;

	dead_tick(r->dead);
	if (r->busy || clock_monotonic_us() < r->round_at_us)
		return;
	r->busy = true;
	r->scan = (struct store_scan){
		.req = {.done = on_scanned, .ctx = r}, .after = after, .limit = SCAN_MAX};
	store_scan(r->cfg.store, &r->scan);
}

/* ---- life ---- */

int reconciler_open(uv_loop_t *loop, const struct reconciler_config *cfg,
		    struct reconciler **ret_reconciler, struct err *e)
{
	struct reconciler *r = calloc(1, sizeof *r);
	struct uuid *lost = calloc(SCAN_MAX, sizeof *lost);
	int rc = r && lost ? dead_open(loop, cfg, &r->dead) : -ENOMEM;

	if (rc < 0) {
		free(lost);
		free(r);
		return err_set(e, rc, "out of memory");
	}
	r->cfg = *cfg;
	r->lost = lost;
	r->timer.data = r;
	(void)uv_timer_init(loop, &r->timer);
	if (store_has_outbox(cfg->store))
		(void)uv_timer_start(&r->timer, on_tick, TICK_MS, TICK_MS);
	*ret_reconciler = r;
	return 0;
}

void reconciler_close(struct reconciler *r, void (*closed)(void *ctx), void *ctx)
{
	r->closing = true;
	r->closed = closed;
	r->closed_ctx = ctx;
	(void)uv_timer_stop(&r->timer);
	if (!r->busy)
		end_step(r);
}
