/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- small pieces ---- */

static char empty_text[] = "";

static char *text_or_empty(char *text)
{
	return text ? text : empty_text;
}

static void put_bytes(const struct bytes *b, ProtobufCBinaryData *m)
{
	m->len = b->len;
	m->data = (uint8_t *)b->data;
}

static int get_bytes(const ProtobufCBinaryData *m, struct bytes *b)
{
	return bytes_set(b, m->data, m->len);
}

/* protobuf has no absent string: empty stands for NULL. */
static int get_optional_text(const char *text, char **ret)
{
	if (!text || !*text)
		return 0;
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

static int get_text(const char *text, char **ret)
{
	*ret = strdup(text ? text : "");
	return *ret ? 0 : -ENOMEM;
}

int codec_get_id(const ProtobufCBinaryData *m, struct uuid *ret_id)
{
	if (m->len != sizeof ret_id->bytes)
		return -EBADMSG;
	memcpy(ret_id->bytes, m->data, m->len);
	return 0;
}

void codec_put_id(const struct uuid *id, ProtobufCBinaryData *m)
{
	m->len = sizeof id->bytes;
	m->data = (uint8_t *)(uintptr_t)id->bytes;
}

/* ---- limits ---- */

/* One row per field, for both directions. */
static const struct {
	size_t ours;
	size_t theirs;
} limit_offsets[] = {
	{offsetof(struct task_limits, cpu_ms), offsetof(Kiln__Limits, cpu_ms)},
	{offsetof(struct task_limits, wall_ms), offsetof(Kiln__Limits, wall_ms)},
	{offsetof(struct task_limits, memory_bytes), offsetof(Kiln__Limits, memory_bytes)},
	{offsetof(struct task_limits, processes), offsetof(Kiln__Limits, processes)},
	{offsetof(struct task_limits, output_bytes), offsetof(Kiln__Limits, output_bytes)},
	{offsetof(struct task_limits, disk_bytes), offsetof(Kiln__Limits, disk_bytes)},
	{offsetof(struct task_limits, file_bytes), offsetof(Kiln__Limits, file_bytes)},
	{offsetof(struct task_limits, open_files), offsetof(Kiln__Limits, open_files)},
	{offsetof(struct task_limits, stack_bytes), offsetof(Kiln__Limits, stack_bytes)},
};

void codec_put_limits(const struct task_limits *l, Kiln__Limits *m)
{
	kiln__limits__init(m);
	for (size_t i = 0; i < ARRAY_SIZE(limit_offsets); i++)
		memcpy((char *)m + limit_offsets[i].theirs, (const char *)l + limit_offsets[i].ours,
		       sizeof(int64_t));
}

static void get_limits(const Kiln__Limits *m, struct task_limits *l)
{
	task_limits_unset(l);
	if (!m)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(limit_offsets); i++)
		memcpy((char *)l + limit_offsets[i].ours, (const char *)m + limit_offsets[i].theirs,
		       sizeof(int64_t));
}

/* ---- results, into messages ---- */

void codec_put_usage(const struct task_usage *u, Kiln__Usage *m)
{
	kiln__usage__init(m);
	m->cpu_us = u->cpu_us;
	m->wall_us = u->wall_us;
	m->memory_bytes = u->memory_bytes;
}

void codec_put_compile_result(const struct task_compile_result *r, Kiln__CompileResult *m,
			      Kiln__Usage *usage)
{
	kiln__compile_result__init(m);
	codec_put_usage(&r->usage, usage);
	m->cached = r->cached;
	m->exit_code = r->exit_code;
	m->limit_hit = r->limit_hit;
	put_bytes(&r->output, &m->output);
	m->output_truncated = r->output_truncated;
	m->usage = usage;
}

