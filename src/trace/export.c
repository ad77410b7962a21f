/* SPDX-License-Identifier: Apache-2.0 */
#include "trace/export.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/url.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
	PENDING_MAX_BYTES = 4 * 1024 * 1024,
	BODY_MAX_BYTES = PENDING_MAX_BYTES + 64 * 1024, /* with the resource around it */
	POST_AT_SPANS = 512,				/* at once; fewer wait for company */
	COMPANY_MS = 200,
	TRIES = 4,
	RETRY_MS = 1000,	  /* doubled each time */
	RETRY_MAX_MS = 30 * 1000, /* what a Retry-After is taken for at most */
	CONNECT_MS = 3000,
	POST_MS = 10 * 1000,
	LAST_POST_MS = 2000, /* at the end of the process */
};

static const char before[] = "{\"resourceSpans\":[{\"resource\":";
static const char between[] = ",\"scopeSpans\":[{\"scope\":{\"name\":\"kiln\"},\"spans\":[";
static const char behind[] = "]}]}]}";

struct export
{
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct buf pending; /* spans with commas between */
	size_t n_pending;
	bool stopping;
	_Atomic uint64_t exported, dropped;

	/* The thread's own. */
	CURL *curl;
	struct curl_slist *headers;
	char *url;
	char shown[URL_SHOWN_MAX]; /* of url: what may be logged */
	char *resource;
	bool failing;
};

/* ---- one post ---- */

static size_t ignore(char *data, size_t size, size_t n, void *ctx)
{
	(void)data;
	(void)ctx;
	return size * n;
}

static int write_body(struct export *x, const struct buf *spans, struct buf *body)
{
	(void)buf_append(body, before, sizeof before - 1);
	(void)buf_append_str(body, x->resource);
	(void)buf_append(body, between, sizeof between - 1);
	(void)buf_append(body, spans->data, spans->len);
	(void)buf_append(body, behind, sizeof behind - 1);
	return buf_error(body);
}

static bool is_stopping(struct export *x)
{
	bool stopping;

	(void)pthread_mutex_lock(&x->lock);
	stopping = x->stopping;
	(void)pthread_mutex_unlock(&x->lock);
	return stopping;
}

enum verdict { SENT, AGAIN, REFUSED };

/* Those that OTLP names as worth another try. */
static enum verdict verdict_of(CURLcode code, long status)
{
	if (code != CURLE_OK)
		return AGAIN;
	if (status >= 200 && status < 300)
		return SENT;
	return status == 429 || status == 502 || status == 503 || status == 504 ? AGAIN : REFUSED;
}

/* The first failure and the first success after it are logged, not each. */
static void note(struct export *x, enum verdict verdict, CURLcode code, long status)
{
	if (verdict == SENT && x->failing)
		log_info("trace", "the collector takes spans again", LOG_STR("url", x->shown));
	else if (verdict != SENT && !x->failing)
		log_warn("trace", "could not send spans; they are dropped where it lasts",
			 LOG_STR("url", x->shown), LOG_INT("status", status),
			 LOG_STR("reason", code ? curl_easy_strerror(code) : "refused"));
	x->failing = verdict != SENT;
}

static enum verdict post_once(struct export *x, const struct buf *body, int64_t *ret_retry_ms)
{
	curl_off_t retry_after_s = 0;
	enum verdict verdict;
	long status = 0;
	CURLcode code;

