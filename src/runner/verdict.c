/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/verdict.h"

#include "base/cleanup.h"
#include "sandbox/client.h"

#include <errno.h>

/* What a shell says of a command that it could not find, and of one that it could not execute. */
enum { EXIT_NOT_FOUND = 127, EXIT_NOT_EXECUTABLE = 126 };

static bool limit_is(const struct verdict_facts *f, enum sandbox_limit limit)
{
	return f->exited->outcome == SANDBOX_LIMITED && f->exited->limit == (uint32_t)limit;
}

static bool passed_output(const struct verdict_facts *f)
{
	return f->truncated[TASK_STDOUT] || f->truncated[TASK_STDERR] ||
	       limit_is(f, SANDBOX_LIMIT_OUTPUT);
}

static bool passed_cpu(const struct verdict_facts *f)
{
	return limit_is(f, SANDBOX_LIMIT_CPU);
}

static bool passed_wall(const struct verdict_facts *f)
{
	return limit_is(f, SANDBOX_LIMIT_WALL);
}

static bool passed_memory(const struct verdict_facts *f)
{
	return f->exited->oom_kills > 0 || limit_is(f, SANDBOX_LIMIT_MEMORY);
}

static bool signalled(const struct verdict_facts *f)
{
	return f->exited->outcome == SANDBOX_SIGNALLED;
}

static bool failed_by_code(const struct verdict_facts *f)
{
	return f->exited->outcome == SANDBOX_NOT_EXECUTABLE ||
	       (f->exited->outcome == SANDBOX_EXITED && f->exited->code != 0);
}

static bool ended_well(const struct verdict_facts *f)
{
	return f->exited->outcome == SANDBOX_EXITED && f->exited->code == 0;
}

static const struct {
	bool (*holds)(const struct verdict_facts *f);
	enum task_outcome outcome;
	enum task_limit limit;
} rules[] = {
	{passed_output, TASK_OUTCOME_OUTPUT_LIMIT, TASK_LIMIT_OUTPUT},
	{passed_cpu, TASK_OUTCOME_TIME_LIMIT, TASK_LIMIT_CPU},
	{passed_wall, TASK_OUTCOME_TIME_LIMIT, TASK_LIMIT_WALL},
	{passed_memory, TASK_OUTCOME_MEMORY_LIMIT, TASK_LIMIT_MEMORY},
	{signalled, TASK_OUTCOME_SIGNALLED, TASK_LIMIT_NONE},
	{failed_by_code, TASK_OUTCOME_RUNTIME_ERROR, TASK_LIMIT_NONE},
	{ended_well, TASK_OUTCOME_OK, TASK_LIMIT_NONE},
};

static int check_sandbox(const struct verdict_facts *f, struct err *e)
{
	const struct sandbox_event_exited *x = f->exited;

	if (x->outcome == SANDBOX_FAILED)
		return err_set(e, -EIO, "the sandbox could not %s%s%s", sandbox_step_name(x->step),
			       x->error ? ": " : "", x->error ? err_text(x->error) : "");
	if (x->outcome == SANDBOX_NOT_EXECUTABLE && !f->own_program)
		return err_set(e, -EIO, "could not execute the language's program: %s",
			       err_text(x->error));
	return 0;
}

static int exit_code_of(const struct sandbox_event_exited *x)
{
	if (x->outcome == SANDBOX_NOT_EXECUTABLE)
		return x->error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
	return x->code;
}

static struct task_usage usage_of(const struct sandbox_event_exited *x)
{
	return (struct task_usage){
		.cpu_us = (int64_t)x->cpu_usec,
		.wall_us = (int64_t)x->wall_usec,
		.memory_bytes = x->memory_peak_bytes,
	};
}

int verdict_run(const struct verdict_facts *f, struct task_run_result *ret_result, struct err *e)
{
	int r = check_sandbox(f, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		if (!rules[i].holds(f))
			continue;
		ret_result->outcome = rules[i].outcome;
		ret_result->limit_hit = rules[i].limit;
		ret_result->exit_code = rules[i].outcome == TASK_OUTCOME_RUNTIME_ERROR
						? exit_code_of(f->exited)
						: 0;
		ret_result->signal =
			rules[i].outcome == TASK_OUTCOME_SIGNALLED ? f->exited->signal : 0;
		ret_result->usage = usage_of(f->exited);
		for (int s = 0; s < _TASK_STREAM_MAX; s++)
			ret_result->truncated[s] = f->truncated[s];
		return 0;
	}
	return err_set(e, -EIO, "the sandbox ended with outcome %u, limit %u", f->exited->outcome,
		       f->exited->limit);
}

void verdict_unfinished(const struct verdict_facts *f, struct task_run_result *ret_result)
{
	ret_result->outcome = TASK_OUTCOME_NONE;
	ret_result->usage = usage_of(f->exited);
	for (int s = 0; s < _TASK_STREAM_MAX; s++)
		ret_result->truncated[s] = f->truncated[s];
}

int verdict_compile(const struct verdict_facts *f, struct task_compile_result *ret_result,
		    struct err *e)
{
	struct task_run_result run = {0};
	int r = verdict_run(f, &run, e);

	if (r < 0)
		return r;
	ret_result->ran = true;
	ret_result->exit_code = -1;
	if (run.outcome == TASK_OUTCOME_OK || run.outcome == TASK_OUTCOME_RUNTIME_ERROR)
		ret_result->exit_code = run.exit_code;
	ret_result->limit_hit = run.limit_hit;
	ret_result->output_truncated = run.truncated[TASK_STDOUT] || run.truncated[TASK_STDERR];
	ret_result->usage = run.usage;
	return 0;
}

bool verdict_compile_ok(const struct task_compile_result *r)
{
	return r->exit_code == 0 && r->limit_hit == TASK_LIMIT_NONE;
}
