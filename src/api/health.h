/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whether this process can do its work, for /readyz: of the API and of a monitor (monitor.h).
 * What it cannot do without makes it not ready, 503 with the part's name and the reason; what only
 * makes it slower is told in the body of a 200.
 */

#include "api/http.h"
#include "bus/bus.h"
#include "cache/cache.h"
#include "queue/queue.h"
#include "store/store.h"

struct health {
	struct store *store;
	struct queue *queue;
	struct cache *cache;
	struct bus *bus;
	bool needs_queue; /* else it is degraded without: what is submitted waits in the store */
	bool (*ready)(void *ctx, struct buf *why); /* what else is needed; NULL: nothing */
	void *ctx;
	bool closing;
	bool probing; /* the store; its answer ends before the HTTP server is closed */
};

void health_answer_alive(struct http_request *r);
void health_answer_ready(struct health *h, struct http_request *r);
void health_answer_metrics(struct http_request *r);
