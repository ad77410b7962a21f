/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "wire/codec.h"

#include <errno.h>
#include <stdlib.h>

/* What an ASSIGN carries itself; the rest of larger tasks follows in CONTENT frames. */
enum { INLINE_MAX = 512 * 1024 };

struct assignment {
	Kiln__Assign assign;
	Kiln__Program program;
	Kiln__Limits compile_limits;
	Kiln__File *files;
	Kiln__File **file_ptrs;
	Kiln__Run *runs;
	Kiln__Run **run_ptrs;
	Kiln__Limits *run_limits;
	size_t room; /* left of INLINE_MAX */
};

static void assignment_fini(struct assignment *a)
{
	free(a->files);
	free(a->file_ptrs);
	free(a->runs);
	free(a->run_ptrs);
	free(a->run_limits);
}

/* Contents go inline as long as there is room, each whole or not at all. */
static void put_content(struct assignment *a, const struct bytes *b,
			ProtobufCBinaryData *ret_inline, uint64_t *ret_size)
{
	*ret_size = b->len;
	if (b->len > a->room)
		return;
	a->room -= b->len;
	ret_inline->data = (uint8_t *)b->data;
	ret_inline->len = b->len;
}

static int build(struct assignment *a, const struct task_spec *s)
{
	const struct task_program *p = &s->program;

	a->room = INLINE_MAX;
	a->files = calloc(p->n_files + 1, sizeof *a->files);
	a->file_ptrs = calloc(p->n_files + 1, sizeof(void *));
	a->runs = calloc(s->n_runs + 1, sizeof *a->runs);
	a->run_ptrs = calloc(s->n_runs + 1, sizeof(void *));
	a->run_limits = calloc(s->n_runs + 1, sizeof *a->run_limits);
	if (!a->files || !a->file_ptrs || !a->runs || !a->run_ptrs || !a->run_limits)
		return -ENOMEM;
	kiln__program__init(&a->program);
	a->program.language = p->language;
	a->program.entry = p->entry;
	codec_put_limits(&p->compile_limits, &a->compile_limits);
	a->program.compile_limits = &a->compile_limits;
	a->program.files = a->file_ptrs;
	a->program.n_files = p->n_files;
	for (size_t i = 0; i < p->n_files; i++) {
		kiln__file__init(&a->files[i]);
		a->files[i].name = p->files[i].name;
		put_content(a, &p->files[i].content, &a->files[i].content, &a->files[i].size);
		a->file_ptrs[i] = &a->files[i];
	}
	for (size_t i = 0; i < s->n_runs; i++) {
		const struct task_run *run = &s->runs[i];

		kiln__run__init(&a->runs[i]);
		a->runs[i].args = run->args;
		a->runs[i].n_args = run->n_args;
		put_content(a, &run->stdin_data, &a->runs[i].stdin, &a->runs[i].stdin_size);
		a->runs[i].cold = run->cold;
		codec_put_limits(&run->limits, &a->run_limits[i]);
		a->runs[i].limits = &a->run_limits[i];
		a->run_ptrs[i] = &a->runs[i];
	}
	return 0;
}

static int send_content(struct job *j, const struct bytes *b, bool is_stdin, size_t index)
{
	for (size_t at = 0; at < b->len;) {
		Kiln__Frame frame = KILN__FRAME__INIT;
		Kiln__Content m = KILN__CONTENT__INIT;
		size_t n = b->len - at < WIRE_CHUNK_MAX ? b->len - at : WIRE_CHUNK_MAX;
		int r;

		codec_put_id(&j->id, &m.task);
		m.is_stdin = is_stdin;
		m.index = (uint32_t)index;
		m.bytes.data = (uint8_t *)b->data + at;
		m.bytes.len = n;
		frame.kind_case = KILN__FRAME__KIND_CONTENT;
		frame.content = &m;
		r = wire_conn_send(j->runner->conn, &frame);
		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

static int send_rest(struct job *j, const struct assignment *a)
{
	const struct task_spec *s = j->spec;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < s->program.n_files; i++)
		if (!a->files[i].content.len)
			r = send_content(j, &s->program.files[i].content, false, i);
	for (size_t i = 0; r >= 0 && i < s->n_runs; i++)
		if (!a->runs[i].stdin.len)
			r = send_content(j, &s->runs[i].stdin_data, true, i);
	return r;
}

int assign_send(struct job *j)
{
	CLEANUP(assignment_fini) struct assignment a = {0};
	Kiln__Frame frame = KILN__FRAME__INIT;
	int r = build(&a, j->spec);

	if (r < 0)
		return r;
	kiln__assign__init(&a.assign);
	codec_put_id(&j->id, &a.assign.task);
	a.assign.lease_ms = (uint32_t)j->scheduler->cfg.lease_ms;
	a.assign.tenant = j->spec->tenant;
	if (j->spec->traceparent)
		a.assign.traceparent = j->spec->traceparent;
	a.assign.program = &a.program;
	a.assign.runs = a.run_ptrs;
	a.assign.n_runs = j->spec->n_runs;
	frame.kind_case = KILN__FRAME__KIND_ASSIGN;
	frame.assign = &a.assign;
	r = wire_conn_send(j->runner->conn, &frame);
	return r < 0 ? r : send_rest(j, &a);
}
