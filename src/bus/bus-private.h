/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Between bus.c, which keeps the subscribers and calls them, and the implementations, which carry
 * messages. A new one is one struct bus_ops and one row in bus.c.
 */

#include "bus/bus.h"
#include "loop/defer.h"

enum { BUS_SUBSCRIBERS_MAX = 8 };

struct bus_ops {
	const char *scheme;
	int (*open)(uv_loop_t *loop, const char *url, struct bus **ret_bus, struct err *e);
	/* After it, nothing is delivered. */
	void (*close)(struct bus *b);
	/* Ends with bus_deliver in every other process. */
	void (*publish)(struct bus *b, enum bus_topic topic, const struct uuid *id,
			const void *payload, size_t len);
	bool (*is_up)(const struct bus *b, struct buf *why); /* NULL: always */
};

struct bus_subscriber {
	bus_cb cb; /* NULL: free */
	void *ctx;
};

enum { BUS_WATCHERS_MAX = 4 };

struct bus_watcher {
	bus_watch_cb cb; /* NULL: free */
	void *ctx;
};

/* First member of every implementation. */
struct bus {
	const struct bus_ops *ops;
	struct bus_subscriber subscribers[_BUS_TOPIC_MAX][BUS_SUBSCRIBERS_MAX];
	struct defer *defer;
	struct bus_watcher watchers[BUS_WATCHERS_MAX];

	bool is_closing;
	struct deferred closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

extern const struct bus_ops bus_local_ops;
extern const struct bus_ops bus_redis_ops;

int bus_init(struct bus *b, uv_loop_t *loop, struct err *e);

void bus_deliver(struct bus *b, enum bus_topic topic, const struct uuid *id, const void *payload,
		 size_t len);

void bus_tell_watchers(const struct bus *b, bool up, const char *text);

/* The last step of close: frees b, which is what malloc gave, and tells closed. */
void bus_free(struct bus *b);
