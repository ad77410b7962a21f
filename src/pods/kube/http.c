/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/http.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/list.h"
#include "observe/metrics.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	CONNECTIONS_MAX = 32,
	CONNECT_MS = 5000,
	/* A connection that is dead without a word is found out after about 30 s. */
	KEEPALIVE_IDLE_S = 15,
	KEEPALIVE_EVERY_S = 5,
	REFUSAL_MAX = 64 * 1024, /* of the answer to a watch that is not granted */
};

struct kube_http {
	struct kube_access access;
	struct kube_token token;
	uv_loop_t *loop;
	uv_timer_t timer; /* when libcurl wants to be called */
	struct defer *defer;
	CURLM *multi;
	struct list requests;
	size_t open_handles;
	bool closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* A socket of libcurl's that the loop watches. */
struct watched {
	uv_poll_t poll;
	struct kube_http *http;
	curl_socket_t fd;
};

static void let_go(struct kube_http *h)
{
	void (*closed)(void *) = h->closed;
	void *ctx = h->closed_ctx;

	if (--h->open_handles)
		return;
	free(h);
	if (closed)
		closed(ctx);
}

/* ---- the end of a request ---- */

static void release(struct kube_request *r)
{
	if (r->easy) {
		(void)curl_multi_remove_handle(r->http->multi, r->easy);
		curl_easy_cleanup(r->easy);
	}
	curl_slist_free_all(r->headers);
	r->easy = NULL;
	r->headers = NULL;
	defer_cancel(&r->failed);
	list_unlink(&r->link);
	r->http = NULL;
}

static void count(const struct kube_request *r, int code)
{
	char status[16] = "none"; /* no answer */

	if (code == 0)
		(void)snprintf(status, sizeof status, "%d", r->status);
	metric_add(METRIC_KUBE_REQUESTS, 1, r->verb, status);
	if (!r->chunk)
		metric_observe(METRIC_KUBE_REQUEST_SECONDS,
			       (double)(clock_monotonic_us() - r->begun_us) / 1e6, r->verb);
}

/* The request may be gone after done, or be under way again; what was collected is freed here. */
static void finish(struct kube_request *r, int code)
{
	struct buf answer;

	count(r, code);
	if (code == 0 && r->status == 401)
		kube_token_refused(&r->http->token);
	release(r);
	answer = r->answer;
	r->done(r, code);
	buf_fini(&answer);
}

static int errno_of(CURLcode code)
{
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		return -ECONNREFUSED;
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return -ECONNRESET;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CONNECT_ERROR:
		return -EPROTO;
	default:
		return -EIO;
	}
}

static void complete(struct kube_request *r, CURLcode result)
{
	curl_off_t retry_after_s = 0;
	long status = 0;
	int code = r->code;

	(void)curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_easy_getinfo(r->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
	r->status = (int)status;
	if (retry_after_s > 0 && retry_after_s < INT32_MAX)
		r->retry_after_ms = retry_after_s * 1000;
	if (code == 0 && result != CURLE_OK)
		code = errno_of(result);
	if (code == -EMSGSIZE)
		(void)err_set(&r->error, code, "the answer of the API server is too long");
	else if (code < 0)
		(void)err_set(&r->error, code, "could not talk to the API server: %s",
			      *r->detail ? r->detail : curl_easy_strerror(result));
	finish(r, code);
}

/* libcurl may forget all of these with the next call: one at a time. */
static void reap(struct kube_http *h)
{
	CURLMsg *m;
	int left;

	while (!h->closing && (m = curl_multi_info_read(h->multi, &left))) {
		struct kube_request *r = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
		complete(r, m->data.result);
	}
}

/* ---- the loop ---- */

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct watched *w = poll->data;
	struct kube_http *h = w->http;
	int flags = 0, running;

	if (status < 0)
		flags = CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	(void)curl_multi_socket_action(h->multi, w->fd, flags, &running);
	reap(h);
}

static void on_watched_closed(uv_handle_t *handle)
{
	struct watched *w = handle->data;
	struct kube_http *h = w->http;

	free(w);
	let_go(h);
}

static struct watched *watch_socket(struct kube_http *h, curl_socket_t fd)
{
	struct watched *w = calloc(1, sizeof *w);

	if (!w || uv_poll_init_socket(h->loop, &w->poll, fd) < 0) {
		free(w);
		return NULL;
	}
	w->poll.data = w;
	w->http = h;
	w->fd = fd;
	h->open_handles++;
	(void)curl_multi_assign(h->multi, fd, w);
	return w;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
	struct watched *w = socket_ctx;
	int events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (w)
			uv_close((uv_handle_t *)&w->poll, on_watched_closed);
		(void)curl_multi_assign(((struct kube_http *)ctx)->multi, fd, NULL);
		return 0;
	}
	if (!w)
		w = watch_socket(ctx, fd);
	if (!w)
		return -1; /* the request fails */
	if (what & CURL_POLL_IN)
		events |= UV_READABLE;
	if (what & CURL_POLL_OUT)
		events |= UV_WRITABLE;
	(void)uv_poll_start(&w->poll, events, on_poll);
	return 0;
}

static void on_timer(uv_timer_t *timer)
{
	struct kube_http *h = timer->data;
	int running;

	(void)curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(h);
}

static int on_curl_timer(CURLM *multi, long ms, void *ctx)
{
	struct kube_http *h = ctx;

	(void)multi;
	if (ms < 0)
		(void)uv_timer_stop(&h->timer);
	else
		(void)uv_timer_start(&h->timer, on_timer, (uint64_t)ms, 0);
	return 0;
}

/* ---- a request ---- */

