/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/codec.h"

#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *copy(const char *text)
{
	char *c = strdup(text);

	assert_non_null(c);
	return c;
}

/* A task that uses every field, with bytes that are neither text nor without NUL. */
static struct task *sample_task(void)
{
	struct task *t = calloc(1, sizeof *t);
	struct task_spec *s;

	assert_non_null(t);
	s = &t->spec;
	uuid7_new(&s->id);
	s->tenant = copy("acme");
	s->class = TASK_CLASS_LOW;
	s->created_us = 1750000000123456;
	s->deadline_us = 1750000060123456;
	s->traceparent = copy("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
	s->program.language = copy("cpp");
	s->program.entry = copy("main.cpp");
	s->program.n_files = 2;
	s->program.files = calloc(2, sizeof *s->program.files);
	s->program.files[0].name = copy("main.cpp");
	assert_int_equal(bytes_set(&s->program.files[0].content, "int main;", 9), 0);
	s->program.files[1].name = copy("data.bin");
	assert_int_equal(bytes_set(&s->program.files[1].content, "\0\xff\n", 3), 0);
	task_limits_unset(&s->program.compile_limits);
	s->program.compile_limits.memory_bytes = 1 << 30;
	s->n_runs = 2;
	s->runs = calloc(2, sizeof *s->runs);
	for (int i = 0; i < 2; i++)
		task_limits_unset(&s->runs[i].limits);
	s->runs[0].limits.cpu_ms = 5000;
	s->runs[0].n_args = 2;
	s->runs[0].args = calloc(2, sizeof *s->runs[0].args);
	s->runs[0].args[0] = copy("-v");
	s->runs[0].args[1] = copy("");
	assert_int_equal(bytes_set(&s->runs[1].stdin_data, "in\0put", 6), 0);
	s->runs[1].cold = true;
	t->state = TASK_DONE;
	t->attempt = 2;
	t->started_us = 1750000000200000;
	t->finished_us = 1750000000300000;
	return t;
}

static struct task_result *sample_result(void)
{
	struct task_result *r = calloc(1, sizeof *r);

	assert_non_null(r);
	r->outcome = TASK_OUTCOME_SIGNALLED;
	r->ran = true;
	r->compile.ran = true;
	r->compile.cached = true;
	r->compile.exit_code = -1;
	assert_int_equal(bytes_set(&r->compile.output, "warning", 7), 0);
	r->n_runs = 1;
	r->runs = calloc(1, sizeof *r->runs);
	r->runs[0].outcome = TASK_OUTCOME_SIGNALLED;
	r->runs[0].signal = 11;
	r->runs[0].exit_code = -1;
	r->runs[0].truncated[TASK_STDERR] = true;
	r->runs[0].usage = (struct task_usage){11000, 13000, -1};
	assert_int_equal(bytes_set(&r->runs[0].output[TASK_STDOUT], "\xc3(", 2), 0);
	r->isolation.level = copy("sandbox");
	r->isolation.limits = copy("cgroup1");
	r->isolation.seccomp = true;
	r->isolation.landlock = 7;
	r->pod = copy("local-0");
	return r;
}

static void assert_bytes_equal(const struct bytes *a, const struct bytes *b)
{
	assert_int_equal(a->len, b->len);
	if (a->len)
		assert_memory_equal(a->data, b->data, a->len);
}

static void codec_spec_comes_back_whole(void **state)
{
	struct task *t = sample_task();
	struct task_spec *back = NULL;
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 20);
	assert_int_equal(codec_pack_spec(&t->spec, &b), 0);
	assert_int_equal(codec_unpack_spec(b.data, b.len, &back, NULL), 0);
	assert_true(uuid_eq(&back->id, &t->spec.id));
	assert_string_equal(back->tenant, "acme");
	assert_int_equal(back->class, TASK_CLASS_LOW);
	assert_int_equal(back->deadline_us, t->spec.deadline_us);
	assert_string_equal(back->traceparent, t->spec.traceparent);
	assert_string_equal(back->program.entry, "main.cpp");
	assert_int_equal(back->program.n_files, 2);
	for (size_t i = 0; i < 2; i++)
		assert_bytes_equal(&back->program.files[i].content,
				   &t->spec.program.files[i].content);
	assert_memory_equal(&back->program.compile_limits, &t->spec.program.compile_limits,
			    sizeof back->program.compile_limits);
	assert_int_equal(back->n_runs, 2);
	assert_int_equal(back->runs[0].n_args, 2);
	assert_string_equal(back->runs[0].args[1], "");
	assert_memory_equal(&back->runs[0].limits, &t->spec.runs[0].limits,
			    sizeof back->runs[0].limits);
	assert_bytes_equal(&back->runs[1].stdin_data, &t->spec.runs[1].stdin_data);
	assert_false(back->runs[0].cold);
	assert_true(back->runs[1].cold);
	task_spec_free(back);
	buf_fini(&b);
	task_free(t);
}

static void codec_task_keeps_names_and_result_but_no_contents(void **state)
{
	struct task *t = sample_task(), *back = NULL;
	struct buf b;

	(void)state;
	t->result = sample_result();
	buf_init(&b, 1 << 20);
	assert_int_equal(codec_pack_task(t, &b), 0);
	assert_int_equal(codec_unpack_task(b.data, b.len, &back, NULL), 0);
	assert_int_equal(back->state, TASK_DONE);
	assert_int_equal(back->attempt, 2);
	assert_int_equal(back->finished_us, t->finished_us);
	assert_string_equal(back->spec.program.files[1].name, "data.bin");
	assert_int_equal(back->spec.program.files[1].content.len, 0);
	assert_non_null(back->result);
	assert_int_equal(back->result->runs[0].signal, 11);
	assert_int_equal(back->result->runs[0].usage.memory_bytes, -1);
	assert_true(back->result->runs[0].truncated[TASK_STDERR]);
	assert_true(back->result->compile.cached);
	assert_bytes_equal(&back->result->runs[0].output[TASK_STDOUT],
			   &t->result->runs[0].output[TASK_STDOUT]);
	assert_int_equal(back->result->isolation.landlock, 7);
	assert_null(back->result->error_code);
	task_free(back);
	buf_fini(&b);
	task_free(t);
}

