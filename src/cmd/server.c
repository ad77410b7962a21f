/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/server.h"

#include "api/api.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/url.h"
#include "bus/bus.h"
#include "cache/cache.h"
#include "cmd/banner.h"
#include "observe/metrics.h"
#include "pods/pods.h"
#include "queue/queue.h"
#include "scheduler/scheduler.h"
#include "store/store.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <uv.h>

enum {
	CREDIT_BYTES = 1024 * 1024,
	HELD_PER_BODY = 16, /* requests of the largest size that may be in memory at one time */
	BUSY_TIMEOUT_MS = 5000,
	PODS_GRACE_MS = 3000,
	BANNER_TICK_MS = 20,
	BANNER_WAIT_MS = 10000,
};

struct server {
	uv_loop_t loop;
	const struct config *cfg;
	struct language_registry *languages;
	struct store *store;
	struct queue *queue;
	struct cache *cache;
	struct bus *bus;
	struct scheduler *scheduler;
	struct pods *pods;
	struct api *api;
	uv_signal_t sigterm, sigint;
	uv_timer_t banner_timer;
	int64_t started_us; /* monotonic */
	uv_prepare_t before_poll;
	uv_check_t after_poll;
	int64_t woke_us; /* monotonic: when the loop last came back from waiting */
	bool started;	 /* all parts are there */
	bool closing;	 /* SIGTERM came; before "started" it is looked at by who starts */
	bool has_keys;
};

/* ---- pods and scheduler ---- */

static void on_runner_lost(void *ctx, const char *pod)
{
	struct server *s = ctx;

	if (s->pods)
		pods_connection_lost(s->pods, pod);
}

static void on_pod_connected(void *ctx, const char *pod, int fd)
{
	struct server *s = ctx;

	scheduler_add_runner(s->scheduler, pod, fd, on_runner_lost, s);
}

static void on_pod_gone(void *ctx, const char *pod, const char *reason)
{
	(void)ctx;
	(void)pod;
	(void)reason; /* its connection ends too, and the scheduler hears of it there */
}

static const struct pods_ops pods_ops = {.connected = on_pod_connected, .gone = on_pod_gone};

static bool is_ready(void *ctx, struct buf *why)
{
	const struct server *s = ctx;

	return s->scheduler && scheduler_is_ready(s->scheduler, why);
}

static bool languages_known(void *ctx)
{
	const struct server *s = ctx;

	return s->scheduler && scheduler_isolation(s->scheduler) != NULL;
}

/* ---- the end, in the order opposite to the beginning; parts that never came are skipped ---- */

/* The last part is closed: without the server's own handles the loop ends by itself, once the
 * handles that parts close behind their backs are gone too. */
static void on_store_closed(void *ctx)
{
	struct server *s = ctx;

	s->store = NULL;
	uv_close((uv_handle_t *)&s->sigterm, NULL);
	uv_close((uv_handle_t *)&s->sigint, NULL);
	uv_close((uv_handle_t *)&s->banner_timer, NULL);
	uv_close((uv_handle_t *)&s->before_poll, NULL);
	uv_close((uv_handle_t *)&s->after_poll, NULL);
}

static void on_bus_closed(void *ctx)
{
	struct server *s = ctx;

	s->bus = NULL;
	if (s->store)
		store_close(s->store, on_store_closed, s);
	else
		on_store_closed(s);
}

static void on_cache_closed(void *ctx)
{
	struct server *s = ctx;

	s->cache = NULL;
	if (s->bus)
		bus_close(s->bus, on_bus_closed, s);
	else
		on_bus_closed(s);
}

static void on_queue_closed(void *ctx)
{
	struct server *s = ctx;

	s->queue = NULL;
	if (s->cache)
		cache_close(s->cache, on_cache_closed, s);
	else
		on_cache_closed(s);
}

static void on_pods_closed(void *ctx)
{
	struct server *s = ctx;

	s->pods = NULL;
	if (s->queue)
		queue_close(s->queue, on_queue_closed, s);
	else
		on_queue_closed(s);
}

static void on_api_closed(void *ctx)
{
	struct server *s = ctx;

	s->api = NULL;
	if (s->pods)
		pods_close(s->pods, PODS_GRACE_MS, on_pods_closed, s);
	else
		on_pods_closed(s);
}

static void on_scheduler_closed(void *ctx)
{
	struct server *s = ctx;

	s->scheduler = NULL;
	if (s->api)
		api_close(s->api, on_api_closed, s);
	else
		on_api_closed(s);
}