void codec_put_run_result(const struct task_run_result *r, Kiln__RunResult *m, Kiln__Usage *usage)
{
	kiln__run_result__init(m);
	codec_put_usage(&r->usage, usage);
	m->outcome = r->outcome;
	m->exit_code = r->exit_code;
	m->signal = r->signal;
	m->limit_hit = r->limit_hit;
	put_bytes(&r->output[TASK_STDOUT], &m->stdout);
	put_bytes(&r->output[TASK_STDERR], &m->stderr);
	m->stdout_truncated = r->truncated[TASK_STDOUT];
	m->stderr_truncated = r->truncated[TASK_STDERR];
	m->usage = usage;
}

void codec_put_isolation(const struct task_isolation *i, Kiln__Isolation *m)
{
	kiln__isolation__init(m);
	m->level = text_or_empty(i->level);
	m->limits = text_or_empty(i->limits);
	m->standby = text_or_empty(i->standby);
	m->namespaces = i->namespaces;
	m->seccomp = i->seccomp;
	m->landlock = (uint32_t)i->landlock;
}

/* ---- packing ---- */

/* Room for the messages of one task: each part is one array, so that nothing is allocated per
 * field. */
struct parts {
	Kiln__Spec spec;
	Kiln__Program program;
	Kiln__Limits compile_limits;
	Kiln__File *files;
	Kiln__File **file_ptrs;
	Kiln__Run *runs;
	Kiln__Run **run_ptrs;
	Kiln__Limits *run_limits;
	Kiln__Result result;
	Kiln__CompileResult compile;
	Kiln__Usage compile_usage;
	Kiln__RunResult *run_results;
	Kiln__RunResult **run_result_ptrs;
	Kiln__Usage *usages;
	Kiln__Isolation isolation;
};

static void parts_fini(struct parts *p)
{
	free(p->files);
	free(p->file_ptrs);
	free(p->runs);
	free(p->run_ptrs);
	free(p->run_limits);
	free(p->run_results);
	free(p->run_result_ptrs);
	free(p->usages);
}

#define AUTO_PARTS CLEANUP(parts_fini)

static void put_files(const struct task_program *program, bool contents, struct parts *p)
{
	for (size_t i = 0; i < program->n_files; i++) {
		const struct task_file *f = &program->files[i];

		kiln__file__init(&p->files[i]);
		p->files[i].name = f->name;
		p->files[i].size = f->content.len;
		if (contents)
			put_bytes(&f->content, &p->files[i].content);
		p->file_ptrs[i] = &p->files[i];
	}
}

static void put_runs(const struct task_spec *s, bool contents, struct parts *p)
{
	for (size_t i = 0; i < s->n_runs; i++) {
		const struct task_run *run = &s->runs[i];
		Kiln__Run *m = &p->runs[i];

		kiln__run__init(m);
		m->args = run->args;
		m->n_args = run->n_args;
		m->stdin_size = run->stdin_data.len;
		m->cold = run->cold;
		if (contents)
			put_bytes(&run->stdin_data, &m->stdin);
		codec_put_limits(&run->limits, &p->run_limits[i]);
		m->limits = &p->run_limits[i];
		p->run_ptrs[i] = m;
	}
}

static int put_spec(const struct task_spec *s, bool contents, struct parts *p)
{
	const struct task_program *program = &s->program;

	p->files = calloc(program->n_files + 1, sizeof *p->files);
	p->file_ptrs = calloc(program->n_files + 1, sizeof(void *));
	p->runs = calloc(s->n_runs + 1, sizeof *p->runs);
	p->run_ptrs = calloc(s->n_runs + 1, sizeof(void *));
	p->run_limits = calloc(s->n_runs + 1, sizeof *p->run_limits);
	if (!p->files || !p->file_ptrs || !p->runs || !p->run_ptrs || !p->run_limits)
		return -ENOMEM;
	put_files(program, contents, p);
	put_runs(s, contents, p);
	codec_put_limits(&program->compile_limits, &p->compile_limits);

	kiln__program__init(&p->program);
	p->program.language = program->language;
	p->program.entry = text_or_empty(program->entry);
	p->program.files = p->file_ptrs;
	p->program.n_files = program->n_files;
	p->program.compile_limits = &p->compile_limits;

	kiln__spec__init(&p->spec);
	codec_put_id(&s->id, &p->spec.id);
	p->spec.tenant = text_or_empty(s->tenant);
	p->spec.class_ = s->class;
	p->spec.created_us = s->created_us;
	p->spec.deadline_us = s->deadline_us;
	p->spec.traceparent = text_or_empty(s->traceparent);
	p->spec.program = &p->program;
	p->spec.runs = p->run_ptrs;
	p->spec.n_runs = s->n_runs;
	return 0;
}

