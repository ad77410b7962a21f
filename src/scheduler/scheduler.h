/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The scheduler takes tasks from the queues, chooses a runner for each, assigns it, follows it, and
 * writes what came of it. It is the only one that talks to runners.
 *
 * A task is claimed in the store while it is already on its way to a runner; a result counts only
 * when that claim was won. When a runner is lost, its tasks go back to the queue with an attempt
 * used up. Nothing that the scheduler holds in memory is needed after a crash: leases in the store
 * end by themselves.
 */

#include "base/buf.h"
#include "base/err.h"
#include "bus/bus.h"
#include "cache/cache.h"
#include "outbox/publisher.h"
#include "queue/queue.h"
#include "store/store.h"
#include "task/language.h"
#include "wire/tls.h"

#include <stdbool.h>
#include <uv.h>

struct scheduler;

struct scheduler_config {
	struct store *store;
	struct queue *queue;
	struct publisher *publisher;
	const char *queue_url; /* for a look at its dead letters */
	struct cache *cache;
	struct bus *bus;
	struct language_registry *languages; /* told what the runners have */
	int64_t lease_ms;		     /* a scheduler silent for so long loses its tasks */
	unsigned weights[_TASK_CLASS_MAX];   /* shares of the priority classes, each at least 1 */
	size_t tenant_running_max; /* tasks of one tenant that run at one time, here; 0: any; unless
				    the store has a limit for it */
	size_t admit_max;	   /* messages of one tenant that each process lets into a queue */
	int64_t retention_ms;	   /* finished tasks older than this are removed; 0: kept */
	bool sole_owner;	   /* nobody else uses the store: at start every lease is void */
	uint64_t credit_bytes;	   /* output that a runner may send ahead, per task */
};

int scheduler_new(uv_loop_t *loop, const struct scheduler_config *cfg,
		  struct scheduler **ret_scheduler, struct err *e);

/* Puts what an earlier life left behind back into the queues, then starts to take tasks. */
void scheduler_start(struct scheduler *s);

/* A runner's connection (from pods); fd is taken, psk is copied, and NULL where the runner is on
 * this machine. lost is called when it has ended, with the reason. */
typedef void (*scheduler_lost_cb)(void *ctx, const char *pod, const char *reason);
void scheduler_add_runner(struct scheduler *s, const char *pod, int fd, const struct tls_psk *psk,
			  scheduler_lost_cb lost, void *ctx);

/* Gives this runner no more tasks, and lets go of it when those that it has are through. */
void scheduler_retire_runner(struct scheduler *s, const char *pod);

/* For pods that come and go with demand. heard: what a runner said of itself (as of pods_heard). */
typedef void (*scheduler_heard_cb)(void *ctx, const char *pod, unsigned slots, unsigned used,
				   uint64_t tasks);
void scheduler_watch_runners(struct scheduler *s, scheduler_heard_cb heard, void *ctx);

/* Asks this runner to take no more tasks from anybody and to end with its last. */
void scheduler_drain_runner(struct scheduler *s, const char *pod);

/* Whether a runner for this language comes when there are tasks, though there may be none now:
 * submissions are then accepted, and this scheduler is ready without a runner. */
void scheduler_offer_language(struct scheduler *s, const char *language, bool yes);

/* Tasks of this language that wait for a slot, in the queue and here; false: not known. */
bool scheduler_count_waiting(const struct scheduler *s, const char *language,
			     uint64_t *ret_waiting);

/* True when tasks can be run now, or as soon as there are any; else the reason is appended to why
 * (may be NULL). */
bool scheduler_is_ready(const struct scheduler *s, struct buf *why);

struct scheduler_stats {
	size_t runners, slots, busy, waiting;
};
void scheduler_get_stats(const struct scheduler *s, struct scheduler_stats *ret_stats);

/* The walls of the newest runner, for the start-up message; NULL while there is none. */
const struct task_isolation *scheduler_isolation(const struct scheduler *s);

/* Takes no more tasks, lets those that run finish for at most grace_ms, then ends; closed is called
 * from the loop. What did not finish is stopped and queued again, without an attempt used up; where
 * the store cannot be reached, it is found by its lease. */
void scheduler_close(struct scheduler *s, int64_t grace_ms, void (*closed)(void *ctx), void *ctx);

/* While closing: the grace is over now. */
void scheduler_hurry(struct scheduler *s);
