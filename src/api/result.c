/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results, and those who wait for them. A lookup reads the task (cache first, then the store) and
 * answers when it is final, or when there is nothing to wait for. One that waits is in a group by
 * task id, which a message on the bus wakes; it is entered there before its first read.
 *
 * Large results are written out on a thread of the pool, so that nobody else waits for that, and
 * only where there is room for the reply.
 */
#include "api/private.h"
#include "api/reads.h"
#include "api/render.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/str.h"
#include "observe/metrics.h"
#include "wire/codec.h"

#include <stdlib.h>
#include <string.h>

/* A bus may lose a message: whoever waits looks again after a second, then after twice as long. A
 * bus that is down tells nothing: then everybody goes on looking. */
enum { LOOK_AGAIN_MS = 1000, LOOK_SOON_MS = 250, LOOK_DOWN_MAX_MS = 1000 };

/* About a millisecond's worth. */
enum { RENDER_ASIDE_BYTES = 256 * 1024 };

struct wait_group {
	struct uuid id;
	struct list lookups;
};

struct lookup {
	struct list link;	  /* in its group */
	struct wait_group *group; /* NULL: does not wait */
	struct api *api;
	struct http_request *request;
	struct result_query query;
	char tenant[TASK_TENANT_MAX];
	struct task *known;
	struct task *task; /* what was read last */
	bool reading;
	bool stored; /* the read of the store is not at its end: task is there, or will be */
	bool again;  /* woken while it was reading */
	bool last;   /* the next read is answered, whatever it says */
	int64_t until_us;
	uint64_t look_again_ms;
	struct cache_get cached;
	struct read read;
	bool timed; /* timer is in use */
	uv_timer_t timer;
	uv_work_t rendering;
	struct buf body;
};

static void look(struct lookup *l);

/* ---- groups ---- */

static int join_group(struct lookup *l)
{
	struct api *a = l->api;
	struct wait_group *g = map_get(&a->waits, &l->query.id, sizeof l->query.id);
	int r;

	if (!g) {
		g = calloc(1, sizeof *g);
		if (!g)
			return -ENOMEM;
		g->id = l->query.id;
		list_init(&g->lookups);
		r = map_put(&a->waits, &g->id, sizeof g->id, g);
		if (r < 0) {
			free(g);
			return r;
		}
	}
	list_push_back(&g->lookups, &l->link);
	l->group = g;
	a->n_waiters++;
	metric_set(METRIC_HTTP_WAITERS, (double)a->n_waiters);
	return 0;
}

static void leave_group(struct lookup *l)
{
	struct wait_group *g = l->group;
	struct api *a = l->api;

	if (!g)
		return;
	list_unlink(&l->link);
	if (list_empty(&g->lookups)) {
		(void)map_remove(&a->waits, &g->id, sizeof g->id);
		free(g);
	}
	l->group = NULL;
	a->n_waiters--;
	metric_set(METRIC_HTTP_WAITERS, (double)a->n_waiters);
}

static void drop_task(struct lookup *l)
{
	task_free(TAKE_PTR(l->task));
	if (l->stored)
		reads_end(&l->read);
	l->stored = false;
}

static void release(struct lookup *l)
{
	drop_task(l);
	buf_fini(&l->body);
	task_free(l->known);
	api_end_operation(l->api);
	free(l);
}

static void on_timer_closed(uv_handle_t *h)
{
	release(h->data);
}

/* After the answer. */
static void end(struct lookup *l)
{
	leave_group(l);
	l->request = NULL;
	if (l->timed)
		uv_close((uv_handle_t *)&l->timer, on_timer_closed);
	else
		release(l);
}

/* ---- reading ---- */

static void on_timer(uv_timer_t *t)
{
	struct lookup *l = t->data;

	l->last = clock_monotonic_us() >= l->until_us;
	look(l);
}

