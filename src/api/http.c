/* SPDX-License-Identifier: Apache-2.0 */
#include "api/http.h"

#include "api/http_private.h"
#include "base/clock.h"
#include "base/url.h"
#include "observe/metrics.h"

#include <stdlib.h>
#include <sys/socket.h>

enum {
	SILENCE_S = 30,
	SWEEP_MS = 1000,
	CLOSE_GRACE_US = 5 * 1000000,
	HEAD_MAX = 32 * 1024,
	BACKLOG = 1024,
	RUNS_PER_TURN = 8,
};

static void run(struct http_server *s);
static void finish_close(struct http_server *s);

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
			return; /* its first request is refused by http_on_request */
		c->server = s;
		c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)
				->connect_fd;
		c->deadline_us = clock_monotonic_us() + HTTP_PATIENCE_US;
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
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, http_on_request, s,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, s->cfg.connections_max,
		MHD_OPTION_PER_IP_CONNECTION_LIMIT, s->cfg.connections_per_address,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEAD_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)SILENCE_S, MHD_OPTION_URI_LOG_CALLBACK, http_on_target, s,
		MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
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