static void begin_close(struct server *s)
{
	(void)uv_timer_stop(&s->banner_timer);
	if (s->scheduler)
		scheduler_close(s->scheduler, s->cfg->drain_ms, on_scheduler_closed, s);
	else
		on_scheduler_closed(s);
}

/* Tasks that run are given their time while the API still answers those who wait for them. What is
 * submitted meanwhile is stored, and runs after the next start. A second signal ends the wait. */
static void on_signal(uv_signal_t *handle, int signo)
{
	struct server *s = handle->data;

	if (s->closing) {
		if (s->scheduler)
			scheduler_hurry(s->scheduler);
		return;
	}
	s->closing = true;
	log_info("serve", "shutting down", LOG_INT("signal", signo));
	if (s->started)
		begin_close(s);
}

/* ---- the beginning ---- */

static void on_banner_timer(uv_timer_t *timer)
{
	struct server *s = timer->data;
	int64_t waited_ms = (clock_monotonic_us() - s->started_us) / 1000;

	if (!scheduler_is_ready(s->scheduler, NULL)) {
		if (waited_ms < BANNER_WAIT_MS)
			return;
		log_error("serve", "no runner has connected; tasks are accepted and wait");
	}
	(void)uv_timer_stop(timer);
	banner_print(api_address(s->api), s->languages, scheduler_isolation(s->scheduler),
		     s->has_keys, waited_ms);
}

static void before_poll(uv_prepare_t *handle)
{
	struct server *s = handle->data;

	if (s->woke_us)
		metric_observe(METRIC_LOOP_LAG_SECONDS,
			       (double)(clock_monotonic_us() - s->woke_us) / 1e6);
}

static void after_poll(uv_check_t *handle)
{
	struct server *s = handle->data;

	s->woke_us = clock_monotonic_us();
}

static void init_handles(struct server *s)
{
	(void)uv_signal_init(&s->loop, &s->sigterm);
	(void)uv_signal_init(&s->loop, &s->sigint);
	(void)uv_timer_init(&s->loop, &s->banner_timer);
	(void)uv_prepare_init(&s->loop, &s->before_poll);
	(void)uv_check_init(&s->loop, &s->after_poll);
	s->sigterm.data = s->sigint.data = s->banner_timer.data = s;
	s->before_poll.data = s->after_poll.data = s;
	(void)uv_signal_start(&s->sigterm, on_signal, SIGTERM);
	(void)uv_signal_start(&s->sigint, on_signal, SIGINT);
	(void)uv_prepare_start(&s->before_poll, before_poll);
	(void)uv_check_start(&s->after_poll, after_poll);
}

/* A part without which Kiln works, only slower. */
static void tell_part(const char *part, bool up, const char *text)
{
	if (up)
		log_info("serve", "in use", LOG_STR("part", part), LOG_STR("state", text));
	else
		log_warn("serve", "out of use", LOG_STR("part", part), LOG_STR("state", text));
}

static void on_cache_changed(void *ctx, bool up, const char *text)
{
	(void)ctx;
	tell_part("cache", up, text);
}

static void on_bus_changed(void *ctx, bool up, const char *text)
{
	(void)ctx;
	tell_part("bus", up, text);
}

static int open_parts(struct server *s, struct err *e)
{
	const struct config *cfg = s->cfg;
	const struct store_config store = {.url = cfg->store, .busy_timeout_ms = BUSY_TIMEOUT_MS};
	const struct queue_config queue = {.url = cfg->queue, .max_tasks = (size_t)cfg->queue_max};
	const struct cache_config cache = {.url = cfg->cache,
					   .max_bytes = (size_t)cfg->cache_max_bytes};
	int r = store_open(&s->loop, &store, &s->store, e);

	if (r < 0)
		return err_wrap(e, r, "could not open the store");
	r = queue_open(&s->loop, &queue, &s->queue, e);
	if (r < 0)
		return err_wrap(e, r, "could not open the queue");
	r = cache_open(&s->loop, &cache, &s->cache, e);
	if (r < 0)
		return err_wrap(e, r, "could not open the cache");
	cache_watch(s->cache, on_cache_changed, s);
	r = bus_open(&s->loop, cfg->cache, &s->bus, e);
	if (r < 0)
		return err_wrap(e, r, "could not open the bus");
	bus_watch(s->bus, on_bus_changed, s);
	return 0;
}