static int put_result(const struct task_result *r, struct parts *p)
{
	p->run_results = calloc(r->n_runs + 1, sizeof *p->run_results);
	p->run_result_ptrs = calloc(r->n_runs + 1, sizeof(void *));
	p->usages = calloc(r->n_runs + 1, sizeof *p->usages);
	if (!p->run_results || !p->run_result_ptrs || !p->usages)
		return -ENOMEM;
	kiln__result__init(&p->result);
	p->result.outcome = r->outcome;
	p->result.ran = r->ran;
	if (r->compile.ran) {
		codec_put_compile_result(&r->compile, &p->compile, &p->compile_usage);
		p->result.compile = &p->compile;
	}
	for (size_t i = 0; i < r->n_runs; i++) {
		codec_put_run_result(&r->runs[i], &p->run_results[i], &p->usages[i]);
		p->run_result_ptrs[i] = &p->run_results[i];
	}
	p->result.runs = p->run_result_ptrs;
	p->result.n_runs = r->n_runs;
	codec_put_isolation(&r->isolation, &p->isolation);
	p->result.isolation = &p->isolation;
	p->result.pod = text_or_empty(r->pod);
	p->result.error_code = text_or_empty(r->error_code);
	p->result.error_message = text_or_empty(r->error_message);
	return 0;
}

