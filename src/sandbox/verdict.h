/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From numbers to what is said of a task. Pure, so that every combination can be tested. Order: the
 * sandbox's own failure, who asked for the kill, time, memory, signal, exit code. */

#include "sandbox/protocol.h"

#include <stdbool.h>

struct verdict_facts {
	bool has_status; /* the main process ended and init said how */
	int status;	 /* wait status */
	uint32_t step;	 /* of a failure inside, SANDBOX_STEP_NONE without one */
	int error;
	enum sandbox_limit killed_for; /* by the spawner; _NONE if it did not */
	uint64_t oom_kills;
	uint64_t cpu_usec, cpu_limit_usec;
	uint64_t wall_usec, wall_limit_usec;
};

/* Fills outcome, limit, code, signal, step and error of ret_exited, and the two times. */
void verdict_decide(const struct verdict_facts *f, struct sandbox_event_exited *ret_exited);
