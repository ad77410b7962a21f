/* SPDX-License-Identifier: Apache-2.0 */
#include "api/http.h"

#include "api/http_private.h"
#include "api/problem.h"
#include "base/clock.h"
#include "base/str.h"
#include "base/url.h"
#include "observe/metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A client that is to send or to read has half a minute, and more at this rate for what is long.
 * The daemon's own time-out is of silence only: one byte now and then would hold it off for ever.
 */
enum {
	PATIENCE_US = 30 * 1000000,
	RATE_BYTES_PER_S = 16 * 1024,
	SILENCE_S = 30,
	SWEEP_MS = 1000,
	CLOSE_GRACE_US = 5 * 1000000,
	HEAD_MAX = 32 * 1024,
	BACKLOG = 1024,
	/* Bodies of refused requests are read and thrown away up to this, so that the connection
	 * stays of use; for longer ones it is closed after the reply. */
	DISCARD_MAX = 64 * 1024,
	/* A chunked body announces no size, and libmicrohttpd 0.9.75 cannot answer before its end:
	 * so many times the allowed size are thrown away before the connection is cut. */
	OVERRUN = 4,
	RUNS_PER_TURN = 8,
};

static void run(struct http_server *s);
static void finish_close(struct http_server *s);

static int64_t time_for(uint64_t bytes)
{
	return PATIENCE_US + (int64_t)(bytes * 1000000 / RATE_BYTES_PER_S);
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

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
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

/* Comes before on_request, which gets the path decoded. What it returns is the first con_cls. */
static void *on_target(void *cls, const char *text, struct MHD_Connection *connection)
{
	struct http_conn *c = conn_of_mhd(connection);

	(void)cls;
	if (c)
		http_target_read(&c->target, text);
	return NULL;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
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
	conn_of(r)->deadline_us = now + 2 * PATIENCE_US;
	if (s->closing)
		defer_call(s->defer, &s->run);
}

/* Whether the client has nothing more to say while it is its turn. libmicrohttpd 0.9.75 does not
 * always see an end that arrives together with data. */
static bool is_over(const struct http_conn *c)
{
	char byte;

	if (c->request.active && c->request.whole)
		return false;
	return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void on_sweep(uv_timer_t *t)
{
	struct http_server *s = t->data;
	int64_t now = clock_monotonic_us();
	struct http_conn *c;

	LIST_FOREACH (c, &s->conns, link) {
		if (!c->request.suspended && (now > c->deadline_us || is_over(c)))
			(void)shutdown(c->fd, SHUT_RDWR);
	}
	metric_set(METRIC_HTTP_CONNECTIONS, (double)s->n_conns);
	if (s->closing)
		defer_call(s->defer, &s->run);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http_server *s = cls;
	struct http_conn *c = *context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		c = calloc(1, sizeof *c);
		if (!c)
			return; /* its first request is refused by on_head */
		c->server = s;
		c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)
				->connect_fd;
		c->deadline_us = clock_monotonic_us() + PATIENCE_US;
		list_push_back(&s->conns, &c->link);
		if (!s->n_conns++)
			(void)uv_timer_start(&s->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
		*context = c;
		return;
	}
	if (!c)
		return;
	if (c->linger && s->linger)
		http_linger_start(s->linger, c->fd);
	/* A daemon that was full, or out of descriptors, listens again only when it is run once
	 * more. */
	if (s->defer)
		defer_call(s->defer, &s->run);
	list_unlink(&c->link);
	if (!--s->n_conns && !s->closing)
		(void)uv_timer_stop(&s->sweep);
	free(c);
	*context = NULL;
}

/* ---- the daemon in the loop ---- */

static void on_timer(uv_timer_t *t)
{
	run(t->data);
}

static void run(struct http_server *s)
{
	MHD_UNSIGNED_LONG_LONG ms = 0;
	bool timed = false;

	for (int i = 0; i < RUNS_PER_TURN; i++) {
		(void)MHD_run(s->daemon);
		timed = MHD_get_timeout(s->daemon, &ms) == MHD_YES;
		if (!timed || ms)
			break;
	}
	if (timed)
		(void)uv_timer_start(&s->timer, on_timer, ms, 0);
	else
		(void)uv_timer_stop(&s->timer);
}

static void on_poll(uv_poll_t *p, int status, int events)
{
	(void)status;
	(void)events;
	run(p->data);
}

static void on_deferred(struct deferred *d)
{
	struct http_server *s = container_of(d, struct http_server, run);

	if (!s->daemon)
		return;
	run(s);
	if (s->closing && !s->n_suspended &&
	    (!s->n_requests || clock_monotonic_us() > s->close_by_us))
		finish_close(s);
}

/* ---- opening and closing ---- */

static int listen_on(const char *text, struct sockaddr_storage *addr, struct err *e)
{
	AUTO_FD int fd = -EBADF;
	socklen_t len = 0;
	const int on = 1;
	int r;

	r = url_parse_listen(text, addr, &len, e);
	if (r < 0)
		return r;
	fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, -errno, "could not make a socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)addr, len) < 0 || listen(fd, BACKLOG) < 0 ||
	    getsockname(fd, (struct sockaddr *)addr, &len) < 0)
		return err_errno(e, -errno, "could not listen on %s", text);
	return TAKE_FD(fd);
}

