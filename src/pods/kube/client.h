/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Calls to the API server: a request that is tried again as retry.h has it, and whose answer is
 * told by what the status means.
 *
 * A call is the caller's and lives until done, which comes exactly once and never from inside a
 * verb; path and body are copied.
 */

#include "pods/kube/http.h"

#include <stdbool.h>

struct kube_client;

struct kube_call {
	/* in */
	const char *verb, *method, *content_type; /* as of struct kube_request */
	size_t answer_max;			  /* 0: a small one */
	int64_t timeout_ms;			  /* of one try; 0: ten seconds */
	/* code: 0 with the answer's body in request.answer; else as of kube_status_code, or of the
	 * last try that had no answer, with the message in request.error. */
	void (*done)(struct kube_call *c, int code);
	void *ctx;

	/* out */
	unsigned tries; /* above 1: one of those before may have done what was asked for */

	/* its own */
	struct kube_request request;
	struct kube_client *client; /* NULL: not under way */
	char *path, *body;
	struct list link;
	int64_t retry_at_ms; /* monotonic; 0: being tried */
};

int kube_client_new(uv_loop_t *loop, const struct kube_access *access,
		    struct kube_client **ret_client, struct err *e);

/* Calls that are under way end without a word. closed is called from the loop. */
void kube_client_close(struct kube_client *k, void (*closed)(void *ctx), void *ctx);

/* For watches, which are not calls. */
struct kube_http *kube_client_http(struct kube_client *k);
const char *kube_client_namespace(const struct kube_client *k);

/* body may be NULL. -ENOMEM: it has not begun, and there will be no done. */
int kube_call(struct kube_client *k, struct kube_call *c, const char *path, const char *body);

/* No done comes. Nothing where it is not under way. */
void kube_call_cancel(struct kube_call *c);
