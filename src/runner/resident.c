/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/resident.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "runner/answer.h"
#include "runner/environment.h"
#include "runner/feed.h"
#include "runner/watch.h"
#include "sandbox/archive.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIPES = 2, READ_MAX = 64 * 1024 };

static const uint8_t pipe_targets[PIPES] = {STEP_READY_FD, STEP_GIVEN_FD};

enum resident_state {
	RESIDENT_BOOTING,
	RESIDENT_IDLE,
	RESIDENT_LIMITING,
	RESIDENT_BUSY,
	RESIDENT_RESTING,
	RESIDENT_ENDED,
	_RESIDENT_STATE_MAX
};

static const bool may_move[_RESIDENT_STATE_MAX][_RESIDENT_STATE_MAX] = {
	[RESIDENT_BOOTING] = {[RESIDENT_IDLE] = true, [RESIDENT_ENDED] = true},
	[RESIDENT_IDLE] = {[RESIDENT_LIMITING] = true, [RESIDENT_ENDED] = true},
	[RESIDENT_LIMITING] = {[RESIDENT_BUSY] = true, [RESIDENT_ENDED] = true},
	[RESIDENT_BUSY] = {[RESIDENT_RESTING] = true, [RESIDENT_ENDED] = true},
	[RESIDENT_RESTING] = {[RESIDENT_IDLE] = true, [RESIDENT_ENDED] = true},
};

struct resident {
	uv_loop_t *loop;
	struct box_pool *boxes;
	const struct resident_ops *ops;
	void *ctx;
	enum resident_state state;
	char *const *produces;
	struct task_limits boot_limits;
	struct box_use use;
	int job_fd, map_fds[PIPES]; /* what the box is given, ours until it has started */
	int given_fd;		    /* to write to */
	struct watch *channel;	    /* where it answers */
	struct buf answer;
	struct feed *feed;
	struct resident_work work; /* at hand; no ops: none */
	struct bytes frame;	   /* of it */
	int64_t began_us;
	bool starting; /* an end is told by resident_start */
};

static void resident_move(struct resident *r, enum resident_state to)
{
	assert(may_move[r->state][to]);
	r->state = to;
}

static void close_given(struct resident *r)
{
	cleanup_close(&r->job_fd);
	for (size_t i = 0; i < PIPES; i++)
		cleanup_close(&r->map_fds[i]);
}

/* ---- the end of a program ---- */

/* Leaves the compiler without a program. */
static struct resident_work take_work(struct resident *r)
{
	struct resident_work work = r->work;

	r->work = (struct resident_work){0};
	feed_free(TAKE_PTR(r->feed));
	bytes_fini(&r->frame);
	return work;
}

/* By a limit of time a program is over, as with any compiler; all else may be this one's fault. */
static bool is_verdict(enum resident_state state, const struct sandbox_event_exited *x)
{
	return state == RESIDENT_BUSY && x && x->outcome == SANDBOX_LIMITED &&
	       (x->limit == SANDBOX_LIMIT_CPU || x->limit == SANDBOX_LIMIT_WALL);
}

/* The compiler is over; x: how, where its box told it. */
static void resident_over(struct resident *r, const struct sandbox_event_exited *x)
{
	static const struct sandbox_event_exited nothing;
	const struct sandbox_event_exited exited = x ? *x : nothing;
	struct step_end end = {
		.exited = &exited,
		.standby = true,
		.unused = !is_verdict(r->state, x),
		.collected = -EBADF,
	};
	struct resident_work work = take_work(r);

	if (r->state == RESIDENT_ENDED)
		return;
	resident_move(r, RESIDENT_ENDED);
	if (r->starting)
		return;
	r->ops->ended(r->ctx);
	if (work.ops)
		work.ops->ended(work.ctx, &end);
}

static int limit_to_wait(struct resident *r)
{
	struct sandbox_limits limits;

	step_waiting_limits(&r->boot_limits, &limits);
	return box_limit(r->boxes, &r->use, &limits, NULL);
}

/* What it used is what it says, within what it may have used. */
static struct sandbox_event_exited exited_of(const struct resident *r, const struct answer *a)
{
	const uint64_t cpu_max = r->use.task.limits.cpu_usec;

	return (struct sandbox_event_exited){
		.outcome = SANDBOX_EXITED,
		.code = a->exit_code,
		.cpu_usec = a->cpu_usec < cpu_max ? a->cpu_usec : cpu_max,
		.wall_usec = (uint64_t)(clock_monotonic_us() - r->began_us),
		.memory_peak_bytes = -1,
	};
}

