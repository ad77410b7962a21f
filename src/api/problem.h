/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the API answers when it does not do what was asked: application/problem+json (RFC 9457).
 * The kinds are one table (problem.c). "type" is the path-absolute reference /problems/CODE, which
 * the server itself answers with the description; "code" is its last part, for programs. Both are
 * stable; "title" and "detail" are for people.
 */

#include "api/http.h"
#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum problem_kind {
	PROBLEM_BAD_REQUEST,
	PROBLEM_INVALID_JSON,
	PROBLEM_INVALID_FIELD,
	PROBLEM_INVALID_PARAMETER,
	PROBLEM_INVALID_HEADER,
	PROBLEM_INVALID_TASK_ID,
	PROBLEM_UNAUTHORIZED,
	PROBLEM_FOREIGN_HOST,
	PROBLEM_FOREIGN_ORIGIN,
	PROBLEM_NOT_FOUND,
	PROBLEM_UNKNOWN_TASK,
	PROBLEM_METHOD_NOT_ALLOWED,
	PROBLEM_ALREADY_FINAL,
	PROBLEM_IDEMPOTENCY_CONFLICT,
	PROBLEM_BODY_TOO_LARGE,
	PROBLEM_TOO_MANY_ITEMS,
	PROBLEM_UNSUPPORTED_MEDIA_TYPE,
	PROBLEM_UNKNOWN_LANGUAGE,
	PROBLEM_LANGUAGE_NOT_INSTALLED,
	PROBLEM_INVALID_CONTENT,
	PROBLEM_ABOVE_CEILING,
	PROBLEM_UNKNOWN_ENTRY,
	PROBLEM_QUEUE_FULL,
	PROBLEM_QUOTA_EXCEEDED,
	PROBLEM_RATE_LIMITED,
	PROBLEM_INTERNAL_ERROR,
	PROBLEM_UNAVAILABLE,
	PROBLEM_NOT_READY,
	PROBLEM_TOO_MANY_WAITERS,
	PROBLEM_OVERLOADED,
	PROBLEM_SHUTTING_DOWN,
	_PROBLEM_MAX
};

enum { PROBLEM_NEAR_MAX = 5, PROBLEM_DETAIL_MAX = 512, PROBLEM_FIELD_MAX = 128 };

/* One refusal. Members that are empty, zero or NULL are not shown. */
struct problem {
	enum problem_kind kind;
	char detail[PROBLEM_DETAIL_MAX];
	char field[PROBLEM_FIELD_MAX];	    /* of the body, by its path */
	const char *near[PROBLEM_NEAR_MAX]; /* known names like the unknown one */
	char install[PROBLEM_FIELD_MAX];    /* command that would help */
	int64_t ceiling;		    /* what would have been allowed */
	int retry_after_s;
};

/* Sets kind and detail and clears the rest. Returns a negative errno for convenience. */
int problem_set(struct problem *p, enum problem_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

int problem_status(enum problem_kind kind);
void problem_write(const struct problem *p, struct buf *out);

void problem_reply(struct http_request *r, const struct problem *p);

/* Both in one, for the many places with nothing but a sentence. */
void problem_send(struct http_request *r, enum problem_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* GET /problems and /problems/{code} */
void problem_handle_list(struct http_request *r, void *ctx);
void problem_handle_get(struct http_request *r, void *ctx);
