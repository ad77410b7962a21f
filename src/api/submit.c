/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /submit: read, resolve, take room in the queue, insert, answer after the commit. Reading
 * a large body takes longer than a loop should stand still, so those are read on another thread.
 */
#include "api/private.h"
#include "api/request.h"
#include "base/log.h"
#include "base/str.h"
#include "crypto/digest.h"
#include "observe/metrics.h"
#include "trace/trace.h"
#include "wire/codec.h"

#include <stdlib.h>
#include <string.h>

enum {
	READ_ASIDE_BYTES = 64 * 1024,
	/* A larger spec would push too much else out of the cache; it is in the store anyway. */
	CACHED_SPEC_MAX = 256 * 1024,
};

struct submission {
	struct api *api;
	struct http_request *request;
	struct quota_request quota;
	int64_t wait_ms;
	bool waits;
	uv_work_t reading;
	struct request *parsed;
	int code;
	struct problem problem;
	struct task_spec *spec;
	struct store_insert insert;
	int64_t begun_us; /* wall */
	bool traced;
	struct trace_context span;
	uint8_t above[SPAN_ID_SIZE];
	struct publication *publication; /* from its admission until the row is safe */
};

static void submission_free(struct submission *s)
{
	struct api *a = s->api;

	request_free(s->parsed);
	task_spec_free(s->spec);
	free(s);
	api_end_operation(a);
}

/* ---- after the insert ---- */

static void cache_spec(struct submission *s)
{
	struct buf packed;

	buf_init(&packed, CACHED_SPEC_MAX);
	if (http_body(s->request)->len <= CACHED_SPEC_MAX && !codec_pack_spec(s->spec, &packed))
		cache_put(s->api->cfg.cache, CACHE_SPEC, &s->spec->id, packed.data, packed.len);
	buf_fini(&packed);
}

/* The task as it is known without asking the store. Takes the spec, and drops what is large. */
static struct task *known_task(struct task_spec *spec)
{
	struct task *t = calloc(1, sizeof *t);

	if (!t) {
		task_spec_free(spec);
		return NULL;
	}
	t->spec = *spec;
	free(spec);
	task_spec_strip(&t->spec);
	t->state = TASK_QUEUED;
	return t;
}

static void answer_new(struct submission *s)
{
	struct result_query q = {
		.id = s->spec->id,
		.wait_ms = s->wait_ms,
		.submitted = true,
	};

	if (s->waits)
		result_answer(s->api, s->request, &q, known_task(TAKE_PTR(s->spec)));
	else
		api_reply_brief(s->request, 201, &q.id, TASK_QUEUED);
}

static void answer_existing(struct submission *s)
{
	struct result_query q = {
		.id = s->insert.existing_id,
		.wait_ms = s->wait_ms,
		.submitted = s->waits,
		.read_first = true,
		.brief = !s->waits,
	};

	result_answer(s->api, s->request, &q, NULL);
}

static void give_back(struct submission *s)
{
	publisher_give_back(s->api->cfg.publisher, TAKE_PTR(s->publication));
}

static void tell_trace(const struct submission *s, int code)
{
	const struct trace_attribute about[] = {
		{"kiln.language", s->spec->program.language, 0},
		{"kiln.tenant", s->spec->tenant, 0},
		{"kiln.priority", task_class_name(s->spec->class), 0},
	};
	const struct trace_span span = {
		.name = "submit",
		.kind = TRACE_SERVER,
		.context = s->span,
		.parent = s->above,
		.start_us = s->begun_us,
		.end_us = store_now_us(s->api->cfg.store),
		.error = code < 0 ? err_text(code) : NULL,
		.task = &s->spec->id,
		.attributes = about,
		.n_attributes = ARRAY_SIZE(about),
	};

	if (s->traced)
		trace_emit(&span);
}

static void on_inserted(struct store_req *req, int code)
{
	struct submission *s = req->ctx;

	tell_trace(s, code);
	if (code < 0 || s->insert.existing) {
		give_back(s);
		if (code == -EEXIST)
			problem_send(s->request, PROBLEM_IDEMPOTENCY_CONFLICT,
				     "this Idempotency-Key came before with another body");
		else if (code < 0)
			api_reply_failure(s->api, s->request, code, "store the task");
		else
			answer_existing(s);
		submission_free(s);
		return;
	}
	metric_add(METRIC_TASKS_ACCEPTED, 1, s->spec->program.language,
		   task_class_name(s->spec->class));
	cache_spec(s);
	publisher_publish_consume(s->api->cfg.publisher, TAKE_PTR(s->publication));
	answer_new(s);
	submission_free(s);
}

/* ---- before the insert ---- */

static void refuse_full(struct submission *s)
{
	const struct publisher *publisher = s->api->cfg.publisher;
	size_t max = publisher_queue_max(publisher);
	struct problem p;

	(void)problem_set(&p, PROBLEM_QUEUE_FULL,
			  "the queue is full: %zu tasks may wait (the server's queue_max)", max);
	p.ceiling = (int64_t)max;
	p.retry_after_s = publisher_retry_after(publisher);
	problem_reply(s->request, &p);
}

