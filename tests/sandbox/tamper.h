/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Makes one system call of a spawner, or of what it starts, fail: by ptrace(2), so that nothing of
 * what is tested is built in another way, and no call can be forgotten. The call is not made and
 * its caller is told the error.
 *
 * Calls are counted by process of a box, since they run beside each other: the n-th call of the
 * spawner, of a box's init, of its task before execve, of its collector, since tamper_arm. A
 * task is let go when it has become the user's program.
 *
 * One tracer per process; the caller owns SIGCHLD and calls tamper_step whenever it comes. When it
 * ends, what it traced goes on as if nothing had been.
 */

#include <stdbool.h>
#include <sys/types.h>

enum tamper_role {
	TAMPER_SPAWNER,
	TAMPER_INIT,
	TAMPER_TASK,
	TAMPER_COLLECTOR,
	_TAMPER_ROLE_MAX,
};

struct tamper;

/* Traces a spawner that has no box, or what will execute it, whose calls before that do not count,
 * or a process alone, whose children are none of ours. NULL with errno where that cannot be. */
enum tamper_state { TAMPER_RUNS, TAMPER_WILL_EXECUTE, TAMPER_ALONE };
struct tamper *tamper_new(pid_t spawner, enum tamper_state state);
void tamper_free(struct tamper *t);

/* From now on the nth call (from 1) of a role fails, and `length` - 1 calls of that process after
 * it; nth 0: none. Counts begin anew. */
void tamper_arm(struct tamper *t, enum tamper_role role, unsigned int nth, unsigned int length,
		int error);
/* Whether it has come to that, and which call it was. */
bool tamper_fired(const struct tamper *t, long *ret_number);
/* Deals with all processes that have stopped or ended. false: the spawner has ended. */
bool tamper_step(struct tamper *t);
/* Whether this other child of the tracer has ended, and its wait status. */
bool tamper_reaped(const struct tamper *t, pid_t other, int *ret_status);

/* Wait status of the one that was traced, once tamper_step said that it ended. */
int tamper_ended(const struct tamper *t);

const char *tamper_role_name(enum tamper_role role);
