/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/step.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "runner/feed.h"
#include "runner/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { MAPPED_MAX = 3 };

struct step {
	uv_loop_t *loop;
	struct box_pool *boxes;
	const struct step_ops *ops;
	void *ctx;
	struct box_use use;
	struct output *output;
	struct feed *feed;
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
		.standby = s->use.standby,
		.collected = s->collect_fd,
	};

	for (int i = 0; i < _TASK_STREAM_MAX; i++)
		end.truncated[i] = output_truncated(s->output, (enum task_stream)i);
	s->collect_fd = -EBADF;
	s->ops->ended(s->ctx, &end);
	cleanup_close(&end.collected);
}

/* ---- from the box ---- */

static void on_started(struct box_use *u)
{
	close_given(container_of(u, struct step, use));
}

static void on_exited(struct box_use *u, const struct sandbox_event_exited *x)
{
	struct step *s = container_of(u, struct step, use);

	s->exited = *x;
	s->has_exited = true;
	if (s->output_ended)
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

static const struct box_ops box_ops = {
	.started = on_started,
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
	step_sandbox_limits(spec->limits, &t->limits);
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
	s->job_fd = s->collect_fd = -EBADF;
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
	feed_free(s->feed);
	output_free(s->output);
	close_given(s);
	cleanup_close(&s->collect_fd);
	free(s);
}
