/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Between bus.c, which keeps the subscribers and calls them, and the implementations, which carry
 * messages. A new one is one struct bus_ops and one row in bus.c.
 */

#include "bus/bus.h"

enum { BUS_SUBSCRIBERS_MAX = 8 };

struct bus_ops {
	const char *scheme;
	int (*open)(uv_loop_t *loop, const char *url, const char *rest, struct bus **ret_bus,
		    struct err *e);
	void (*close)(struct bus *b, void (*closed)(void *ctx), void *ctx);
	/* Ends with bus_deliver here and in every other process, never from in here. */
	void (*publish)(struct bus *b, enum bus_topic topic, const struct uuid *id,
			const void *payload, size_t len);
};

struct bus_subscriber {
	bus_cb cb; /* NULL: free */
	void *ctx;
};

/* First member of every implementation. */
struct bus {
	const struct bus_ops *ops;
	struct bus_subscriber subscribers[_BUS_TOPIC_MAX][BUS_SUBSCRIBERS_MAX];
};

extern const struct bus_ops bus_local_ops;

void bus_deliver(struct bus *b, enum bus_topic topic, const struct uuid *id, const void *payload,
		 size_t len);