/* 0 with what it made, or -1: another compiler is to look at it. */
static int read_answer(struct resident *r, struct answer *a, int *ret_archive)
{
	if (answer_read(r->answer.data + ANSWER_HEAD, r->answer.len - ANSWER_HEAD, a) < 0 ||
	    (a->exit_code != 0 && a->exit_code != 1) ||
	    a->text_len > (uint64_t)r->work.limits->output_bytes)
		return -1;
	return a->exit_code == 0 ? answer_pack(a, r->produces, ret_archive, NULL) : 0;
}

static void on_answer(struct resident *r)
{
	struct sandbox_event_exited exited;
	struct step_end end = {.exited = &exited, .standby = true, .collected = -EBADF};
	struct resident_work work;
	struct answer a;
	struct buf text;

	if (read_answer(r, &a, &end.collected) < 0) {
		resident_over(r, NULL);
		return;
	}
	exited = exited_of(r, &a);
	work = take_work(r);
	text = r->answer; /* a is in it */
	buf_init(&r->answer, ANSWER_HEAD + ANSWER_MAX);
	resident_move(r, RESIDENT_RESTING);
	if (limit_to_wait(r) < 0)
		resident_over(r, NULL);
	if (a.text_len > 0)
		work.ops->chunk(work.ctx, TASK_STDOUT, a.text, a.text_len);
	work.ops->ended(work.ctx, &end);
	cleanup_close(&end.collected);
	buf_fini(&text);
}

/* ---- what it writes ---- */

static bool is_whole(const struct buf *b)
{
	return b->len >= ANSWER_HEAD && b->len - ANSWER_HEAD == answer_length(b->data);
}

static bool is_too_long(const struct buf *b)
{
	return b->len >= ANSWER_HEAD && (answer_length(b->data) > ANSWER_MAX ||
					 b->len - ANSWER_HEAD > answer_length(b->data));
}

static void on_bytes(struct resident *r, const char *bytes, size_t n)
{
	if (r->state == RESIDENT_BOOTING && n == 1) {
		resident_move(r, RESIDENT_IDLE);
		r->ops->ready(r->ctx);
		return;
	}
	if (r->state != RESIDENT_BUSY || buf_append(&r->answer, bytes, n) < 0 ||
	    is_too_long(&r->answer))
		resident_over(r, NULL);
	else if (is_whole(&r->answer))
		on_answer(r);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct watch *c = poll->data;
	struct resident *r = c->owner;
	char bytes[READ_MAX];
	ssize_t n = read(c->fd, bytes, sizeof(bytes));

	(void)status;
	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		on_bytes(r, bytes, (size_t)n);
		return;
	}
	/* It says no more: its box is told to end, and tells how it has. */
	(void)uv_poll_stop(poll);
	box_kill(r->boxes, &r->use, SANDBOX_LIMIT_REQUESTED);
}

/* ---- from the box ---- */

static void on_started(struct box_use *u)
{
	close_given(container_of(u, struct resident, use));
}

/* From here on it is the program's time. */
static void begin(struct resident *r)
{
	int writer = fcntl(r->given_fd, F_DUPFD_CLOEXEC, 0);

	resident_move(r, RESIDENT_BUSY);
	r->began_us = clock_monotonic_us();
	if (writer < 0 ||
	    feed_new_consume(r->loop, r->frame.data, r->frame.len, writer, &r->feed, NULL) < 0)
		resident_over(r, NULL);
}

static int limit_to_work(struct resident *r)
{
	struct sandbox_limits *limits = &r->use.task.limits;

	step_sandbox_limits(r->work.limits, limits);
	resident_move(r, RESIDENT_LIMITING);
	return box_limit(r->boxes, &r->use, limits, NULL);
}

static void on_limited(struct box_use *u)
{
	struct resident *r = container_of(u, struct resident, use);

	if (r->state == RESIDENT_LIMITING) {
		begin(r);
		return;
	}
	if (r->state != RESIDENT_RESTING)
		return;
	resident_move(r, RESIDENT_IDLE);
	if (r->work.ops && limit_to_work(r) < 0)
		resident_over(r, NULL);
}

static void on_exited(struct box_use *u, const struct sandbox_event_exited *x)
{
	resident_over(container_of(u, struct resident, use), x);
}

static void on_gone(struct box_use *u)
{
	(void)u;
}

static void on_failed(struct box_use *u, const char *message)
{
	(void)message;
	resident_over(container_of(u, struct resident, use), NULL);
}

static const struct box_ops box_ops = {
	.started = on_started,
	.limited = on_limited,
	.exited = on_exited,
	.gone = on_gone,
	.failed = on_failed,
};

/* ---- work ---- */

