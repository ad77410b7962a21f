/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/roles.h"

#include "api/api.h"
#include "api/monitor.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/url.h"
#include "cmd/banner.h"
#include "cmd/heard.h"
#include "cmd/key_state.h"
#include "cmd/parts.h"
#include "observe/metrics.h"
#include "pods/pods.h"
#include "rate/rate.h"
#include "scheduler/scheduler.h"
#include "trace/trace.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>
#include <uv.h>

enum {
	CREDIT_BYTES = 1024 * 1024,
	HELD_PER_BODY = 16, /* requests of the largest size that may be in memory at one time */
	PODS_GRACE_MS = 3000,
	PODS_TEXT_MAX = 1024,
	BANNER_TICK_MS = 20,
	BANNER_WAIT_MS = 10000,
};

/* What a role does not have stays NULL. */
struct process {
	uv_loop_t loop;
	const struct config *cfg;
	unsigned roles;
	struct language_registry *languages;
	const void *secret;
	size_t secret_len;
	int keeper_fd;
	struct parts parts;
	struct heard *heard;
	struct scheduler *scheduler;
	struct pods *pods;
	struct rate *rate;
	struct api *api;
	struct monitor *monitor;
	uv_signal_t sigterm, sigint, sighup;
	uv_timer_t banner_timer;
	int64_t started_us; /* monotonic */
	uv_prepare_t before_poll;
	uv_check_t after_poll;
	int64_t woke_us;   /* monotonic: when the loop last came back from waiting */
	bool started;	   /* all parts are there */
	bool closing;	   /* SIGTERM came; before "started" it is looked at by who starts */
	size_t close_step; /* next in the order of closing */
	enum key_state keys;
};

static const char *const role_names[] = {
	[ROLE_API] = "api",
	[ROLE_SCHEDULER] = "scheduler",
	[ROLE_API | ROLE_SCHEDULER] = "serve",
};

/* ---- pods and scheduler ---- */

static void on_runner_lost(void *ctx, const char *pod, const char *reason)
{
	struct process *p = ctx;

	if (p->pods)
		pods_connection_lost(p->pods, pod, reason);
}

static void on_pod_connected(void *ctx, const char *pod, int fd, const struct tls_psk *psk)
{
	struct process *p = ctx;

	if (p->scheduler)
		scheduler_add_runner(p->scheduler, pod, fd, psk, on_runner_lost, p);
	else
		(void)close(fd); /* all is about to end */
}

static void on_pod_gone(void *ctx, const char *pod, const char *reason)
{
	(void)ctx;
	(void)pod;
	(void)reason; /* its connection ends too, and the scheduler hears of it there */
}

static void on_pod_retired(void *ctx, const char *pod)
{
	struct process *p = ctx;

	if (p->scheduler)
		scheduler_retire_runner(p->scheduler, pod);
}

static void on_pod_drain(void *ctx, const char *pod)
{
	struct process *p = ctx;

	if (p->scheduler)
		scheduler_drain_runner(p->scheduler, pod);
}

static bool on_count_waiting(void *ctx, const char *language, uint64_t *ret_waiting)
{
	const struct process *p = ctx;

	return p->scheduler && scheduler_count_waiting(p->scheduler, language, ret_waiting);
}

static void on_offered(void *ctx, const char *language, bool yes)
{
	struct process *p = ctx;

	if (p->scheduler)
		scheduler_offer_language(p->scheduler, language, yes);
}

static void on_runner_heard(void *ctx, const char *pod, unsigned slots, unsigned used,
			    uint64_t tasks)
{
	struct process *p = ctx;

	if (p->pods)
		pods_heard(p->pods, pod, slots, used, tasks);
}

static const struct pods_ops pods_ops = {
	.connected = on_pod_connected,
	.gone = on_pod_gone,
	.retired = on_pod_retired,
	.drain = on_pod_drain,
	.waiting = on_count_waiting,
	.offered = on_offered,
};

static bool is_ready(void *ctx, struct buf *why)
{
	const struct process *p = ctx;
	struct buf pods;

	if (p->scheduler && scheduler_is_ready(p->scheduler, why))
		return true;
	if (why && p->pods) {
		buf_init(&pods, PODS_TEXT_MAX);
		pods_explain(p->pods, &pods);
		if (pods.len)
			(void)buf_printf(why, ": %s", pods.data);
		buf_fini(&pods);
	}
	return false;
}