static int admit(struct submission *s)
{
	const struct task_spec *spec = s->spec;
	struct queue_message m = {
		.id = spec->id, .class = spec->class, .enqueued_us = spec->created_us};
	int r;

	(void)str_copy(m.language, sizeof m.language, spec->program.language);
	(void)str_copy(m.tenant, sizeof m.tenant, spec->tenant);
	if (spec->traceparent)
		(void)str_copy(m.traceparent, sizeof m.traceparent, spec->traceparent);
	r = publisher_admit(s->api->cfg.publisher, &m, &s->publication);

	if (r == 0)
		return 0;
	if (r == -EAGAIN)
		refuse_full(s);
	else
		api_reply_failure(s->api, s->request, r, "reach the queue");
	return r;
}

static int set_caller(struct submission *s)
{
	const char *traceparent = http_header(s->request, HTTP_TRACEPARENT);
	char own[TRACEPARENT_LEN + 1];

	s->spec->tenant = strdup(http_tenant(s->request));
	if (traceparent && !traceparent_read(traceparent, strlen(traceparent), NULL))
		traceparent = NULL; /* as good as none */
	s->traced = trace_begin(traceparent, &s->span, s->above);
	if (s->traced) {
		traceparent_write(&s->span, own);
		traceparent = own;
	}
	if (traceparent) {
		s->spec->traceparent = strdup(traceparent);
		if (!s->spec->traceparent)
			return -ENOMEM;
	}
	return s->spec->tenant ? 0 : -ENOMEM;
}

static int resolve(struct submission *s)
{
	const struct api_config *cfg = &s->api->cfg;
	const struct request_rules rules = {
		.languages = cfg->languages,
		.languages_known = !cfg->languages_known || cfg->languages_known(cfg->ctx),
		.run_defaults = &cfg->run_defaults,
		.run_ceilings = &cfg->run_ceilings,
		.compile_defaults = &cfg->compile_defaults,
		.compile_ceilings = &cfg->compile_ceilings,
		.now_us = store_now_us(s->api->cfg.store),
	};
	int r = s->code;

	if (!r)
		r = request_resolve(s->parsed, &rules, &s->spec, &s->problem);
	if (r < 0) {
		problem_reply(s->request, &s->problem);
		return r;
	}
	request_free(TAKE_PTR(s->parsed));
	r = set_caller(s);
	if (r < 0)
		api_reply_failure(s->api, s->request, r, "take the task");
	return r;
}

static void insert(struct submission *s)
{
	const struct buf *body = http_body(s->request);

	s->insert.req.done = on_inserted;
	s->insert.req.ctx = s;
	s->insert.spec = s->spec;
	s->insert.left = publication_is_left(s->publication);
	s->insert.idempotency_key = http_header(s->request, HTTP_IDEMPOTENCY_KEY);
	if (s->insert.idempotency_key) {
		int r = digest_bytes(body->data, body->len, s->insert.body_hash);

		if (r < 0) {
			give_back(s);
			api_reply_failure(s->api, s->request, r, "hash the body");
			submission_free(s);
			return;
		}
		s->insert.idempotency_expires_us =
			s->spec->created_us + s->api->cfg.idempotency_ttl_ms * 1000;
	}
	store_insert(s->api->cfg.store, &s->insert);
}

static void go_on(struct submission *s)
{
	if (resolve(s) < 0 || admit(s) < 0)
		submission_free(s);
	else
		insert(s);
}

static void read_body(uv_work_t *w)
{
	struct submission *s = w->data;
	const struct buf *body = http_body(s->request);

	s->code = request_read(body->data, body->len, &s->parsed, &s->problem);
}

static void on_read(uv_work_t *w, int status)
{
	(void)status; /* never cancelled */
	go_on(w->data);
}

static void read_request(struct submission *s)
{
	if (http_body(s->request)->len > READ_ASIDE_BYTES &&
	    uv_queue_work(s->api->loop, &s->reading, read_body, on_read) == 0)
		return;
	read_body(&s->reading);
	go_on(s);
}

static void on_quota(struct quota_request *r, int code)
{
	struct submission *s = r->ctx;

	if (code == 0) {
		read_request(s);
		return;
	}
	if (code == -EDQUOT)
		problem_reply(s->request, &r->problem);
	else
		api_reply_failure(s->api, s->request, code, "find out the tenant's limits");
	submission_free(s);
}

void submit_handle(struct http_request *r, void *ctx)
{
	const char *key = http_header(r, HTTP_IDEMPOTENCY_KEY);
	struct submission *s;
	int64_t wait_ms = 0;
	int waits = api_read_wait(r, &wait_ms), quota;

	if (waits < 0)
		return;
	if (key && !request_idempotency_key_valid(key)) {
		problem_send(r, PROBLEM_INVALID_HEADER,
			     "Idempotency-Key must have 1 to 255 visible ASCII characters");
		return;
	}
	if (wait_ms > 0 && !result_may_wait(ctx, r))
		return;
	s = calloc(1, sizeof *s);
	if (!s) {
		api_reply_failure(ctx, r, -ENOMEM, "take the task");
		return;
	}
	api_begin_operation(ctx);
	s->api = ctx;
	s->request = r;
	s->begun_us = store_now_us(s->api->cfg.store);
	s->waits = waits > 0;
	s->wait_ms = wait_ms;
	s->reading.data = s;
	s->quota = (struct quota_request){.tenant = http_tenant(r), .done = on_quota, .ctx = s};
	quota = quota_ask(s->api->quota, &s->quota);
	if (quota != -EINPROGRESS)
		on_quota(&s->quota, quota);
}
