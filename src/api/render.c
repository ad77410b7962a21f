/* SPDX-License-Identifier: Apache-2.0 */
#include "api/render.h"

#include "base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { ESCAPE_MAX = 6, FIXED_MAX = 64 * 1024 };

size_t render_task_max(const struct task_limits *run, const struct task_limits *compile)
{
	size_t streams = 2 * (size_t)run->output_bytes + 2 * (size_t)compile->output_bytes;

	return streams * ESCAPE_MAX + FIXED_MAX;
}

/* Time that was measured is shown in whole milliseconds, a part of one as one. */
static int64_t to_ms(int64_t us)
{
	return (us + 999) / 1000;
}

static void write_time(struct json_writer *w, const char *name, int64_t wall_us)
{
	char text[CLOCK_RFC3339_MAX];

	if (!wall_us) {
		json_write_null_field(w, name);
		return;
	}
	clock_format(wall_us, text);
	json_write_text_field(w, name, text);
}

/* NAME and NAME_encoding. */
static void write_output(struct json_writer *w, const char *name, const char *encoding_name,
			 const struct bytes *b)
{
	const char *encoding = "utf8";

	json_write_name(w, name);
	if (json_write_bytes(w, b->data ? b->data : "", b->len) < 0) {
		json_write_base64(w, b->data, b->len);
		encoding = "base64";
	}
	json_write_text_field(w, encoding_name, encoding);
}

static void write_timeline(struct json_writer *w, const struct task *t)
{
	json_write_name(w, "timeline");
	json_write_begin_object(w);
	write_time(w, "queued_at", t->spec.created_us);
	write_time(w, "started_at", t->started_us);
	write_time(w, "finished_at", t->finished_us);
	json_write_end_object(w);
}

void render_signal_name(int number, char *dst, size_t size)
{
	const char *name = sigabbrev_np(number);

	if (name)
		(void)snprintf(dst, size, "SIG%s", name);
	else if (number >= SIGRTMIN && number <= SIGRTMAX)
		(void)snprintf(dst, size, "SIGRTMIN+%d", number - SIGRTMIN);
	else
		(void)snprintf(dst, size, "SIG%d", number);
}

static void write_verdict(struct json_writer *w, const struct task *t,
			  const struct task_run_result *run)
{
	enum task_outcome outcome = TASK_OUTCOME_NONE;
	enum task_limit hit = TASK_LIMIT_NONE;
	char signal_name[24];

	if (t->state == TASK_DONE && t->result) {
		outcome = t->result->outcome;
		if (outcome == TASK_OUTCOME_COMPILE_ERROR)
			hit = t->result->compile.limit_hit;
		else if (run)
			hit = run->limit_hit;
	}
	json_write_text_field(w, "outcome", task_outcome_name(outcome));
	json_write_name(w, "exit_code");
	if (run && (outcome == TASK_OUTCOME_OK || outcome == TASK_OUTCOME_RUNTIME_ERROR))
		json_write_int(w, run->exit_code);
	else
		json_write_null(w);
	if (run && outcome == TASK_OUTCOME_SIGNALLED) {
		render_signal_name(run->signal, signal_name, sizeof signal_name);
		json_write_text_field(w, "signal", signal_name);
	} else {
		json_write_null_field(w, "signal");
	}
	json_write_text_field(w, "limit_hit", task_limit_name(hit));
}

static void write_error(struct json_writer *w, const struct task *t)
{
	if (t->state != TASK_FAILED) {
		json_write_null_field(w, "error");
		return;
	}
	json_write_name(w, "error");
	json_write_begin_object(w);
	json_write_text_field(
		w, "code", t->result && t->result->error_code ? t->result->error_code : "unknown");
	json_write_text_field(w, "message",
			      t->result && t->result->error_message ? t->result->error_message
								    : "the task could not be run");
	json_write_end_object(w);
}

/* Strings of a task that is done, even where nothing was printed (or run, after a compile error),
 * and of one that was ended while it ran. */
