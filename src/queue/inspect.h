/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A look into the queues at a broker, and its dead letters, for people. Blocks, for seconds at
 * most, on connections of its own: for command lines, not for servers.
 *
 * A message becomes a dead letter when no Kiln could read it, when it was delivered too often
 * without an answer, or when it waited for a week. The task's row is not touched by that.
 */

#include "queue/queue.h"

struct queue_inspector;

/* -EOPNOTSUPP where the queue is inside of its server, -EINVAL where the URL is wrong. */
int queue_inspector_new(const char *url, struct queue_inspector **ret_inspector, struct err *e);
void queue_inspector_free(struct queue_inspector *i);
DEFINE_CLEANUP(struct queue_inspector, queue_inspector_free);

struct queue_count {
	char name[256]; /* at the broker */
	bool exists;
	size_t ready;
	size_t consumers;
};

int queue_inspect_count(struct queue_inspector *i, const char *language, enum task_class class,
			struct queue_count *ret_count, struct err *e);

struct queue_dead_letter {
	bool readable;		      /* message holds something */
	struct queue_message message; /* without traceparent */
	char problem[128];	      /* of one that is not readable */
	char reason[32];	      /* "delivery_limit", "rejected", "expired"; "": unknown */
	char queue[256];	      /* where it was */
	int64_t died_us;	      /* wall clock; 0: unknown */
};

typedef void (*queue_dead_letter_cb)(void *ctx, const struct queue_dead_letter *letter);

/* Shows up to max of them, the oldest first; they stay where they are. */
int queue_inspect_dead(struct queue_inspector *i, size_t max, size_t *ret_total,
		       queue_dead_letter_cb show, void *ctx, struct err *e);

/* Drops the dead letters of these tasks. */
int queue_drop_dead(struct queue_inspector *i, const struct uuid *ids, size_t n,
		    size_t *ret_dropped, size_t *ret_left, struct err *e);

/* Puts all that can be read back into their queues, each one gone from the dead letters only when
 * it is safe there. What is left cannot be read. */
int queue_replay_dead(struct queue_inspector *i, size_t *ret_replayed, size_t *ret_left,
		      struct err *e);