static void wait_on(struct lookup *l)
{
	int64_t left_ms = (l->until_us - clock_monotonic_us() + 999) / 1000;
	uint64_t ms = left_ms > 0 ? (uint64_t)left_ms : 0;

	if (!bus_is_up(l->api->cfg.bus, NULL) && l->look_again_ms > LOOK_DOWN_MAX_MS)
		l->look_again_ms = LOOK_DOWN_MAX_MS;
	if (ms > l->look_again_ms)
		ms = l->look_again_ms;
	l->look_again_ms *= 2;
	(void)uv_timer_start(&l->timer, on_timer, ms, 0);
}

/* ---- answering ---- */

/* The result is there, but no room for it: as if it were not yet, so that it is asked for later. */
static void answer_later(struct lookup *l)
{
	if (l->query.submitted)
		api_reply_unfinished(l->api, l->request, l->task);
	else
		problem_send(l->request, PROBLEM_OVERLOADED,
			     "the replies that wait to be read "
			     "leave no room for this one");
	end(l);
}

static void reply(struct lookup *l)
{
	bool is_final = task_state_is_final(l->task->state);

	if (!http_reply_fits(l->request, l->body.len)) {
		answer_later(l);
		return;
	}
	http_reply(l->request, l->query.submitted && !is_final ? 202 : 200, "application/json",
		   &l->body);
	if (l->query.submitted && !is_final)
		api_add_location(l->request, &l->query.id);
	end(l);
}

static void render(uv_work_t *w)
{
	struct lookup *l = w->data;

	api_render_task(l->api, l->task, &l->body);
}

static void on_rendered(uv_work_t *w, int status)
{
	(void)status; /* never cancelled */
	reply(w->data);
}

/* With the task that was read. */
static void answer(struct lookup *l)
{
	size_t bytes = task_result_bytes(l->task->result);

	leave_group(l); /* nothing wakes it any more */
	if (l->timed)
		(void)uv_timer_stop(&l->timer);
	if (l->query.brief) {
		api_reply_brief(l->request, 200, &l->task->spec.id, l->task->state);
		end(l);
		return;
	}
	if (bytes >= RENDER_ASIDE_BYTES && !http_reply_reserve(l->request, bytes)) {
		answer_later(l);
		return;
	}
	l->rendering.data = l;
	if (bytes >= RENDER_ASIDE_BYTES &&
	    uv_queue_work(l->api->loop, &l->rendering, render, on_rendered) == 0)
		return;
	render(&l->rendering);
	reply(l);
}

/* The read has ended, with a task or with why there is none. */
static void settle(struct lookup *l, int code)
{
	bool waits = l->group && !l->last;

	if (!l->task && code != -ENOENT && !waits)
		l->task = TAKE_PTR(l->known);
	if (l->task && (task_state_is_final(l->task->state) || !waits)) {
		answer(l);
		return;
	}
	drop_task(l);
	if (code == -ENOENT)
		problem_send(l->request, PROBLEM_UNKNOWN_TASK, "there is no such task");
	else if (!waits)
		api_reply_failure(l->api, l->request, code, "read the task");
	else if (l->again)
		look(l);
	else
		wait_on(l);
	if (!waits || code == -ENOENT)
		end(l);
}

static void on_stored(struct read *read, int code)
{
	struct lookup *l = read->ctx;

	l->reading = false;
	if (!code)
		l->task = TAKE_PTR(l->read.get.task);
	if (l->task && task_state_is_final(l->task->state))
		cache_put_task(l->api->cfg.cache, l->task);
	settle(l, code);
}

/* Whether retention has removed it, or is about to: then the store has the last word. */
static bool outlived(const struct api *a, const struct task *t)
{
	int64_t until_us = t->finished_us + a->cfg.retention_ms * 1000;

	return a->cfg.retention_ms && until_us < store_now_us(a->cfg.store);
}

static void on_cached(struct cache_get *get, int code, const void *bytes, size_t len)
{
	struct lookup *l = get->ctx;
	AUTO(task_free) struct task *t = NULL;

	if (!code && !codec_unpack_task(bytes, len, &t, NULL) && !outlived(l->api, t) &&
	    str_eq(t->spec.tenant ? t->spec.tenant : "", l->tenant)) {
		l->reading = false;
		l->task = TAKE_PTR(t);
		settle(l, 0);
		return;
	}
	/* Also for a task of another tenant: it takes the time of one that there is not. */
	l->read = (struct read){
		.get = {.id = l->query.id, .tenant = l->tenant, .parts = STORE_RESULT},
		.done = on_stored,
		.ctx = l,
	};
	l->stored = true;
	reads_get(l->api->reads, &l->read);
}

