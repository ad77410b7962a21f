/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * From what was measured to what is said: the outcome of a run and the result of a compile step.
 * Pure functions over one table, in this order: the sandbox failed, output, CPU and wall time,
 * memory, signal, exit code. The first that holds is the verdict, so a program that floods its
 * output and then exits with 0 has passed the output limit, however the two raced.
 */

#include "base/err.h"
#include "sandbox/protocol.h"
#include "task/task.h"

#include <stdbool.h>

struct verdict_facts {
	const struct sandbox_event_exited *exited;
	bool truncated[_TASK_STREAM_MAX]; /* the stream passed its limit; the head was kept */
	bool own_program; /* what was executed is a product of the task, not of the host */
};

/* Fills outcome, exit_code, signal, limit_hit, truncated and usage; outputs stay as they are.
 * -EIO with a message where the sandbox failed, and there is no verdict: Kiln's fault. */
int verdict_run(const struct verdict_facts *f, struct task_run_result *ret_result, struct err *e);

/* Of a run that was ended on request there is no verdict: the outcome is NONE, but what it used and
 * whether its output was cut hold. */
void verdict_unfinished(const struct verdict_facts *f, struct task_run_result *ret_result);

/* The same for a compile step: exit_code (-1: ended by a signal or a limit), limit_hit, usage. */
int verdict_compile(const struct verdict_facts *f, struct task_compile_result *ret_result,
		    struct err *e);

/* Whether the runs may go on after it. */
bool verdict_compile_ok(const struct task_compile_result *r);
