/* SPDX-License-Identifier: Apache-2.0 */
#include "api/api.h"

#include "api/private.h"
#include "api/render.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "base/url.h"
#include "json/reader.h"
#include "json/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MAX_MS = 60000, WAIT_TEXT_MAX = 400, LOG_EVERY_US = 1000000 };

static const char *const wait_query[] = {"wait", NULL};
static const char *const list_query[] = {"limit", "cursor", "status", "language", NULL};

/* Every path of the API; openapi.yaml has the same list, and a test holds them together. */
static const struct http_route routes[] = {
	{HTTP_POST, "/submit", submit_handle, .body = true, .query = wait_query},
	{HTTP_GET, "/result/{task_id}", result_handle, .query = wait_query},
	{HTTP_GET, "/tasks", tasks_handle_list, .query = list_query},
	{HTTP_DELETE, "/tasks/{task_id}", tasks_handle_cancel, .open = false},
	{HTTP_GET, "/languages", languages_handle, .open = true},
	{HTTP_GET, "/healthz", health_handle_alive, .open = true},
	{HTTP_GET, "/readyz", health_handle_ready, .open = true},
	{HTTP_GET, "/metrics", health_handle_metrics, .open = true},
	{HTTP_GET, "/openapi.json", openapi_handle, .open = true},
	{HTTP_GET, "/problems", problem_handle_list, .open = true},
	{HTTP_GET, "/problems/{code}", problem_handle_get, .open = true},
	{HTTP_GET, "/", index_handle, .open = true},
};

/* ---- what the resources share ---- */

static void release(struct api *a)
{
	auth_free(a->auth);
	quota_free(a->quota);
	map_fini(&a->waits);
	free(a);
}

static void finish_close(struct api *a)
{
	void (*closed)(void *ctx) = a->closed;
	void *ctx = a->closed_ctx;

	if (!a->http_closed || a->operations)
		return;
	release(a);
	closed(ctx);
}

void api_begin_operation(struct api *a)
{
	a->operations++;
}

void api_end_operation(struct api *a)
{
	a->operations--;
	finish_close(a);
}

static void log_failure(struct api *a, int code, const char *what)
{
	int64_t now = clock_monotonic_us();

	if (a->logged_us && now - a->logged_us < LOG_EVERY_US)
		return;
	a->logged_us = now;
	log_error("api", "could not do what a request asked for", LOG_STR("what", what),
		  LOG_STR("error", err_text(code)));
}

void api_reply_failure(struct api *a, struct http_request *r, int code, const char *what)
{
	switch (code) {
	case -ENOMEM:
		problem_send(r, PROBLEM_OVERLOADED, "could not %s: out of memory", what);
		return;
	case -EAGAIN:
	case -ENOTCONN:
		problem_send(r, PROBLEM_UNAVAILABLE, "could not %s", what);
		return;
	case -ESHUTDOWN:
		problem_send(r, PROBLEM_SHUTTING_DOWN, "the server is shutting down");
		return;
	case -ENOSPC:
		problem_send(r, PROBLEM_UNAVAILABLE, "could not %s: the disk is full", what);
		break;
	default:
		problem_send(r, PROBLEM_INTERNAL_ERROR, "could not %s", what);
		break;
	}
	log_failure(a, code, what);
}

/* Any number in JSON's notation, as clients print floating point in more ways than one. */
static int parse_wait(const char *text, int64_t *ret_ms)
{
	static const struct json_bounds bounds = {.depth = 1, .values = 1};
	AUTO(json_cleanup) json_t *number = NULL;
	size_t len = strlen(text);
	double ms;

	if (!len || len > WAIT_TEXT_MAX || text[0] == ' ' || text[len - 1] == ' ' ||
	    json_decode(text, len, &bounds, &number, NULL) < 0 || !json_is_number(number))
		return -EINVAL;
	ms = json_number_value(number) * 1000;
	if (!(ms >= 0 && ms <= WAIT_MAX_MS))
		return -EINVAL;
	*ret_ms = (int64_t)ms + ((double)(int64_t)ms < ms);
	return 0;
}

int api_read_wait(struct http_request *r, int64_t *ret_ms)
{
	const char *text = http_query(r, "wait");

	if (!text)
		return 0;
	if (parse_wait(text, ret_ms) == 0)
		return 1;
	problem_send(r, PROBLEM_INVALID_PARAMETER,
		     "\"wait\" must be a number of seconds from 0 to %d", WAIT_MAX_MS / 1000);
	return -EINVAL;
}

int api_read_id(struct http_request *r, struct uuid *ret_id)
{
	if (uuid_parse(http_path_arg(r), ret_id) == 0)
		return 0;
	problem_send(r, PROBLEM_INVALID_TASK_ID, "\"%.64s\" is not a task id", http_path_arg(r));
	return -EINVAL;
}

static void add_location(struct http_request *r, const struct uuid *id)
{
	char path[UUID_TEXT_MAX + 8] = "/result/";

	uuid_format(id, path + strlen(path));
	http_reply_header(r, "Location", path);
}

static void render(const struct api *a, const struct task *t, struct buf *ret_body)
{
	struct json_writer w;

	buf_init(ret_body, render_task_max(&a->cfg.run_ceilings, &a->cfg.compile_ceilings));
	json_writer_init(&w, ret_body);
	render_task(&w, t);
	(void)buf_append_char(ret_body, '\n');
}

void api_reply_task(struct api *a, struct http_request *r, int status, const struct task *t)
{
	struct buf body;

	render(a, t, &body);
	http_reply(r, status, "application/json", &body);
	buf_fini(&body);
	if (status == 202)
		add_location(r, &t->spec.id);
}