static size_t on_bytes(char *bytes, size_t size, size_t n, void *ctx)
{
	struct kube_request *r = ctx;
	long status = 0;

	n *= size;
	(void)curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
	if (r->chunk && status == 200)
		r->code = r->chunk(r, bytes, n);
	else
		r->code = buf_append(&r->answer, bytes, n);
	if (r->code == -ENOBUFS)
		r->code = -EMSGSIZE;
	return r->code < 0 ? 0 : n;
}

static int add_header(struct kube_request *r, const char *line)
{
	struct curl_slist *list = curl_slist_append(r->headers, line);

	if (!list)
		return -ENOMEM;
	r->headers = list;
	return 0;
}

static int add_headers(struct kube_request *r, struct err *e)
{
	struct kube_http *h = r->http;
	const char *token = NULL;
	char type[128];
	int code = kube_token_get(&h->token, h->access.token_file, r->begun_us / 1000, &token, e);

	if (code < 0)
		return code;
	(void)snprintf(type, sizeof type, "Content-Type: %s",
		       r->content_type ? r->content_type : "application/json");
	if (token)
		code = add_header(r, token);
	if (code == 0)
		code = add_header(r, "Accept: application/json");
	if (code == 0 && r->body)
		code = add_header(r, type);
	if (code == 0)
		code = add_header(r, "Expect:"); /* no round trip to ask whether a body may come */
	return code < 0 ? err_set(e, code, "out of memory") : 0;
}

static void set_up(struct kube_request *r)
{
	CURL *c = r->easy;

	(void)curl_easy_setopt(c, CURLOPT_PRIVATE, r);
	(void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(c, CURLOPT_PROXY, ""); /* none from the environment */
	(void)curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(c, CURLOPT_USERAGENT, "kiln/" KILN_VERSION);
	(void)curl_easy_setopt(c, CURLOPT_ERRORBUFFER, r->detail);
	(void)curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	(void)curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)r->timeout_ms);
	(void)curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(c, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_IDLE_S);
	(void)curl_easy_setopt(c, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_EVERY_S);
	(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_bytes);
	(void)curl_easy_setopt(c, CURLOPT_WRITEDATA, r);
	(void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, r->headers);
	if (*r->http->access.ca_file)
		(void)curl_easy_setopt(c, CURLOPT_CAINFO, r->http->access.ca_file);
	if (r->body) {
		(void)curl_easy_setopt(c, CURLOPT_POSTFIELDS, r->body);
		(void)curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
	}
	(void)curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, r->method);
}

static int begin(struct kube_request *r, struct err *e)
{
	AUTO_FREE char *url = NULL;
	int code = add_headers(r, e);

	if (code < 0)
		return code;
	r->easy = curl_easy_init();
	if (!r->easy || asprintf(&url, "%s%s", r->http->access.server, r->path) < 0) {
		url = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	set_up(r);
	if (curl_easy_setopt(r->easy, CURLOPT_URL, url) != CURLE_OK ||
	    curl_multi_add_handle(r->http->multi, r->easy) != CURLM_OK)
		return err_set(e, -ENOMEM, "could not begin a request to the API server");
	return 0;
}

static void on_failed(struct deferred *d)
{
	struct kube_request *r = container_of(d, struct kube_request, failed);

	finish(r, r->code);
}

void kube_http_send(struct kube_http *h, struct kube_request *r)
{
	assert(!h->closing && !r->http);
	r->http = h;
	r->begun_us = clock_monotonic_us();
	list_init(&r->link);
	list_init(&r->failed.link);
	r->failed.call = on_failed;
	list_push_back(&h->requests, &r->link);
	r->status = 0;
	r->retry_after_ms = 0;
	r->error.msg[0] = r->detail[0] = '\0';
	buf_init(&r->answer, r->chunk ? REFUSAL_MAX : r->answer_max);
	r->code = 0;
	r->code = begin(r, &r->error);
	if (r->code < 0)
		defer_call(h->defer, &r->failed);
}

void kube_http_cancel(struct kube_request *r)
{
	if (!r->http)
		return;
	release(r);
	buf_fini(&r->answer);
}

/* ---- life ---- */

static void on_timer_closed(uv_handle_t *handle)
{
	let_go(handle->data);
}

void kube_http_close(struct kube_http *h, void (*closed)(void *ctx), void *ctx)
{
	struct kube_request *r, *tmp;

	h->closing = true;
	h->closed = closed;
	h->closed_ctx = ctx;
	LIST_FOREACH_SAFE (r, tmp, &h->requests, link)
		kube_http_cancel(r);
	(void)curl_multi_cleanup(h->multi); /* its sockets are let go of from within */
	defer_close(h->defer);
	kube_token_fini(&h->token);
	uv_close((uv_handle_t *)&h->timer, on_timer_closed);
}

int kube_http_new(uv_loop_t *loop, const struct kube_access *access, struct kube_http **ret_http,
		  struct err *e)
{
	struct kube_http *h = calloc(1, sizeof *h);

	if (!h || defer_new(loop, &h->defer) < 0) {
		free(h);
		return err_set(e, -ENOMEM, "out of memory");
	}
	h->multi = curl_multi_init();
	if (!h->multi) {
		defer_close(h->defer);
		free(h);
		return err_set(e, -ENOMEM, "out of memory");
	}
	h->access = *access;
	h->loop = loop;
	list_init(&h->requests);
	(void)uv_timer_init(loop, &h->timer);
	h->timer.data = h;
	h->open_handles = 1;
	(void)curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	(void)curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	(void)curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
	(void)curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	(void)curl_multi_setopt(h->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)CONNECTIONS_MAX);
	*ret_http = h;
	return 0;
}
