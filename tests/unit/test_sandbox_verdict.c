/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "base/cleanup.h"
#include "sandbox/verdict.h"

#include <errno.h>
#include <signal.h>

#define EXIT(code)  .has_status = true, .status = (code) << 8
#define SIGNAL(sig) .has_status = true, .status = (sig)
#define WITHIN	    .cpu_limit_usec = 100, .wall_limit_usec = 100

static const struct {
	const char *name;
	struct verdict_facts facts;
	uint32_t outcome, limit;
	int code, signal;
} table[] = {
	{"exit 0", {WITHIN, EXIT(0)}, SANDBOX_EXITED, 0, 0, 0},
	{"exit 127", {WITHIN, EXIT(127)}, SANDBOX_EXITED, 0, 127, 0},
	{"signal", {WITHIN, SIGNAL(SIGSEGV)}, SANDBOX_SIGNALLED, 0, -1, SIGSEGV},
	{"own SIGKILL is no limit", {WITHIN, SIGNAL(SIGKILL)}, SANDBOX_SIGNALLED, 0, -1, SIGKILL},
	{"at the limits",
	 {WITHIN, EXIT(0), .cpu_usec = 100, .wall_usec = 100},
	 SANDBOX_EXITED,
	 0,
	 0,
	 0},
	{"killed for CPU",
	 {WITHIN, .killed_for = SANDBOX_LIMIT_CPU, .cpu_usec = 101},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_CPU,
	 -1,
	 0},
	{"CPU between two looks",
	 {WITHIN, EXIT(0), .cpu_usec = 101},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_CPU,
	 0,
	 0},
	{"wall between two looks",
	 {WITHIN, EXIT(0), .wall_usec = 101},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_WALL,
	 0,
	 0},
	{"oom",
	 {WITHIN, SIGNAL(SIGKILL), .oom_kills = 1},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_MEMORY,
	 -1,
	 SIGKILL},
	{"oom took init too",
	 {WITHIN, .oom_kills = 1},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_MEMORY,
	 -1,
	 0},
	{"oom of a child",
	 {WITHIN, EXIT(0), .oom_kills = 1},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_MEMORY,
	 0,
	 0},
	{"time before memory",
	 {WITHIN, EXIT(0), .oom_kills = 1, .cpu_usec = 101},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_CPU,
	 0,
	 0},
	{"output before time",
	 {WITHIN, .killed_for = SANDBOX_LIMIT_OUTPUT, .cpu_usec = 101},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_OUTPUT,
	 -1,
	 0},
	{"cancelled",
	 {WITHIN, .killed_for = SANDBOX_LIMIT_REQUESTED},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_REQUESTED,
	 -1,
	 0},
	{"init vanished", {WITHIN}, SANDBOX_FAILED, 0, -1, 0},
	{"no such program",
	 {WITHIN, EXIT(127), .step = SANDBOX_STEP_EXEC, .error = ENOENT},
	 SANDBOX_NOT_EXECUTABLE,
	 0,
	 -1,
	 0},
	{"not permitted",
	 {WITHIN, EXIT(127), .step = SANDBOX_STEP_EXEC, .error = EACCES},
	 SANDBOX_NOT_EXECUTABLE,
	 0,
	 -1,
	 0},
	{"wrong format",
	 {WITHIN, EXIT(127), .step = SANDBOX_STEP_EXEC, .error = ENOEXEC},
	 SANDBOX_NOT_EXECUTABLE,
	 0,
	 -1,
	 0},
	{"exec without memory",
	 {WITHIN, EXIT(127), .step = SANDBOX_STEP_EXEC, .error = ENOMEM},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_MEMORY,
	 127,
	 0},
	{"exec failed by the system",
	 {WITHIN, EXIT(127), .step = SANDBOX_STEP_EXEC, .error = EIO},
	 SANDBOX_FAILED,
	 0,
	 -1,
	 0},
	{"set-up failed",
	 {WITHIN, EXIT(127), .step = SANDBOX_STEP_FILES, .error = ENOSPC},
	 SANDBOX_FAILED,
	 0,
	 -1,
	 0},
	{"oom while unpacking",
	 {WITHIN, SIGNAL(SIGKILL), .oom_kills = 1},
	 SANDBOX_LIMITED,
	 SANDBOX_LIMIT_MEMORY,
	 -1,
	 SIGKILL},
};

static void facts_give_verdict(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct sandbox_event_exited x = {0};

		verdict_decide(&table[i].facts, &x);
		if (x.outcome != table[i].outcome || x.limit != table[i].limit ||
		    x.code != table[i].code || x.signal != table[i].signal)
			fail_msg("%s: outcome %u limit %u code %d signal %d", table[i].name,
				 x.outcome, x.limit, x.code, x.signal);
	}
}

static void failure_keeps_its_step(void **state)
{
	const struct verdict_facts f = {WITHIN, EXIT(127), .step = SANDBOX_STEP_FILES,
					.error = ENOSPC};
	struct sandbox_event_exited x = {0};

	(void)state;
	verdict_decide(&f, &x);
	assert_int_equal(x.step, SANDBOX_STEP_FILES);
	assert_int_equal(x.error, ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(facts_give_verdict),
		cmocka_unit_test(failure_keeps_its_step),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
