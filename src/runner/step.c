/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/step.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "runner/feed.h"
#include "runner/output.h"
#include "runner/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	MAPPED_MAX = 5,
	WAIT_WALL_MS = 23 * 3600 * 1000, /* a sandbox cannot be told to wait for ever */
	BOOT_CPU_MS = 60 * 1000,
};

struct step {
	uv_loop_t *loop;
	struct box_pool *boxes;
	const struct step_ops *ops;
	void *ctx;
	struct box_use use;
	struct output *output;
	struct feed *feed;
	bool waits;	    /* nothing is given to it yet */
	bool begun;	    /* it has read what it was given, or said something since */
	bool unused;	    /* it ended before that */
	struct watch *sign; /* where a step that waits says that it is ready, and that it has read
			     * what it was given: a byte each */
	int stdin_fd, given_fd; /* to write to, of a step that waits */
	struct feed *given;	/* what it is to do, on its way */
	struct step_gift gift;
	struct sandbox_event_exited exited;
	bool has_exited, output_ended;
	bool starting;		  /* inside step_start: an end is told by its return value */
	char failed[ERR_MSG_MAX]; /* not empty: there was no box */
	/* What the box is given, ours until it has started. */
	int job_fd, collect_fd;
	int inputs[STEP_INPUTS_MAX];
	int map_fds[MAPPED_MAX];
	uint8_t map_targets[MAPPED_MAX];
};

static uint64_t positive(int64_t value)
{
	return value > 0 ? (uint64_t)value : 0;
}

void step_sandbox_limits(const struct task_limits *l, struct sandbox_limits *ret_limits)
{
	*ret_limits = (struct sandbox_limits){
		.cpu_usec = positive(l->cpu_ms) * 1000,
		.wall_usec = positive(l->wall_ms) * 1000,
		.memory_bytes = positive(l->memory_bytes),
		.disk_bytes = positive(l->disk_bytes),
		.file_bytes = positive(l->file_bytes),
		.stack_bytes = positive(l->stack_bytes),
		.processes = (uint32_t)positive(l->processes),
		.open_files = (uint32_t)positive(l->open_files),
	};
}

void step_waiting_limits(const struct task_limits *l, struct sandbox_limits *ret_limits)
{
	step_sandbox_limits(l, ret_limits);
	ret_limits->cpu_usec = BOOT_CPU_MS * UINT64_C(1000);
	ret_limits->wall_usec = WAIT_WALL_MS * UINT64_C(1000);
	ret_limits->waits = 1;
}

static void close_given(struct step *s)
{
	cleanup_close(&s->job_fd);
	for (size_t i = 0; i < MAPPED_MAX; i++)
		cleanup_close(&s->map_fds[i]);
}

static void step_ended(struct step *s)
{
	struct step_end end = {
		.failed = s->failed[0] ? s->failed : NULL,
		.exited = &s->exited,
		.started = s->use.has_started,
		.standby = s->use.standby || s->sign,
		.unused = s->unused,
		.collected = s->collect_fd,
	};

	for (int i = 0; i < _TASK_STREAM_MAX; i++)
		end.truncated[i] = output_truncated(s->output, (enum task_stream)i);
	s->collect_fd = -EBADF;
	s->ops->ended(s->ctx, &end);
	cleanup_close(&end.collected);
}

/* ---- from the box ---- */

/* Whether a step that waited has begun its work. The sign is taken as soon as it is there: a
 * program may be able to read it back, so as to be run once more. */
static bool has_begun(struct step *s)
{
	char byte;

	s->begun = s->begun || (!s->waits && read(s->sign->fd, &byte, 1) == 1);
	return s->begun;
}

static void on_started(struct box_use *u)
{
	close_given(container_of(u, struct step, use));
}

static void on_exited(struct box_use *u, const struct sandbox_event_exited *x)
{
	struct step *s = container_of(u, struct step, use);

	s->exited = *x;
	s->has_exited = true;
	s->unused = s->sign && !has_begun(s);
	if (s->output_ended || s->unused)
		step_ended(s);
}

static void on_gone(struct box_use *u)
{
	struct step *s = container_of(u, struct step, use);

	if (!s->output_ended)
		output_writers_gone(s->output);
}

