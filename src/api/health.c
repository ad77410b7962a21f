/* SPDX-License-Identifier: Apache-2.0 */
#include "api/health.h"

#include "api/private.h"
#include "observe/metrics.h"
#include "trace/trace.h"
#include "json/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	METRICS_BODY_MAX = 16 * 1024 * 1024,
	READY_BODY_MAX = 4096,
	WHY_MAX = 400,
	PROBE_EVERY_US = 1000000,
};

static void reply_text(struct http_request *r, const char *json)
{
	http_reply_static(r, 200, "application/json", json, strlen(json));
}

void health_answer_alive(struct http_request *r)
{
	reply_text(r, "{\"status\":\"ok\"}\n");
}

/* ---- what is slower than it could be ---- */

static bool queue_is_up(const struct health *h, struct buf *why)
{
	struct err e = {""};

	if (queue_check(h->queue, &e) == 0)
		return true;
	(void)buf_printf(why, "queue: %s", e.msg);
	return false;
}

static bool is_cache_up(const struct health *h, struct buf *why)
{
	return cache_is_up(h->cache, why);
}

static bool is_bus_up(const struct health *h, struct buf *why)
{
	return bus_is_up(h->bus, why);
}

static void write_degraded(struct json_writer *w, const struct health *h)
{
	static bool (*const parts[])(const struct health *h,
				     struct buf *why) = {queue_is_up, is_cache_up, is_bus_up};
	bool begun = false;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		struct buf why;

		buf_init(&why, WHY_MAX);
		if (!parts[i](h, &why)) {
			if (!begun) {
				json_write_name(w, "degraded");
				json_write_begin_array(w);
			}
			begun = true;
			json_write_text(w, why.len ? why.data : "out of use");
		}
		buf_fini(&why);
	}
	if (begun)
		json_write_end_array(w);
}

static void reply_ready(const struct health *h, struct http_request *r)
{
	struct json_writer w;
	struct buf body;

	buf_init(&body, READY_BODY_MAX);
	json_writer_init(&w, &body);
	json_write_begin_object(&w);
	json_write_text_field(&w, "status", "ready");
	write_degraded(&w, h);
	json_write_end_object(&w);
	(void)buf_append_char(&body, '\n');
	http_reply(r, 200, "application/json", &body);
	buf_fini(&body);
}

/* ---- whether the store writes again ---- */

static void reply_no_writes(struct http_request *r, int code)
{
	problem_send(r, PROBLEM_NOT_READY, "the store cannot write: %s",
		     code == -ENOSPC ? "the disk is full" : err_text(code));
}

struct probing {
	struct health *health;
	struct http_request *request;
	struct store_probe probe;
};

static void on_probed(struct store_req *req, int code)
{
	struct probing *p = req->ctx;

	p->health->probing = false;
	if (code == -ESHUTDOWN)
		problem_send(p->request, PROBLEM_SHUTTING_DOWN, "the server is shutting down");
	else if (code < 0)
		reply_no_writes(p->request, code);
	else
		reply_ready(p->health, p->request);
	free(p);
}

/* Nothing is asked of a store whose writes work, and of another once a second at most, however
 * often somebody asks us. */
static void answer_for_store(struct health *h, struct http_request *r)
{
	int64_t ago_us = 0;
	int code = store_write_health(h->store, &ago_us);
	struct probing *p;

	if (code == 0) {
		reply_ready(h, r);
		return;
	}
	p = h->probing || ago_us < PROBE_EVERY_US ? NULL : calloc(1, sizeof *p);
	if (!p) {
		reply_no_writes(r, code);
		return;
	}
	p->health = h;
	p->request = r;
	p->probe.req = (struct store_req){.done = on_probed, .ctx = p};
	h->probing = true;
	store_probe(h->store, &p->probe);
}

/* ---- the whole ---- */

void health_answer_ready(struct health *h, struct http_request *r)
{
	struct err e = {""};
	struct buf why;

	buf_init(&why, WHY_MAX);
	if (h->closing)
		problem_send(r, PROBLEM_SHUTTING_DOWN, "the server is shutting down");
	else if (store_health(h->store, &e) < 0)
		problem_send(r, PROBLEM_NOT_READY, "the store cannot be reached: %s", e.msg);
	else if (h->needs_queue && queue_check(h->queue, &e) == -ENOTCONN)
		problem_send(r, PROBLEM_NOT_READY, "the queue cannot be reached: %s", e.msg);
	else if (h->ready && !h->ready(h->ctx, &why))
		problem_send(r, PROBLEM_NOT_READY, "%s",
			     why.len ? why.data : "tasks cannot be run");
	else
		answer_for_store(h, r);
	buf_fini(&why);
}

void health_answer_metrics(struct http_request *r)
{
	struct buf body;

	buf_init(&body, METRICS_BODY_MAX);
	trace_update_metrics();
	(void)metrics_write(&body);
	http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
	buf_fini(&body);
}

/* ---- of the API ---- */

void health_handle_alive(struct http_request *r, void *ctx)
{
	(void)ctx;
	health_answer_alive(r);
}

void health_handle_ready(struct http_request *r, void *ctx)
{
	struct api *a = ctx;

	a->health.closing = a->closing;
	health_answer_ready(&a->health, r);
}

void health_handle_metrics(struct http_request *r, void *ctx)
{
	const struct api *a = ctx;
	struct http_stats stats;

	http_server_get_stats(a->http, &stats);
	metric_set(METRIC_HTTP_CONNECTIONS, (double)stats.connections);
	metric_set(METRIC_HTTP_WAITERS, (double)a->n_waiters);
	health_answer_metrics(r);
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
