/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A scheduler's connection: the frames of the runner protocol (wire/proto/kiln.proto) on one side,
 * executions on the other.
 *
 *	GREETING -HELLO-> OPEN -DRAIN-> DRAINING -> ENDED
 *
 * A frame that the state does not allow, or that only a runner may send, ends the connection. A
 * frame about a task that is not here is passed over, since it may have crossed the task's DONE.
 * The scheduler's tasks live as long as its lease: where neither RENEW nor ASSIGN comes for that
 * long, they are killed. They are killed without a word when the connection ends.
 */

#include "base/err.h"
#include "loop/defer.h"
#include "runner/execution.h"
#include "runner/standby_sum.h"
#include "task/task.h"

#include <stdbool.h>
#include <stdint.h>

struct connection;

struct connection_config {
	const struct execution_env *env;
	struct defer *defer;
	const char *name; /* of the pod */
	unsigned slots;
	int64_t lease_ms;	   /* until the scheduler names another */
	const struct tls_psk *psk; /* NULL: plain */
	int64_t hello_ms;	   /* in which the scheduler must have proved itself; 0: any time */
	const struct task_isolation *isolation;
	/* Slots are the runner's: false where none is free, or it drains. */
	bool (*take_slot)(void *ctx);
	void (*give_slot)(void *ctx);
	/* HELLO came. */
	void (*opened)(void *ctx);
	/* The scheduler asked that no more tasks be taken; none of its are from now on. */
	void (*drain)(void *ctx);
	/* A task was killed because the connection ended, before "ended" is told. */
	void (*orphaned)(void *ctx, const struct uuid *task, uint64_t owner);
	/* The connection is over, its tasks are killed; to be freed. Never from within a call. */
	void (*ended)(void *ctx, struct connection *c, const char *message);
	void *ctx;
};

struct connection_counters {
	unsigned slots, busy, standbys;
	uint64_t tasks, cache_bytes, cache_hits, cache_misses;
	const struct standby_report *waiting; /* interpreters; NULL: nothing is known of them */
};

/* Takes fd. Says HELLO. */
int connection_open_consume(uv_loop_t *loop, int fd, const struct connection_config *cfg,
			    struct connection **ret_connection, struct err *e);
/* Kills what is left; accepts NULL. */
void connection_free(struct connection *c);

void connection_heartbeat(struct connection *c, const struct connection_counters *n);

/* To the scheduler: a task of another one, who is gone. False where it is of a version that does
 * not know of such. */
bool connection_tell_orphaned(struct connection *c, const struct uuid *task, uint64_t owner);

/* Ends the connection where nothing came for three times the lease: a scheduler that lives renews
 * it also while it has no tasks here. */
void connection_end_silent(struct connection *c);

/* Ends every task as a failure of Kiln: DONE with this code. */
void connection_fail_tasks(struct connection *c, const char *code, const char *message);

/* Nothing waits to be written. */
bool connection_flushed(const struct connection *c);