static int describe_pods(void *ctx, struct buf *json)
{
	const struct process *p = ctx;

	return p->pods ? pods_describe(p->pods, json) : -EAGAIN;
}

static bool languages_known(void *ctx)
{
	const struct process *p = ctx;

	return heard_any(p->heard);
}

/* ---- the end, in the order opposite to the beginning; parts that never came are skipped ---- */

static void close_next(void *ctx);

static void on_scheduler_closed(void *ctx)
{
	struct process *p = ctx;

	p->scheduler = NULL; /* until then a second signal hurries it */
	close_next(p);
}

static bool close_scheduler(struct process *p)
{
	if (p->monitor)
		monitor_set_closing(p->monitor);
	if (p->scheduler)
		scheduler_close(p->scheduler, p->cfg->drain_ms, on_scheduler_closed, p);
	return p->scheduler;
}

static bool close_api(struct process *p)
{
	struct api *a = TAKE_PTR(p->api);

	if (a)
		api_close(a, close_next, p);
	return a;
}

static bool close_rate(struct process *p)
{
	struct rate *r = TAKE_PTR(p->rate);

	if (r)
		rate_close(r, close_next, p);
	return r;
}

static bool close_monitor(struct process *p)
{
	struct monitor *m = TAKE_PTR(p->monitor);

	if (m)
		monitor_close(m, close_next, p);
	return m;
}

static bool close_pods(struct process *p)
{
	struct pods *pods = TAKE_PTR(p->pods);

	if (pods)
		pods_close(pods, PODS_GRACE_MS, close_next, p);
	return pods;
}

static bool close_parts(struct process *p)
{
	heard_free(TAKE_PTR(p->heard));
	parts_close(&p->parts, close_next, p);
	return true;
}

/* Without these the loop ends by itself, once the handles that parts close behind their backs are
 * gone too. */
static bool close_handles(struct process *p)
{
	uv_close((uv_handle_t *)&p->sigterm, NULL);
	uv_close((uv_handle_t *)&p->sigint, NULL);
	uv_close((uv_handle_t *)&p->sighup, NULL);
	uv_close((uv_handle_t *)&p->banner_timer, NULL);
	uv_close((uv_handle_t *)&p->before_poll, NULL);
	uv_close((uv_handle_t *)&p->after_poll, NULL);
	return true;
}

/* Each says whether it goes on later, by close_next. */
static void close_next(void *ctx)
{
	static bool (*const steps[])(struct process * p) = {
		close_scheduler, close_api,   close_rate,   close_monitor,
		close_pods,	 close_parts, close_handles};
	struct process *p = ctx;

	while (p->close_step < ARRAY_SIZE(steps))
		if (steps[p->close_step++](p))
			return;
}

static void begin_close(struct process *p)
{
	(void)uv_timer_stop(&p->banner_timer);
	close_next(p);
}

/* Tasks that run are given their time while the API still answers those who wait for them. What is
 * submitted meanwhile is stored, and runs after the next start. A second signal ends the wait. */
static void on_signal(uv_signal_t *handle, int signo)
{
	struct process *p = handle->data;

	if (p->closing) {
		if (p->scheduler)
			scheduler_hurry(p->scheduler);
		return;
	}
	p->closing = true;
	log_info(role_names[p->roles], "shutting down", LOG_INT("signal", signo));
	if (p->started)
		begin_close(p);
}

static void on_reload(uv_signal_t *handle, int signo)
{
	struct process *p = handle->data;

	(void)signo;
	if (p->pods)
		pods_reload(p->pods);
}

/* ---- the beginning ---- */

static void on_banner_timer(uv_timer_t *timer)
{
	struct process *p = timer->data;
	int64_t waited_ms = (clock_monotonic_us() - p->started_us) / 1000;

	if (!scheduler_is_ready(p->scheduler, NULL)) {
		if (waited_ms < BANNER_WAIT_MS)
			return;
		log_error(role_names[p->roles],
			  "no runner has connected; tasks are accepted and wait");
	}
	(void)uv_timer_stop(timer);
	banner_print(api_address(p->api), p->languages, scheduler_isolation(p->scheduler), p->keys,
		     waited_ms);
}