	(void)curl_easy_setopt(x->curl, CURLOPT_POSTFIELDS, body->data);
	(void)curl_easy_setopt(x->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
	(void)curl_easy_setopt(x->curl, CURLOPT_TIMEOUT_MS,
			       is_stopping(x) ? (long)LAST_POST_MS : (long)POST_MS);
	code = curl_easy_perform(x->curl);
	(void)curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_easy_getinfo(x->curl, CURLINFO_RETRY_AFTER, &retry_after_s);
	verdict = verdict_of(code, status);
	note(x, verdict, code, status);
	*ret_retry_ms = retry_after_s > RETRY_MAX_MS / 1000 ? RETRY_MAX_MS : retry_after_s * 1000;
	return verdict;
}

/* Waits for that long, or until the process ends; false then. */
static bool pause_for(struct export *x, int64_t ms)
{
	int64_t until_us = clock_monotonic_us() + ms * 1000;
	const struct timespec until = {.tv_sec = until_us / 1000000,
				       .tv_nsec = until_us % 1000000 * 1000};
	int r = 0;

	(void)pthread_mutex_lock(&x->lock);
	while (!x->stopping && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&x->wake, &x->lock, &until);
	(void)pthread_mutex_unlock(&x->lock);
	return r == ETIMEDOUT;
}

static void post(struct export *x, const struct buf *spans, size_t n)
{
	CLEANUP(buf_fini) struct buf body;
	enum verdict verdict = REFUSED;

	buf_init(&body, BODY_MAX_BYTES);
	if (write_body(x, spans, &body) == 0) {
		for (int i = 0; i < TRIES; i++) {
			int64_t asked_ms, ms = RETRY_MS << i;

			verdict = post_once(x, &body, &asked_ms);
			if (verdict != AGAIN || !pause_for(x, asked_ms > ms ? asked_ms : ms))
				break;
		}
	}
	atomic_fetch_add(verdict == SENT ? &x->exported : &x->dropped, n);
}

/* ---- the thread ---- */

/* Until there is enough, or something and no more time, or all is over; takes what is there. */
static bool take(struct export *x, struct buf *spans, size_t *ret_n)
{
	struct buf swap = *spans;
	bool wait_for_company;

	(void)pthread_mutex_lock(&x->lock);
	while (!x->n_pending && !x->stopping)
		(void)pthread_cond_wait(&x->wake, &x->lock);
	wait_for_company = x->n_pending < POST_AT_SPANS && !x->stopping;
	(void)pthread_mutex_unlock(&x->lock);
	if (wait_for_company)
		(void)pause_for(x, COMPANY_MS);
	(void)pthread_mutex_lock(&x->lock);
	*spans = x->pending;
	*ret_n = x->n_pending;
	x->pending = swap;
	x->n_pending = 0;
	(void)pthread_mutex_unlock(&x->lock);
	return *ret_n > 0;
}

static void *export_main(void *ctx)
{
	struct export *x = ctx;
	struct buf spans;
	size_t n;

	buf_init(&spans, PENDING_MAX_BYTES);
	while (take(x, &spans, &n)) {
		post(x, &spans, n);
		buf_clear(&spans);
	}
	buf_fini(&spans);
	return NULL;
}

bool export_put(struct export *x, const struct buf *span)
{
	bool first, room;

	(void)pthread_mutex_lock(&x->lock);
	first = !x->n_pending;
	room = x->pending.len + 1 + span->len <= x->pending.max &&
	       (first || buf_append_char(&x->pending, ',') == 0) &&
	       buf_append(&x->pending, span->data, span->len) == 0;
	x->n_pending += room;
	(void)pthread_mutex_unlock(&x->lock);
	if (!room)
		atomic_fetch_add(&x->dropped, 1);
	else if (first)
		(void)pthread_cond_signal(&x->wake);
	return room;
}

struct export_counts export_counts(struct export *x)
{
	return (struct export_counts){.exported = atomic_load(&x->exported),
				      .dropped = atomic_load(&x->dropped)};
}

/* ---- life ---- */

static void export_free(struct export *x)
{
	curl_easy_cleanup(x->curl);
	curl_slist_free_all(x->headers);
	free(x->url);
	free(x->resource);
	buf_fini(&x->pending);
	(void)pthread_cond_destroy(&x->wake);
	(void)pthread_mutex_destroy(&x->lock);
	free(x);
}

static int add_header(struct export *x, const char *line)
{
	struct curl_slist *list = curl_slist_append(x->headers, line);

	if (!list)
		return -ENOMEM;
	x->headers = list;
	return 0;
}

static int add_headers(struct export *x, char *const *lines, struct err *e)
{
	int r = add_header(x, "Content-Type: application/json");

	for (; r == 0 && lines && *lines; lines++) {
		const char *colon = strchr(*lines, ':');

		if (!colon || colon == *lines || strpbrk(*lines, "\r\n"))
			return err_set(e, -EINVAL,
				       "a header for the collector is not \"Name: value\"");
		r = add_header(x, *lines);
	}
	return r < 0 ? err_set(e, r, "out of memory") : 0;
}

static int make_url(struct export *x, const char *endpoint, struct err *e)
{
	size_t len = strlen(endpoint);

	(void)url_show(endpoint, x->shown, sizeof x->shown);
	if (strncmp(endpoint, "http://", 7) != 0 && strncmp(endpoint, "https://", 8) != 0)
		return err_set(e, -EINVAL,
			       "\"%s\" is no address of a collector, expected http://HOST:PORT or "
			       "https://HOST:PORT",
			       x->shown);
	while (len && endpoint[len - 1] == '/')
		len--;
	if (asprintf(&x->url, "%.*s/v1/traces", (int)len, endpoint) < 0) {
		x->url = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

static int make_curl(struct export *x, struct err *e)
{
	x->curl = curl_easy_init();
	if (!x->curl)
		return err_set(e, -ENOMEM, "out of memory");
	(void)curl_easy_setopt(x->curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(x->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(x->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	(void)curl_easy_setopt(x->curl, CURLOPT_WRITEFUNCTION, ignore);
	(void)curl_easy_setopt(x->curl, CURLOPT_HTTPHEADER, x->headers);
	if (curl_easy_setopt(x->curl, CURLOPT_URL, x->url) != CURLE_OK)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

static int init_locks(struct export *x, struct err *e)
{
	pthread_condattr_t attr;
	int r = pthread_condattr_init(&attr);

	if (r == 0)
		r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (r == 0)
		r = pthread_cond_init(&x->wake, &attr);
	if (r == 0)
		r = pthread_mutex_init(&x->lock, NULL);
	return r ? err_errno(e, -r, "could not make a lock") : 0;
}

int export_open(const char *endpoint, char *const *headers, const char *resource,
		struct export **ret_export, struct err *e)
{
	struct export *x = calloc(1, sizeof *x);
	int r = x ? init_locks(x, e) : err_set(e, -ENOMEM, "out of memory");

	if (r < 0) {
		free(x);
		return r;
	}
	buf_init(&x->pending, PENDING_MAX_BYTES);
	x->resource = strdup(resource);
	if (!x->resource)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = make_url(x, endpoint, e);
	if (r == 0)
		r = add_headers(x, headers, e);
	if (r == 0)
		r = make_curl(x, e);
	if (r == 0) {
		r = -pthread_create(&x->thread, NULL, export_main, x);
		if (r < 0)
			(void)err_errno(e, r, "could not start a thread");
	}
	if (r < 0) {
		export_free(x);
		return r;
	}
	*ret_export = x;
	return 0;
}

void export_close(struct export *x)
{
	(void)pthread_mutex_lock(&x->lock);
	x->stopping = true;
	(void)pthread_mutex_unlock(&x->lock);
	(void)pthread_cond_signal(&x->wake);
	(void)pthread_join(x->thread, NULL);
	export_free(x);
}
