/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A thread of its own behind an event loop, for libraries that block (SQLite, librabbitmq). The
 * loop hands it requests; the thread takes everything that waits as one batch, in order, and hands
 * the batch back; the loop is woken once per batch. That is also what makes a group commit: what
 * arrives while one batch is on its way shares the next.
 *
 * A request is a struct work inside the caller's own structure, which must live until it comes
 * back. Requests come back in the order in which they were handed over.
 */

#include "base/err.h"
#include "base/list.h"

#include <stdbool.h>
#include <uv.h>

struct worker;

struct work {
	struct list link;
};

struct worker_ops {
	/* On the thread: once, before the first batch; a failure is returned by worker_new. */
	int (*start)(void *ctx, struct err *e);
	/* On the thread: the list of struct work; all of it counts as handled on return. */
	void (*batch)(void *ctx, struct list *batch);
	/* On the thread, when the worker ends. */
	void (*stop)(void *ctx);
	/* On the loop, once for each request of a finished batch; the request is the caller's. */
	void (*done)(void *ctx, struct work *w);
	/* On the thread, when nothing was handed over for idle_ms (0: never); may be NULL. */
	void (*idle)(void *ctx);
	int idle_ms;
};

/* Starts the thread and waits until its start function returned. ctx is not owned. */
int worker_new(uv_loop_t *loop, const char *name, const struct worker_ops *ops, void *ctx,
	       struct worker **ret_worker, struct err *e);

void worker_submit(struct worker *w, struct work *work);

/* Requests handed over and not yet back. */
size_t worker_pending(const struct worker *w);

/* Finishes what was handed over (its done functions are called from here), ends the thread, and
 * closes the loop handle; freed is called from the loop when nothing of the worker is left. */
void worker_close(struct worker *w, void (*freed)(void *ctx));