static void codec_result_without_compile_has_none(void **state)
{
	struct task_result *r = sample_result(), *back = NULL;
	struct buf b;

	(void)state;
	r->compile.ran = false;
	buf_init(&b, 1 << 20);
	assert_int_equal(codec_pack_result(r, &b), 0);
	assert_int_equal(codec_unpack_result(b.data, b.len, &back, NULL), 0);
	assert_false(back->compile.ran);
	task_result_free(back);
	task_result_free(r);
	buf_fini(&b);
}

/* Every prefix and every one-byte change either is refused or gives a structure that can be freed;
 * the sanitizers watch. */
static void codec_damaged_bytes_are_refused_or_harmless(void **state)
{
	struct task *t = sample_task(), *back;
	struct buf b;

	(void)state;
	t->result = sample_result();
	buf_init(&b, 1 << 20);
	assert_int_equal(codec_pack_task(t, &b), 0);
	for (size_t n = 0; n < b.len; n++) {
		back = NULL;
		if (codec_unpack_task(b.data, n, &back, NULL) == 0)
			task_free(back);
	}
	for (size_t i = 0; i < b.len; i++) {
		b.data[i] = (char)~b.data[i];
		back = NULL;
		if (codec_unpack_task(b.data, b.len, &back, NULL) == 0)
			task_free(back);
		b.data[i] = (char)~b.data[i];
	}
	buf_fini(&b);
	task_free(t);
}

static void codec_numbers_out_of_range_are_refused(void **state)
{
	Kiln__RunResult m = KILN__RUN_RESULT__INIT;
	Kiln__CompileResult c = KILN__COMPILE_RESULT__INIT;
	ProtobufCBinaryData id = {.len = 15, .data = (uint8_t[16]){0}};
	struct task_run_result r = {0};
	struct task_compile_result cr = {0};
	struct uuid u;

	(void)state;
	m.outcome = _TASK_OUTCOME_MAX;
	assert_int_equal(codec_get_run_result(&m, &r, NULL), -EBADMSG);
	m.outcome = TASK_OUTCOME_OK;
	m.limit_hit = _TASK_LIMIT_MAX;
	assert_int_equal(codec_get_run_result(&m, &r, NULL), -EBADMSG);
	c.limit_hit = 1000;
	assert_int_equal(codec_get_compile_result(&c, &cr, NULL), -EBADMSG);
	assert_int_equal(codec_get_id(&id, &u), -EBADMSG);
}

/* What version 0.1.0 stored, and what a later one may store: with a field that is not known. */
static void read_recorded(const char *name, struct buf *b, bool later)
{
	static const char unknown[] = {(char)0xc0, 0x3e, 0x07}; /* field 1000: 7 */
	char path[256];

	buf_init(b, 4096);
	(void)snprintf(path, sizeof path, KILN_SOURCE_ROOT "/tests/recorded/1/%s", name);
	assert_int_equal(fs_read_file(AT_FDCWD, path, b, NULL), 0);
	if (later)
		assert_int_equal(buf_append(b, unknown, sizeof unknown), 0);
}

static void codec_recorded_bytes_stay_readable(void **state)
{
	(void)state;
	for (int later = 0; later < 2; later++) {
		struct task_spec *spec = NULL;
		struct task_result *result = NULL;
		struct buf b;

		read_recorded("spec", &b, later);
		assert_int_equal(codec_unpack_spec(b.data, b.len, &spec, NULL), 0);
		assert_string_equal(spec->tenant, "default");
		assert_int_equal(spec->class, TASK_CLASS_HIGH);
		assert_string_equal(spec->program.language, "c");
		assert_int_equal(spec->program.n_files, 1);
		assert_int_equal(spec->n_runs, 1);
		assert_string_equal(spec->runs[0].args[0], "recorded");
		assert_string_equal(spec->runs[0].stdin_data.data, "12");
		assert_int_equal(spec->runs[0].limits.cpu_ms, 2000);
		buf_fini(&b);
		read_recorded("result", &b, later);
		assert_int_equal(codec_unpack_result(b.data, b.len, &result, NULL), 0);
		assert_int_equal(result->outcome, TASK_OUTCOME_RUNTIME_ERROR);
		assert_int_equal(result->n_runs, 1);
		assert_int_equal(result->runs[0].exit_code, 3);
		assert_string_equal(result->runs[0].output[TASK_STDOUT].data, "144 recorded\n");
		assert_string_equal(result->pod, "local-0");
		buf_fini(&b);
		task_spec_free(spec);
		task_result_free(result);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(codec_spec_comes_back_whole),
		cmocka_unit_test(codec_task_keeps_names_and_result_but_no_contents),
		cmocka_unit_test(codec_result_without_compile_has_none),
		cmocka_unit_test(codec_damaged_bytes_are_refused_or_harmless),
		cmocka_unit_test(codec_recorded_bytes_stay_readable),
		cmocka_unit_test(codec_numbers_out_of_range_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
