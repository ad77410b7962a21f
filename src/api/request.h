/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * From the body of POST /submit to a task. Two steps, so that the first, whose time grows with the
 * body, may be done on another thread: request_read looks at the bytes alone, request_resolve asks
 * the language registry and the ceilings. What is wrong comes back as a problem: 400 for what the
 * contract's schema rules out, 413 for too much, 422 for what no schema can tell: contents that do
 * not decode, names that clash, what this server does not have or allow.
 */

#include "api/problem.h"
#include "task/language.h"
#include "task/task.h"

#include <stddef.h>

/* What a body said, before the registry was asked. */
struct request;

int request_read(const char *body, size_t len, struct request **ret_request, struct problem *p);
void request_free(struct request *q);
DEFINE_CLEANUP(struct request, request_free);

struct request_rules {
	const struct language_registry *languages;
	bool languages_known; /* whether "installed" in the registry can be believed */
	const struct task_limits *run_defaults, *run_ceilings;
	const struct task_limits *compile_defaults, *compile_ceilings;
	int64_t now_us; /* wall clock */
};

/* Makes the task, with an id of its own; the tenant and the trace context are left to the caller.
 * What is large moves out of q. */
int request_resolve(struct request *q, const struct request_rules *rules,
		    struct task_spec **ret_spec, struct problem *p);

/* 1 to 255 visible ASCII characters. */
bool request_idempotency_key_valid(const char *text);
