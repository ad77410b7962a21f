/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The boxes of one spawner: keeps some prepared before anybody asks, gives them out in the order of
 * asking, and prepares others in their place. A box is used once.
 *
 * A use is one start of one box. It is the caller's, lives from box_run to box_leave, and passes
 *
 *	WAITING -> RUNNING -> ENDED -> GONE		(box_leave is right in every state)
 *
 * with the callbacks of box_ops. Any of them may come from within box_run, except exited and gone;
 * any of them may call box_leave.
 */

#include "base/err.h"
#include "base/list.h"
#include "sandbox/client.h"

#include <stdbool.h>
#include <uv.h>

struct box_pool;
struct box;
struct box_use;

struct box_ops {
	/* The box has been given its task: the descriptors in it are not needed any more. */
	void (*started)(struct box_use *u);
	/* The limits of box_limit are in force; may be NULL for who never calls it. */
	void (*limited)(struct box_use *u);
	/* The task ended; the last words about the box are "gone". */
	void (*exited)(struct box_use *u, const struct sandbox_event_exited *x);
	/* Nothing is left of the box, so nothing holds its pipes. */
	void (*gone)(struct box_use *u);
	/* No box could be had, after some tries, or started; nothing follows. */
	void (*failed)(struct box_use *u, const char *message);
};

struct box_use {
	const struct box_ops *ops;
	struct sandbox_task task;   /* what it points to must live until started or failed */
	bool standby;		    /* the box was ready when it was asked for */
	bool has_started, limiting; /* the pool's */
	struct list link;	    /* of the pool: those that wait */
	struct box *box;
	unsigned failures; /* to prepare a box, while it waited */
};

struct box_pool_config {
	unsigned boxes;	   /* as the spawner was told */
	unsigned standbys; /* kept ready */
	struct sandbox_limits expected;
	/* The spawner is gone and every box with it; the uses hear "failed" after this. */
	void (*lost)(void *ctx, const char *message);
	void *ctx;
};

struct box_pool_stats {
	unsigned ready;
	unsigned waiting;
};

/* The client stays the caller's and must outlive the pool. */
int box_pool_new(uv_loop_t *loop, struct sandbox_client *client, const struct box_pool_config *cfg,
		 struct box_pool **ret_pool, struct err *e);
/* Stops at once; uses that are left get no callback. */
void box_pool_free(struct box_pool *p);
DEFINE_CLEANUP(struct box_pool, box_pool_free);

/* It prepares no more than are waited for. */
void box_pool_retire(struct box_pool *p);
/* No use is left. */
bool box_pool_is_unused(const struct box_pool *p);

void box_pool_stats(const struct box_pool *p, struct box_pool_stats *ret_stats);

/* Which box a use has, and the first process in it, as the host numbers it. False where it has none
 * (yet, or any more). */
struct box_place {
	unsigned box;
	uint32_t init_pid;
};
bool box_place(const struct box_pool *p, const struct box_use *u, struct box_place *ret_place);

/* Each box that waits to be started. */
void box_pool_each_ready(const struct box_pool *p,
			 void (*each)(void *ctx, const struct box_place *place), void *ctx);

/* Zero the use, then set ops and task. */
void box_run(struct box_pool *p, struct box_use *u);

/* Ends the task of a running box; reason comes back in exited. A use that waits fails. */
void box_kill(struct box_pool *p, struct box_use *u, enum sandbox_limit reason);

/* Other limits for a running box, whose clocks begin anew; "limited" follows unless it ends first.
 * Negative where the spawner cannot be told. */
int box_limit(struct box_pool *p, struct box_use *u, const struct sandbox_limits *limits,
	      struct err *e);

/* The use is over for its owner: a box that runs is killed, no callback follows. */
void box_leave(struct box_pool *p, struct box_use *u);
