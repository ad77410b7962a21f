/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One program in one fresh box, from its descriptors to its end: a compile step, or one run. Ties a
 * box, the pipes that it writes to, and the feeding of its standard input together, and is over
 * when the box has ended and both pipes are read to their end.
 */

#include "base/err.h"
#include "runner/box.h"
#include "sandbox/protocol.h"
#include "task/task.h"

#include <stdbool.h>
#include <uv.h>

struct step;

enum { STEP_INPUTS_MAX = 2 };

struct step_spec {
	const char *const *argv;
	const char *const *envp;
	const char *const *collect;  /* NULL: nothing comes out */
	int inputs[STEP_INPUTS_MAX]; /* sealed archives for the work directory; as stdin_data */
	size_t n_inputs;
	const struct task_limits *limits; /* complete */
	const struct bytes *stdin_data;	  /* must live until step_free; NULL: /dev/null */
	bool merge_streams;		  /* stdout and stderr in one pipe, told as TASK_STDOUT */
	bool waits; /* for step_give: reads what it is to do, stdin_data and limits come then */
};

/* How it ended. With failed set there was no box, or it broke; the rest then says nothing. */
struct step_end {
	const char *failed;
	const struct sandbox_event_exited *exited;
	bool truncated[_TASK_STREAM_MAX];
	bool started;  /* the box has been given its task, as far as is known */
	bool standby;  /* the box was ready when the step wanted it */
	bool unused;   /* a step that waited ended before it had begun with what it was given */
	int collected; /* the memfd with what came out, or -EBADF; TAKE_FD takes it over */
};

struct step_ops {
	size_t (*room)(void *ctx);
	void (*chunk)(void *ctx, enum task_stream stream, const void *bytes, size_t len);
	/* The step is over and may be freed from here. Never called from within step_start. */
	void (*ended)(void *ctx, struct step_end *end);
	/* A step that waits is ready for step_give. */
	void (*ready)(void *ctx);
};

/* What a step that waits reads, and where it says that it does (one byte): descriptors inside,
 * above those that a program would have. Part of the contract in docs/LANGUAGES.md. */
enum { STEP_GIVEN_FD = 63, STEP_READY_FD = 62 };

/* For a step that waited; all but limits must live until step_free. */
struct step_gift {
	const struct step_ops *ops;
	void *ctx;
	const struct task_limits *limits;
	const struct bytes *stdin_data;
	const struct bytes *message;
};

/* What is in spec may go as soon as this returns, but for inputs and stdin_data. */
int step_start(uv_loop_t *loop, struct box_pool *boxes, const struct step_spec *spec,
	       const struct step_ops *ops, void *ctx, struct step **ret_step, struct err *e);

/* Gives a step that is ready its work: from now on it is the step of gift->ctx, and its times and
 * its output count from here. On failure it is as it was, and of no use any more. */
int step_give(struct step *s, const struct step_gift *gift, struct err *e);

/* Where it runs, as for box_place. */
bool step_place(const struct step *s, struct box_place *ret_place);

/* There is room for output again. */
void step_resume(struct step *s);

/* Ends it; "ended" follows, with SANDBOX_LIMIT_REQUESTED or with failed. */
void step_kill(struct step *s);

/* Kills what still runs; no callback follows. Accepts NULL. */
void step_free(struct step *s);

/* What the spawner enforces of a step's limits: all but the output. */
void step_sandbox_limits(const struct task_limits *l, struct sandbox_limits *ret_limits);
/* The same for the time in which there is no work yet. */
void step_waiting_limits(const struct task_limits *l, struct sandbox_limits *ret_limits);