static void on_failed(struct box_use *u, const char *message)
{
	struct step *s = container_of(u, struct step, use);

	(void)str_copy(s->failed, sizeof(s->failed), message[0] ? message : "no sandbox");
	close_given(s);
	if (!s->starting)
		step_ended(s);
}

/* From here on it is the task's time. */
static void on_limited(struct box_use *u)
{
	struct step *s = container_of(u, struct step, use);
	struct err e;

	if (feed_new_consume(s->loop, s->gift.stdin_data->data, s->gift.stdin_data->len,
			     TAKE_FD(s->stdin_fd), &s->feed, &e) < 0 ||
	    feed_new_consume(s->loop, s->gift.message->data, s->gift.message->len,
			     TAKE_FD(s->given_fd), &s->given, &e) < 0)
		on_failed(u, e.msg);
}

static const struct box_ops box_ops = {
	.started = on_started,
	.limited = on_limited,
	.exited = on_exited,
	.gone = on_gone,
	.failed = on_failed,
};

/* ---- from the pipes ---- */

static size_t on_room(void *ctx)
{
	struct step *s = ctx;

	return s->ops->room(s->ctx);
}

static void on_chunk(void *ctx, enum task_stream stream, const void *bytes, size_t len)
{
	struct step *s = ctx;

	s->begun = true;
	s->ops->chunk(s->ctx, stream, bytes, len);
}

static void on_passed(void *ctx, enum task_stream stream)
{
	struct step *s = ctx;

	(void)stream;
	box_kill(s->boxes, &s->use, SANDBOX_LIMIT_OUTPUT);
}

static void on_output_ended(void *ctx)
{
	struct step *s = ctx;

	s->output_ended = true;
	/* After a failure the pipes end as well, since their other ends were closed. */
	if (s->has_exited)
		step_ended(s);
}

static const struct output_ops output_ops = {
	.room = on_room,
	.chunk = on_chunk,
	.passed = on_passed,
	.ended = on_output_ended,
};

/* ---- waiting ---- */

/* The end of the pipe without a byte: it will never be ready, and its end is told by its box. */
static void on_sign(uv_poll_t *poll, int status, int events)
{
	struct watch *g = poll->data;
	struct step *s = g->owner;
	char byte;
	ssize_t n;

	(void)status;
	(void)events;
	if (!s->waits) {
		(void)has_begun(s);
		(void)uv_poll_stop(poll);
		return;
	}
	n = read(g->fd, &byte, 1);
	if (n < 0 && errno == EAGAIN)
		return;
	(void)uv_poll_stop(&g->poll);
	if (n == 1 && !s->has_exited)
		s->ops->ready(s->ctx);
	else if (!s->has_exited)
		step_kill(s);
}

static int map_pipe(struct step *s, uint8_t target, bool inside_reads, int *ret_fd, struct err *e)
{
	size_t i = s->use.task.map_count;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "could not create a pipe");
	/* Who can only open paths, as a JVM, opens /proc/self/fd/N, as another user. */
	if (target != 0)
		(void)fchmod(fds[0], 0666);
	s->map_fds[i] = fds[inside_reads ? 0 : 1];
	s->map_targets[i] = target;
	s->use.task.map_count++;
	*ret_fd = fds[inside_reads ? 1 : 0];
	return 0;
}

/* Standard input without a byte yet, what it is to do, and the sign that it waits for it. */
static int open_waiting(struct step *s, struct err *e)
{
	int sign, r = map_pipe(s, 0, true, &s->stdin_fd, e);

	if (r == 0)
		r = map_pipe(s, STEP_GIVEN_FD, true, &s->given_fd, e);
	if (r == 0)
		r = map_pipe(s, STEP_READY_FD, false, &sign, e);
	return r < 0 ? r : watch_new_consume(s->loop, sign, on_sign, s, &s->sign, e);
}

/* ---- start and end ---- */

