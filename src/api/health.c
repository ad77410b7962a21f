/* SPDX-License-Identifier: Apache-2.0 */
#include "api/private.h"
#include "observe/metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { METRICS_BODY_MAX = 16 * 1024 * 1024, WHY_MAX = 400, PROBE_EVERY_US = 1000000 };

static void reply_text(struct http_request *r, const char *json)
{
	http_reply_static(r, 200, "application/json", json, strlen(json));
}

void health_handle_alive(struct http_request *r, void *ctx)
{
	(void)ctx;
	reply_text(r, "{\"status\":\"ok\"}\n");
}

static void reply_ready(struct http_request *r)
{
	reply_text(r, "{\"status\":\"ready\"}\n");
}

static void reply_no_writes(struct http_request *r, int code)
{
	problem_send(r, PROBLEM_NOT_READY, "the store cannot write: %s",
		     code == -ENOSPC ? "the disk is full" : err_text(code));
}

/* ---- whether the store writes again ---- */

struct probing {
	struct api *api;
	struct http_request *request;
	struct store_probe probe;
};

static void on_probed(struct store_req *req, int code)
{
	struct probing *p = req->ctx;
	struct api *a = p->api;

	if (code == -ESHUTDOWN)
		problem_send(p->request, PROBLEM_SHUTTING_DOWN, "the server is shutting down");
	else if (code < 0)
		reply_no_writes(p->request, code);
	else
		reply_ready(p->request);
	free(p);
	a->probing = false;
	api_end_operation(a);
}

/* Nothing is asked of a store whose writes work, and of another once a second at most, however
 * often somebody asks us. */
static void answer_for_store(struct api *a, struct http_request *r)
{
	int64_t ago_us = 0;
	int code = store_write_health(a->cfg.store, &ago_us);
	struct probing *p;

	if (code == 0) {
		reply_ready(r);
		return;
	}
	p = a->probing || ago_us < PROBE_EVERY_US ? NULL : calloc(1, sizeof *p);
	if (!p) {
		reply_no_writes(r, code);
		return;
	}
	p->api = a;
	p->request = r;
	p->probe.req = (struct store_req){.done = on_probed, .ctx = p};
	a->probing = true;
	api_begin_operation(a);
	store_probe(a->cfg.store, &p->probe);
}

void health_handle_ready(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct err e = {""};
	struct buf why;

	buf_init(&why, WHY_MAX);
	if (a->closing)
		problem_send(r, PROBLEM_SHUTTING_DOWN, "the server is shutting down");
	else if (a->cfg.ready && !a->cfg.ready(a->cfg.ctx, &why))
		problem_send(r, PROBLEM_NOT_READY, "%s",
			     why.len ? why.data : "tasks cannot be run");
	else if (store_health(a->cfg.store, &e) < 0)
		problem_send(r, PROBLEM_NOT_READY, "the store cannot be reached: %s", e.msg);
	else
		answer_for_store(a, r);
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
