/* SPDX-License-Identifier: Apache-2.0 */
#include "api/http_private.h"
#include "base/cleanup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* More than so many at a time are closed at once: lingering is a courtesy. */
enum { LINGERING_MAX = 128, LINGER_MS = 5000, LINGER_BYTES = 64 * 1024 * 1024 };

struct lingering {
	struct list link;
	struct http_linger *owner;
	int fd;
	size_t left;
	uv_poll_t poll;
	uv_timer_t timer;
	int handles;
};

struct http_linger {
	uv_loop_t *loop;
	struct list all;
	size_t n;
};

int http_linger_new(uv_loop_t *loop, struct http_linger **ret_linger)
{
	struct http_linger *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	l->loop = loop;
	list_init(&l->all);
	*ret_linger = l;
	return 0;
}

static void on_closed(uv_handle_t *h)
{
	struct lingering *g = h->data;

	if (--g->handles)
		return;
	cleanup_close(&g->fd);
	free(g);
}

static void end(struct lingering *g)
{
	if (!g->owner)
		return;
	list_unlink(&g->link);
	g->owner->n--;
	g->owner = NULL;
	uv_close((uv_handle_t *)&g->poll, on_closed);
	uv_close((uv_handle_t *)&g->timer, on_closed);
}

static void on_readable(uv_poll_t *h, int status, int events)
{
	struct lingering *g = h->data;
	char waste[64 * 1024];
	ssize_t n;

	(void)events;
	if (status < 0) {
		end(g);
		return;
	}
	n = recv(g->fd, waste, sizeof waste, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || (size_t)n > g->left) {
		end(g);
		return;
	}
	g->left -= (size_t)n;
}

static void on_time(uv_timer_t *h)
{
	end(h->data);
}

void http_linger_start(struct http_linger *l, int fd)
{
	AUTO_FREE struct lingering *g = NULL;
	AUTO_FD int copy = -EBADF;

	if (l->n >= LINGERING_MAX)
		return;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	g = calloc(1, sizeof *g);
	if (copy < 0 || !g || uv_poll_init(l->loop, &g->poll, copy) < 0)
		return;
	(void)shutdown(copy, SHUT_WR);
	(void)uv_timer_init(l->loop, &g->timer);
	g->poll.data = g->timer.data = g;
	g->handles = 2;
	g->left = LINGER_BYTES;
	g->fd = TAKE_FD(copy);
	g->owner = l;
	list_push_back(&l->all, &g->link);
	l->n++;
	(void)uv_poll_start(&g->poll, UV_READABLE, on_readable);
	(void)uv_timer_start(&g->timer, on_time, LINGER_MS, 0);
	(void)TAKE_PTR(g);
}

void http_linger_free(struct http_linger *l)
{
	struct lingering *g, *tmp;

	if (!l)
		return;
	LIST_FOREACH_SAFE (g, tmp, &l->all, link)
		end(g);
	free(l);
}