static void look(struct lookup *l)
{
	if (l->reading) {
		l->again = true;
		return;
	}
	l->again = false;
	l->reading = true;
	l->cached = (struct cache_get){
		.kind = CACHE_TASK,
		.id = l->query.id,
		.done = on_cached,
		.ctx = l,
	};
	cache_get(l->api->cfg.cache, &l->cached);
}

static int start_waiting(struct lookup *l)
{
	int r = join_group(l);

	if (r < 0)
		return r;
	l->until_us = clock_monotonic_us() + l->query.wait_ms * 1000;
	l->look_again_ms = LOOK_AGAIN_MS;
	(void)uv_timer_init(l->api->loop, &l->timer);
	l->timer.data = l;
	l->timed = true;
	return 0;
}

void result_answer(struct api *a, struct http_request *r, const struct result_query *q,
		   struct task *known)
{
	struct lookup *l = calloc(1, sizeof *l);

	if (!l) {
		task_free(known);
		api_reply_failure(a, r, -ENOMEM, "read the task");
		return;
	}
	l->api = a;
	l->request = r;
	l->query = *q;
	l->known = known;
	list_init(&l->link);
	(void)str_copy(l->tenant, sizeof l->tenant, http_tenant(r));
	api_begin_operation(a);
	if (q->wait_ms > 0 && !a->closing && start_waiting(l) < 0) {
		api_reply_failure(a, r, -ENOMEM, "wait for the task");
		end(l);
		return;
	}
	if (q->read_first || !l->group)
		look(l);
	else
		wait_on(l);
}

bool result_may_wait(struct api *a, struct http_request *r)
{
	if (a->n_waiters < a->cfg.waiters_max)
		return true;
	problem_send(r, PROBLEM_TOO_MANY_WAITERS, "%zu requests wait already", a->n_waiters);
	return false;
}

/* ---- wake-ups ---- */

static void on_finished(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
			size_t len)
{
	struct api *a = ctx;
	struct wait_group *g = map_get(&a->waits, id, sizeof *id);
	struct lookup *l, *tmp;

	(void)topic;
	(void)payload;
	(void)len;
	if (!g)
		return;
	/* A look never ends a lookup at once: cache and store answer later. */
	LIST_FOREACH_SAFE (l, tmp, &g->lookups, link)
		look(l);
}

/* Those who wait look soon: something may have been missed. One that is reading does so when it has
 * read. */
static void on_bus_changed(void *ctx, bool up, const char *text)
{
	struct api *a = ctx;
	struct wait_group *g;
	struct lookup *l;
	size_t cursor;

	(void)up;
	(void)text;
	MAP_FOREACH (g, cursor, &a->waits) {
		LIST_FOREACH (l, &g->lookups, link) {
			l->look_again_ms = LOOK_SOON_MS;
			if (!l->reading)
				wait_on(l);
		}
	}
}

int result_start(struct api *a)
{
	int r;

	map_init(&a->waits);
	r = bus_subscribe(a->cfg.bus, BUS_FINISHED, on_finished, a);
	return r < 0 ? r : bus_watch(a->cfg.bus, on_bus_changed, a);
}

void result_stop(struct api *a)
{
	struct wait_group *g;
	struct lookup *l;
	size_t cursor;

	bus_unsubscribe(a->cfg.bus, BUS_FINISHED, on_finished, a);
	bus_unwatch(a->cfg.bus, on_bus_changed, a);
	MAP_FOREACH (g, cursor, &a->waits) {
		LIST_FOREACH (l, &g->lookups, link) {
			l->last = true;
			look(l);
		}
	}
}

void result_handle(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct result_query q = {.read_first = true};

	if (api_read_id(r, &q.id) < 0 || api_read_wait(r, &q.wait_ms) < 0)
		return;
	if (q.wait_ms > 0 && !result_may_wait(a, r))
		return;
	result_answer(a, r, &q, NULL);
}
