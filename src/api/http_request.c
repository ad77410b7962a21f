/* SPDX-License-Identifier: Apache-2.0 */
#include "api/http_private.h"

#include "api/problem.h"
#include "base/clock.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <stdio.h>
#include <string.h>

enum {
	RATE_BYTES_PER_S = 16 * 1024, /* at which what is long is to be sent and read */
	/* Bodies of refused requests are read and thrown away up to this, so that the connection
	 * stays of use; for longer ones it is closed after the reply. */
	DISCARD_MAX = 64 * 1024,
	/* A chunked body announces no size, and libmicrohttpd 0.9.75 cannot answer before its end:
	 * so many times the allowed size are thrown away before the connection is cut. */
	OVERRUN = 4,
};

static int64_t time_for(uint64_t bytes)
{
	return HTTP_PATIENCE_US + (int64_t)(bytes * 1000000 / RATE_BYTES_PER_S);
}

static struct http_conn *conn_of(struct http_request *r)
{
	return container_of(r, struct http_conn, request);
}

/* ---- replies ---- */

static void resume(struct http_request *r)
{
	r->suspended = false;
	r->server->n_suspended--;
	conn_of(r)->deadline_us = clock_monotonic_us() + r->reply_time_us;
	MHD_resume_connection(r->connection);
	/* A resumed connection does not make the daemon's epoll descriptor readable. */
	defer_call(r->server->defer, &r->server->run);
}

static void reply(struct http_request *r, int status, const char *content_type, const void *bytes,
		  size_t len, enum MHD_ResponseMemoryMode mode)
{
	void *data = (void *)(uintptr_t)bytes; /* libmicrohttpd writes to none of it */

	r->response = MHD_create_response_from_buffer(len, data, mode);
	if (!r->response) {
		/* Out of memory: sending nothing closes the connection. */
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(data);
		status = 500;
	}
	r->status = status;
	r->reply_time_us = time_for(len);
	http_reply_header(r, "Content-Type", content_type);
	http_reply_header(r, "X-Content-Type-Options", "nosniff");
	http_reply_header(r, "Cache-Control", "no-store");
	if (r->server->closing)
		http_reply_last(r);
	if (r->suspended)
		resume(r);
}

void http_reply(struct http_request *r, int status, const char *content_type, struct buf *body)
{
	static const char broken[] =
		"{\"type\":\"/problems/internal-error\",\"code\":"
		"\"internal-error\",\"title\":\"The server failed\",\"status\":"
		"500,\"detail\":\"the reply could not be built\"}\n";
	size_t len = body->len;
	char *data;

	data = buf_error(body) ? NULL : buf_steal(body, &len);
	if (!data) {
		http_reply_static(r, 500, "application/problem+json", broken, sizeof broken - 1);
		return;
	}
	buf_fini(&r->body);
	if (!http_reply_fits(r, len)) {
		free(data);
		problem_send(r, PROBLEM_OVERLOADED, "%zu bytes of replies wait to be read",
			     r->server->held[HTTP_REPLIES]);
		return;
	}
	http_hold(r, HTTP_REPLIES, len);
	reply(r, status, content_type, data, len, MHD_RESPMEM_MUST_FREE);
}

bool http_reply_fits(struct http_request *r, size_t len)
{
	http_hold(r, HTTP_REPLIES, 0);
	return len <= HTTP_SMALL_MAX || http_make_room(r, len);
}

bool http_reply_reserve(struct http_request *r, size_t len)
{
	bool fits = http_reply_fits(r, len);

	if (fits)
		http_hold(r, HTTP_REPLIES, len);
	return fits;
}

void http_reply_static(struct http_request *r, int status, const char *content_type,
		       const void *bytes, size_t len)
{
	buf_fini(&r->body);
	http_hold(r, HTTP_REPLIES, 0);
	reply(r, status, content_type, bytes, len, MHD_RESPMEM_PERSISTENT);
}

void http_reply_header(struct http_request *r, const char *name, const char *value)
{
	if (r->response)
		(void)MHD_add_response_header(r->response, name, value);
}

void http_reply_last(struct http_request *r)
{
	if (!r->last)
		http_reply_header(r, "Connection", "close");
	r->last = true;
}

/* ---- the course of a request ---- */

const char *http_path_arg(const struct http_request *r)
{
	return r->path_arg;
}

const char *http_query(const struct http_request *r, const char *name)
{
	for (size_t i = 0; i < r->n_query; i++)
		if (str_eq(r->query[i].name, name))
			return r->query[i].value ? r->query[i].value : "";
	return NULL;
}

const char *http_header(const struct http_request *r, enum http_header h)
{
	return r->headers[h];
}

const struct buf *http_body(const struct http_request *r)
{
	return &r->body;
}

void http_set_tenant(struct http_request *r, const char *tenant)
{
	(void)str_copy(r->tenant, sizeof r->tenant, tenant);
	r->recognised = true;
}

const char *http_tenant(const struct http_request *r)
{
	return r->tenant;
}

void http_go_on(struct http_request *r)
{
	r->admitted = true;
	r->route->handle(r, r->server->cfg.ctx);
}

