/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/client.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "pods/kube/retry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CALL_MS = 10 * 1000, ANSWER_MAX = 1024 * 1024 };

struct kube_client {
	struct kube_http *http;
	char namespace[KUBE_NAME_MAX];
	struct kube_budget budget;
	struct list calls;
	uv_timer_t timer; /* until the next try of one of them */
	size_t open_handles;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static int64_t now_ms(void)
{
	return clock_monotonic_us() / 1000;
}

static void release(struct kube_call *c)
{
	list_unlink(&c->link);
	free(c->path);
	free(c->body);
	c->path = c->body = NULL;
	c->client = NULL;
}

/* ---- tries ---- */

static void set_timer(struct kube_client *k);

static void try_now(struct kube_call *c)
{
	c->tries++;
	c->retry_at_ms = 0;
	kube_http_send(c->client->http, &c->request);
}

static void on_timer(uv_timer_t *timer)
{
	struct kube_client *k = timer->data;
	int64_t now = now_ms();
	struct kube_call *c, *tmp;

	LIST_FOREACH_SAFE (c, tmp, &k->calls, link)
		if (c->retry_at_ms && c->retry_at_ms <= now)
			try_now(c);
	set_timer(k);
}

static void set_timer(struct kube_client *k)
{
	int64_t next = INT64_MAX, now = now_ms();
	struct kube_call *c;

	LIST_FOREACH (c, &k->calls, link)
		if (c->retry_at_ms && c->retry_at_ms < next)
			next = c->retry_at_ms;
	if (next == INT64_MAX)
		(void)uv_timer_stop(&k->timer);
	else
		(void)uv_timer_start(&k->timer, on_timer, next > now ? (uint64_t)(next - now) : 0,
				     0);
}

static void on_answer(struct kube_request *r, int code)
{
	struct kube_call *c = container_of(r, struct kube_call, request);
	struct kube_client *k = c->client;
	const struct kube_outcome outcome = {.code = code,
					     .status = r->status,
					     .retry_after_ms = r->retry_after_ms,
					     .tries = c->tries};
	int64_t wait_ms = kube_retry_ms(&outcome, &k->budget, arc4random_uniform(1000));

	if (wait_ms >= 0) {
		c->retry_at_ms = now_ms() + wait_ms;
		set_timer(k);
		return;
	}
	if (code == 0)
		code = kube_status_code(r->status, r->answer.data, r->answer.len, &r->error);
	if (code == 0)
		kube_budget_succeeded(&k->budget);
	release(c);
	c->done(c, code);
}

int kube_call(struct kube_client *k, struct kube_call *c, const char *path, const char *body)
{
	c->path = strdup(path);
	c->body = body ? strdup(body) : NULL;
	if (!c->path || (body && !c->body)) {
		free(c->path);
		free(c->body);
		c->path = c->body = NULL;
		return -ENOMEM;
	}
	c->client = k;
	c->tries = 0;
	c->request = (struct kube_request){
		.verb = c->verb,
		.method = c->method,
		.path = c->path,
		.body = c->body,
		.body_len = body ? strlen(body) : 0,
		.content_type = c->content_type,
		.timeout_ms = c->timeout_ms ? c->timeout_ms : CALL_MS,
		.answer_max = c->answer_max ? c->answer_max : ANSWER_MAX,
		.done = on_answer,
	};
	list_init(&c->link);
	list_push_back(&k->calls, &c->link);
	try_now(c);
	return 0;
}

void kube_call_cancel(struct kube_call *c)
{
	if (!c->client)
		return;
	kube_http_cancel(&c->request);
	release(c);
}

/* ---- life ---- */

struct kube_http *kube_client_http(struct kube_client *k)
{
	return k->http;
}

const char *kube_client_namespace(const struct kube_client *k)
{
	return k->namespace;
}

static void let_go(struct kube_client *k)
{
	void (*closed)(void *) = k->closed;
	void *ctx = k->closed_ctx;

	if (--k->open_handles)
		return;
	free(k);
	if (closed)
		closed(ctx);
}

static void on_http_closed(void *ctx)
{
	let_go(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
	let_go(handle->data);
}

void kube_client_close(struct kube_client *k, void (*closed)(void *ctx), void *ctx)
{
	struct kube_call *c, *tmp;

	k->closed = closed;
	k->closed_ctx = ctx;
	LIST_FOREACH_SAFE (c, tmp, &k->calls, link)
		kube_call_cancel(c);
	kube_http_close(TAKE_PTR(k->http), on_http_closed, k);
	uv_close((uv_handle_t *)&k->timer, on_timer_closed);
}

int kube_client_new(uv_loop_t *loop, const struct kube_access *access,
		    struct kube_client **ret_client, struct err *e)
{
	struct kube_client *k = calloc(1, sizeof *k);
	int r = k ? kube_http_new(loop, access, &k->http, e) : err_set(e, -ENOMEM, "out of memory");

	if (r < 0) {
		free(k);
		return r;
	}
	memcpy(k->namespace, access->namespace, sizeof k->namespace);
	kube_budget_init(&k->budget);
	list_init(&k->calls);
	(void)uv_timer_init(loop, &k->timer);
	k->timer.data = k;
	k->open_handles = 2;
	*ret_client = k;
	return 0;
}
