/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a box writes: one pipe for each stream, or one for both where their order matters more than
 * their names (a compiler's messages). Read as it comes, handed on in chunks, never stored here.
 *
 * Each stream has a maximum; its head is handed on and what comes behind is read and thrown away,
 * so that the writer meets its death and not a full pipe. The taker says how much it has room for;
 * where it has none, the pipe is left full, and the program waits.
 */

#include "base/err.h"
#include "task/task.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum { OUTPUT_READ_MAX = 64 * 1024 };

struct output;

struct output_ops {
	/* Bytes that may be handed over now; after 0 nothing comes until output_resume. */
	size_t (*room)(void *ctx);
	/* At most room bytes, valid during the call. Merged streams come as TASK_STDOUT. */
	void (*chunk)(void *ctx, enum task_stream stream, const void *bytes, size_t len);
	/* The first time that a stream passes its maximum. */
	void (*passed)(void *ctx, enum task_stream stream);
	/* Every stream is at its end. */
	void (*ended)(void *ctx);
};

/* ret_fds are the ends to write to, the caller's to close; merged: only ret_fds[0], the other is
 * -EBADF. */
int output_new(uv_loop_t *loop, bool merged, uint64_t max_bytes, const struct output_ops *ops,
	       void *ctx, int ret_fds[static _TASK_STREAM_MAX], struct output **ret_output,
	       struct err *e);

/* Another maximum for each stream, before anything was handed on. */
void output_set_max(struct output *o, uint64_t max_bytes);

/* There is room again. */
void output_resume(struct output *o);

/* No process is left that could write: what is in the pipes is all. */
void output_writers_gone(struct output *o);

bool output_truncated(const struct output *o, enum task_stream stream);

/* Stops at once; no callback comes after it. May be called from a callback; accepts NULL. */
void output_free(struct output *o);
