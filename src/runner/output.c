/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/output.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct stream {
	struct output *output;
	uv_poll_t poll;
	int fd;		/* -EBADF after the end */
	bool open;	/* the handle is not closed yet */
	bool held;	/* no room: not polled */
	bool truncated; /* bytes were thrown away */
	uint64_t left;	/* until the maximum */
};

struct output {
	const struct output_ops *ops; /* NULL once freed */
	void *ctx;
	struct stream streams[_TASK_STREAM_MAX];
	int n_streams;
	int handles; /* not closed by the loop yet */
	bool writers_gone;
	char scratch[OUTPUT_READ_MAX];
};

static void handle_closed(uv_handle_t *h)
{
	struct stream *s = h->data;
	struct output *o = s->output;

	if (--o->handles == 0 && !o->ops)
		free(o);
}

static void stream_close(struct stream *s)
{
	if (s->fd < 0)
		return;
	uv_close((uv_handle_t *)&s->poll, handle_closed);
	(void)close(TAKE_FD(s->fd));
}

static bool all_ended(const struct output *o)
{
	for (int i = 0; i < o->n_streams; i++) {
		if (o->streams[i].fd >= 0)
			return false;
	}
	return true;
}

static void stream_end(struct stream *s)
{
	struct output *o = s->output;

	stream_close(s);
	if (all_ended(o))
		o->ops->ended(o->ctx);
}

static void readable(uv_poll_t *poll, int status, int events);

static void stream_poll(struct stream *s)
{
	/* Fails only for a handle that is closing, which this one is not. */
	(void)uv_poll_start(&s->poll, UV_READABLE, readable);
}

/* Up to the room that the taker has, or anything where it is thrown away. 0: hold. */
static size_t stream_want(const struct stream *s)
{
	size_t want = sizeof(s->output->scratch);
	size_t room;

	if (s->left == 0)
		return want;
	room = s->output->ops->room(s->output->ctx);
	if (room < want)
		want = room;
	return s->left < want ? (size_t)s->left : want;
}

static void stream_took(struct stream *s, size_t n)
{
	struct output *o = s->output;
	enum task_stream which = (enum task_stream)(s - o->streams);

	if (s->left > 0) {
		s->left -= n;
		o->ops->chunk(o->ctx, which, o->scratch, n);
	} else if (!s->truncated) {
		s->truncated = true;
		o->ops->passed(o->ctx, which);
	}
}

/* One read, so that the streams take turns. Returns whether there may be more at once. */
static bool stream_read(struct stream *s)
{
	size_t want = stream_want(s);
	ssize_t n;

	if (want == 0) {
		s->held = true;
		(void)uv_poll_stop(&s->poll);
		return false;
	}
	do {
		n = read(s->fd, s->output->scratch, want);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN && !s->output->writers_gone)
		return false;
	if (n <= 0) {
		stream_end(s);
		return false;
	}
	stream_took(s, (size_t)n);
	return s->output->ops && s->fd >= 0;
}

static void readable(uv_poll_t *poll, int status, int events)
{
	struct stream *s = poll->data;

	(void)status;
	(void)events;
	/* The second read finds the end of a program that wrote once and is gone. */
	if (stream_read(s))
		(void)stream_read(s);
}

static int stream_open(struct output *o, uv_loop_t *loop, int i, int *ret_write_fd, struct err *e)
{
	struct stream *s = &o->streams[i];
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "could not create a pipe");
	r = uv_poll_init(loop, &s->poll, fds[0]);
	if (r < 0) {
		(void)close(fds[0]);
		(void)close(fds[1]);
		return err_errno(e, r, "could not watch a pipe");
	}
	s->fd = fds[0];
	s->poll.data = s;
	o->handles++;
	stream_poll(s);
	*ret_write_fd = fds[1];
	return 0;
}

int output_new(uv_loop_t *loop, bool merged, uint64_t max_bytes, const struct output_ops *ops,
	       void *ctx, int ret_fds[static _TASK_STREAM_MAX], struct output **ret_output,
	       struct err *e)
{
	struct output *o = malloc(sizeof(*o));
	int fds[_TASK_STREAM_MAX] = {-EBADF, -EBADF};

	if (!o)
		return err_set(e, -ENOMEM, "could not allocate a reader");
	o->ops = ops;
	o->ctx = ctx;
	o->n_streams = merged ? 1 : _TASK_STREAM_MAX;
	o->handles = 0;
	o->writers_gone = false;
	for (int i = 0; i < _TASK_STREAM_MAX; i++)
		o->streams[i] = (struct stream){.output = o, .fd = -EBADF, .left = max_bytes};
	for (int i = 0; i < o->n_streams; i++) {
		int r = stream_open(o, loop, i, &fds[i], e);

		if (r < 0) {
			for (int k = 0; k < i; k++)
				(void)close(fds[k]);
			output_free(o);
			return r;
		}
	}
	for (int i = 0; i < _TASK_STREAM_MAX; i++)
		ret_fds[i] = fds[i];
	*ret_output = o;
	return 0;
}

void output_set_max(struct output *o, uint64_t max_bytes)
{
	for (int i = 0; i < _TASK_STREAM_MAX; i++)
		o->streams[i].left = max_bytes;
}

void output_resume(struct output *o)
{
	for (int i = 0; i < o->n_streams; i++) {
		struct stream *s = &o->streams[i];

		if (s->fd < 0 || !s->held)
			continue;
		s->held = false;
		stream_poll(s);
	}
}

void output_writers_gone(struct output *o)
{
	o->writers_gone = true;
	/* A callback may free o: its memory stays until the loop has closed the handles. */
	for (int i = 0; i < o->n_streams; i++) {
		struct stream *s = &o->streams[i];

		while (o->ops && s->fd >= 0 && !s->held && stream_read(s))
			;
	}
}

bool output_truncated(const struct output *o, enum task_stream stream)
{
	return o->streams[stream].truncated;
}

void output_free(struct output *o)
{
	if (!o)
		return;
	o->ops = NULL;
	for (int i = 0; i < o->n_streams; i++)
		stream_close(&o->streams[i]);
	if (o->handles == 0)
		free(o);
}
