/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/runner.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/signals.h"
#include "loop/defer.h"
#include "runner/account.h"
#include "runner/box.h"
#include "runner/cache.h"
#include "runner/isolation.h"
#include "runner/listener.h"
#include "runner/peers.h"
#include "runner/probe.h"
#include "runner/residents.h"
#include "runner/setup.h"
#include "runner/standby_sum.h"
#include "runner/zygote.h"
#include "sandbox/client.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	HEARTBEAT_MS = 1000,	  /* while something changes */
	HEARTBEAT_IDLE_MS = 5000, /* while nothing does */
	FLUSH_STEP_MS = 10,
	FLUSH_MAX_MS = 1000,
	DESCRIPTORS_SPARE = 256, /* for everything that is not a build in the cache */
};

struct runner {
	const struct runner_options *o;
	uv_loop_t loop;
	uv_timer_t heartbeat, flush;
	uv_signal_t signals[3];
	uint64_t accounts;
	struct language_registry *languages;
	struct isolation place;
	uint64_t max_tasks; /* 0: any number */
	struct box_pool *boxes;
	struct standby_pool *standby;
	struct zygotes *zygotes;
	char *library;	       /* path of kiln-zygote.so */
	struct charge *charge; /* NULL: the host counts no memory */
	struct standby_report waiting;
	struct residents *residents;
	struct cache *cache;
	struct probe *probe;
	char *setup_dir; /* NULL: none */
	struct setup *setup;
	struct defer *defer;
	struct peers *peers;
	struct listener *listener;
	struct task_isolation isolation; /* as it is told */
	struct execution_env env;
	int fd; /* the connection, or what is listened on; until somebody has it */
	unsigned busy;
	uint64_t taken, tasks; /* begun, ended */
	bool draining, stopping;
	int64_t flush_until_us;
	enum runner_exit exit_code;
	struct connection_counters told; /* in the last heartbeat */
	int64_t ticked_us;		 /* monotonic: the heartbeat timer's last tick, or start */
};

/* ---- the end ---- */

static void close_handle(uv_handle_t *h, void *arg)
{
	(void)arg;
	if (!uv_is_closing(h))
		uv_close(h, NULL);
}

/* Closes everything; the loop ends when the last handle is closed. */
static void stop_now(struct runner *r)
{
	if (r->stopping)
		return;
	r->stopping = true;
	listener_free(TAKE_PTR(r->listener));
	peers_free(TAKE_PTR(r->peers));
	setup_free(TAKE_PTR(r->setup));
	probe_free(TAKE_PTR(r->probe));
	residents_free(TAKE_PTR(r->residents));
	standby_pool_free(TAKE_PTR(r->standby));
	zygotes_free(TAKE_PTR(r->zygotes));
	box_pool_free(TAKE_PTR(r->boxes));
	defer_close(TAKE_PTR(r->defer));
	close_handle((uv_handle_t *)&r->heartbeat, NULL);
	close_handle((uv_handle_t *)&r->flush, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(r->signals); i++)
		close_handle((uv_handle_t *)&r->signals[i], NULL);
}

static void on_flush(uv_timer_t *timer)
{
	struct runner *r = timer->data;

	if (!r->peers || peers_flushed(r->peers) || clock_monotonic_us() >= r->flush_until_us)
		stop_now(r);
}

/* Ends when what was said last is written, or soon without. */
static void stop_flushed(struct runner *r)
{
	if (r->stopping || uv_is_active((uv_handle_t *)&r->flush))
		return;
	r->flush_until_us = clock_monotonic_us() + FLUSH_MAX_MS * INT64_C(1000);
	(void)uv_timer_start(&r->flush, on_flush, 0, FLUSH_STEP_MS);
}

/* Nobody new is listened to, and whoever is connected hears at once that there are no slots. */
static void drain(void *ctx)
{
	struct runner *r = ctx;

	if (r->draining)
		return;
	log_info("runner", "draining", LOG_INT("tasks", r->busy));
	r->draining = true;
	listener_free(TAKE_PTR(r->listener));
	if (r->peers)
		peers_heartbeat(r->peers);
	if (r->busy == 0)
		stop_flushed(r);
}

static void on_signal(uv_signal_t *handle, int signal)
{
	struct runner *r = handle->data;

	(void)signal;
	if (r->draining)
		stop_now(r); /* the second time it is meant */
	else
		drain(r);
}

static void on_account(uv_signal_t *handle, int signal)
{
	struct runner *r = handle->data;

	(void)signal;
	if (r->stopping)
		return;
	account_tell(&(struct account_of){.standby = r->standby,
					  .zygotes = r->zygotes,
					  .residents = r->residents,
					  .setup = r->setup,
					  .busy = r->busy},
		     ++r->accounts);
}

