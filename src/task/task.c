/* SPDX-License-Identifier: Apache-2.0 */
#include "task/task.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT(field)                                                                               \
	{                                                                                          \
#field, offsetof(struct task_limits, field)                                        \
	}

const struct task_limit_field task_limit_fields[] = {
	LIMIT(cpu_ms),	   LIMIT(wall_ms),	LIMIT(memory_bytes),
	LIMIT(processes),  LIMIT(output_bytes), LIMIT(disk_bytes),
	LIMIT(file_bytes), LIMIT(open_files),	LIMIT(stack_bytes),
};
const size_t task_limit_fields_count = ARRAY_SIZE(task_limit_fields);

int64_t *task_limit_at(struct task_limits *l, const struct task_limit_field *f)
{
	return (int64_t *)(void *)((char *)l + f->offset);
}

int64_t task_limit_get(const struct task_limits *l, const struct task_limit_field *f)
{
	int64_t value;

	memcpy(&value, (const char *)l + f->offset, sizeof value);
	return value;
}

void task_limits_unset(struct task_limits *l)
{
	for (size_t i = 0; i < task_limit_fields_count; i++)
		*task_limit_at(l, &task_limit_fields[i]) = TASK_LIMIT_UNSET;
}

void task_limits_default(struct task_limits *l, const struct task_limits *defaults)
{
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		int64_t *value = task_limit_at(l, &task_limit_fields[i]);

		if (*value == TASK_LIMIT_UNSET)
			*value = task_limit_get(defaults, &task_limit_fields[i]);
	}
}

void bytes_fini(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

int bytes_set(struct bytes *b, const void *data, size_t len)
{
	char *copy = NULL;

	if (len) {
		copy = malloc(len + 1);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, data, len);
		copy[len] = '\0';
	}
	free(b->data);
	*b = (struct bytes){.data = copy, .len = len};
	return 0;
}

void task_program_fini(struct task_program *p)
{
	for (size_t i = 0; i < p->n_files; i++) {
		free(p->files[i].name);
		bytes_fini(&p->files[i].content);
	}
	free(p->files);
	free(p->language);
	free(p->entry);
}

void task_run_fini(struct task_run *run)
{
	for (size_t i = 0; i < run->n_args; i++)
		free(run->args[i]);
	free(run->args);
	bytes_fini(&run->stdin_data);
}

void task_spec_fini(struct task_spec *s)
{
	task_program_fini(&s->program);
	for (size_t i = 0; i < s->n_runs; i++)
		task_run_fini(&s->runs[i]);
	free(s->runs);
	free(s->tenant);
	free(s->traceparent);
	*s = (struct task_spec){0};
}

void task_spec_strip(struct task_spec *s)
{
	for (size_t i = 0; i < s->program.n_files; i++)
		bytes_fini(&s->program.files[i].content);
	for (size_t i = 0; i < s->n_runs; i++)
		bytes_fini(&s->runs[i].stdin_data);
}

void task_spec_free(struct task_spec *s)
{
	if (!s)
		return;
	task_spec_fini(s);
	free(s);
}

size_t task_result_bytes(const struct task_result *r)
{
	size_t n = r ? r->compile.output.len : 0;

	for (size_t i = 0; r && i < r->n_runs; i++)
		for (int k = 0; k < _TASK_STREAM_MAX; k++)
			n += r->runs[i].output[k].len;
	return n;
}

void task_result_fini(struct task_result *r)
{
	bytes_fini(&r->compile.output);
	for (size_t i = 0; i < r->n_runs; i++)
		for (int k = 0; k < _TASK_STREAM_MAX; k++)
			bytes_fini(&r->runs[i].output[k]);
	free(r->runs);
	free(r->isolation.level);
	free(r->isolation.limits);
	free(r->isolation.standby);
	free(r->pod);
	free(r->error_code);
	free(r->error_message);
	*r = (struct task_result){0};
}

void task_result_free(struct task_result *r)
{
	if (!r)
		return;
	task_result_fini(r);
	free(r);
}

void task_free(struct task *t)
{
	if (!t)
		return;
	task_spec_fini(&t->spec);
	task_result_free(t->result);
	free(t);
}

#define TO(state) (1u << (state))

/* From each state, the states that it may move to. RUNNING to FAILED and to QUEUED are what is left
 * when a runner was lost: with tries left, or without. */
static const unsigned moves[_TASK_STATE_MAX] = {
	[TASK_QUEUED] = TO(TASK_RUNNING) | TO(TASK_CANCELLED) | TO(TASK_EXPIRED),
	[TASK_RUNNING] = TO(TASK_DONE) | TO(TASK_CANCELLED) | TO(TASK_FAILED) | TO(TASK_QUEUED),
	[TASK_DONE] = 0,
	[TASK_CANCELLED] = 0,
	[TASK_EXPIRED] = 0,
	[TASK_FAILED] = 0,
};

bool task_state_may_move(enum task_state from, enum task_state to)
{
	return moves[from] & TO(to);
}

bool task_state_is_final(enum task_state state)
{
	return moves[state] == 0;
}

static const char *const state_names[_TASK_STATE_MAX] = {
	[TASK_QUEUED] = "queued",	[TASK_RUNNING] = "running", [TASK_DONE] = "done",
	[TASK_CANCELLED] = "cancelled", [TASK_EXPIRED] = "expired", [TASK_FAILED] = "failed",
};

static const char *const class_names[_TASK_CLASS_MAX] = {
	[TASK_CLASS_HIGH] = "high",
	[TASK_CLASS_NORMAL] = "normal",
	[TASK_CLASS_LOW] = "low",
};

static const char *const outcome_names[_TASK_OUTCOME_MAX] = {
	[TASK_OUTCOME_OK] = "ok",
	[TASK_OUTCOME_COMPILE_ERROR] = "compile_error",
	[TASK_OUTCOME_RUNTIME_ERROR] = "runtime_error",
	[TASK_OUTCOME_SIGNALLED] = "signalled",
	[TASK_OUTCOME_TIME_LIMIT] = "time_limit",
	[TASK_OUTCOME_MEMORY_LIMIT] = "memory_limit",
	[TASK_OUTCOME_OUTPUT_LIMIT] = "output_limit",
};

static const char *const limit_names[_TASK_LIMIT_MAX] = {
	[TASK_LIMIT_CPU] = "cpu_ms",
	[TASK_LIMIT_WALL] = "wall_ms",
	[TASK_LIMIT_MEMORY] = "memory_bytes",
	[TASK_LIMIT_OUTPUT] = "output_bytes",
};

const char *task_state_name(enum task_state state)
{
	return state_names[state];
}

const char *task_class_name(enum task_class class)
{
	return class_names[class];
}

const char *task_outcome_name(enum task_outcome outcome)
{
	return outcome_names[outcome];
}

const char *task_limit_name(enum task_limit limit)
{
	return limit_names[limit];
}

static int find_name(const char *const *names, int n, const char *text)
{
	for (int i = 0; i < n; i++)
		if (names[i] && str_eq(names[i], text))
			return i;
	return -EINVAL;
}

int task_state_parse(const char *text, enum task_state *ret_state)
{
	int i = find_name(state_names, _TASK_STATE_MAX, text);

	if (i < 0)
		return i;
	*ret_state = (enum task_state)i;
	return 0;
}

int task_class_parse(const char *text, enum task_class *ret_class)
{
	int i = find_name(class_names, _TASK_CLASS_MAX, text);

	if (i < 0)
		return i;
	*ret_class = (enum task_class)i;
	return 0;
}
