/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The compilers that stay (resident.h): each for one tenant, one language and one set of limits,
 * for a bounded number of programs. A tenant gets one when it has had to do without twice within
 * RESIDENT_DEMAND_MS, also while all slots are busy: that is when it pays. There are as many of a
 * tenant as slots, within the room of the standbys, which make way. Where there is none, one that
 * has nothing to do, and is another tenant's or for other limits, makes way too.
 *
 * One ends when it has had its number of programs, had none in RESIDENT_IDLE_MS, or anything was
 * wrong with it.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "runner/box.h"
#include "runner/intake.h"
#include "runner/standby.h"
#include "runner/step.h"

#include <uv.h>

enum { RESIDENT_DEMAND_MS = 30 * 1000, RESIDENT_IDLE_MS = 2 * 60 * 1000 };

struct residents;
struct compiler;

struct residents_config {
	unsigned programs;   /* of each */
	unsigned max_tenant; /* how many a tenant has at most */
	int64_t idle_ms;     /* 0: RESIDENT_IDLE_MS */
	struct standby_pool *room;
};

/* loop, boxes and the pool of standbys outlive it. */
int residents_new(uv_loop_t *loop, struct box_pool *boxes, const struct residents_config *cfg,
		  struct residents **ret_residents, struct err *e);
void residents_free(struct residents *p); /* accepts NULL */
DEFINE_CLEANUP(struct residents, residents_free);

struct residents_wish {
	const struct standby_wish *wish;
	const char *tenant;
	char *const *args; /* the compiler's */
	size_t n_args;
	int archive; /* of the program's files */
	/* As a step tells its end (resident.h). */
	const struct step_ops *ops;
	void *ctx;
};

/* The compiler that has the program from now on, until "ended"; NULL where there is none for it, or
 * where more than sources would reach the compiler. The pool learns from the wish. */
struct compiler *residents_give(struct residents *p, const struct residents_wish *w);

/* Its program is not wanted any more: the compiler ends, and tells nothing. Accepts NULL. */
void residents_leave(struct compiler *c);

struct residents_view {
	const struct language *language;
	bool ready;
	bool placed; /* place is known: it has a box */
	struct box_place place;
};
void residents_each(const struct residents *p,
		    void (*each)(void *ctx, const struct residents_view *view), void *ctx);