static void on_spawner_lost(void *ctx, const char *message)
{
	struct runner *r = ctx;

	log_error("runner", "the spawner is lost", LOG_STR("reason", message),
		  LOG_INT("tasks", r->busy));
	r->exit_code = RUNNER_EXIT_SANDBOX_LOST;
	r->draining = true;
	listener_free(TAKE_PTR(r->listener));
	if (r->peers)
		peers_fail_tasks(r->peers, "sandbox_lost", message);
	stop_flushed(r);
}

/* ---- the connection ---- */

static void on_tick(uv_timer_t *timer);

static void tick_every(struct runner *r, uint64_t ms)
{
	if (uv_timer_get_repeat(&r->heartbeat) == ms)
		return;
	r->ticked_us = clock_monotonic_us();
	(void)uv_timer_start(&r->heartbeat, on_tick, ms, ms);
}

static bool take_slot(void *ctx)
{
	struct runner *r = ctx;

	if (r->draining || r->busy == r->place.slots)
		return false;
	r->busy++;
	r->taken++;
	tick_every(r, HEARTBEAT_MS);
	/* Said before it is through with its last, so that nobody sends another meanwhile. */
	if (r->max_tasks && r->taken == r->max_tasks)
		drain(r);
	return true;
}

static void give_slot(void *ctx)
{
	struct runner *r = ctx;

	r->busy--;
	r->tasks++;
	tick_every(r, HEARTBEAT_MS);
	if (r->standby)
		standby_poke(r->standby);
	if (r->draining && r->busy == 0)
		stop_flushed(r);
}

static void on_connection_ended(void *ctx, size_t left, const char *message)
{
	struct runner *r = ctx;

	(void)message;
	if (!r->o->listen && !left)
		stop_now(r);
}

static bool nothing_changed(const struct connection_counters *a,
			    const struct connection_counters *b)
{
	return a->slots == b->slots && a->busy == b->busy && a->standbys == b->standbys &&
	       a->tasks == b->tasks && a->cache_bytes == b->cache_bytes &&
	       a->cache_hits == b->cache_hits && a->cache_misses == b->cache_misses;
}

static void count(const struct runner *r, struct connection_counters *ret_counters)
{
	struct box_pool_stats boxes;
	struct cache_stats cache;

	box_pool_stats(r->boxes, &boxes);
	cache_stats(r->cache, &cache);
	*ret_counters = (struct connection_counters){
		.slots = r->draining ? 0 : r->place.slots,
		.busy = r->busy,
		.standbys = boxes.ready + (r->standby ? standby_ready(r->standby) : 0) +
			    (r->zygotes ? zygotes_ready(r->zygotes) : 0),
		.tasks = r->tasks,
		.cache_bytes = cache.bytes,
		.cache_hits = cache.hits,
		.cache_misses = cache.misses,
	};
}

/* With what costs more to know. */
static void count_all(void *ctx, struct connection_counters *ret_counters)
{
	struct runner *r = ctx;
	const struct standby_sources from = {.pool = r->standby,
					     .zygotes = r->zygotes,
					     .residents = r->residents,
					     .charge = r->charge,
					     .budget_bytes =
						     r->o->standby_bytes + r->o->fork_bytes};

	count(r, ret_counters);
	if (!r->standby && !r->zygotes)
		return;
	standby_report(&from, &r->waiting);
	ret_counters->waiting = &r->waiting;
}

/* A tick that is late tells of a process that stood still, and has heard nobody meanwhile. */
static void on_tick(uv_timer_t *timer)
{
	struct runner *r = timer->data;
	const int64_t every_us = (int64_t)uv_timer_get_repeat(timer) * 1000;
	int64_t now_us = clock_monotonic_us();
	struct connection_counters now;
	bool changed;

	if (!r->peers)
		return;
	count(r, &now);
	changed = !nothing_changed(&now, &r->told);
	r->told = now;
	peers_heartbeat(r->peers);
	if (now_us - r->ticked_us < every_us + HEARTBEAT_MS * INT64_C(1000))
		peers_drop_silent(r->peers);
	r->ticked_us = now_us;
	tick_every(r, changed ? HEARTBEAT_MS : HEARTBEAT_IDLE_MS);
}

static void on_accepted(void *ctx, int fd)
{
	struct runner *r = ctx;
	struct err e;

	if (peers_add_consume(r->peers, fd, &e) < 0)
		log_warn("runner", "turned a connection away", LOG_STR("reason", e.msg));
}

