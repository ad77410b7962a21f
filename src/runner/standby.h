/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Interpreters, and compilers, that stand by: a step's "standby" command, started before there is a
 * task, each in a sandbox of its own, booted and waiting for one program; after that program it
 * ends, and its sandbox with it. No user's code has run in one before, so any tenant may have any.
 *
 * What a standby was started with fits the task or it does not: limits are those of the language's
 * last tasks, so that a task which asks for others starts cold. How many there are follows what is
 * asked for, within a number and a budget of memory; they are started one after another, when a
 * slot is free, and end when their language was not asked for in STANDBY_IDLE_MS.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "runner/box.h"
#include "runner/intake.h"
#include "runner/step.h"
#include "task/language.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum {
	STANDBY_IDLE_MS = 10 * 60 * 1000,
	STANDBY_BOOT_MS = 20 * 1000, /* one that is not ready after this is given up */
	STANDBY_FILES_MAX = 64,	     /* a bigger program starts cold, where the sandbox */
	STANDBY_BYTES_MAX = 1 << 20, /* itself unpacks it, and says what does not fit */
};

struct standby_pool;

struct standby_config {
	unsigned max;	       /* of all languages together: boxes that are set aside for them */
	unsigned max_language; /* of one */
	uint64_t budget_bytes; /* by what languages say that one costs */
	int64_t idle_ms;       /* 0: STANDBY_IDLE_MS */
	/* Whether there is a slot that no task has. */
	bool (*idle)(void *ctx);
	void *ctx;
};

/* A step's wish: what a standby must fit. */
struct standby_wish {
	const struct language *language;
	const struct language_step *step; /* of the language: run, or compile */
	const char *setup;		  /* as for language_argv */
	const struct task_program *program;
	const struct task_limits *limits;
	size_t n_args; /* of a run; a compiler's are those of its command, and it takes any */
};

/* The others outlive it. */
int standby_pool_new(uv_loop_t *loop, struct box_pool *boxes, const struct standby_config *cfg,
		     struct standby_pool **ret_pool, struct err *e);
void standby_pool_free(struct standby_pool *p); /* accepts NULL */
DEFINE_CLEANUP(struct standby_pool, standby_pool_free);

/* One that is ready, for step_give; the caller's. NULL where none fits. In both cases the pool
 * learns from the wish. */
struct step *standby_take(struct standby_pool *p, const struct standby_wish *w);

/* Room for something else of the kind: counts in the numbers and the memory of the standbys, of
 * which those that nobody asked for longest make way. False where there is not enough. */
bool standby_reserve(struct standby_pool *p, uint64_t bytes);
void standby_give_back(struct standby_pool *p, uint64_t bytes);

/* A task has ended: now may be the time to start some. */
void standby_poke(struct standby_pool *p);

unsigned standby_ready(const struct standby_pool *p);

/* What those that wait or boot count for, by what languages say that one costs. */
uint64_t standby_bytes(const struct standby_pool *p);

/* One that waits, or boots: what it was started for, and where. */
struct standby_view {
	const struct language *language;
	bool compiles; /* for the compile step, not for runs */
	bool ready;
	bool placed; /* place is known: it has a box */
	struct box_place place;
};
void standby_each(const struct standby_pool *p,
		  void (*each)(void *ctx, const struct standby_view *view), void *ctx);

/* What a standby reads: number of arguments, then each; number of files, then of each name, mode
 * and content, of all archives (sealed, archive.h) in their order. Numbers and lengths are 32 bits,
 * big-endian. -E2BIG where that is more than a standby takes. */
int standby_message(char *const *args, size_t n_args, const int *archives, size_t n_archives,
		    struct bytes *ret_message);
