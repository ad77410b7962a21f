/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/verdict.h"

#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define EXITED(c)                                                                                  \
	{                                                                                          \
		.outcome = SANDBOX_EXITED, .code = (c)                                             \
	}
#define SIGNALLED(s)                                                                               \
	{                                                                                          \
		.outcome = SANDBOX_SIGNALLED, .code = -1, .signal = (s)                            \
	}
#define LIMITED(l)                                                                                 \
	{                                                                                          \
		.outcome = SANDBOX_LIMITED, .code = -1, .limit = (l)                               \
	}

static const struct {
	const char *name;
	struct sandbox_event_exited exited;
	bool cut_stdout, cut_stderr, own_program;
	enum task_outcome outcome; /* NONE: the sandbox failed */
	enum task_limit limit;
	int exit_code, signal;
} cases[] = {
	{"ends with 0", EXITED(0), .outcome = TASK_OUTCOME_OK},
	{"ends with 3", EXITED(3), .outcome = TASK_OUTCOME_RUNTIME_ERROR, .exit_code = 3},
	{"ends with 255", EXITED(255), .outcome = TASK_OUTCOME_RUNTIME_ERROR, .exit_code = 255},
	{"segmentation fault", SIGNALLED(SIGSEGV), .outcome = TASK_OUTCOME_SIGNALLED,
	 .signal = SIGSEGV},
	{"killed itself", SIGNALLED(SIGKILL), .outcome = TASK_OUTCOME_SIGNALLED, .signal = SIGKILL},
	{"cpu", LIMITED(SANDBOX_LIMIT_CPU), .outcome = TASK_OUTCOME_TIME_LIMIT,
	 .limit = TASK_LIMIT_CPU},
	{"wall", LIMITED(SANDBOX_LIMIT_WALL), .outcome = TASK_OUTCOME_TIME_LIMIT,
	 .limit = TASK_LIMIT_WALL},
	{"memory by the spawner", LIMITED(SANDBOX_LIMIT_MEMORY),
	 .outcome = TASK_OUTCOME_MEMORY_LIMIT, .limit = TASK_LIMIT_MEMORY},
	{"memory by the kernel",
	 {.outcome = SANDBOX_SIGNALLED, .signal = SIGKILL, .oom_kills = 1},
	 .outcome = TASK_OUTCOME_MEMORY_LIMIT,
	 .limit = TASK_LIMIT_MEMORY},
	{"a child of it was out of memory",
	 {.outcome = SANDBOX_EXITED, .code = 0, .oom_kills = 1},
	 .outcome = TASK_OUTCOME_MEMORY_LIMIT,
	 .limit = TASK_LIMIT_MEMORY},
	{"output, killed", LIMITED(SANDBOX_LIMIT_OUTPUT), .cut_stdout = true,
	 .outcome = TASK_OUTCOME_OUTPUT_LIMIT, .limit = TASK_LIMIT_OUTPUT},
	{"output, had ended already", EXITED(0), .cut_stderr = true,
	 .outcome = TASK_OUTCOME_OUTPUT_LIMIT, .limit = TASK_LIMIT_OUTPUT},
	{"output before time", LIMITED(SANDBOX_LIMIT_CPU), .cut_stdout = true,
	 .outcome = TASK_OUTCOME_OUTPUT_LIMIT, .limit = TASK_LIMIT_OUTPUT},
	{"time before memory",
	 {.outcome = SANDBOX_LIMITED, .limit = SANDBOX_LIMIT_WALL, .oom_kills = 2},
	 .outcome = TASK_OUTCOME_TIME_LIMIT,
	 .limit = TASK_LIMIT_WALL},
	{"product not found",
	 {.outcome = SANDBOX_NOT_EXECUTABLE, .code = -1, .error = ENOENT},
	 .own_program = true,
	 .outcome = TASK_OUTCOME_RUNTIME_ERROR,
	 .exit_code = 127},
	{"product not executable",
	 {.outcome = SANDBOX_NOT_EXECUTABLE, .code = -1, .error = ENOEXEC},
	 .own_program = true,
	 .outcome = TASK_OUTCOME_RUNTIME_ERROR,
	 .exit_code = 126},
	{"interpreter not executable",
	 {.outcome = SANDBOX_NOT_EXECUTABLE, .code = -1, .error = ENOENT},
	 .outcome = TASK_OUTCOME_NONE},
	{"sandbox failed",
	 {.outcome = SANDBOX_FAILED, .step = SANDBOX_STEP_PROC, .error = EPERM},
	 .outcome = TASK_OUTCOME_NONE},
	{"sandbox failed, before output",
	 {.outcome = SANDBOX_FAILED, .step = SANDBOX_STEP_INIT_DIED},
	 .cut_stdout = true,
	 .outcome = TASK_OUTCOME_NONE},
	{"killed on request, though nobody cancelled", LIMITED(SANDBOX_LIMIT_REQUESTED),
	 .outcome = TASK_OUTCOME_NONE},
	{"an outcome of another version", {.outcome = 99}, .outcome = TASK_OUTCOME_NONE},
};