static int start_peers(struct runner *r, struct err *e)
{
	const struct peers_config cfg = {
		.loop = &r->loop,
		.connection =
			{
				.env = &r->env,
				.defer = r->defer,
				.name = r->o->name,
				.slots = r->place.slots,
				.lease_ms = r->o->lease_ms,
				.isolation = &r->isolation,
			},
		.psk = r->o->listen ? r->o->key : NULL,
		.take_slot = take_slot,
		.give_slot = give_slot,
		.drain = drain,
		.count = count_all,
		.ended = on_connection_ended,
		.ctx = r,
	};

	if (peers_new(&cfg, &r->peers) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (r->o->listen)
		return listener_new_consume(&r->loop, TAKE_FD(r->fd), on_accepted, r, &r->listener,
					    e);
	return peers_add_consume(r->peers, TAKE_FD(r->fd), e);
}

/* The languages are known: now, and not before, schedulers are listened to. */
static void on_probed(void *ctx)
{
	struct runner *r = ctx;
	struct err e;

	if (r->stopping || uv_is_active((uv_handle_t *)&r->flush))
		return;
	if (start_peers(r, &e) < 0) {
		log_error("runner", "could not begin", LOG_STR("reason", e.msg));
		r->exit_code = RUNNER_EXIT_FAILED;
		stop_now(r);
		return;
	}
	tick_every(r, HEARTBEAT_MS);
	log_info("runner", "runner is ready", LOG_STR("name", r->o->name),
		 LOG_STR("listen", r->o->listen ? r->o->listen : ""),
		 LOG_INT("slots", r->place.slots), LOG_STR("isolation", r->isolation.level),
		 LOG_STR("limits", r->isolation.limits));
	if (r->setup)
		setup_begin(r->setup);
}

/* ---- the beginning ---- */

static unsigned standbys(const struct runner_options *o)
{
	return o->slots + 1;
}

/* With an interpreter in each: those that wait, and those that are being cleared away. */
static unsigned interpreters(const struct runner_options *o)
{
	unsigned room = SANDBOX_BOXES_NURSING - 2 * o->slots - standbys(o);

	if (o->standby_bytes == 0)
		return 0;
	return room < 2 * o->slots ? room : 2 * o->slots;
}

/* Those that run, those that stand by, and those that are being cleared away. */
static unsigned box_count(const struct runner_options *o)
{
	return 2 * o->slots + standbys(o) + interpreters(o);
}

/* As many descriptors as are allowed; returns how many builds the cache may hold. */
static size_t raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur > DESCRIPTORS_SPARE ? (size_t)limit.rlim_cur - DESCRIPTORS_SPARE : 0;
}

static const struct sandbox_limits expected = {
	.cpu_usec = 5000000,
	.wall_usec = 15000000,
	.memory_bytes = UINT64_C(256) << 20,
	.disk_bytes = UINT64_C(64) << 20,
	.processes = 64,
	.open_files = 256,
};

static int start_boxes(struct runner *r, struct err *e)
{
	const struct box_pool_config cfg = {
		.boxes = box_count(r->o),
		.standbys = standbys(r->o),
		.expected = expected,
		.lost = on_spawner_lost,
		.ctx = r,
	};

	return box_pool_new(&r->loop, r->place.spawner, &cfg, &r->boxes, e);
}

static bool has_free_slot(void *ctx)
{
	const struct runner *r = ctx;

	return !r->draining && r->busy < r->place.slots;
}

static int start_standby(struct runner *r, struct err *e)
{
	const struct standby_config cfg = {
		.max = interpreters(r->o),
		.max_language = r->o->slots,
		.budget_bytes = r->o->standby_bytes,
		.idle = has_free_slot,
		.ctx = r,
	};
	int code;

	/* Interpreters would share the work directory with the task. */
	if (r->o->standby_bytes + r->o->fork_bytes == 0 || r->place.pod)
		return 0;
	code = charge_open("/proc", &r->charge, e);
	return code < 0 || cfg.max == 0
		       ? code
		       : standby_pool_new(&r->loop, r->boxes, &cfg, &r->standby, e);
}

/* Beside the sandbox's program, or where it is installed. */
static char *find_library(const struct runner *r)
{
	static const char *const places[] = {"", "/../lib/kiln"};
	const char *slash = strrchr(r->o->sandbox, '/');
	int dir = slash ? (int)(slash - r->o->sandbox) : 0;

	for (size_t i = 0; slash && i < ARRAY_SIZE(places); i++) {
		char *path = NULL, *real;

		if (asprintf(&path, "%.*s%s/kiln-zygote.so", dir, r->o->sandbox, places[i]) < 0)
			return NULL;
		real = realpath(path, NULL);
		free(path);
		if (real)
			return real;
	}
	return NULL;
}

