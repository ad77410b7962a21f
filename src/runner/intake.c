/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/intake.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "sandbox/archive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What holds where neither the task nor its language says anything. */
static const struct task_limits run_defaults = {
	.cpu_ms = 5000,
	.wall_ms = 15000,
	.memory_bytes = INT64_C(256) << 20,
	.processes = 64,
	.output_bytes = INT64_C(1) << 20,
	.disk_bytes = INT64_C(64) << 20,
	.file_bytes = INT64_C(64) << 20,
	.open_files = 256,
	.stack_bytes = INT64_C(8) << 20,
};

static const struct task_limits compile_defaults = {
	.cpu_ms = 15000,
	.wall_ms = 30000,
	.memory_bytes = INT64_C(1) << 30,
	.processes = 64,
	.output_bytes = INT64_C(64) << 10,
	.disk_bytes = INT64_C(256) << 20,
	.file_bytes = INT64_C(256) << 20,
	.open_files = 256,
	.stack_bytes = INT64_C(8) << 20,
};

/* Grows content to the size that was named, in which what came already stands first. */
static int expect(struct intake *in, struct bytes *b, uint64_t size, size_t *ret_size,
		  size_t *total, struct err *e)
{
	char *grown;

	if (size < b->len)
		size = b->len;
	if (size > INTAKE_BYTES_MAX - *total)
		return err_set(e, -EBADMSG, "a task has more than %d bytes", INTAKE_BYTES_MAX);
	*total += (size_t)size;
	*ret_size = (size_t)size;
	in->missing += (size_t)size - b->len;
	if (size == b->len)
		return 0;
	grown = realloc(b->data, (size_t)size + 1);
	if (!grown)
		return err_set(e, -ENOMEM, "out of memory");
	grown[size] = '\0';
	b->data = grown;
	return 0;
}

static int expect_all(struct intake *in, const Kiln__Assign *m, struct err *e)
{
	size_t total = 0;
	int r = 0;

	in->file_sizes = calloc(in->program.n_files + 1, sizeof(*in->file_sizes));
	in->stdin_sizes = calloc(in->n_runs + 1, sizeof(*in->stdin_sizes));
	if (!in->file_sizes || !in->stdin_sizes)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < in->program.n_files; i++)
		r = expect(in, &in->program.files[i].content, m->program->files[i]->size,
			   &in->file_sizes[i], &total, e);
	for (size_t i = 0; r == 0 && i < in->n_runs; i++)
		r = expect(in, &in->runs[i].stdin_data, m->runs[i]->stdin_size, &in->stdin_sizes[i],
			   &total, e);
	return r;
}

int intake_init(struct intake *in, const Kiln__Assign *m, struct err *e)
{
	int r = codec_get_id(&m->task, &in->id);

	if (r < 0)
		return err_set(e, -EBADMSG, "a task has no id");
	if (!str_copy(in->tenant, sizeof(in->tenant), m->tenant))
		return err_set(e, -EBADMSG, "the name of a tenant is too long");
	if (traceparent_read(m->traceparent, strlen(m->traceparent), NULL))
		(void)str_copy(in->traceparent, sizeof(in->traceparent), m->traceparent);
	if (m->n_runs == 0 || m->n_runs > TASK_RUNS_MAX)
		return err_set(e, -EBADMSG, "a task has %zu runs", m->n_runs);
	r = codec_get_program(m->program, &in->program, e);
	if (r < 0)
		return r;
	in->runs = calloc(m->n_runs, sizeof(*in->runs));
	if (!in->runs)
		return err_set(e, -ENOMEM, "out of memory");
	in->n_runs = m->n_runs;
	for (size_t i = 0; r == 0 && i < m->n_runs; i++)
		r = codec_get_run(m->runs[i], &in->runs[i], e);
	return r < 0 ? r : expect_all(in, m, e);
}

void intake_fini(struct intake *in)
{
	task_program_fini(&in->program);
	for (size_t i = 0; i < in->n_runs; i++)
		task_run_fini(&in->runs[i]);
	free(in->runs);
	free(in->file_sizes);
	free(in->stdin_sizes);
	*in = (struct intake){0};
}

int intake_content(struct intake *in, const Kiln__Content *m, struct err *e)
{
	size_t count = m->is_stdin ? in->n_runs : in->program.n_files;
	const size_t *sizes = m->is_stdin ? in->stdin_sizes : in->file_sizes;
	struct bytes *b;

	if (m->index >= count)
		return err_set(e, -EBADMSG, "content for a file or run that does not exist");
	b = m->is_stdin ? &in->runs[m->index].stdin_data : &in->program.files[m->index].content;
	if (m->bytes.len > sizes[m->index] - b->len)
		return err_set(e, -EBADMSG, "more content than was announced");
	if (m->bytes.len > 0)
		memcpy(b->data + b->len, m->bytes.data, m->bytes.len);
	b->len += m->bytes.len;
	in->missing -= m->bytes.len;
	return 0;
}

static int check_files(const struct task_program *p, struct err *e)
{
	bool has_entry = false;

	for (size_t i = 0; i < p->n_files; i++) {
		const char *name = p->files[i].name;

		if (!name || strlen(name) > TASK_FILE_NAME_MAX ||
		    !archive_name_valid(name, strlen(name)))
			return err_set(e, -EINVAL, "a file of the program has no valid name");
		has_entry = has_entry || str_eq(name, p->entry);
	}
	if (!has_entry)
		return err_set(e, -EINVAL, "the entry is not among the program's files");
	return 0;
}

/* 0 and below stand for unset: the message's default is 0. */
static void complete(struct task_limits *l, const struct task_limits *language,
		     const struct task_limits *built_in)
{
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		int64_t *value = task_limit_at(l, &task_limit_fields[i]);

		if (*value <= 0)
			*value = TASK_LIMIT_UNSET;
	}
	task_limits_default(l, language);
	task_limits_default(l, built_in);
}

static int check_limits(const struct task_limits *l, struct err *e)
{
	if (l->processes > INT32_MAX || l->open_files > INT32_MAX || l->cpu_ms > INT64_MAX / 1000 ||
	    l->wall_ms > INT64_MAX / 1000)
		return err_set(e, -EINVAL, "a limit is out of range");
	return 0;
}

int intake_check(struct intake *in, const struct language *l, struct err *e)
{
	int r = check_files(&in->program, e);

	if (r < 0)
		return r;
	complete(&in->program.compile_limits, &l->compile.limits, &compile_defaults);
	r = check_limits(&in->program.compile_limits, e);
	for (size_t i = 0; r == 0 && i < in->n_runs; i++) {
		complete(&in->runs[i].limits, &l->run.limits, &run_defaults);
		r = check_limits(&in->runs[i].limits, e);
	}
	return r;
}
