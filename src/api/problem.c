/* SPDX-License-Identifier: Apache-2.0 */
#include "api/problem.h"

#include "base/str.h"
#include "json/writer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

enum { PROBLEM_BODY_MAX = 16 * 1024 };

struct kind {
	int status;
	const char *code;
	const char *title;
	const char *description;
};

static const struct kind kinds[_PROBLEM_MAX] = {
	[PROBLEM_BAD_REQUEST] = {400, "bad-request", "The request is not well-formed HTTP",
				 "Headers contradict each other, are repeated, or are missing."},
	[PROBLEM_INVALID_JSON] = {400, "invalid-json", "The body is not JSON",
				  "The body must be one JSON document in UTF-8, without duplicate "
				  "names and without NUL characters."},
	[PROBLEM_INVALID_FIELD] = {400, "invalid-field", "A field of the body is not as it must be",
				   "A field is missing, unknown, of the wrong type, or out of its "
				   "range; \"field\" gives its path."},
	[PROBLEM_INVALID_PARAMETER] = {400, "invalid-parameter",
				       "A query parameter is not as it must be",
				       "A parameter is unknown to this call, repeated, or out of "
				       "its range."},
	[PROBLEM_INVALID_HEADER] = {400, "invalid-header", "A header is not as it must be",
				    "Idempotency-Key takes 1 to 255 visible ASCII characters."},
	[PROBLEM_INVALID_TASK_ID] = {400, "invalid-task-id", "The task id is not a UUID",
				     "Task ids look like 01890a5d-ac96-774b-bcce-b302099a8057."},
	[PROBLEM_UNAUTHORIZED] =
		{401, "unauthorized", "An API key is needed",
		 "Send \"Authorization: Bearer KEY\" with a key that is in force."},
	[PROBLEM_FOREIGN_HOST] = {403, "foreign-host", "The Host header names another server",
				  "A server on loopback answers to its own names only, so that web "
				  "pages cannot reach it through a name of theirs."},
	[PROBLEM_FOREIGN_ORIGIN] = {403, "foreign-origin", "Web pages of other sites are refused",
				    "A browser sent this request for a page of another origin."},
	[PROBLEM_NOT_FOUND] = {404, "not-found", "There is nothing at this path",
			       "GET / lists the paths."},
	[PROBLEM_UNKNOWN_TASK] = {404, "unknown-task", "There is no such task",
				  "The id was never given out, the task was removed after the "
				  "retention time, or it belongs to another tenant."},
	[PROBLEM_METHOD_NOT_ALLOWED] = {405, "method-not-allowed",
					"The path does not know this method",
					"The Allow header lists the methods."},
	[PROBLEM_ALREADY_FINAL] = {409, "already-final", "The task is final",
				   "A task that is final cannot be cancelled."},
	[PROBLEM_IDEMPOTENCY_CONFLICT] = {409, "idempotency-conflict",
					  "The idempotency key was used with another body",
					  "A key stands for one body; send the same body, or use "
					  "another key."},
	[PROBLEM_BODY_TOO_LARGE] = {413, "body-too-large", "The body is too large",
				    "\"ceiling\" is what would have been allowed."},
	[PROBLEM_TOO_MANY_ITEMS] = {413, "too-many-items", "There are too many files or arguments",
				    "\"ceiling\" is what would have been allowed."},
	[PROBLEM_UNSUPPORTED_MEDIA_TYPE] = {415, "unsupported-media-type",
					    "The body must be application/json",
					    "Send \"Content-Type: application/json\"."},
	[PROBLEM_UNKNOWN_LANGUAGE] = {422, "unknown-language", "The language is not known",
				      "GET /languages lists the languages; \"near\" lists names "
				      "like the one that was sent."},
	[PROBLEM_LANGUAGE_NOT_INSTALLED] =
		{422, "language-not-installed", "The language is known but not installed",
		 "No runner has its toolchain; \"install\" is the command "
		 "that gets it."},
	[PROBLEM_INVALID_CONTENT] = {422, "invalid-content",
				     "The fields are well-formed, but cannot be used",
				     "What a schema cannot tell: text that is not the base64 that "
				     "it is said to be, two files of one name, a name that is too "
				     "long in bytes."},
	[PROBLEM_ABOVE_CEILING] = {422, "above-ceiling", "A limit is above the server's ceiling",
				   "Limits are refused, never clipped; \"ceiling\" is what would "
				   "have been allowed."},
	[PROBLEM_UNKNOWN_ENTRY] = {422, "unknown-entry", "The entry names no file",
				   "Without \"code\", one of \"files\" must have the name in "
				   "\"entry\", or the language's own source file name."},
	[PROBLEM_QUEUE_FULL] =
		{429, "queue-full", "The queue is full",
		 "Nothing was stored; \"ceiling\" is how many may wait. Try again after "
		 "the time in Retry-After."},
	[PROBLEM_QUOTA_EXCEEDED] = {429, "quota-exceeded", "The tenant has too many tasks waiting",
				    "Nothing was stored; \"ceiling\" is how many may wait."},
	[PROBLEM_RATE_LIMITED] = {429, "rate-limited", "The tenant submits too fast",
				  "Nothing was stored; \"ceiling\" is how many a minute may come."},
	[PROBLEM_INTERNAL_ERROR] = {500, "internal-error", "The server failed",
				    "The log of the server says more."},
	[PROBLEM_UNAVAILABLE] = {503, "unavailable", "A part of the server is unavailable",
				 "Try again after the time in Retry-After."},
	[PROBLEM_NOT_READY] = {503, "not-ready", "The server cannot run tasks now",
			       "\"detail\" names what is missing."},
	[PROBLEM_TOO_MANY_WAITERS] = {503, "too-many-waiters", "Too many requests wait for results",
				      "Nothing was stored; ask without \"wait\", or try again."},
	[PROBLEM_OVERLOADED] = {503, "overloaded", "The server has no memory to spare",
				"Too much is being sent or read at this moment; try again."},
	[PROBLEM_SHUTTING_DOWN] = {503, "shutting-down", "The server is shutting down",
				   "Nothing was stored; another replica, or the next start, will "
				   "answer."},
};