static int open_streams(struct step *s, const struct step_spec *spec, struct err *e)
{
	struct sandbox_task *t = &s->use.task;
	int r = output_new(s->loop, spec->merge_streams, positive(spec->limits->output_bytes),
			   &output_ops, s, s->map_fds, &s->output, e);

	if (r < 0)
		return r;
	s->map_targets[0] = 1;
	s->map_targets[1] = 2;
	t->map_count = 2;
	if (spec->merge_streams) {
		s->map_fds[1] = fcntl(s->map_fds[0], F_DUPFD_CLOEXEC, 0);
		if (s->map_fds[1] < 0)
			return err_errno(e, -errno, "could not duplicate a pipe");
	}
	if (spec->stdin_data) {
		r = feed_new(s->loop, spec->stdin_data->data, spec->stdin_data->len, &s->map_fds[2],
			     &s->feed, e);
		if (r < 0)
			return r;
		s->map_targets[2] = 0;
		t->map_count = 3;
	}
	if (spec->waits) {
		r = open_waiting(s, e);
		if (r < 0)
			return r;
	}
	t->map_fds = s->map_fds;
	t->map_targets = s->map_targets;
	return 0;
}

static int write_job(struct step *s, const struct step_spec *spec, struct err *e)
{
	const struct job_spec job = {
		.argv = spec->argv, .envp = spec->envp, .collect = spec->collect};
	struct sandbox_task *t = &s->use.task;
	int r = job_write(&job, NULL, 0, &s->job_fd, e);

	if (r == 0 && spec->collect)
		r = archive_output_new(&s->collect_fd, e);
	if (r < 0)
		return r;
	t->job_fd = s->job_fd;
	t->output_fd = s->collect_fd;
	for (size_t i = 0; i < spec->n_inputs; i++)
		s->inputs[i] = spec->inputs[i];
	t->input_fds = s->inputs;
	t->input_count = spec->n_inputs;
	(spec->waits ? step_waiting_limits : step_sandbox_limits)(spec->limits, &t->limits);
	return 0;
}

static struct step *step_new(uv_loop_t *loop, struct box_pool *boxes, const struct step_ops *ops,
			     void *ctx)
{
	struct step *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->loop = loop;
	s->boxes = boxes;
	s->ops = ops;
	s->ctx = ctx;
	s->job_fd = s->collect_fd = s->stdin_fd = s->given_fd = -EBADF;
	for (size_t i = 0; i < MAPPED_MAX; i++)
		s->map_fds[i] = -EBADF;
	return s;
}

int step_start(uv_loop_t *loop, struct box_pool *boxes, const struct step_spec *spec,
	       const struct step_ops *ops, void *ctx, struct step **ret_step, struct err *e)
{
	struct step *s = step_new(loop, boxes, ops, ctx);
	int r;

	if (!s)
		return err_set(e, -ENOMEM, "could not allocate a step");
	s->use.ops = &box_ops;
	s->waits = spec->waits;
	s->starting = true;
	r = open_streams(s, spec, e);
	if (r == 0)
		r = write_job(s, spec, e);
	if (r == 0) {
		box_run(boxes, &s->use);
		if (s->failed[0])
			r = err_set(e, -EIO, "%s", s->failed);
	}
	if (r < 0) {
		step_free(s);
		return r;
	}
	s->starting = false;
	*ret_step = s;
	return 0;
}

int step_give(struct step *s, const struct step_gift *gift, struct err *e)
{
	struct sandbox_limits limits;
	int r;

	step_sandbox_limits(gift->limits, &limits);
	r = box_limit(s->boxes, &s->use, &limits, e);
	if (r < 0)
		return r;
	s->waits = false;
	(void)uv_poll_start(&s->sign->poll, UV_READABLE, on_sign);
	s->gift = *gift;
	s->ops = gift->ops;
	s->ctx = gift->ctx;
	output_set_max(s->output, positive(gift->limits->output_bytes));
	output_resume(s->output);
	return 0;
}

bool step_place(const struct step *s, struct box_place *ret_place)
{
	return box_place(s->boxes, &s->use, ret_place);
}

void step_resume(struct step *s)
{
	if (s->output && !s->output_ended)
		output_resume(s->output);
}

void step_kill(struct step *s)
{
	box_kill(s->boxes, &s->use, SANDBOX_LIMIT_REQUESTED);
}

void step_free(struct step *s)
{
	if (!s)
		return;
	box_leave(s->boxes, &s->use);
	watch_free(TAKE_PTR(s->sign));
	feed_free(s->feed);
	feed_free(s->given);
	cleanup_close(&s->stdin_fd);
	cleanup_close(&s->given_fd);
	output_free(s->output);
	close_given(s);
	cleanup_close(&s->collect_fd);
	free(s);
}
