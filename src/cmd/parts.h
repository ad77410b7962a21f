/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Store, queue, cache, bus, and the publisher over them: what every role of a process uses, opened
 * from the configuration, and closed so that none outlives what it uses.
 */

#include "bus/bus.h"
#include "cache/cache.h"
#include "config/config.h"
#include "outbox/publisher.h"
#include "queue/queue.h"
#include "store/store.h"

enum { PARTS_WATCHED = 2 }; /* store and queue */

struct parts {
	const char *role; /* set before parts_open: what the log calls the process */
	struct store *store;
	struct queue *queue;
	struct cache *cache;
	struct bus *bus;
	struct publisher *publisher;
	uv_timer_t watch;
	bool watching;
	int seen[PARTS_WATCHED]; /* what each said last */
	void (*watch_closed)(void *ctx);
	size_t step; /* of closing */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* What was opened is there after a failure too: parts_close is to be called in any case. */
int parts_open(uv_loop_t *loop, const struct config *cfg, struct parts *p, struct err *e);

/* closed may come from in here where nothing was opened. */
void parts_close(struct parts *p, void (*closed)(void *ctx), void *ctx);
