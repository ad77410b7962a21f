/* SPDX-License-Identifier: Apache-2.0 */
#include "outbox/dead.h"

#include "base/clock.h"
#include "base/log.h"
#include "observe/metrics.h"
#include "queue/inspect.h"
#include "store/outbox.h"

#include <errno.h>
#include <stdlib.h>

/*
 * Looking and dropping are the inspector's, which blocks, and so are done on another thread; the
 * store is asked in between. A letter is dropped only after the outbox has its task.
 */

enum {
	LETTERS_MAX = 500,
	LOOK_EVERY_MS = 5000,
	LOOK_AGAIN_MS = 60000, /* where their number is that of those that cannot be read */
};

struct dead {
	struct reconciler_config cfg;
	uv_loop_t *loop;
	uv_work_t work;
	bool busy;
	int64_t next_us, again_us; /* monotonic */
	size_t unreadable;	   /* left the last time */

	/* The thread's while work is under way. */
	struct uuid *ids; /* LETTERS_MAX */
	size_t n, total, left;
	struct err error;
	int code;

	struct store_live live;
	struct store_outbox_put put;
	struct uuid *queued; /* LETTERS_MAX */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static void free_dead(struct dead *d)
{
	void (*closed)(void *) = d->closed;
	void *ctx = d->closed_ctx;

	free(d->ids);
	free(d->queued);
	free(d);
	closed(ctx);
}

static void end(struct dead *d, int code, const char *reason)
{
	if (code < 0)
		log_warn("outbox", "could not look after dead letters", LOG_STR("reason", reason));
	d->busy = false;
	if (d->closed)
		free_dead(d);
}

/* ---- dropping ---- */

static void drop_letters(uv_work_t *work)
{
	struct dead *d = work->data;
	AUTO(queue_inspector_free) struct queue_inspector *i = NULL;
	size_t dropped = 0;

	d->code = queue_inspector_new(d->cfg.queue_url, &i, &d->error);
	if (d->code == 0)
		d->code = queue_drop_dead(i, d->ids, d->n, &dropped, &d->left, &d->error);
}

static void on_dropped(uv_work_t *work, int status)
{
	struct dead *d = work->data;

	(void)status;
	if (d->code == 0)
		d->unreadable = d->left;
	end(d, d->code, d->error.msg);
}

static void drop(struct dead *d)
{
	if (d->closed || uv_queue_work(d->loop, &d->work, drop_letters, on_dropped) < 0)
		end(d, 0, NULL);
}

/* ---- what the store says ---- */

static void on_put(struct store_req *req, int code)
{
	struct dead *d = req->ctx;

	if (code < 0) {
		end(d, code, err_text(code));
		return;
	}
	log_warn("outbox", "dead letters of tasks that wait are queued again",
		 LOG_INT("tasks", d->put.n_put));
	metric_add(METRIC_TASKS_FOUND_LOST, (double)d->put.n_put, "dead_letters");
	publisher_nudge(d->cfg.publisher);
	drop(d);
}

static void on_live(struct store_req *req, int code)
{
	struct dead *d = req->ctx;
	size_t n = 0;

	for (size_t i = 0; code == 0 && i < d->live.n_live; i++)
		if (d->live.tickets[i].state == TASK_QUEUED)
			d->queued[n++] = d->live.tickets[i].id;
	if (code == 0)
		free(d->live.tickets);
	if (code < 0) {
		end(d, code, err_text(code));
		return;
	}
	if (!n) {
		drop(d);
		return;
	}
	d->put = (struct store_outbox_put){.req = {.done = on_put, .ctx = d},
					   .ids = d->queued,
					   .n = n,
					   .now_us = store_now_us(d->cfg.store)};
	store_outbox_put(d->cfg.store, &d->put);
}

/* ---- looking ---- */

static void note_letter(void *ctx, const struct queue_dead_letter *letter)
{
	struct dead *d = ctx;

	if (letter->readable && d->n < LETTERS_MAX)
		d->ids[d->n++] = letter->message.id;
}

static void look(uv_work_t *work)
{
	struct dead *d = work->data;
	AUTO(queue_inspector_free) struct queue_inspector *i = NULL;

	d->n = d->total = 0;
	d->code = queue_inspector_new(d->cfg.queue_url, &i, &d->error);
	if (d->code == 0)
		d->code = queue_inspect_dead(i, LETTERS_MAX, &d->total, note_letter, d, &d->error);
}

static void on_looked(uv_work_t *work, int status)
{
	struct dead *d = work->data;

	(void)status;
	if (d->code < 0 || d->closed || !d->n) {
		d->unreadable = d->code < 0 ? d->unreadable : d->total;
		end(d, d->code, d->error.msg);
		return;
	}
	d->live = (struct store_live){.req = {.done = on_live, .ctx = d}, .ids = d->ids, .n = d->n};
	store_live(d->cfg.store, &d->live);
}

void dead_tick(struct dead *d)
{
	int64_t now_us = clock_monotonic_us();
	size_t n = queue_dead_count(d->cfg.queue);

	if (d->busy || !n || now_us < d->next_us || (n == d->unreadable && now_us < d->again_us))
		return;
	d->next_us = now_us + LOOK_EVERY_MS * INT64_C(1000);
	d->again_us = now_us + LOOK_AGAIN_MS * INT64_C(1000);
	d->busy = uv_queue_work(d->loop, &d->work, look, on_looked) == 0;
}

/* ---- life ---- */

int dead_open(uv_loop_t *loop, const struct reconciler_config *cfg, struct dead **ret_dead)
{
	struct dead *d = calloc(1, sizeof *d);
	struct uuid *ids = calloc(LETTERS_MAX, sizeof *ids);
	struct uuid *queued = calloc(LETTERS_MAX, sizeof *queued);

	if (!d || !ids || !queued) {
		free(d);
		free(ids);
		free(queued);
		return -ENOMEM;
	}
	d->cfg = *cfg;
	d->loop = loop;
	d->work.data = d;
	d->ids = ids;
	d->queued = queued;
	*ret_dead = d;
	return 0;
}

void dead_close(struct dead *d, void (*closed)(void *ctx), void *ctx)
{
	d->closed = closed;
	d->closed_ctx = ctx;
	if (!d->busy)
		free_dead(d);
}
