/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the resources of the API share. A resource is one file with a handler for each of its
 * routes (api.c lists them); work that outlasts a handler counts itself as an operation, so that
 * the API is not closed under it.
 */

#include "api/api.h"
#include "api/auth.h"
#include "api/health.h"
#include "api/http.h"
#include "api/problem.h"
#include "api/quota.h"
#include "base/map.h"

struct api {
	struct api_config cfg;
	uv_loop_t *loop;
	struct http_server *http;
	struct auth *auth;
	struct quota *quota;
	struct health health;
	char address[64];
	bool loopback;

	struct map waits; /* task id to struct wait_group, see result.c */
	size_t n_waiters;

	int64_t logged_us; /* monotonic: of the last failure in the log */
	size_t operations;
	bool closing, http_closed;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

void api_begin_operation(struct api *a);
void api_end_operation(struct api *a);

/* Answers for a store (or queue) that could not: 503 or 500, and one line in the log for those
 * that an operator must see, once a second at most. what: "read the task". */
void api_reply_failure(struct api *a, struct http_request *r, int code, const char *what);

/* Reads ?wait=: 1, or 0 where it is absent. Answers and returns negative where it is wrong. */
int api_read_wait(struct http_request *r, int64_t *ret_ms);

/* Reads the id at the end of the path, or answers and returns negative. */
int api_read_id(struct http_request *r, struct uuid *ret_id);

/* Answers with one task as an object. */
void api_reply_task(struct api *a, struct http_request *r, int status, const struct task *t);

/* Answers a submission that waited: 200 with the result; or 202 with the task as it is, or as it
 * was where the result is there and there is no room for it, so that the client asks for it later.
 */
void api_reply_submitted(struct api *a, struct http_request *r, const struct task *t);

/* With its id and status alone. */
void api_reply_brief(struct http_request *r, int status, const struct uuid *id,
		     enum task_state state);

/* Answers with the task once it is final, or with what it is when wait_ms are over: 200, or as
 * api_reply_submitted does. known, which is taken over and may be NULL, is answered
 * with where the store cannot be asked any more. Counts against waiters_max only what waits. */
struct result_query {
	struct uuid id;
	int64_t wait_ms;
	bool submitted;	 /* answers a submission */
	bool read_first; /* it may be final already */
	bool brief;	 /* answer with id and status alone */
};
void result_answer(struct api *a, struct http_request *r, const struct result_query *q,
		   struct task *known);

/* Whether one more may wait; answers with 503 where not. */
bool result_may_wait(struct api *a, struct http_request *r);

int result_start(struct api *a);
/* Answers all who wait with the present state. */
void result_stop(struct api *a);

/* Answers a request from a page of another site, or to another server's name, with 403. */
void guard_check(struct http_request *r, void *ctx);

void submit_handle(struct http_request *r, void *ctx);
void result_handle(struct http_request *r, void *ctx);
void tasks_handle_list(struct http_request *r, void *ctx);
void tasks_handle_cancel(struct http_request *r, void *ctx);
void languages_handle(struct http_request *r, void *ctx);
void health_handle_alive(struct http_request *r, void *ctx);
void health_handle_ready(struct http_request *r, void *ctx);
void health_handle_metrics(struct http_request *r, void *ctx);
void openapi_handle(struct http_request *r, void *ctx);
void index_handle(struct http_request *r, void *ctx);
