/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Reads of tasks with their results. These may be large, and are in memory until they are answered:
 * so only a few are under way at one time, and tenants take turns. Who asks for many large results
 * waits for them, and holds up neither the others nor what else the store is asked for.
 */

#include "base/list.h"
#include "store/store.h"

struct reads;

enum { READS_AT_ONCE = 4 };

/* The caller's, from reads_get to reads_end. */
struct read {
	struct store_get get;			/* in: id, tenant, parts; out: task */
	void (*done)(struct read *r, int code); /* in */
	void *ctx;				/* in */
	struct list link;
	struct reads *reads;
};

int reads_new(struct store *store, struct reads **ret_reads);
void reads_free(struct reads *r); /* accepts NULL; none is under way */

/* done comes later, once, from the loop, as that of store_get. */
void reads_get(struct reads *reads, struct read *r);

/* After done, when the task is not in memory any more: the next one may begin. */
void reads_end(struct read *r);
