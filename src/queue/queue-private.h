/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Between queue.c, which chooses an implementation by the scheme of the URL, and the
 * implementations. A new one is one struct queue_ops and one row in queue.c.
 */

#include "queue/queue.h"

struct queue_ops {
	const char *scheme;
	bool durable;

	/* rest is the URL behind the scheme's colon. The result embeds struct queue as its first
	 * member, zeroed. */
	int (*open)(uv_loop_t *loop, const struct queue_config *cfg, const char *rest,
		    struct queue **ret_queue, struct err *e);
	void (*close)(struct queue *q, void (*closed)(void *ctx), void *ctx);
	int (*check)(const struct queue *q, struct err *e); /* NULL: always usable */
	int (*reserve)(struct queue *q, const char *language, enum task_class class);
	void (*unreserve)(struct queue *q, const char *language, enum task_class class);
	void (*publish)(struct queue *q, struct queue_publish *r);
	void (*set_consumer)(struct queue *q, const struct queue_consumer_ops *ops, void *ctx);
	int (*consume)(struct queue *q, const char *language, size_t prefetch, struct err *e);
	int (*follow)(struct queue *q, const char *language, bool follow); /* NULL: always so */
	void (*ack)(struct queue *q, struct queue_delivery *d);
	void (*hand_back)(struct queue *q, struct queue_delivery *d);
	void (*get_depth)(const struct queue *q, const char *language, enum task_class class,
			  struct queue_depth *ret_depth);
	/* NULL: always 0. */
	int64_t (*horizon)(const struct queue *q, const char *language, enum task_class class,
			   int64_t now_us);
	size_t (*dead_count)(const struct queue *q);
	int (*retry_after)(const struct queue *q);
};

/* First member of every implementation. */
struct queue {
	const struct queue_ops *ops;
	size_t outside; /* tasks */
};

extern const struct queue_ops queue_memory_ops;
extern const struct queue_ops queue_rabbitmq_ops;
