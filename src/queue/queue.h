/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The queues: one per language and priority class, first in first out, at least once. A message
 * is a ticket; the task itself is in the store, which alone decides whether it is still to be run.
 *
 * Bounded: room is reserved before the task is inserted, so that a refused submission leaves no
 * row. Consumers take with a small prefetch and hold each delivery until they acknowledge it or
 * hand it back. No callback comes from inside a verb.
 */

#include "base/err.h"
#include "loop/defer.h"
#include "task/task.h"

#include <uv.h>

struct queue;

enum { QUEUE_TRACEPARENT_MAX = 56 };

struct queue_message {
	struct uuid id;
	enum task_class class;
	char language[TASK_LANGUAGE_MAX];
	char tenant[TASK_TENANT_MAX];
	int64_t enqueued_us;			 /* wall clock */
	char traceparent[QUEUE_TRACEPARENT_MAX]; /* W3C Trace Context; "": none */
};

struct queue_config {
	const char *url;  /* "memory:", "amqp://user:password@host:port,host2:port/vhost" */
	size_t max_tasks; /* over all queues of this process */
};

/*
 * A broker's URL may have several hosts, tried in turn, and behind a "?" prefix=NAME (of all names
 * at the broker; "kiln") and heartbeat=SECONDS, with "&" between. A broker that refuses the user,
 * the virtual host or the queues is an error here; one that cannot be reached is not: it is tried
 * again and again, see queue_check.
 */
int queue_open(uv_loop_t *loop, const struct queue_config *cfg, struct queue **ret_queue,
	       struct err *e);

/* No delivery comes any more, and those not acknowledged are void; done of a publish may come from
 * in here. closed is called from the loop. */
void queue_close(struct queue *q, void (*closed)(void *ctx), void *ctx);

/* Whether the queue can be used now: 0; -ENOTCONN; or -EAGAIN where only some of the queues cannot;
 * with the reason, for people. */
int queue_check(const struct queue *q, struct err *e);

/* Whether messages outlive a restart of this process; where not, the store's queued tasks are
 * published again at start. */
bool queue_is_durable(const struct queue *q);

/* Takes room for one message: 0, -EAGAIN when full, -ENOTCONN when unavailable. What is reserved is
 * used by one publish with "reserved", or given back. With a broker, which others use too, what
 * counts as full goes by what was heard from it last. */
int queue_reserve(struct queue *q, const char *language, enum task_class class);
void queue_unreserve(struct queue *q, const char *language, enum task_class class);

/* Tasks that wait elsewhere to be published, and count for the bound as well. */
void queue_set_outside(struct queue *q, size_t n);

/* Publishes; done comes with 0 once the queue is answerable for the message, or a negative errno:
 * -EAGAIN where the queue is unavailable or does not answer within seconds (it may have the message
 * all the same), -EINVAL for a message that it cannot carry.
 * The request is the caller's, like a store request. Without "reserved" a bound is not checked:
 * for what is published again. */
struct queue_publish {
	struct queue_message message;			 /* in */
	bool reserved;					 /* in */
	void (*done)(struct queue_publish *r, int code); /* in */
	void *ctx;					 /* in */
	struct deferred deferred;
	int code;
};
void queue_publish(struct queue *q, struct queue_publish *r);

/* A delivery is the queue's until ack or hand_back, which end it. */
struct queue_delivery {
	struct queue_message message;
};

struct queue_consumer_ops {
	/* A message of this language and class is now the consumer's to handle. */
	void (*delivered)(void *ctx, struct queue_delivery *d);
	/* The queue went away (code < 0) with all unacknowledged deliveries, or is back (0). */
	void (*state)(void *ctx, int code, const char *message);
};

/* Starts to consume all classes of a language, each with its own prefetch. May be called again to
 * change the prefetch; 0 stops new deliveries. One consumer per process. */
void queue_set_consumer(struct queue *q, const struct queue_consumer_ops *ops, void *ctx);
int queue_consume(struct queue *q, const char *language, size_t prefetch, struct err *e);

/* Depths of this language are wanted though nothing of it may be consumed here: at a broker they
 * are then as of the last second, also where this process has nothing to do with it otherwise. */
int queue_follow(struct queue *q, const char *language, bool follow);

void queue_ack(struct queue *q, struct queue_delivery *d);

/* Back into the queue, at its front where the implementation can; delivered again a little later.
 */
void queue_hand_back(struct queue *q, struct queue_delivery *d);

/* Messages waiting, and delivered to this process but not acknowledged. At a broker, ready is what
 * it said within the last seconds and what this process did since, and oldest_us an estimate from
 * the messages that this process saw. */
struct queue_depth {
	size_t ready;
	size_t unacked;
	int64_t oldest_us; /* wall clock of the oldest that waits; 0: none */
};
void queue_get_depth(const struct queue *q, const char *language, enum task_class class,
		     struct queue_depth *ret_depth);

/* What was published before this time (enqueued_us) is in the queue no more: from what is known of
 * a queue that is empty at now_us, or was delivered from it last, with a margin. 0: nothing is
 * known. */
int64_t queue_horizon(const struct queue *q, const char *language, enum task_class class,
		      int64_t now_us);

/* Messages at the broker that became dead letters, as it said within the last seconds. */
size_t queue_dead_count(const struct queue *q);

/* How long, in seconds, until room can be expected, from the rate of acknowledgements. At least 1.
 */
int queue_retry_after(const struct queue *q);
