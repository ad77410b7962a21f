/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/parts.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/url.h"

enum { BUSY_TIMEOUT_MS = 5000, WATCH_MS = 1000 };

/* A part without which Kiln works, only slower. */
static void tell_part(const struct parts *p, const char *part, bool up, const char *text)
{
	if (up)
		log_info(p->role, "in use", LOG_STR("part", part), LOG_STR("state", text));
	else
		log_warn(p->role, "out of use", LOG_STR("part", part), LOG_STR("state", text));
}

static void on_cache_changed(void *ctx, bool up, const char *text)
{
	tell_part(ctx, "cache", up, text);
}

static void on_bus_changed(void *ctx, bool up, const char *text)
{
	tell_part(ctx, "bus", up, text);
}

/* ---- those that are looked at, since they have no word of their own for it ---- */

struct watched {
	const char *part;
	int (*check)(const struct parts *p, struct err *e);
};

static int check_store(const struct parts *p, struct err *e)
{
	return store_health(p->store, e);
}

static int check_queue(const struct parts *p, struct err *e)
{
	return queue_check(p->queue, e);
}

static const struct watched watched[PARTS_WATCHED] = {{"store", check_store},
						      {"queue", check_queue}};

static void on_watch(uv_timer_t *timer)
{
	struct parts *p = timer->data;

	for (size_t i = 0; i < PARTS_WATCHED; i++) {
		struct err e = {""};
		int r = watched[i].check(p, &e);

		if (r == p->seen[i])
			continue;
		p->seen[i] = r;
		tell_part(p, watched[i].part, r == 0, r == 0 ? "as it should be" : e.msg);
	}
}

static bool is_outside(const struct config *cfg)
{
	return !url_scheme_is(cfg->store, "sqlite", NULL) ||
	       !url_scheme_is(cfg->queue, "memory", NULL);
}

static int open_watch(uv_loop_t *loop, struct parts *p)
{
	int r = uv_timer_init(loop, &p->watch);

	if (r < 0)
		return r;
	p->watching = true;
	p->watch.data = p;
	return uv_timer_start(&p->watch, on_watch, WATCH_MS, WATCH_MS);
}

static int open_publisher(uv_loop_t *loop, const struct config *cfg, struct parts *p, struct err *e)
{
	const struct publisher_config publisher = {
		.store = p->store,
		.queue = p->queue,
		.bus = p->bus,
		.admit_max = (size_t)cfg->admit_max,
		.queue_max = (size_t)cfg->queue_max,
	};

	return publisher_open(loop, &publisher, &p->publisher, e);
}

int parts_open(uv_loop_t *loop, const struct config *cfg, struct parts *p, struct err *e)
{
	const struct store_config store = {
		.url = cfg->store,
		.busy_timeout_ms = BUSY_TIMEOUT_MS,
		.outbox = !url_scheme_is(cfg->queue, "memory", NULL),
	};
	const struct queue_config queue = {.url = cfg->queue, .max_tasks = (size_t)cfg->queue_max};
	const struct cache_config cache = {.url = cfg->cache,
					   .max_bytes = (size_t)cfg->cache_max_bytes};
	/* First: it may wait for its broker, and the store's connections must not wait with it. */
	int r = queue_open(loop, &queue, &p->queue, e);

	if (r < 0)
		return err_wrap(e, r, "could not open the queue");
	r = store_open(loop, &store, &p->store, e);
	if (r < 0)
		return err_wrap(e, r, "could not open the store");
	r = cache_open(loop, &cache, &p->cache, e);
	if (r < 0)
		return err_wrap(e, r, "could not open the cache");
	cache_watch(p->cache, on_cache_changed, p);
	r = bus_open(loop, cfg->cache, &p->bus, e);
	if (r < 0)
		return err_wrap(e, r, "could not open the bus");
	(void)bus_watch(p->bus, on_bus_changed, p);
	/* Parts inside this process are there as long as it is. */
	if (is_outside(cfg) && open_watch(loop, p) < 0)
		return err_set(e, -ENOMEM, "could not watch the parts");
	return open_publisher(loop, cfg, p, e);
}

/* ---- closing; parts that never came are skipped ---- */

static void on_watch_closed(uv_handle_t *handle)
{
	struct parts *p = handle->data;

	p->watch_closed(p);
}

static bool close_watch(struct parts *p, void (*closed)(void *ctx))
{
	if (!p->watching)
		return false;
	p->watching = false;
	p->watch_closed = closed;
	uv_close((uv_handle_t *)&p->watch, on_watch_closed);
	return true;
}

static bool close_publisher(struct parts *p, void (*closed)(void *ctx))
{
	struct publisher *publisher = TAKE_PTR(p->publisher);

	if (publisher)
		publisher_close(publisher, closed, p);
	return publisher;
}

static bool close_queue(struct parts *p, void (*closed)(void *ctx))
{
	struct queue *q = TAKE_PTR(p->queue);

	if (q)
		queue_close(q, closed, p);
	return q;
}

static bool close_cache(struct parts *p, void (*closed)(void *ctx))
{
	struct cache *c = TAKE_PTR(p->cache);

	if (c)
		cache_close(c, closed, p);
	return c;
}

static bool close_bus(struct parts *p, void (*closed)(void *ctx))
{
	struct bus *b = TAKE_PTR(p->bus);

	if (b)
		bus_close(b, closed, p);
	return b;
}

static bool close_store(struct parts *p, void (*closed)(void *ctx))
{
	struct store *s = TAKE_PTR(p->store);

	if (s)
		store_close(s, closed, p);
	return s;
}

static void close_next(void *ctx)
{
	static bool (*const steps[])(struct parts * p, void (*closed)(void *ctx)) = {
		close_watch, close_publisher, close_queue, close_cache, close_bus, close_store};
	struct parts *p = ctx;

	while (p->step < ARRAY_SIZE(steps))
		if (steps[p->step++](p, close_next))
			return;
	p->closed(p->closed_ctx);
}

void parts_close(struct parts *p, void (*closed)(void *ctx), void *ctx)
{
	p->closed = closed;
	p->closed_ctx = ctx;
	close_next(p);
}