/* Tasks start as usual where there can be none. */
static void start_zygotes(struct runner *r)
{
	struct zygotes_config cfg = {
		.loop = &r->loop,
		.nursery = sandbox_client_nursery(r->place.spawner),
		.languages = r->o->languages,
		.library = r->library = find_library(r),
		.in_force = sandbox_client_in_force(r->place.spawner),
		.ready = r->o->slots,
		.budget_bytes = r->o->fork_bytes,
		.forks_max = r->o->fork_tasks,
		.expected = expected,
	};
	const char *why = sandbox_client_no_nursery(r->place.spawner);
	struct err e;

	if (cfg.nursery && !cfg.library)
		why = "kiln-zygote.so is not beside kiln-sandbox";
	else if (cfg.nursery && zygotes_new(&cfg, &r->zygotes, &e) < 0)
		why = e.msg;
	if (why[0])
		log_info("runner", "no tasks are forked of interpreters", LOG_STR("reason", why));
}

static int start_residents(struct runner *r, struct err *e)
{
	const struct residents_config cfg = {
		.programs = r->o->resident_compilers,
		.max_tenant = r->o->slots,
		.room = r->standby,
	};

	/* One tenant's programs could make its compiler lie about the next of them, and another
	 * tenant would run what it said. */
	if (cfg.programs > 0 && r->o->share_cache)
		log_warn("runner", "no compiler stays: tenants share what is compiled");
	return cfg.programs > 0 && cfg.room && !r->o->share_cache
		       ? residents_new(&r->loop, r->boxes, &cfg, &r->residents, e)
		       : 0;
}

static int start_parts(struct runner *r, struct err *e)
{
	int code = defer_new(&r->loop, &r->defer);

	if (code < 0)
		return err_set(e, code, "out of memory");
	r->cache = cache_new(r->o->cache_bytes, raise_descriptors());
	if (!r->cache)
		return err_set(e, -ENOMEM, "out of memory");
	code = start_boxes(r, e);
	if (code == 0)
		code = start_standby(r, e);
	if (code == 0)
		start_zygotes(r);
	if (code == 0)
		code = start_residents(r, e);
	if (code == 0)
		code = probe_new(&r->loop, r->languages, on_probed, r, &r->probe, e);
	if (code == 0 && r->setup_dir)
		code = setup_new(&r->loop, r->languages, r->probe, &r->setup, e);
	if (code < 0)
		return code;
	r->env = (struct execution_env){
		.loop = &r->loop,
		.boxes = r->boxes,
		.cache = r->cache,
		.languages = r->languages,
		.probe = r->probe,
		.setup = r->setup,
		.standby = r->standby,
		.zygotes = r->zygotes,
		.residents = r->residents,
		.share_cache = r->o->share_cache,
	};
	return 0;
}

static void start_handles(struct runner *r)
{
	static const struct {
		int number;
		uv_signal_cb cb;
	} signals[ARRAY_SIZE(r->signals)] = {
		{SIGTERM, on_signal}, {SIGINT, on_signal}, {SIGUSR1, on_account}};

	(void)uv_timer_init(&r->loop, &r->heartbeat);
	(void)uv_timer_init(&r->loop, &r->flush);
	r->heartbeat.data = r->flush.data = r;
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		(void)uv_signal_init(&r->loop, &r->signals[i]);
		r->signals[i].data = r;
		(void)uv_signal_start(&r->signals[i], signals[i].cb, signals[i].number);
	}
}

static int run_loop(struct runner *r, struct err *e)
{
	int code = uv_loop_init(&r->loop);

	if (code < 0)
		return err_errno(e, code, "could not make an event loop");
	start_handles(r);
	code = start_parts(r, e);
	if (code < 0)
		stop_now(r);
	(void)uv_run(&r->loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&r->loop);
	cache_free(r->cache);
	charge_close(r->charge);
	return code;
}

int runner_run(const struct runner_options *o, enum runner_exit *ret_exit, struct err *e)
{
	struct runner r = {.o = o, .fd = o->connection_fd};
	int code = o->listen ? listener_bind(o->listen, &r.fd, e) : 0;

	if (code == 0)
		code = language_registry_load(o->languages, &r.languages, e);
	if (code == 0 && o->setup_dir)
		code = setup_enter(o->setup_dir, o->uid, o->gid, &r.setup_dir, e);
	if (code == 0)
		code = isolation_start(o, r.languages, r.setup_dir, box_count, &r.place, e);
	if (code == 0)
		code = isolation_drop_privileges(o, e);
	if (code == 0) /* only now: the spawner was started with the default */
		code = signals_ignore_pipe(e);
	if (code == 0) {
		isolation_describe(&r.place, &r.isolation);
		r.max_tasks = r.place.pod ? 1 : o->max_tasks;
		code = run_loop(&r, e);
	}
	sandbox_client_free(r.place.spawner);
	language_registry_free(r.languages);
	free(r.setup_dir);
	free(r.library);
	cleanup_close(&r.fd);
	if (code < 0)
		return code;
	*ret_exit = r.exit_code;
	return 0;
}