void api_reply_submitted(struct api *a, struct http_request *r, const struct task *t)
{
	bool is_final = task_state_is_final(t->state);
	struct task before = *t;
	struct buf body;

	render(a, t, &body);
	if (is_final && http_reply_fits(r, body.len)) {
		http_reply(r, 200, "application/json", &body);
		buf_fini(&body);
		return;
	}
	buf_fini(&body);
	if (is_final) {
		before.state = TASK_RUNNING;
		before.result = NULL;
		before.finished_us = 0;
	}
	api_reply_task(a, r, 202, &before);
}

void api_reply_brief(struct http_request *r, int status, const struct uuid *id,
		     enum task_state state)
{
	char text[UUID_TEXT_MAX];
	struct buf body;

	uuid_format(id, text);
	buf_init(&body, 256);
	(void)buf_printf(&body, "{\"task_id\":\"%s\",\"status\":\"%s\"}\n", text,
			 task_state_name(state));
	http_reply(r, status, "application/json", &body);
	buf_fini(&body);
	add_location(r, id);
}

/* ---- life ---- */

static void fill_limits(struct task_limits *l, int64_t cpu_ms, int64_t wall_ms, int64_t memory_mib)
{
	*l = (struct task_limits){
		.cpu_ms = cpu_ms,
		.wall_ms = wall_ms,
		.memory_bytes = memory_mib << 20,
		.processes = 64,
		.output_bytes = 1 << 20,
		.disk_bytes = 64 << 20,
		.file_bytes = 64 << 20,
		.open_files = 256,
		.stack_bytes = 64 << 20,
	};
}

void api_config_init(struct api_config *cfg)
{
	*cfg = (struct api_config){
		.listen = "127.0.0.1:8080",
		.body_max_bytes = 8 << 20,
		.held_max_bytes = 256 << 20,
		.connections_max = 4096,
		.waiters_max = 2048,
		.idempotency_ttl_ms = INT64_C(24) * 3600 * 1000,
	};
	fill_limits(&cfg->run_defaults, 5000, 15000, 256);
	fill_limits(&cfg->run_ceilings, 60000, 120000, 2048);
	fill_limits(&cfg->compile_defaults, 15000, 30000, 1024);
	fill_limits(&cfg->compile_ceilings, 60000, 120000, 4096);
	cfg->run_ceilings.processes = cfg->compile_ceilings.processes = 512;
	cfg->run_ceilings.output_bytes = 16 << 20;
	cfg->run_ceilings.open_files = 4096;
	cfg->run_ceilings.disk_bytes = cfg->run_ceilings.file_bytes = 1 << 30;
	cfg->run_ceilings.stack_bytes = 1 << 30;
}

static int check_exposure(const struct api_config *cfg, struct err *e)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int r = url_parse_listen(cfg->listen, &addr, &len, e);

	if (r < 0)
		return r;
	if (url_is_loopback(&addr) || cfg->keys || cfg->open)
		return 0;
	return err_set(e, -EPERM,
		       "will not listen on %s without keys, since anybody could run code: make a "
		       "key with \"kiln keys add NAME\", or give --open",
		       cfg->listen);
}

static int start_http(struct api *a, struct err *e)
{
	const struct http_config http = {
		.listen = a->cfg.listen,
		.connections_max = a->cfg.connections_max,
		.connections_per_address = a->cfg.connections_per_address,
		.body_max_bytes = a->cfg.body_max_bytes,
		.held_max_bytes = a->cfg.held_max_bytes,
		.routes = routes,
		.n_routes = ARRAY_SIZE(routes),
		.ctx = a,
		.guard = guard_check,
		.recognise = auth_recognise,
		.admit = auth_admit,
	};
	int r = http_server_new(a->loop, &http, &a->http, e);

	if (r < 0)
		return r;
	a->loopback = url_is_loopback(http_server_address(a->http));
	url_format_addr(http_server_address(a->http), a->address, sizeof a->address);
	return 0;
}

int api_new(uv_loop_t *loop, const struct api_config *cfg, struct api **ret_api, struct err *e)
{
	struct api *a;
	int r = check_exposure(cfg, e);

	if (r < 0)
		return r;
	/* Large bodies are read on other threads: the seed must be there before the first. */
	json_object_seed(0);
	a = calloc(1, sizeof *a);
	if (!a)
		return err_errno(e, -ENOMEM, "could not start the API");
	a->cfg = *cfg;
	a->loop = loop;
	a->health = (struct health){
		.store = cfg->store,
		.queue = cfg->queue,
		.cache = cfg->cache,
		.bus = cfg->bus,
		.ready = cfg->ready,
		.ctx = cfg->ctx,
	};
	r = result_start(a);
	if (!r)
		r = quota_new(a, &a->quota);
	if (!r)
		r = auth_new(a, cfg->keys, &a->auth);
	if (r < 0)
		(void)err_errno(e, r, "could not start the API");
	else
		r = start_http(a, e);
	if (r < 0) {
		result_stop(a);
		release(a);
		return r;
	}
	auth_start(a->auth);
	*ret_api = a;
	return 0;
}

const char *api_address(const struct api *a)
{
	return a->address;
}

static void on_http_closed(void *ctx)
{
	struct api *a = ctx;

	a->http_closed = true;
	finish_close(a);
}

void api_close(struct api *a, void (*closed)(void *ctx), void *ctx)
{
	a->closed = closed;
	a->closed_ctx = ctx;
	a->closing = true;
	auth_stop(a->auth);
	result_stop(a);
	http_server_close(a->http, on_http_closed, a);
}
