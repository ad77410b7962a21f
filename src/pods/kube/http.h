/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Requests to one API server, by libcurl on the caller's event loop. Connections are kept and used
 * again. HTTP/1.1 on purpose: over HTTP/2 all requests share one connection, and one that is dead
 * without having said so would stop the watches, the lease and every write together.
 *
 * A request is the caller's; it and what it points at live until done, which comes exactly once and
 * never from inside a verb. Nothing is tried again here: see client.h.
 */

#include "base/buf.h"
#include "base/err.h"
#include "loop/defer.h"
#include "pods/kube/access.h"

#include <uv.h>

struct kube_http;

struct kube_request {
	/* in */
	const char *verb;   /* for metrics: "list", "watch", "create" ...; static */
	const char *method; /* "GET", "POST", "PUT", "PATCH", "DELETE"; static */
	const char *path;   /* with what stands behind "?"; begins with a slash */
	const char *body;   /* NULL: none */
	size_t body_len;
	const char *content_type; /* NULL: JSON; static */
	int64_t timeout_ms;	  /* for all of it; what a watch asks for, and more */
	size_t answer_max;	  /* bytes; more is -EMSGSIZE */
	/* Of a watch, for what comes with status 200; a negative result ends the request with it.
	 * It must not send or cancel. NULL: it is all collected in answer. */
	int (*chunk)(struct kube_request *r, const char *bytes, size_t len);
	/* code: 0 where there is an answer, whatever it says; or a negative errno and no answer. */
	void (*done)(struct kube_request *r, int code);
	void *ctx;

	/* out; answer ends with done */
	int status;
	int64_t retry_after_ms; /* 0: the server named none */
	struct buf answer;
	struct err error;

	/* its own */
	struct kube_http *http; /* NULL: not under way */
	struct list link;
	void *easy;		    /* libcurl's */
	struct curl_slist *headers; /* libcurl's */
	struct deferred failed;	    /* could not even begin */
	int code;		    /* of what ended it from within */
	int64_t begun_us;
	char detail[256]; /* CURL_ERROR_SIZE */
};

int kube_http_new(uv_loop_t *loop, const struct kube_access *access, struct kube_http **ret_http,
		  struct err *e);

/* Requests that are under way end without a word. closed is called from the loop. */
void kube_http_close(struct kube_http *h, void (*closed)(void *ctx), void *ctx);

void kube_http_send(struct kube_http *h, struct kube_request *r);

/* No done comes. Nothing where it is not under way. */
void kube_http_cancel(struct kube_request *r);