static struct verdict_facts facts_of(size_t i)
{
	return (struct verdict_facts){
		.exited = &cases[i].exited,
		.truncated = {cases[i].cut_stdout, cases[i].cut_stderr},
		.own_program = cases[i].own_program,
	};
}

static void verdict_run_each_case_gives_its_outcome(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct verdict_facts f = facts_of(i);
		struct task_run_result r = {0};
		struct err e = {.msg = ""};
		int code = verdict_run(&f, &r, &e);

		print_message("# %s\n", cases[i].name);
		if (cases[i].outcome == TASK_OUTCOME_NONE) {
			assert_int_equal(code, -EIO);
			assert_true(strlen(e.msg) > 0);
			continue;
		}
		assert_int_equal(code, 0);
		assert_int_equal(r.outcome, cases[i].outcome);
		assert_int_equal(r.limit_hit, cases[i].limit);
		assert_int_equal(r.exit_code, cases[i].exit_code);
		assert_int_equal(r.signal, cases[i].signal);
		assert_int_equal(r.truncated[TASK_STDOUT], cases[i].cut_stdout);
		assert_int_equal(r.truncated[TASK_STDERR], cases[i].cut_stderr);
	}
}

static void verdict_compile_each_case_is_ok_only_after_exit_code_0(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct verdict_facts f = facts_of(i);
		struct task_compile_result r = {0};
		struct err e;

		if (verdict_compile(&f, &r, &e) < 0) {
			assert_int_equal(cases[i].outcome, TASK_OUTCOME_NONE);
			continue;
		}
		assert_true(r.ran);
		assert_int_equal(verdict_compile_ok(&r), cases[i].outcome == TASK_OUTCOME_OK);
		assert_int_equal(r.limit_hit, cases[i].limit);
		if (cases[i].outcome != TASK_OUTCOME_OK &&
		    cases[i].outcome != TASK_OUTCOME_RUNTIME_ERROR)
			assert_int_equal(r.exit_code, -1);
	}
}

static void verdict_run_takes_over_the_usage(void **state)
{
	const struct sandbox_event_exited x = {.outcome = SANDBOX_EXITED,
					       .cpu_usec = 12,
					       .wall_usec = 34,
					       .memory_peak_bytes = -1};
	const struct verdict_facts f = {.exited = &x};
	struct task_run_result r = {0};
	struct err e;

	(void)state;
	assert_int_equal(verdict_run(&f, &r, &e), 0);
	assert_int_equal(r.usage.cpu_us, 12);
	assert_int_equal(r.usage.wall_us, 34);
	assert_int_equal(r.usage.memory_bytes, -1);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(verdict_run_each_case_gives_its_outcome),
	cmocka_unit_test(verdict_compile_each_case_is_ok_only_after_exit_code_0),
	cmocka_unit_test(verdict_run_takes_over_the_usage),
};

UNIT_MAIN(tests)
