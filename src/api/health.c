/* SPDX-License-Identifier: Apache-2.0 */
#include "api/private.h"
#include "observe/metrics.h"

#include <string.h>

enum { METRICS_BODY_MAX = 16 * 1024 * 1024, WHY_MAX = 400 };

static void reply_text(struct http_request *r, const char *json)
{
	http_reply_static(r, 200, "application/json", json, strlen(json));
}

void health_handle_alive(struct http_request *r, void *ctx)
{
	(void)ctx;
	reply_text(r, "{\"status\":\"ok\"}\n");
}

void health_handle_ready(struct http_request *r, void *ctx)
{
	const struct api *a = ctx;
	struct buf why;

	buf_init(&why, WHY_MAX);
	if (a->closing)
		problem_send(r, PROBLEM_SHUTTING_DOWN, "the server is shutting down");
	else if (a->cfg.ready && !a->cfg.ready(a->cfg.ctx, &why))
		problem_send(r, PROBLEM_NOT_READY, "%s",
			     why.len ? why.data : "tasks cannot be run");
	else
		reply_text(r, "{\"status\":\"ready\"}\n");
	buf_fini(&why);
}

void health_handle_metrics(struct http_request *r, void *ctx)
{
	const struct api *a = ctx;
	struct http_stats stats;
	struct buf body;

	http_server_get_stats(a->http, &stats);
	metric_set(METRIC_HTTP_CONNECTIONS, (double)stats.connections);
	metric_set(METRIC_HTTP_WAITERS, (double)a->n_waiters);
	buf_init(&body, METRICS_BODY_MAX);
	(void)metrics_write(&body);
	http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
	buf_fini(&body);
}

void index_handle(struct http_request *r, void *ctx)
{
	(void)ctx;
	reply_text(r, "{\"name\":\"kiln\",\"version\":\"" KILN_VERSION "\","
		      "\"contract\":\"/openapi.json\",\"submit\":\"/submit\","
		      "\"result\":\"/result/{task_id}\",\"tasks\":\"/tasks\","
		      "\"languages\":\"/languages\",\"problems\":\"/problems\","
		      "\"health\":\"/healthz\",\"ready\":\"/readyz\",\"metrics\":\"/metrics\"}\n");
}
