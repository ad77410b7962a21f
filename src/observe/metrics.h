/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Metrics in Prometheus' text format, in base units (seconds, bytes), never with task ids or
 * tenants as labels. All metrics are declared in one table (metrics.c), so that names, help and
 * labels can be read in one place; a series comes into being when it is first touched.
 *
 *	metric_add(METRIC_TASKS_FINISHED, 1, "python", "ok");
 *	metric_observe(METRIC_TASK_TOTAL_SECONDS, 0.013, "python");
 *
 * Label values are given in the order of the table, as many as it names. One process, one thread.
 */

#include "base/buf.h"

enum metric {
	METRIC_BUILD_INFO,		/* version */
	METRIC_HTTP_REQUEST_SECONDS,	/* route, code; histogram */
	METRIC_HTTP_CONNECTIONS,	/* gauge */
	METRIC_HTTP_WAITERS,		/* gauge */
	METRIC_TASKS_ACCEPTED,		/* language, priority */
	METRIC_SUBMISSIONS_REFUSED,	/* reason (rate, queued) */
	METRIC_TASKS_FINISHED,		/* language, outcome */
	METRIC_TASK_ATTEMPTS,		/* language */
	METRIC_TASK_DUPLICATES_DROPPED, /* */
	METRIC_TASK_QUEUE_WAIT_SECONDS, /* language, priority; histogram */
	METRIC_TASK_DISPATCH_SECONDS,	/* language; histogram: taken from the queue to accepted */
	METRIC_TASK_RUN_SECONDS,	/* language; histogram: accepted to done */
	METRIC_TASK_RESULT_COMMIT_SECONDS, /* histogram */
	METRIC_TASK_TOTAL_SECONDS,	   /* language; histogram: submitted to stored */
	METRIC_QUEUE_MESSAGES,		   /* language, priority, state; gauge */
	METRIC_QUEUE_OLDEST_SECONDS,	   /* language, priority; gauge */
	METRIC_QUEUE_PUBLISHED,		   /* result (confirmed, unavailable, refused) */
	METRIC_OUTBOX_TASKS,		   /* gauge */
	METRIC_OUTBOX_OLDEST_SECONDS,	   /* gauge */
	METRIC_OUTBOX_SWEPT,		   /* counter */
	METRIC_TASKS_FOUND_LOST,	   /* where (queue, dead_letters) */
	METRIC_RUNNER_SLOTS,		   /* state (busy, idle); gauge */
	METRIC_RUNNERS,			   /* gauge: connected */
	METRIC_RUNNER_RESTARTS,		   /* counter */
	METRIC_STANDBYS,		   /* language, step (run, compile); gauge: ready */
	METRIC_STANDBY_MEMORY_BYTES,	   /* language, step, source (cgroup, declared); gauge */
	METRIC_STANDBY_BUDGET_BYTES,	   /* state (used, free); gauge */
	METRIC_COMPILE_CACHE_BYTES,	   /* gauge */
	METRIC_COMPILE_CACHE_REQUESTS,	   /* result (hit, miss) */
	METRIC_CACHE_REQUESTS,		   /* result (hit, miss) */
	METRIC_CACHE_BYTES,		   /* gauge */
	METRIC_REDIS_UP,		   /* use (cache, bus, subscriber, rate); gauge */
	METRIC_REDIS_CALLS,		   /* use, result */
	METRIC_STORE_COMMITS,		   /* counter */
	METRIC_STORE_ERRORS,		   /* kind (full, unavailable, other) */
	METRIC_TRACE_SPANS,		   /* result (exported, dropped) */
	METRIC_KUBE_REQUESTS,		   /* verb, code ("none" without an answer) */
	METRIC_KUBE_REQUEST_SECONDS,	   /* verb; histogram, without watches */
	METRIC_KUBE_WATCH_RESTARTS,	   /* resource, reason (end, expired, error) */
	METRIC_KUBE_LAST_EVENT,		   /* resource; gauge: time of the last sign of life */
	METRIC_LEADER,			   /* gauge */
	METRIC_POOL_PODS,		   /* pool, state; gauge */
	METRIC_POOL_WANT,		   /* pool; gauge */
	METRIC_POOL_UNSATISFIED,	   /* pool; gauge */
	METRIC_POOL_STARTS,		   /* pool, result (ready, failed, never_ready, refused) */
	METRIC_POOL_ENDS,		   /* pool, reason */
	METRIC_POD_READY_SECONDS,	   /* pool; histogram: created to connected */
	METRIC_LOOP_LAG_SECONDS,	   /* histogram */
	METRIC_ISOLATION_INFO,		   /* level, limits, seccomp, landlock; gauge 1 */
	_METRIC_MAX
};

void metric_add_(enum metric m, double n, const char *const *labels);
void metric_set_(enum metric m, double value, const char *const *labels);
void metric_observe_(enum metric m, double seconds, const char *const *labels);

#define METRIC_LABELS(...)	  ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define metric_add(m, n, ...)	  metric_add_((m), (n), METRIC_LABELS(__VA_ARGS__))
#define metric_set(m, v, ...)	  metric_set_((m), (v), METRIC_LABELS(__VA_ARGS__))
#define metric_observe(m, s, ...) metric_observe_((m), (s), METRIC_LABELS(__VA_ARGS__))

/* Appends the exposition to b. 0, or b's error. */
int metrics_write(struct buf *b);

/* Frees all series; for tests and an orderly end. */
void metrics_reset(void);
