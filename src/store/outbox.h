/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The store's outbox, for a queue that may lose what it was given: tasks that became queued and are
 * not yet known to be in the queue. An insert, and whatever puts a task back to queued, notes it
 * in the same transaction. Whoever publishes one calls done when the queue has confirmed it; what
 * was left over is taken by a sweeper.
 *
 * All verbs are as those of store.h. -ENOTSUP where the store has no outbox (SQLite), or was opened
 * without.
 */

#include "store/store.h"

/* Gives the oldest of each stream (a tenant's tasks of one language and class) that were noted
 * before a time, and notes them anew, so that no other sweeper takes them until that time has
 * passed them again. Notes of tasks that are final meanwhile are removed. */
struct store_room {
	const char *tenant, *language;
	enum task_class class;
	size_t room;
};

struct store_outbox_take {
	struct store_req req;
	int64_t before_us;		/* in */
	int64_t now_us;			/* in */
	size_t limit;			/* in: 1 to STORE_SWEEP_MAX */
	size_t limit_each;		/* in: of one stream, 1 to STORE_SWEEP_MAX */
	const struct store_room *rooms; /* in: streams with another limit */
	size_t n_rooms;			/* in: at most STORE_SWEEP_MAX */
	struct store_ticket *tickets;	/* out: array of n, oldest first */
	size_t n;			/* out */
};
void store_outbox_take(struct store *s, struct store_outbox_take *r);

/* Unknown ids are passed over. */
struct store_outbox_done {
	struct store_req req;
	const struct uuid *ids; /* in */
	size_t n;		/* in: 1 to STORE_SWEEP_MAX */
};
void store_outbox_done(struct store *s, struct store_outbox_done *r);

/* Notes those of these tasks that are queued, as a sweeper's at once. */
struct store_outbox_put {
	struct store_req req;
	const struct uuid *ids; /* in */
	size_t n;		/* in: 1 to STORE_SWEEP_MAX */
	int64_t now_us;		/* in */
	size_t n_put;		/* out */
};
void store_outbox_put(struct store *s, struct store_outbox_put *r);

struct store_outbox_count {
	struct store_req req;
	size_t limit;	   /* in: counts no further */
	size_t n;	   /* out */
	int64_t oldest_us; /* out: when the oldest was made; 0: there is none */
};
void store_outbox_count(struct store *s, struct store_outbox_count *r);

/* Which of these tasks are queued or running. For stores with an outbox; else -ENOTSUP. */
struct store_live {
	struct store_req req;
	const struct uuid *ids;	      /* in */
	size_t n;		      /* in: 1 to STORE_SWEEP_MAX */
	struct store_ticket *tickets; /* out: array of n_live */
	size_t n_live;		      /* out */
};
void store_live(struct store *s, struct store_live *r);
