/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/listener.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/url.h"
#include "wire/tcp.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	BACKLOG = 64,
	PER_TURN = 16, /* so that strangers cannot keep the loop from those who are known */
	PAUSE_MS =
		100, /* where descriptors have run out: waking up for the same one is of no use */
};

struct listener {
	uv_poll_t poll;
	uv_timer_t pause;
	int fd;
	int open_handles;
	void (*accepted)(void *ctx, int fd);
	void *ctx;
};

int listener_bind(const char *address, int *ret_fd, struct err *e)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int r = url_parse_listen(address, &addr, &len, e), one = 1;
	AUTO_FD int fd = -EBADF;

	if (r < 0)
		return r;
	fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
	    bind(fd, (struct sockaddr *)&addr, len) < 0)
		return err_errno(e, -errno, "could not listen on %s", address);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_pause(uv_timer_t *timer)
{
	struct listener *l = timer->data;

	(void)uv_poll_start(&l->poll, UV_READABLE, on_readable);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct listener *l = poll->data;

	(void)status;
	(void)events;
	for (int i = 0; i < PER_TURN; i++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			tcp_set_up(fd);
			l->accepted(l->ctx, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_warn("runner", "could not take a connection",
				 LOG_STR("reason", err_text(errno)));
			(void)uv_poll_stop(poll);
			(void)uv_timer_start(&l->pause, on_pause, PAUSE_MS, 0);
		}
		return; /* no more, or one that is gone already */
	}
}

static void on_closed(uv_handle_t *handle)
{
	struct listener *l = handle->data;

	if (--l->open_handles)
		return;
	(void)close(l->fd);
	free(l);
}

int listener_new_consume(uv_loop_t *loop, int fd, void (*accepted)(void *ctx, int fd), void *ctx,
			 struct listener **ret_listener, struct err *e)
{
	AUTO_FD int owned = fd;
	AUTO_FREE struct listener *l = calloc(1, sizeof *l);
	int r;

	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	if (listen(owned, BACKLOG) < 0)
		return err_errno(e, -errno, "could not listen");
	r = uv_poll_init(loop, &l->poll, owned);
	if (r < 0)
		return err_errno(e, r, "could not watch the listening socket");
	(void)uv_timer_init(loop, &l->pause);
	l->fd = TAKE_FD(owned);
	l->open_handles = 2;
	l->accepted = accepted;
	l->ctx = ctx;
	l->poll.data = l->pause.data = l;
	(void)uv_poll_start(&l->poll, UV_READABLE, on_readable);
	*ret_listener = TAKE_PTR(l);
	return 0;
}

void listener_free(struct listener *l)
{
	if (!l || uv_is_closing((uv_handle_t *)&l->poll))
		return;
	uv_close((uv_handle_t *)&l->poll, on_closed);
	uv_close((uv_handle_t *)&l->pause, on_closed);
}
