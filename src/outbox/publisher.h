/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * From the store to the queue. A task that was stored is published, once its row is safe; where the
 * queue is a broker, a note in the store's outbox stands for it until the broker has confirmed it,
 * so that no failure of either side and no end of this process loses it.
 *
 * A broker's queue is first in, first out, and so must never hold much of one tenant: of each
 * stream (a tenant's tasks of one language and class) every process lets a bounded number into the
 * broker, and leaves the rest in the outbox. Sweepers, in the processes that run tasks, take from
 * there what was left, stream by stream, as there is room.
 *
 * What this process published counts as being in the broker until the bus says that it is final.
 * The bus may lose that, so now and then the store is asked too.
 *
 * Over a store or a queue without need for it there is no outbox: then the publisher publishes, and
 * that is all. Callers see no difference.
 */

#include "base/err.h"
#include "bus/bus.h"
#include "queue/queue.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct publisher;
struct publication;

struct publisher_config {
	struct store *store; /* opened with "outbox" where the queue is durable */
	struct queue *queue;
	struct bus *bus;
	size_t admit_max; /* of one stream, into the broker */
	size_t queue_max; /* tasks in queue and outbox */
};

int publisher_open(uv_loop_t *loop, const struct publisher_config *cfg,
		   struct publisher **ret_publisher, struct err *e);

/* Waits for what is under way. Store, queue and bus must live until closed is called. */
void publisher_close(struct publisher *p, void (*closed)(void *ctx), void *ctx);

/* Takes room for one task, before it is stored: 0, -EAGAIN when full, -ENOMEM, or -ENOTCONN where
 * the queue cannot be used and there is no outbox. What it gives ends in one of the two below. */
int publisher_admit(struct publisher *p, const struct queue_message *m,
		    struct publication **ret_publication);

/* How long, in seconds, until room can be expected. */
int publisher_retry_after(const struct publisher *p);

/* How many tasks may wait, as it was opened with. */
size_t publisher_queue_max(const struct publisher *p);

/* Whether its note is left to the sweepers: for the insert. */
bool publication_is_left(const struct publication *pub);

/* The row is safe. Nothing is told of how it went: what fails now is published later. */
void publisher_publish_consume(struct publisher *p, struct publication *pub);

/* There is no new row. */
void publisher_give_back(struct publisher *p, struct publication *pub);

/* A task is queued again: its note, which the store made, is looked at soon; without an outbox it
 * is published here. */
void publisher_requeue(struct publisher *p, const struct store_ticket *t);

/* A task is queued again, and the queue still has its message: its note is removed. */
void publisher_forget(struct publisher *p, const struct uuid *id);

/* This process takes what was left over, from now on, or no more. */
void publisher_sweep(struct publisher *p, bool on);

/* Look at the outbox soon, here and elsewhere. */
void publisher_nudge(struct publisher *p);
