/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"
#include "trace/trace.h"

#include <stdlib.h>
#include <string.h>

/*
 * The spans of one attempt (trace/trace.h has the tree). They go out together when the attempt is
 * over, since only then is known how each part ended; until then, times are kept.
 */

struct job_spans {
	struct trace_context above; /* of the submission */
	struct trace_context task;
	int64_t compiled_us;	/* monotonic; 0: no compile step */
	int64_t run_ended_us[]; /* monotonic, by run; 0: it did not */
};

void spans_begin(struct job *j)
{
	const char *from = j->spec->traceparent;
	struct trace_context above;
	struct job_spans *s;

	if (!from || !trace_continue(from, &above))
		return;
	s = calloc(1, sizeof *s + j->spec->n_runs * sizeof s->run_ended_us[0]);
	if (!s)
		return; /* no memory for what is told, only for what is done */
	s->above = above;
	trace_below(&above, &s->task);
	j->spans = s;
}

void spans_compiled(struct job *j)
{
	if (j->spans)
		j->spans->compiled_us = clock_monotonic_us();
}

void spans_run_done(struct job *j, size_t run)
{
	if (j->spans)
		j->spans->run_ended_us[run] = clock_monotonic_us();
}

/* One part of the attempt; from and to are monotonic. */
static void emit_part(const struct job *j, const struct trace_span *part, int64_t from_us,
		      int64_t to_us)
{
	int64_t ago_us = store_now_us(j->scheduler->cfg.store) - clock_monotonic_us();
	struct trace_span s = *part;

	s.start_us = from_us + ago_us;
	s.end_us = to_us + ago_us;
	s.task = &j->id;
	s.kind = s.kind ? s.kind : TRACE_INTERNAL;
	if (!s.parent) {
		s.parent = j->spans->task.span;
		trace_below(&j->spans->task, &s.context);
	}
	trace_emit(&s);
}

static void emit_queue_wait(const struct job *j)
{
	const struct trace_attribute about[] = {
		{"kiln.language", j->spec->program.language, 0},
		{"kiln.priority", task_class_name(j->class), 0},
	};
	int64_t ago_us = store_now_us(j->scheduler->cfg.store) - clock_monotonic_us();
	struct trace_span s = {
		.name = "queue wait",
		.kind = TRACE_CONSUMER,
		.parent = j->spans->above.span,
		.attributes = about,
		.n_attributes = ARRAY_SIZE(about),
	};

	trace_below(&j->spans->above, &s.context);
	emit_part(j, &s, j->spec->created_us - ago_us, j->taken_us);
}

static void emit_compile(const struct job *j)
{
	const struct task_compile_result *r = &j->result->compile;
	const struct trace_attribute about[] = {
		{"kiln.cached", r->cached ? "true" : "false", 0},
		{"kiln.cpu_us", NULL, r->usage.cpu_us},
		{"kiln.memory_bytes", NULL, r->usage.memory_bytes},
	};
	bool failed = r->exit_code != 0 || r->limit_hit;

	emit_part(j,
		  &(struct trace_span){.name = "compile",
				       .error = failed ? "the program did not compile" : NULL,
				       .attributes = about,
				       .n_attributes = ARRAY_SIZE(about)},
		  j->spans->compiled_us - r->usage.wall_us, j->spans->compiled_us);
}

static void emit_run(const struct job *j, size_t i)
{
	const struct task_run_result *r = &j->result->runs[i];
	const struct trace_attribute about[] = {
		{"kiln.run", NULL, (int64_t)i},
		{"kiln.outcome", r->outcome ? task_outcome_name(r->outcome) : "none", 0},
		{"kiln.cpu_us", NULL, r->usage.cpu_us},
		{"kiln.memory_bytes", NULL, r->usage.memory_bytes},
	};
	int64_t ended_us = j->spans->run_ended_us[i];

	emit_part(j,
		  &(struct trace_span){
			  .name = "run", .attributes = about, .n_attributes = ARRAY_SIZE(about)},
		  ended_us - r->usage.wall_us, ended_us);
}

/* error: why the attempt came to nothing, or NULL. */
static void emit_task(const struct job *j, const char *error)
{
	const struct trace_attribute about[] = {
		{"kiln.language", j->spec->program.language, 0},
		{"kiln.tenant", j->spec->tenant, 0},
		{"kiln.pod", j->result && j->result->pod ? j->result->pod : "", 0},
		{"kiln.state", task_state_name(j->final_state), 0},
		{"kiln.attempt", NULL, j->attempt},
	};
	const struct trace_span s = {
		.name = "task",
		.kind = TRACE_CONSUMER,
		.context = j->spans->task,
		.parent = j->spans->above.span,
		.error = error,
		.attributes = about,
		.n_attributes = ARRAY_SIZE(about),
	};

	emit_part(j, &s, j->taken_us, clock_monotonic_us());
}

void spans_end(struct job *j, const char *error)
{
	struct job_spans *s = j->spans;

	if (!s)
		return;
	if (j->attempt == 1)
		emit_queue_wait(j);
	if (j->accepted_us)
		emit_part(j, &(struct trace_span){.name = "dispatch"}, j->taken_us, j->accepted_us);
	if (s->compiled_us)
		emit_compile(j);
	for (size_t i = 0; i < j->spec->n_runs; i++)
		if (s->run_ended_us[i])
			emit_run(j, i);
	if (!error)
		emit_part(j, &(struct trace_span){.name = "commit"}, j->finishing_us,
			  clock_monotonic_us());
	emit_task(j, error);
	spans_drop(j);
}

void spans_drop(struct job *j)
{
	free(j->spans);
	j->spans = NULL;
}
