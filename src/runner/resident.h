/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One compiler that stays: a step's "resident" command in a box of its own, which compiles one
 * program after the other. It runs none of them. What it reads and answers is in
 * docs/LANGUAGES.md; which there are, and for whom, is decided in residents.h.
 *
 *	BOOTING -> IDLE -> LIMITING -> BUSY -> RESTING -> IDLE ...	(ENDED from each)
 *
 * A program begins when the box has its limits, and so its clocks, and is over with the answer; the
 * box then has the limits of one that waits. Whatever goes wrong ends the compiler, and leaves the
 * program to a fresh one, which is the one to say what is wrong with it.
 */

#include "base/err.h"
#include "runner/box.h"
#include "runner/step.h"
#include "task/language.h"

#include <stdbool.h>
#include <uv.h>

struct resident;

struct resident_ops {
	void (*ready)(void *ctx); /* it has booted */
	void (*ended)(void *ctx); /* it is over, and to be freed from here */
};

struct resident_spec {
	const struct language *language;
	const char *setup; /* as for language_argv */
	const struct task_limits *limits;
};

/* A program. How it ends is told as a step tells it: chunk, then ended, where "unused" says that
 * nothing came of it here. ops and ctx must live until then. */
struct resident_work {
	const struct step_ops *ops;
	void *ctx;
	const struct task_limits *limits; /* must live as long */
	const struct bytes *message;	  /* of standby_message; copied */
};

int resident_start(uv_loop_t *loop, struct box_pool *boxes, const struct resident_spec *spec,
		   const struct resident_ops *ops, void *ctx, struct resident **ret_resident,
		   struct err *e);
/* Kills it. Nothing is told, also not of its program. Accepts NULL. */
void resident_free(struct resident *r);

/* It may be given a program. */
bool resident_is_free(const struct resident *r);
/* Where this fails it has been as if it was not called, but for the compiler, which may have
 * ended. */
int resident_give(struct resident *r, const struct resident_work *work);

bool resident_place(const struct resident *r, struct box_place *ret_place);