static int open_scheduler(struct server *s, struct err *e)
{
	const struct config *cfg = s->cfg;
	struct scheduler_config sc = {
		.store = s->store,
		.queue = s->queue,
		.cache = s->cache,
		.bus = s->bus,
		.languages = s->languages,
		.lease_ms = cfg->lease_ms,
		.tenant_running_max = (size_t)cfg->tenant_running_max,
		.admit_max = (size_t)cfg->admit_max,
		.retention_ms = cfg->retention_ms,
		/* Nobody else opens an SQLite file to run tasks from it. */
		.sole_owner = url_scheme_is(cfg->store, "sqlite", NULL),
		.credit_bytes = CREDIT_BYTES,
	};

	for (int i = 0; i < _TASK_CLASS_MAX; i++)
		sc.weights[i] = (unsigned)cfg->weights[i];
	return scheduler_new(&s->loop, &sc, &s->scheduler, e);
}

static int open_pods(struct server *s, int keeper_fd, struct err *e)
{
	const struct pods_config pc = {
		.url = s->cfg->pods,
		.keeper_fd = keeper_fd,
		.slots = (unsigned)s->cfg->slots,
		.slots_per_pod = (unsigned)s->cfg->slots_per_runner,
	};

	return pods_open(&s->loop, &pc, &pods_ops, s, &s->pods, e);
}

static int open_api(struct server *s, struct err *e)
{
	const struct config *cfg = s->cfg;
	struct api_config ac;

	api_config_init(&ac);
	ac.listen = cfg->listen;
	ac.hosts = (const char *const *)cfg->hosts;
	ac.keys = s->has_keys;
	ac.open = cfg->open;
	ac.store = s->store;
	ac.queue = s->queue;
	ac.cache = s->cache;
	ac.bus = s->bus;
	ac.languages = s->languages;
	ac.run_defaults = cfg->limits;
	ac.run_ceilings = cfg->ceilings;
	ac.compile_defaults = cfg->compile_limits;
	ac.compile_ceilings = cfg->compile_ceilings;
	ac.body_max_bytes = (size_t)cfg->body_max_bytes;
	ac.held_max_bytes = (size_t)cfg->body_max_bytes * HELD_PER_BODY;
	ac.connections_max = (unsigned)cfg->connection_max;
	ac.waiters_max = (size_t)cfg->waiters_max;
	ac.idempotency_ttl_ms = cfg->idempotency_ttl_ms;
	ac.retention_ms = cfg->retention_ms;
	ac.ready = is_ready;
	ac.languages_known = languages_known;
	ac.ctx = s;
	return api_new(&s->loop, &ac, &s->api, e);
}

/* ---- keys ---- */

struct key_count {
	struct store_key_list list;
	bool done;
	int code;
};

static void on_keys(struct store_req *req, int code)
{
	struct key_count *k = req->ctx;

	k->done = true;
	k->code = code;
}

/* Whether a key is in force; runs the loop until the store has answered. */
static int find_keys(struct server *s, struct err *e)
{
	struct key_count k = {.list = {.req = {.done = on_keys, .ctx = &k}}};

	store_key_list(s->store, &k.list);
	while (!k.done)
		(void)uv_run(&s->loop, UV_RUN_ONCE);
	if (k.code < 0)
		return err_errno(e, k.code, "could not read the keys");
	for (size_t i = 0; i < k.list.n; i++)
		s->has_keys = s->has_keys || !k.list.keys[i].revoked_us;
	free(k.list.keys);
	return 0;
}

int server_run(const struct config *cfg, struct language_registry *languages, int keeper_fd,
	       struct err *e)
{
	struct server s = {.cfg = cfg, .languages = languages};
	int r;

	s.started_us = clock_monotonic_us();
	r = uv_loop_init(&s.loop);
	if (r < 0)
		return err_errno(e, r, "could not make an event loop");
	metric_set(METRIC_BUILD_INFO, 1, KILN_VERSION);
	init_handles(&s);
	r = open_parts(&s, e);
	if (r == 0)
		r = find_keys(&s, e);
	if (r == 0)
		r = open_scheduler(&s, e);
	if (r == 0)
		r = open_api(&s, e);
	if (r == 0)
		r = open_pods(&s, keeper_fd, e);
	s.started = r == 0;
	if (r < 0 || s.closing) {
		begin_close(&s);
	} else {
		scheduler_start(s.scheduler);
		(void)uv_timer_start(&s.banner_timer, on_banner_timer, 0, BANNER_TICK_MS);
	}
	(void)uv_run(&s.loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&s.loop);
	metrics_reset();
	if (r == 0)
		log_info("serve", "shut down");
	return r;
}