int problem_status(enum problem_kind kind)
{
	return kinds[kind].status;
}

static void set(struct problem *p, enum problem_kind kind, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

static void set(struct problem *p, enum problem_kind kind, const char *fmt, va_list ap)
{
	*p = (struct problem){.kind = kind};
	(void)vsnprintf(p->detail, sizeof p->detail, fmt, ap);
}

int problem_set(struct problem *p, enum problem_kind kind, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(p, kind, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static void write_type(struct json_writer *w, const struct kind *k)
{
	char type[64];

	(void)snprintf(type, sizeof type, "/problems/%s", k->code);
	json_write_text_field(w, "type", type);
	json_write_text_field(w, "code", k->code);
	json_write_text_field(w, "title", k->title);
	json_write_int_field(w, "status", k->status);
}

void problem_write(const struct problem *p, struct buf *out)
{
	struct json_writer w;

	json_writer_init(&w, out);
	json_write_begin_object(&w);
	write_type(&w, &kinds[p->kind]);
	json_write_text_field(&w, "detail", p->detail);
	if (p->field[0])
		json_write_text_field(&w, "field", p->field);
	if (p->ceiling)
		json_write_int_field(&w, "ceiling", p->ceiling);
	if (p->near[0]) {
		json_write_name(&w, "near");
		json_write_begin_array(&w);
		for (size_t i = 0; i < PROBLEM_NEAR_MAX && p->near[i]; i++)
			json_write_text(&w, p->near[i]);
		json_write_end_array(&w);
	}
	if (p->install[0])
		json_write_text_field(&w, "install", p->install);
	json_write_end_object(&w);
	(void)buf_append_char(out, '\n');
}

void problem_reply(struct http_request *r, const struct problem *p)
{
	int status = kinds[p->kind].status;
	char seconds[16];
	struct buf body;

	buf_init(&body, PROBLEM_BODY_MAX);
	problem_write(p, &body);
	http_reply(r, status, "application/problem+json", &body);
	buf_fini(&body);
	if (status == 401)
		http_reply_header(r, "WWW-Authenticate", "Bearer realm=\"kiln\"");
	if (status == 429 || status == 503) {
		(void)snprintf(seconds, sizeof seconds, "%d",
			       p->retry_after_s > 0 ? p->retry_after_s : 1);
		http_reply_header(r, "Retry-After", seconds);
	}
}

void problem_send(struct http_request *r, enum problem_kind kind, const char *fmt, ...)
{
	struct problem p;
	va_list ap;

	va_start(ap, fmt);
	set(&p, kind, fmt, ap);
	va_end(ap);
	problem_reply(r, &p);
}

static void write_kind(struct json_writer *w, const struct kind *k)
{
	json_write_begin_object(w);
	write_type(w, k);
	json_write_text_field(w, "description", k->description);
	json_write_end_object(w);
}

void problem_handle_list(struct http_request *r, void *ctx)
{
	struct json_writer w;
	struct buf body;

	(void)ctx;
	buf_init(&body, PROBLEM_BODY_MAX);
	json_writer_init(&w, &body);
	json_write_begin_object(&w);
	json_write_name(&w, "problems");
	json_write_begin_array(&w);
	for (size_t i = 0; i < _PROBLEM_MAX; i++)
		write_kind(&w, &kinds[i]);
	json_write_end_array(&w);
	json_write_end_object(&w);
	http_reply(r, 200, "application/json", &body);
	buf_fini(&body);
}

void problem_handle_get(struct http_request *r, void *ctx)
{
	struct json_writer w;
	struct buf body;

	(void)ctx;
	for (size_t i = 0; i < _PROBLEM_MAX; i++) {
		if (!str_eq(http_path_arg(r), kinds[i].code))
			continue;
		buf_init(&body, PROBLEM_BODY_MAX);
		json_writer_init(&w, &body);
		write_kind(&w, &kinds[i]);
		http_reply(r, 200, "application/json", &body);
		buf_fini(&body);
		return;
	}
	problem_send(r, PROBLEM_NOT_FOUND, "there is no problem \"%s\"", http_path_arg(r));
}