static int start_daemon(struct http_server *s, struct err *e)
{
	const union MHD_DaemonInfo *info;
	AUTO_FD int fd = listen_on(s->cfg.listen, &s->address, e);

	if (fd < 0)
		return fd;
	s->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, s,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, s->cfg.connections_max,
		MHD_OPTION_PER_IP_CONNECTION_LIMIT, s->cfg.connections_per_address,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEAD_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)SILENCE_S, MHD_OPTION_URI_LOG_CALLBACK, on_target, s,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
		on_connection, s, MHD_OPTION_END);
	if (!s->daemon)
		return err_set(e, -ENOMEM, "could not start the HTTP server on %s", s->cfg.listen);
	(void)TAKE_FD(fd);
	info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info || uv_poll_init(s->loop, &s->poll, info->epoll_fd) < 0) {
		MHD_stop_daemon(TAKE_PTR(s->daemon));
		return err_set(e, -ENOMEM, "could not watch the HTTP server's sockets");
	}
	return 0;
}

int http_server_new(uv_loop_t *loop, const struct http_config *cfg, struct http_server **ret_server,
		    struct err *e)
{
	struct http_server *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return err_errno(e, -ENOMEM, "could not start the HTTP server");
	s->loop = loop;
	s->cfg = *cfg;
	list_init(&s->conns);
	list_init(&s->run.link);
	s->run.call = on_deferred;
	r = http_linger_new(loop, &s->linger);
	if (!r)
		r = defer_new(loop, &s->defer);
	r = r < 0 ? err_errno(e, r, "could not start the HTTP server") : start_daemon(s, e);
	if (r < 0) {
		if (s->defer)
			defer_close(s->defer);
		http_linger_free(s->linger);
		free(s);
		return r;
	}
	(void)uv_timer_init(loop, &s->timer);
	(void)uv_timer_init(loop, &s->sweep);
	s->poll.data = s->timer.data = s->sweep.data = s;
	(void)uv_poll_start(&s->poll, UV_READABLE, on_poll);
	run(s);
	*ret_server = s;
	return 0;
}

const struct sockaddr_storage *http_server_address(const struct http_server *s)
{
	return &s->address;
}

void http_server_get_stats(const struct http_server *s, struct http_stats *ret_stats)
{
	*ret_stats = (struct http_stats){
		.connections = s->n_conns,
		.requests = s->n_requests,
		.held_bytes = s->held[HTTP_BODIES] + s->held[HTTP_REPLIES],
	};
}

static void on_handle_closed(uv_handle_t *h)
{
	struct http_server *s = h->data;

	if (--s->handles)
		return;
	s->closed(s->closed_ctx);
	free(s);
}

/* No connection is suspended: libmicrohttpd would abort the process otherwise. */
static void finish_close(struct http_server *s)
{
	struct MHD_Daemon *daemon = TAKE_PTR(s->daemon);

	(void)uv_poll_stop(&s->poll);
	http_linger_free(TAKE_PTR(s->linger));
	MHD_stop_daemon(daemon);
	defer_cancel(&s->run);
	defer_close(TAKE_PTR(s->defer));
	s->handles = 3;
	uv_close((uv_handle_t *)&s->poll, on_handle_closed);
	uv_close((uv_handle_t *)&s->timer, on_handle_closed);
	uv_close((uv_handle_t *)&s->sweep, on_handle_closed);
}

void http_server_close(struct http_server *s, void (*closed)(void *ctx), void *ctx)
{
	int fd;

	s->closed = closed;
	s->closed_ctx = ctx;
	s->closing = true;
	s->close_by_us = clock_monotonic_us() + CLOSE_GRACE_US;
	fd = MHD_quiesce_daemon(s->daemon);
	cleanup_close(&fd);
	(void)uv_timer_start(&s->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	defer_call(s->defer, &s->run);
}
