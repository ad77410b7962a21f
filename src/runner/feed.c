/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/feed.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct feed {
	uv_poll_t poll;
	int fd; /* -EBADF when all is written or nobody reads */
	const char *next;
	size_t left;
};

/* Writes until the pipe is full (1), or all is written or the reader is gone (0). */
static int write_some(int fd, const char **next, size_t *left)
{
	while (*left > 0) {
		ssize_t n = write(fd, *next, *left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 1;
		if (n < 0)
			return 0;
		*next += n;
		*left -= (size_t)n;
	}
	return 0;
}

static void handle_closed(uv_handle_t *h)
{
	free(h->data);
}

static void feed_stop(struct feed *f)
{
	if (f->fd < 0)
		return;
	(void)uv_poll_stop(&f->poll);
	(void)close(TAKE_FD(f->fd));
}

static void writable(uv_poll_t *poll, int status, int events)
{
	struct feed *f = poll->data;

	(void)status;
	(void)events;
	if (write_some(f->fd, &f->next, &f->left) == 0)
		feed_stop(f);
}

static int feed_rest(uv_loop_t *loop, int *fd, const char *next, size_t left,
		     struct feed **ret_feed, struct err *e)
{
	struct feed *f = malloc(sizeof(*f));
	int r;

	if (!f)
		return err_set(e, -ENOMEM, "could not allocate a writer");
	r = uv_poll_init(loop, &f->poll, *fd);
	if (r < 0) {
		free(f);
		return err_errno(e, r, "could not watch a pipe");
	}
	f->fd = TAKE_FD(*fd);
	f->next = next;
	f->left = left;
	f->poll.data = f;
	(void)uv_poll_start(&f->poll, UV_WRITABLE, writable);
	*ret_feed = f;
	return 0;
}

int feed_new_consume(uv_loop_t *loop, const void *bytes, size_t len, int fd, struct feed **ret_feed,
		     struct err *e)
{
	AUTO_FD int writer = fd;
	const char *next = bytes;
	struct feed *f = NULL;
	int r = 0;

	/* Only this end: the flag of the other one would be the program's. */
	if (len > 0 && fcntl(writer, F_SETFL, O_NONBLOCK) < 0)
		return err_errno(e, -errno, "could not set up a pipe");
	if (write_some(writer, &next, &len) == 1)
		r = feed_rest(loop, &writer, next, len, &f, e);
	if (r == 0)
		*ret_feed = f;
	return r;
}

int feed_new(uv_loop_t *loop, const void *bytes, size_t len, int *ret_fd, struct feed **ret_feed,
	     struct err *e)
{
	AUTO_FD int reader = -EBADF;
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "could not create a pipe");
	reader = fds[0];
	r = feed_new_consume(loop, bytes, len, fds[1], ret_feed, e);
	if (r == 0)
		*ret_fd = TAKE_FD(reader);
	return r;
}

void feed_free(struct feed *f)
{
	if (!f)
		return;
	feed_stop(f);
	uv_close((uv_handle_t *)&f->poll, handle_closed);
}