static void start(struct process *p)
{
	if (p->scheduler)
		scheduler_start(p->scheduler);
	if (p->scheduler && p->api)
		(void)uv_timer_start(&p->banner_timer, on_banner_timer, 0, BANNER_TICK_MS);
	else if (p->api)
		banner_print_role("api", "address", api_address(p->api), p->keys);
	else
		banner_print_role("scheduler", "monitor", monitor_address(p->monitor), KEYS_NEEDED);
}

static void before_poll(uv_prepare_t *handle)
{
	struct process *p = handle->data;

	if (p->woke_us)
		metric_observe(METRIC_LOOP_LAG_SECONDS,
			       (double)(clock_monotonic_us() - p->woke_us) / 1e6);
}

static void after_poll(uv_check_t *handle)
{
	struct process *p = handle->data;

	p->woke_us = clock_monotonic_us();
}

static void init_handles(struct process *p)
{
	(void)uv_signal_init(&p->loop, &p->sigterm);
	(void)uv_signal_init(&p->loop, &p->sigint);
	(void)uv_signal_init(&p->loop, &p->sighup);
	(void)uv_timer_init(&p->loop, &p->banner_timer);
	(void)uv_prepare_init(&p->loop, &p->before_poll);
	(void)uv_check_init(&p->loop, &p->after_poll);
	p->sigterm.data = p->sigint.data = p->sighup.data = p->banner_timer.data = p;
	p->before_poll.data = p->after_poll.data = p;
	(void)uv_signal_start(&p->sigterm, on_signal, SIGTERM);
	(void)uv_signal_start(&p->sigint, on_signal, SIGINT);
	(void)uv_signal_start(&p->sighup, on_reload, SIGHUP);
	(void)uv_prepare_start(&p->before_poll, before_poll);
	(void)uv_check_start(&p->after_poll, after_poll);
}