static void write_outputs(struct json_writer *w, const struct task *t,
			  const struct task_run_result *run)
{
	static const struct bytes nothing;
	bool holds = t->state == TASK_DONE || (run && t->state != TASK_FAILED);

	if (!holds) {
		json_write_null_field(w, "stdout");
		json_write_null_field(w, "stdout_encoding");
		json_write_null_field(w, "stderr");
		json_write_null_field(w, "stderr_encoding");
		json_write_null_field(w, "stdout_truncated");
		json_write_null_field(w, "stderr_truncated");
		return;
	}
	write_output(w, "stdout", "stdout_encoding", run ? &run->output[TASK_STDOUT] : &nothing);
	write_output(w, "stderr", "stderr_encoding", run ? &run->output[TASK_STDERR] : &nothing);
	json_write_bool_field(w, "stdout_truncated", run && run->truncated[TASK_STDOUT]);
	json_write_bool_field(w, "stderr_truncated", run && run->truncated[TASK_STDERR]);
}

static void write_compile(struct json_writer *w, const struct task *t)
{
	const struct task_compile_result *c;

	json_write_name(w, "compile");
	if (!t->result || !t->result->compile.ran || t->state == TASK_FAILED) {
		json_write_null(w);
		return;
	}
	c = &t->result->compile;
	json_write_begin_object(w);
	json_write_name(w, "exit_code");
	if (c->exit_code < 0)
		json_write_null(w);
	else
		json_write_int(w, c->exit_code);
	write_output(w, "output", "output_encoding", &c->output);
	json_write_bool_field(w, "output_truncated", c->output_truncated);
	json_write_bool_field(w, "cached", c->cached);
	json_write_int_field(w, "cpu_ms", to_ms(c->usage.cpu_us));
	json_write_int_field(w, "wall_ms", to_ms(c->usage.wall_us));
	json_write_end_object(w);
}

static void write_usage(struct json_writer *w, const struct task *t,
			const struct task_run_result *run)
{
	json_write_name(w, "usage");
	if (!run || t->state == TASK_FAILED) {
		json_write_null(w);
		return;
	}
	json_write_begin_object(w);
	json_write_int_field(w, "cpu_ms", to_ms(run->usage.cpu_us));
	json_write_int_field(w, "wall_ms", to_ms(run->usage.wall_us));
	json_write_name(w, "memory_bytes");
	if (run->usage.memory_bytes < 0)
		json_write_null(w);
	else
		json_write_int(w, run->usage.memory_bytes);
	json_write_end_object(w);
}

static void write_isolation(struct json_writer *w, const struct task *t)
{
	const struct task_isolation *i = t->result ? &t->result->isolation : NULL;

	json_write_name(w, "isolation");
	if (!i || !i->level) {
		json_write_null(w);
		return;
	}
	json_write_begin_object(w);
	json_write_text_field(w, "level", i->level);
	json_write_text_field(w, "limits", i->limits);
	json_write_bool_field(w, "namespaces", i->namespaces);
	json_write_bool_field(w, "seccomp", i->seccomp);
	json_write_int_field(w, "landlock", i->landlock);
	json_write_text_field(w, "standby", i->standby);
	json_write_end_object(w);
}

static void write_head(struct json_writer *w, const struct task *t)
{
	char id[UUID_TEXT_MAX];

	uuid_format(&t->spec.id, id);
	json_write_text_field(w, "task_id", id);
	json_write_text_field(w, "language", t->spec.program.language);
	json_write_text_field(w, "status", task_state_name(t->state));
	if (t->state == TASK_RUNNING && t->cancelling)
		json_write_bool_field(w, "cancelling", true);
}

/* The run that is shown, NULL where none was started. */
static const struct task_run_result *first_run(const struct task *t)
{
	if (!t->result || !t->result->ran || !t->result->n_runs)
		return NULL;
	return &t->result->runs[0];
}

void render_task(struct json_writer *w, const struct task *t)
{
	const struct task_run_result *run = first_run(t);

	json_write_begin_object(w);
	write_head(w, t);
	write_verdict(w, t, run);
	write_error(w, t);
	write_outputs(w, t, run);
	write_compile(w, t);
	write_usage(w, t, run);
	write_isolation(w, t);
	json_write_int_field(w, "attempt", t->attempt);
	json_write_text_field(w, "pod", t->result ? t->result->pod : NULL);
	write_timeline(w, t);
	json_write_end_object(w);
}

void render_summary(struct json_writer *w, const struct task *t)
{
	json_write_begin_object(w);
	write_head(w, t);
	json_write_text_field(
		w, "outcome",
		t->state == TASK_DONE && t->result ? task_outcome_name(t->result->outcome) : NULL);
	json_write_int_field(w, "attempt", t->attempt);
	write_timeline(w, t);
	json_write_end_object(w);
}