static int pack(const ProtobufCMessage *m, struct buf *b)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	int r = buf_reserve(b, len);

	if (r < 0)
		return r;
	(void)protobuf_c_message_pack(m, (uint8_t *)b->data + b->len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

int codec_pack_spec(const struct task_spec *s, struct buf *b)
{
	AUTO_PARTS struct parts p = {0};
	int r = put_spec(s, true, &p);

	return r < 0 ? r : pack(&p.spec.base, b);
}

int codec_pack_spec_head(const struct task_spec *s, struct buf *b)
{
	AUTO_PARTS struct parts p = {0};
	int r = put_spec(s, false, &p);

	return r < 0 ? r : pack(&p.spec.base, b);
}

int codec_pack_result_head(const struct task_result *res, struct buf *b)
{
	AUTO_PARTS struct parts p = {0};
	int r = put_result(res, &p);

	if (r < 0)
		return r;
	p.compile.output.len = 0;
	for (size_t i = 0; i < res->n_runs; i++)
		p.run_results[i].stdout.len = p.run_results[i].stderr.len = 0;
	return pack(&p.result.base, b);
}

int codec_pack_result(const struct task_result *res, struct buf *b)
{
	AUTO_PARTS struct parts p = {0};
	int r = put_result(res, &p);

	return r < 0 ? r : pack(&p.result.base, b);
}

int codec_pack_task(const struct task *t, struct buf *b)
{
	AUTO_PARTS struct parts p = {0};
	Kiln__Task m = KILN__TASK__INIT;
	int r = put_spec(&t->spec, false, &p);

	if (r < 0)
		return r;
	if (t->result) {
		r = put_result(t->result, &p);
		if (r < 0)
			return r;
		m.result = &p.result;
	}
	m.spec = &p.spec;
	m.state = t->state;
	m.attempt = (uint32_t)t->attempt;
	m.cancelling = t->cancelling;
	m.started_us = t->started_us;
	m.finished_us = t->finished_us;
	return pack(&m.base, b);
}

/* ---- unpacking ---- */

int codec_get_run(const Kiln__Run *m, struct task_run *ret_run, struct err *e)
{
	if (m->n_args > TASK_ARGS_MAX)
		return err_set(e, -EBADMSG, "a run has %zu arguments", m->n_args);
	if (m->n_args) {
		ret_run->args = calloc(m->n_args, sizeof *ret_run->args);
		if (!ret_run->args)
			return err_set(e, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < m->n_args; i++) {
		if (get_text(m->args[i], &ret_run->args[i]) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		ret_run->n_args = i + 1;
	}
	get_limits(m->limits, &ret_run->limits);
	ret_run->cold = m->cold;
	if (get_bytes(&m->stdin, &ret_run->stdin_data) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

int codec_get_program(const Kiln__Program *m, struct task_program *ret_program, struct err *e)
{
	if (!m || m->n_files > TASK_PROGRAM_FILES_MAX)
		return err_set(e, -EBADMSG, "a program is missing or has too many files");
	get_limits(m->compile_limits, &ret_program->compile_limits);
	ret_program->files = calloc(m->n_files + 1, sizeof *ret_program->files);
	if (!ret_program->files || get_text(m->language, &ret_program->language) < 0 ||
	    get_text(m->entry, &ret_program->entry) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < m->n_files; i++) {
		struct task_file *f = &ret_program->files[i];

		ret_program->n_files = i + 1;
		if (get_text(m->files[i]->name, &f->name) < 0 ||
		    get_bytes(&m->files[i]->content, &f->content) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

static void get_usage(const Kiln__Usage *m, struct task_usage *u)
{
	*u = (struct task_usage){.memory_bytes = -1};
	if (m)
		*u = (struct task_usage){m->cpu_us, m->wall_us, m->memory_bytes};
}

int codec_get_compile_result(const Kiln__CompileResult *m, struct task_compile_result *r,
			     struct err *e)
{
	if (m->limit_hit >= _TASK_LIMIT_MAX)
		return err_set(e, -EBADMSG, "a compile result names an unknown limit");
	r->ran = true;
	r->cached = m->cached;
	r->exit_code = m->exit_code;
	r->limit_hit = (enum task_limit)m->limit_hit;
	r->output_truncated = m->output_truncated;
	get_usage(m->usage, &r->usage);
	return get_bytes(&m->output, &r->output) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int codec_get_run_result(const Kiln__RunResult *m, struct task_run_result *r, struct err *e)
{
	if (m->outcome >= _TASK_OUTCOME_MAX || m->limit_hit >= _TASK_LIMIT_MAX)
		return err_set(e, -EBADMSG, "a run's result has an unknown outcome or limit");
	r->outcome = (enum task_outcome)m->outcome;
	r->exit_code = m->exit_code;
	r->signal = m->signal;
	r->limit_hit = (enum task_limit)m->limit_hit;
	r->truncated[TASK_STDOUT] = m->stdout_truncated;
	r->truncated[TASK_STDERR] = m->stderr_truncated;
	get_usage(m->usage, &r->usage);
	if (get_bytes(&m->stdout, &r->output[TASK_STDOUT]) < 0 ||
	    get_bytes(&m->stderr, &r->output[TASK_STDERR]) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

int codec_get_isolation(const Kiln__Isolation *m, struct task_isolation *ret_isolation)
{
	if (!m)
		return 0;
	ret_isolation->namespaces = m->namespaces;
	ret_isolation->seccomp = m->seccomp;
	ret_isolation->landlock = (int)m->landlock;
	if (get_optional_text(m->level, &ret_isolation->level) < 0 ||
	    get_optional_text(m->limits, &ret_isolation->limits) < 0 ||
	    get_optional_text(m->standby, &ret_isolation->standby) < 0)
		return -ENOMEM;
	return 0;
}

static int get_spec(const Kiln__Spec *m, struct task_spec *s, struct err *e)
{
	int r;

	if (!m || codec_get_id(&m->id, &s->id) < 0 || m->class_ >= _TASK_CLASS_MAX ||
	    m->n_runs > TASK_RUNS_MAX)
		return err_set(e, -EBADMSG, "the bytes are no task");
	s->class = (enum task_class)m->class_;
	s->created_us = m->created_us;
	s->deadline_us = m->deadline_us;
	if (get_text(m->tenant, &s->tenant) < 0 ||
	    get_optional_text(m->traceparent, &s->traceparent) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	r = codec_get_program(m->program, &s->program, e);
	if (r < 0)
		return r;
	s->runs = calloc(m->n_runs + 1, sizeof *s->runs);
	if (!s->runs)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < m->n_runs; i++) {
		s->n_runs = i + 1;
		r = codec_get_run(m->runs[i], &s->runs[i], e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int get_result(const Kiln__Result *m, struct task_result *res, struct err *e)
{
	int r;

	if (m->outcome >= _TASK_OUTCOME_MAX || m->n_runs > TASK_RUNS_MAX)
		return err_set(e, -EBADMSG, "the bytes are no result");
	res->outcome = (enum task_outcome)m->outcome;
	res->ran = m->ran;
	if (m->compile) {
		r = codec_get_compile_result(m->compile, &res->compile, e);
		if (r < 0)
			return r;
	}
	res->runs = calloc(m->n_runs + 1, sizeof *res->runs);
	if (!res->runs)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < m->n_runs; i++) {
		res->n_runs = i + 1;
		r = codec_get_run_result(m->runs[i], &res->runs[i], e);
		if (r < 0)
			return r;
	}
	if (codec_get_isolation(m->isolation, &res->isolation) < 0 ||
	    get_optional_text(m->pod, &res->pod) < 0 ||
	    get_optional_text(m->error_code, &res->error_code) < 0 ||
	    get_optional_text(m->error_message, &res->error_message) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

int codec_unpack_spec(const void *bytes, size_t len, struct task_spec **ret_spec, struct err *e)
{
	AUTO(task_spec_free) struct task_spec *s = calloc(1, sizeof *s);
	Kiln__Spec *m = kiln__spec__unpack(NULL, len, bytes);
	int r;

	if (!s || !m)
		r = err_set(e, m ? -ENOMEM : -EBADMSG,
			    m ? "out of memory" : "the bytes are no task");
	else
		r = get_spec(m, s, e);
	kiln__spec__free_unpacked(m, NULL);
	if (r < 0)
		return r;
	*ret_spec = TAKE_PTR(s);
	return 0;
}

int codec_unpack_result(const void *bytes, size_t len, struct task_result **ret_result,
			struct err *e)
{
	AUTO(task_result_free) struct task_result *res = calloc(1, sizeof *res);
	Kiln__Result *m = kiln__result__unpack(NULL, len, bytes);
	int r;

	if (!res || !m)
		r = err_set(e, m ? -ENOMEM : -EBADMSG,
			    m ? "out of memory" : "the bytes are no result");
	else
		r = get_result(m, res, e);
	kiln__result__free_unpacked(m, NULL);
	if (r < 0)
		return r;
	*ret_result = TAKE_PTR(res);
	return 0;
}

static int get_task(const Kiln__Task *m, struct task *t, struct err *e)
{
	int r;

	if (m->state >= _TASK_STATE_MAX)
		return err_set(e, -EBADMSG, "the bytes are no task");
	t->state = (enum task_state)m->state;
	t->attempt = (int)m->attempt;
	t->cancelling = m->cancelling;
	t->started_us = m->started_us;
	t->finished_us = m->finished_us;
	r = get_spec(m->spec, &t->spec, e);
	if (r < 0 || !m->result)
		return r;
	t->result = calloc(1, sizeof *t->result);
	if (!t->result)
		return err_set(e, -ENOMEM, "out of memory");
	return get_result(m->result, t->result, e);
}

int codec_unpack_task(const void *bytes, size_t len, struct task **ret_task, struct err *e)
{
	AUTO(task_free) struct task *t = calloc(1, sizeof *t);
	Kiln__Task *m = kiln__task__unpack(NULL, len, bytes);
	int r;

	if (!t || !m)
		r = err_set(e, m ? -ENOMEM : -EBADMSG,
			    m ? "out of memory" : "the bytes are no task");
	else
		r = get_task(m, t, e);
	kiln__task__free_unpacked(m, NULL);
	if (r < 0)
		return r;
	*ret_task = TAKE_PTR(t);
	return 0;
}
