/* SPDX-License-Identifier: Apache-2.0 */
#include "api/monitor.h"

#include "api/health.h"
#include "api/problem.h"
#include "base/url.h"

#include <errno.h>
#include <stdlib.h>

enum { PODS_BODY_MAX = 8 * 1024 * 1024 };
enum { CONNECTIONS_MAX = 64, HELD_MAX = 64 * 1024 * 1024 };

struct monitor {
	struct http_server *http;
	struct health health;
	int (*describe)(void *ctx, struct buf *json);
	void *describe_ctx;
	char address[64];
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static void handle_alive(struct http_request *r, void *ctx)
{
	(void)ctx;
	health_answer_alive(r);
}

static void handle_ready(struct http_request *r, void *ctx)
{
	struct monitor *m = ctx;

	health_answer_ready(&m->health, r);
}

static void handle_metrics(struct http_request *r, void *ctx)
{
	(void)ctx;
	health_answer_metrics(r);
}

static void handle_pods(struct http_request *r, void *ctx)
{
	struct monitor *m = ctx;
	struct buf body;
	int code;

	buf_init(&body, PODS_BODY_MAX);
	code = m->describe(m->describe_ctx, &body);
	if (code == 0)
		http_reply(r, 200, "application/json", &body);
	else
		problem_send(r, PROBLEM_NOT_FOUND, "%s",
			     code == -EOPNOTSUPP
				     ? "there are no pools here: pods are not made by demand"
				     : "pools and pods cannot be told");
	buf_fini(&body);
}

static const struct http_route routes[] = {
	{HTTP_GET, "/healthz", handle_alive, .open = true},
	{HTTP_GET, "/readyz", handle_ready, .open = true},
	{HTTP_GET, "/metrics", handle_metrics, .open = true},
	{HTTP_GET, "/pods", handle_pods, .open = true},
};

int monitor_new(uv_loop_t *loop, const struct monitor_config *cfg, struct monitor **ret_monitor,
		struct err *e)
{
	AUTO_FREE struct monitor *m = calloc(1, sizeof *m);
	const struct http_config http = {
		.listen = cfg->listen,
		.connections_max = CONNECTIONS_MAX,
		.body_max_bytes = 1,
		.held_max_bytes = HELD_MAX,
		.routes = routes,
		.n_routes = ARRAY_SIZE(routes),
		.ctx = m,
	};
	int r;

	if (!m)
		return err_errno(e, -ENOMEM, "could not start to listen");
	m->health = (struct health){
		.store = cfg->store,
		.queue = cfg->queue,
		.cache = cfg->cache,
		.bus = cfg->bus,
		.needs_queue = true,
		.ready = cfg->ready,
		.ctx = cfg->ctx,
	};
	m->describe = cfg->describe;
	m->describe_ctx = cfg->ctx;
	r = http_server_new(loop, &http, &m->http, e);
	if (r < 0)
		return r;
	url_format_addr(http_server_address(m->http), m->address, sizeof m->address);
	*ret_monitor = TAKE_PTR(m);
	return 0;
}

const char *monitor_address(const struct monitor *m)
{
	return m->address;
}

void monitor_set_closing(struct monitor *m)
{
	m->health.closing = true;
}

static void on_closed(void *ctx)
{
	struct monitor *m = ctx;
	void (*closed)(void *) = m->closed;
	void *closed_ctx = m->closed_ctx;

	free(m);
	closed(closed_ctx);
}

void monitor_close(struct monitor *m, void (*closed)(void *ctx), void *ctx)
{
	m->closed = closed;
	m->closed_ctx = ctx;
	m->health.closing = true;
	http_server_close(m->http, on_closed, m);
}
