/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Finds tasks that are queued in the store while no queue has them: the broker was emptied, a queue
 * was deleted, its disks were lost; or they became dead letters. They are put back into the outbox,
 * from where a sweeper publishes them.
 *
 * What a queue cannot have any more is known from its being empty, or from what it delivered last,
 * since it is first in, first out. That is only nearly true, so that now and then a task is
 * published twice, which the store makes harmless; each is put back once a minute at most.
 *
 * Several processes may do this at once. It reads the queued tasks a few at a time, over and over.
 */

#include "outbox/publisher.h"

struct reconciler;

struct reconciler_config {
	struct store *store;
	struct queue *queue;
	struct publisher *publisher;
	const char *queue_url; /* for a look at its dead letters */
	/* Whether this process has the task's message: then it is not lost. */
	bool (*holds)(void *ctx, const struct uuid *id);
	void *ctx;
};

/* Does nothing where the store has no outbox. */
int reconciler_open(uv_loop_t *loop, const struct reconciler_config *cfg,
		    struct reconciler **ret_reconciler, struct err *e);
void reconciler_close(struct reconciler *r, void (*closed)(void *ctx), void *ctx);
