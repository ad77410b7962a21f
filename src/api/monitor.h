/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The listener of a process that serves no API: /healthz, /readyz, /metrics and /pods for whoever
 * watches it, and nothing else. What it is given must live until it is closed.
 */

#include "base/buf.h"
#include "base/err.h"
#include "bus/bus.h"
#include "cache/cache.h"
#include "queue/queue.h"
#include "store/store.h"

#include <stdbool.h>
#include <uv.h>

struct monitor;

struct monitor_config {
	const char *listen; /* "127.0.0.1:9465"; port 0: any */
	struct store *store;
	struct queue *queue;
	struct cache *cache;
	struct bus *bus;
	/* Beside store and queue: appends what is missing to why. */
	bool (*ready)(void *ctx, struct buf *why);
	/* Writes pools and pods as JSON; a negative errno where there is nothing to tell. */
	int (*describe)(void *ctx, struct buf *json);
	void *ctx;
};

int monitor_new(uv_loop_t *loop, const struct monitor_config *cfg, struct monitor **ret_monitor,
		struct err *e);

/* "127.0.0.1:9465", with the port that was found. */
const char *monitor_address(const struct monitor *m);

/* Not ready from now on, for whoever sends work here. */
void monitor_set_closing(struct monitor *m);

void monitor_close(struct monitor *m, void (*closed)(void *ctx), void *ctx);
