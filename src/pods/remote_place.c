/* SPDX-License-Identifier: Apache-2.0 */

/* One runner that listens: from its name to a connection, again and again. */

#include "pods/remote-private.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "wire/tcp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	RETRY_MIN_MS = 50,
	RETRY_MAX_MS = 2000,
	RETRY_SOON_MS = 250, /* of what is known to be about to listen */
	STEADY_MS = 10000,
	CONNECT_MS = 5000,
};

static void connect_next(struct place *p);

static void on_poll_closed(uv_handle_t *handle)
{
	free(handle);
}

static void stop_poll(struct place *p)
{
	uv_poll_t *poll = TAKE_PTR(p->poll);

	if (poll)
		uv_close((uv_handle_t *)poll, on_poll_closed);
}

static void end_try(struct place *p)
{
	stop_poll(p);
	cleanup_close(&p->fd);
	p->fd = -EBADF;
	if (p->found)
		uv_freeaddrinfo(p->found);
	p->found = p->next = NULL;
}

static void on_place_closed(uv_handle_t *handle)
{
	struct place *p = handle->data;
	struct remote *r = p->remote;

	explicit_bzero(&p->psk, sizeof p->psk);
	free(p);
	remote_let_go(r);
}

void place_free(struct place *p)
{
	end_try(p);
	list_unlink(&p->link);
	uv_close((uv_handle_t *)&p->timer, on_place_closed);
}

static void try_now(struct place *p);

static void on_retry(uv_timer_t *timer)
{
	try_now(timer->data);
}

/* What is new is logged, not every try. */
void place_try_later(struct place *p, const struct err *e)
{
	end_try(p);
	p->state = PLACE_WAITING;
	if (p->removed || p->remote->closing) {
		struct remote *r = p->remote;

		place_free(p);
		remote_reload(&r->pods); /* its name may have waited for it to go */
		return;
	}
	if (!str_eq(p->error.msg, e->msg))
		LOG_AT(p->remote->by_hand ? LOG_DEBUG : LOG_WARN, "pods", "could not use a runner",
		       LOG_STR("pod", p->address.name), LOG_STR("host", p->address.host),
		       LOG_STR("port", p->address.port), LOG_STR("reason", e->msg));
	p->error = *e;
	(void)uv_timer_start(&p->timer, on_retry, backoff_next_ms(&p->backoff), 0);
}

static void on_steady(uv_timer_t *timer)
{
	struct place *p = timer->data;

	backoff_reset(&p->backoff);
	p->error.msg[0] = '\0';
}

static void hand_out(struct place *p)
{
	int fd = TAKE_FD(p->fd);

	stop_poll(p);
	end_try(p);
	tcp_set_up(fd);
	p->state = PLACE_CONNECTED;
	(void)uv_timer_start(&p->timer, on_steady, STEADY_MS, 0);
	p->remote->ops->connected(p->remote->ctx, p->address.name, fd, &p->psk);
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
	struct place *p = poll->data;
	int error = 0;
	socklen_t len = sizeof error;

	(void)events;
	if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	/* libuv says EBADF for any error of the socket, which says itself what it is. */
	if (!error && status < 0)
		error = -status;
	if (!error) {
		hand_out(p);
		return;
	}
	(void)err_errno(&p->tried, -error, "could not connect");
	connect_next(p);
}

static void on_connect_timeout(uv_timer_t *timer)
{
	struct place *p = timer->data;

	(void)err_set(&p->tried, -ETIMEDOUT, "could not connect: no answer in %d s",
		      CONNECT_MS / 1000);
	connect_next(p);
}

static int watch(struct place *p)
{
	uv_poll_t *poll = calloc(1, sizeof *poll);
	int r = poll ? uv_poll_init(p->remote->loop, poll, p->fd) : -ENOMEM;

	if (r < 0) {
		free(poll);
		return r;
	}
	poll->data = p;
	p->poll = poll;
	(void)uv_poll_start(poll, UV_WRITABLE, on_writable);
	(void)uv_timer_start(&p->timer, on_connect_timeout, CONNECT_MS, 0);
	return 0;
}

static int connect_to(struct place *p, const struct addrinfo *a)
{
	p->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->fd < 0)
		return -errno;
	if (connect(p->fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
		return -errno;
	return watch(p);
}

/* The last error of those that were tried is the one that is told. */
static void connect_next(struct place *p)
{
	stop_poll(p);
	cleanup_close(&p->fd);
	p->fd = -EBADF;
	while (p->next) {
		const struct addrinfo *a = p->next;
		int r;

		p->next = a->ai_next;
		r = connect_to(p, a);
		if (r == 0)
			return;
		(void)err_errno(&p->tried, r, "could not connect");
		cleanup_close(&p->fd);
		p->fd = -EBADF;
	}
	place_try_later(p, &p->tried);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
	struct place *p = req->data;
	struct err e = {""};

	remote_let_go(p->remote); /* never the last: the place is held */
	p->state = PLACE_CONNECTING;
	p->found = p->next = found;
	if (status < 0 || p->removed || p->remote->closing) {
		p->next = NULL;
		(void)err_set(&e, status, "could not find the address of \"%s\": %s",
			      p->address.host, status < 0 ? uv_strerror(status) : "not wanted");
		place_try_later(p, &e);
		return;
	}
	connect_next(p);
}

static void try_now(struct place *p)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
					      .ai_flags = AI_NUMERICSERV};
	struct err e = {""};
	int r;

	p->state = PLACE_RESOLVING;
	p->resolving.data = p;
	r = uv_getaddrinfo(p->remote->loop, &p->resolving, on_resolved, p->address.host,
			   p->address.port, &hints);
	if (r < 0) {
		(void)err_errno(&e, r, "could not look up \"%s\"", p->address.host);
		place_try_later(p, &e);
		return;
	}
	p->remote->open_handles++;
}

void place_start(struct place *p)
{
	backoff_init(&p->backoff, RETRY_MIN_MS, p->remote->by_hand ? RETRY_SOON_MS : RETRY_MAX_MS);
	(void)uv_timer_start(&p->timer, on_retry, 0, 0);
}