bool resident_is_free(const struct resident *r)
{
	return !r->work.ops && (r->state == RESIDENT_IDLE || r->state == RESIDENT_RESTING);
}

static int make_frame(const struct bytes *message, struct bytes *ret_frame)
{
	const size_t n = message->len;
	const uint8_t head[ANSWER_HEAD] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16),
					   (uint8_t)(n >> 8), (uint8_t)n};
	char *data = malloc(sizeof(head) + n);

	if (!data)
		return -ENOMEM;
	memcpy(data, head, sizeof(head));
	memcpy(data + sizeof(head), message->data, n);
	*ret_frame = (struct bytes){.data = data, .len = sizeof(head) + n};
	return 0;
}

int resident_give(struct resident *r, const struct resident_work *work)
{
	int code = make_frame(work->message, &r->frame);

	if (code < 0)
		return code;
	r->work = *work;
	if (r->state == RESIDENT_RESTING)
		return 0;
	code = limit_to_work(r);
	if (code < 0) {
		(void)take_work(r);
		resident_over(r, NULL);
	}
	return code;
}

bool resident_place(const struct resident *r, struct box_place *ret_place)
{
	return box_place(r->boxes, &r->use, ret_place);
}

/* ---- life cycle ---- */

static int open_pipes(struct resident *r, struct err *e)
{
	int ready[2], given[2];

	if (pipe2(ready, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "could not create a pipe");
	r->map_fds[0] = ready[1];
	if (pipe2(given, O_CLOEXEC) < 0) {
		(void)close(ready[0]);
		return err_errno(e, -errno, "could not create a pipe");
	}
	r->map_fds[1] = given[0];
	r->given_fd = given[1];
	/* A JVM opens them as /proc/self/fd/N, as another user. */
	(void)fchmod(given[0], 0666);
	(void)fchmod(ready[1], 0666);
	return watch_new_consume(r->loop, ready[0], on_readable, r, &r->channel, e);
}

static int write_job(struct resident *r, const struct resident_spec *spec, struct err *e)
{
	const struct language_step step = {.argv = spec->language->compile.resident.argv};
	const struct task_program program = {.entry = spec->language->source};
	const struct language_words words = {.memory_bytes = spec->limits->memory_bytes,
					     .setup = spec->setup};
	struct job_spec job = {0};
	char **argv = NULL, **envp = NULL;
	int code = environment_new(spec->language, &envp, e);

	if (code < 0)
		return code;
	code = language_argv(spec->language, &step, &program, &words, NULL, 0, &argv);
	job.argv = (const char *const *)argv;
	job.envp = (const char *const *)envp;
	code = code < 0 ? err_set(e, code, "could not make its command")
			: job_write(&job, NULL, 0, &r->job_fd, e);
	language_argv_free(argv);
	environment_free(envp);
	return code;
}

static void run_box(struct resident *r)
{
	struct sandbox_task *t = &r->use.task;

	r->use.ops = &box_ops;
	t->job_fd = r->job_fd;
	t->output_fd = -EBADF;
	t->map_fds = r->map_fds;
	t->map_targets = pipe_targets;
	t->map_count = PIPES;
	step_waiting_limits(&r->boot_limits, &t->limits);
	box_run(r->boxes, &r->use);
}

int resident_start(uv_loop_t *loop, struct box_pool *boxes, const struct resident_spec *spec,
		   const struct resident_ops *ops, void *ctx, struct resident **ret_resident,
		   struct err *e)
{
	struct resident *r = calloc(1, sizeof(*r));
	int code;

	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->loop = loop;
	r->boxes = boxes;
	r->ops = ops;
	r->ctx = ctx;
	r->produces = spec->language->compile.produces;
	r->boot_limits = *spec->limits;
	r->job_fd = r->given_fd = r->map_fds[0] = r->map_fds[1] = -EBADF;
	buf_init(&r->answer, ANSWER_HEAD + ANSWER_MAX);
	code = open_pipes(r, e);
	if (code == 0)
		code = write_job(r, spec, e);
	if (code == 0) {
		r->starting = true;
		run_box(r);
		r->starting = false;
		if (r->state == RESIDENT_ENDED)
			code = err_set(e, -EIO, "no sandbox could be had");
	}
	if (code < 0) {
		resident_free(r);
		return code;
	}
	*ret_resident = r;
	return 0;
}

void resident_free(struct resident *r)
{
	if (!r)
		return;
	box_leave(r->boxes, &r->use);
	watch_free(r->channel);
	(void)take_work(r);
	cleanup_close(&r->given_fd);
	close_given(r);
	buf_fini(&r->answer);
	free(r);
}