static struct http_conn *conn_of_mhd(struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static struct http_request *begin(struct http_conn *c, struct MHD_Connection *connection)
{
	struct http_server *s = c->server;
	struct http_request *r = &c->request;

	*r = (struct http_request){
		.server = s,
		.connection = connection,
		.path_arg = "",
		.tenant = "default",
		.active = true,
		.started_us = clock_monotonic_us(),
	};
	buf_init(&r->body, s->cfg.body_max_bytes);
	s->n_requests++;
	return r;
}

static enum MHD_Result send_reply(struct http_request *r)
{
	enum MHD_Result result;

	if (!r->response)
		return MHD_NO;
	r->replied_us = clock_monotonic_us();
	conn_of(r)->deadline_us = r->replied_us + r->reply_time_us;
	result = MHD_queue_response(r->connection, (unsigned)r->status, r->response);
	MHD_destroy_response(r->response);
	r->response = NULL;
	return result;
}

/* Whether a request that is refused by its head is answered before its body has come. */
static bool answer_at_once(const struct http_request *r)
{
	return r->last || r->length > DISCARD_MAX || (r->headers[HTTP_EXPECT] && r->length) ||
	       (r->headers[HTTP_EXPECT] && r->chunked);
}

static enum MHD_Result on_head(struct http_server *s, struct MHD_Connection *connection,
			       const char *url, const char *method, const char *version,
			       struct http_request **ret_request)
{
	struct http_conn *c = conn_of_mhd(connection);
	struct http_request *r;

	if (!c)
		return MHD_NO;
	r = begin(c, connection);
	*ret_request = r;
	c->deadline_us = r->started_us + time_for(r->length);
	if (s->closing)
		problem_send(r, PROBLEM_SHUTTING_DOWN, "the server is shutting down");
	else
		http_head_read(r, &c->target, url, method, version);
	if (!r->status || !answer_at_once(r))
		return MHD_YES;
	http_reply_last(r);
	c->linger = r->length || r->chunked;
	return send_reply(r);
}

static void refuse_long_body(struct http_request *r)
{
	size_t max = r->server->cfg.body_max_bytes;
	struct problem p;

	(void)problem_set(&p, PROBLEM_BODY_TOO_LARGE, "the body has more than %zu bytes", max);
	p.ceiling = (int64_t)max;
	problem_reply(r, &p);
}

static enum MHD_Result on_body(struct http_request *r, const char *bytes, size_t len)
{
	struct http_server *s = r->server;
	int error;

	r->received += len;
	conn_of(r)->deadline_us = r->started_us + time_for(r->received);
	if (r->status)
		return r->received / OVERRUN > s->cfg.body_max_bytes ? MHD_NO : MHD_YES;
	if (!http_make_room(r, len)) {
		problem_send(r, PROBLEM_OVERLOADED, "%zu bytes of requests are held",
			     s->held[HTTP_BODIES]);
		return MHD_YES;
	}
	error = r->length && !r->body.cap ? buf_reserve(&r->body, (size_t)r->length) : 0;
	if (!error)
		error = buf_append(&r->body, bytes, len);
	if (!error)
		http_hold(r, HTTP_BODIES, r->body.len);
	else if (error == -ENOBUFS)
		refuse_long_body(r);
	else
		problem_send(r, PROBLEM_OVERLOADED, "out of memory");
	return MHD_YES;
}

static enum MHD_Result on_whole(struct http_request *r)
{
	struct http_server *s = r->server;

	if (!r->whole) {
		r->whole = true;
		if (!r->status && r->admitted)
			r->route->handle(r, s->cfg.ctx);
		else if (!r->status)
			s->cfg.admit(r, s->cfg.ctx);
	}
	if (r->status)
		return send_reply(r);
	r->suspended = true;
	s->n_suspended++;
	MHD_suspend_connection(r->connection);
	return MHD_YES;
}

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *connection, const char *url,
				const char *method, const char *version, const char *upload,
				size_t *upload_size, void **con_cls)
{
	struct http_server *s = cls;
	struct http_request *r = *con_cls;
	enum MHD_Result result;

	if (!r) {
		result = on_head(s, connection, url, method, version, &r);
		*con_cls = r;
		return result;
	}
	if (*upload_size) {
		result = on_body(r, upload, *upload_size);
		*upload_size = 0;
		return result;
	}
	return on_whole(r);
}

void *http_on_target(void *cls, const char *text, struct MHD_Connection *connection)
{
	struct http_conn *c = conn_of_mhd(connection);

	(void)cls;
	if (c)
		http_target_read(&c->target, text);
	return NULL;
}

void http_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
		       enum MHD_RequestTerminationCode why)
{
	struct http_server *s = cls;
	struct http_request *r = *con_cls;
	char status[16];
	int64_t now;

	(void)connection;
	(void)why;
	*con_cls = NULL;
	if (!r || !r->active)
		return;
	r->active = false;
	now = clock_monotonic_us();
	/* 499: the client left before its request was whole. */
	(void)snprintf(status, sizeof status, "%d", r->status ? r->status : 499);
	metric_observe(METRIC_HTTP_REQUEST_SECONDS, (double)(now - r->started_us) / 1e6,
		       r->route ? r->route->pattern : "other", status);
	if (r->response)
		MHD_destroy_response(r->response);
	buf_fini(&r->body);
	http_hold(r, r->pool, 0);
	s->n_requests--;
	conn_of(r)->deadline_us = now + 2 * HTTP_PATIENCE_US;
	if (s->closing)
		defer_call(s->defer, &s->run);
}