static int open_scheduler(struct process *p, struct err *e)
{
	const struct config *cfg = p->cfg;
	struct scheduler_config sc = {
		.store = p->parts.store,
		.queue = p->parts.queue,
		.publisher = p->parts.publisher,
		.queue_url = cfg->queue,
		.cache = p->parts.cache,
		.bus = p->parts.bus,
		.languages = p->languages,
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
	return scheduler_new(&p->loop, &sc, &p->scheduler, e);
}

static int open_pods(struct process *p, struct err *e)
{
	const struct pods_config pc = {
		.url = p->cfg->pods,
		.secret = p->secret,
		.secret_len = p->secret_len,
		.keeper_fd = TAKE_FD(p->keeper_fd),
		.slots = (unsigned)p->cfg->slots,
		.slots_per_pod = (unsigned)p->cfg->slots_per_runner,
		.kube_host = config_env("KUBERNETES_SERVICE_HOST"),
		.kube_port = config_env("KUBERNETES_SERVICE_PORT"),
	};

	scheduler_watch_runners(p->scheduler, on_runner_heard, p);
	return pods_open(&p->loop, &pc, &pods_ops, p, &p->pods, e);
}

static int open_heard(struct process *p, struct err *e)
{
	int r = heard_new(p->parts.bus, p->languages, &p->heard);

	return r < 0 ? err_errno(e, r, "could not listen to the schedulers") : 0;
}

static int open_monitor(struct process *p, struct err *e)
{
	const struct monitor_config mc = {
		.listen = p->cfg->metrics_listen,
		.store = p->parts.store,
		.queue = p->parts.queue,
		.cache = p->parts.cache,
		.bus = p->parts.bus,
		.ready = is_ready,
		.describe = describe_pods,
		.ctx = p,
	};

	return monitor_new(&p->loop, &mc, &p->monitor, e);
}

static int open_rate(struct process *p, struct err *e)
{
	return rate_open(&p->loop, p->cfg->cache, &p->rate, e);
}

static int open_api(struct process *p, struct err *e)
{
	const struct config *cfg = p->cfg;
	struct api_config ac;

	api_config_init(&ac);
	ac.listen = cfg->listen;
	ac.hosts = (const char *const *)cfg->hosts;
	ac.keys = p->keys != KEYS_NONE;
	ac.open = cfg->open;
	ac.store = p->parts.store;
	ac.queue = p->parts.queue;
	ac.publisher = p->parts.publisher;
	ac.cache = p->parts.cache;
	ac.bus = p->parts.bus;
	ac.rate = p->rate;
	ac.languages = p->languages;
	ac.run_defaults = cfg->limits;
	ac.run_ceilings = cfg->ceilings;
	ac.compile_defaults = cfg->compile_limits;
	ac.compile_ceilings = cfg->compile_ceilings;
	ac.body_max_bytes = (size_t)cfg->body_max_bytes;
	ac.held_max_bytes = (size_t)cfg->body_max_bytes * HELD_PER_BODY;
	ac.connections_max = (unsigned)cfg->connection_max;
	ac.connections_per_address = (unsigned)cfg->connection_max_per_address;
	ac.waiters_max = (size_t)cfg->waiters_max;
	ac.idempotency_ttl_ms = cfg->idempotency_ttl_ms;
	ac.retention_ms = cfg->retention_ms;
	ac.tenant_limits[TENANT_RATE] = cfg->tenant_rate;
	ac.tenant_limits[TENANT_BURST] = cfg->tenant_burst;
	ac.tenant_limits[TENANT_QUEUED] = cfg->tenant_queued_max;
	ac.tenant_limits[TENANT_RUNNING] = cfg->tenant_running_max;
	ac.ready = p->roles & ROLE_SCHEDULER ? is_ready : NULL;
	ac.languages_known = languages_known;
	ac.ctx = p;
	return api_new(&p->loop, &ac, &p->api, e);
}

static int find_keys(struct process *p, struct err *e)
{
	return key_state_read(&p->loop, p->parts.store, &p->keys, e);
}

static int open_trace(struct process *p, struct err *e)
{
	static const char *const services[] = {
		[ROLE_API] = "kiln-api",
		[ROLE_SCHEDULER] = "kiln-scheduler",
		[ROLE_API | ROLE_SCHEDULER] = "kiln",
	};
	const struct trace_config tc = {
		.endpoint = p->cfg->otlp_endpoint,
		.headers = p->cfg->otlp_headers,
		.service = services[p->roles],
		.version = KILN_VERSION,
		.percent = (unsigned)p->cfg->trace_percent,
	};

	return trace_open(&tc, e);
}

static int open_parts(struct process *p, struct err *e)
{
	p->parts.role = role_names[p->roles];
	return parts_open(&p->loop, p->cfg, &p->parts, e);
}

/* ---- the whole ---- */

/* In this order; each where the process has one of its roles. */
static const struct {
	unsigned roles, not_roles;
	int (*open)(struct process *p, struct err *e);
} openings[] = {
	{ROLE_API | ROLE_SCHEDULER, 0, open_trace},
	{ROLE_API | ROLE_SCHEDULER, 0, open_parts},
	{ROLE_API, 0, find_keys},
	{ROLE_API, 0, open_heard},
	{ROLE_SCHEDULER, 0, open_scheduler},
	{ROLE_API, 0, open_rate},
	{ROLE_API, 0, open_api},
	{ROLE_SCHEDULER, ROLE_API, open_monitor},
	{ROLE_SCHEDULER, 0, open_pods},
};

static int open_all(struct process *p, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(openings); i++)
		if ((openings[i].roles & p->roles) && !(openings[i].not_roles & p->roles))
			r = openings[i].open(p, e);
	return r;
}

int roles_run(const struct roles_config *cfg, struct err *e)
{
	struct process p = {
		.cfg = cfg->cfg,
		.roles = cfg->roles,
		.languages = cfg->languages,
		.secret = cfg->secret,
		.secret_len = cfg->secret_len,
		.keeper_fd = cfg->keeper_fd,
		.started_us = clock_monotonic_us(),
	};
	int r = uv_loop_init(&p.loop);

	if (r < 0)
		return err_errno(e, r, "could not make an event loop");
	metric_set(METRIC_BUILD_INFO, 1, KILN_VERSION);
	init_handles(&p);
	r = open_all(&p, e);
	p.started = r == 0;
	if (r < 0 || p.closing)
		begin_close(&p);
	else
		start(&p);
	(void)uv_run(&p.loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&p.loop);
	trace_close();
	cleanup_close(&p.keeper_fd);
	metrics_reset();
	if (r == 0)
		log_info(role_names[p.roles], "shut down");
	return r;
}
