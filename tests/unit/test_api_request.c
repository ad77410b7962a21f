/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "api/request.h"
#include "base/buf.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

static struct language_registry *languages;
static struct task_limits defaults, ceilings, unset;

static int load_languages(void **state)
{
	struct err e = {""};

	(void)state;
	if (language_registry_load(KILN_SOURCE_ROOT "/languages", &languages, &e) < 0)
		fail_msg("%s", e.msg);
	for (size_t i = 0; i < language_count(languages); i++)
		(void)language_set_status(language_at(languages, i), true, NULL);
	(void)language_set_status(language_find(languages, "ruby"), false, NULL);
	task_limits_unset(&unset);
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		*task_limit_at(&defaults, &task_limit_fields[i]) = 10000 + (int64_t)i;
		*task_limit_at(&ceilings, &task_limit_fields[i]) = INT64_C(1) << 32;
	}
	ceilings.cpu_ms = 60000;
	return 0;
}

static int free_languages(void **state)
{
	(void)state;
	language_registry_free(languages);
	return 0;
}

/* 0, or the problem's status. */
static int submit(const char *text, size_t len, struct task_spec **ret_spec, struct problem *p)
{
	const struct request_rules rules = {
		.languages = languages,
		.languages_known = true,
		.run_defaults = &defaults,
		.run_ceilings = &ceilings,
		.compile_defaults = &defaults,
		.compile_ceilings = &ceilings,
		.now_us = 1000000,
	};
	AUTO(request_free) struct request *q = NULL;
	int r = request_read(text, len, &q, p);

	if (!r)
		r = request_resolve(q, &rules, ret_spec, p);
	return r < 0 ? problem_status(p->kind) : 0;
}

static struct task_spec *submitted(const char *text)
{
	struct task_spec *s = NULL;
	struct problem p;

	if (submit(text, strlen(text), &s, &p) != 0)
		fail_msg("%s: %s", text, p.detail);
	return s;
}

struct bad {
	const char *text;
	int status;
	const char *field;
};

#define PY "\"language\":\"python\",\"code\":\"1\""

static const struct bad bad_bodies[] = {
	{"", 400, ""},
	{"[]", 400, ""},
	{"{" PY "}x", 400, ""},
	{"{" PY ",\"code\":\"2\"}", 400, ""},
	{"{" PY ",\"stdin\":\"\xff\"}", 400, ""},
	{"[[[[[[[[[[[[[[[[[[[[", 413, ""},
	{"{\"code\":\"1\"}", 400, "language"},
	{"{\"language\":3,\"code\":\"1\"}", 400, "language"},
	{"{\"language\":\"\",\"code\":\"1\"}", 422, "language"},
	{"{\"language\":\"pyton\",\"code\":\"1\"}", 422, "language"},
	{"{\"language\":\"ruby\",\"code\":\"1\"}", 422, "language"},
	{"{\"language\":\"python\"}", 400, "code"},
	{"{\"language\":\"python\",\"code\":\"\"}", 400, "code"},
	{"{\"language\":\"python\",\"code\":null}", 400, "code"},
	{"{\"language\":\"python\",\"files\":[]}", 400, "files"},
	{"{" PY ",\"color\":1}", 400, "color"},
	{"{" PY ",\"code_encoding\":\"utf16\"}", 400, "code_encoding"},
	{"{" PY ",\"code_encoding\":\"base64\"}", 422, "code"},
	{"{" PY ",\"stdin\":\"*\",\"stdin_encoding\":\"base64\"}", 422, "stdin"},
	{"{" PY ",\"args\":\"x\"}", 400, "args"},
	{"{" PY ",\"args\":[\"x\",1]}", 400, "args[1]"},
	{"{" PY ",\"args\":[\"a\\u0000b\"]}", 400, "args[0]"},
	{"{" PY ",\"entry\":\"a\\u0000b\"}", 400, "entry"},
	{"{" PY ",\"files\":{}}", 400, "files"},
	{"{" PY ",\"files\":[{\"name\":\"a\"}]}", 400, "files[0].content"},
	{"{" PY ",\"files\":[{\"content\":\"a\"}]}", 400, "files[0].name"},
	{"{" PY ",\"files\":[{\"name\":\"a\",\"content\":\"\",\"mode\":1}]}", 400, "files[0].mode"},
	{"{" PY ",\"files\":[{\"name\":\"a\",\"content\":\"*\",\"encoding\":\"base64\"}]}", 422,
	 "files[0].content"},
	{"{" PY ",\"files\":[{\"name\":\"a\",\"content\":\"\",\"encoding\":\"x\"}]}", 400,
	 "files[0].encoding"},
	{"{" PY ",\"files\":[{\"name\":\"\",\"content\":\"\"}]}", 400, "files[0].name"},
	{"{" PY ",\"files\":[{\"name\":\".\",\"content\":\"\"}]}", 400, "files[0].name"},
	{"{" PY ",\"files\":[{\"name\":\"..\",\"content\":\"\"}]}", 400, "files[0].name"},
	{"{" PY ",\"files\":[{\"name\":\"a/b\",\"content\":\"\"}]}", 400, "files[0].name"},
	{"{" PY ",\"files\":[{\"name\":\"/\",\"content\":\"\"}]}", 400, "files[0].name"},
	{"{" PY ",\"files\":[{\"name\":\"a\\nb\",\"content\":\"\"}]}", 400, "files[0].name"},
	{"{" PY ",\"files\":[{\"name\":\"a\\u007f\",\"content\":\"\"}]}", 400, "files[0].name"},
	{"{" PY ",\"files\":[{\"name\":\"a\",\"content\":\"\"},{\"name\":\"a\",\"content\":\"\"}]}",
	 422, "files[1].name"},
	{"{" PY ",\"files\":[{\"name\":\"main.py\",\"content\":\"\"}]}", 422, "files[0].name"},
	{"{" PY ",\"entry\":\"../x\"}", 400, "entry"},
	{"{\"language\":\"python\",\"files\":[{\"name\":\"a\",\"content\":\"\"}]}", 422, "entry"},
	{"{\"language\":\"python\",\"entry\":\"b\",\"files\":[{\"name\":\"a\",\"content\":\"\"}]}",
	 422, "entry"},
	{"{" PY ",\"limits\":[]}", 400, "limits"},
	{"{" PY ",\"limits\":{\"cpu_ms\":0}}", 400, "limits.cpu_ms"},
	{"{" PY ",\"limits\":{\"cpu_ms\":-1}}", 400, "limits.cpu_ms"},
	{"{" PY ",\"limits\":{\"cpu_ms\":1.5}}", 400, "limits.cpu_ms"},
	{"{" PY ",\"limits\":{\"cpu_ms\":\"1\"}}", 400, "limits.cpu_ms"},
	{"{" PY ",\"limits\":{\"cpu_ms\":1e30}}", 400, "limits.cpu_ms"},
	{"{" PY ",\"limits\":{\"cpu_ms\":18446744073709551616}}", 400, "limits.cpu_ms"},
	{"{" PY ",\"limits\":{\"memory_bytes\":1}}", 400, "limits.memory_bytes"},
	{"{" PY ",\"limits\":{\"cpu\":1}}", 400, "limits.cpu"},
	{"{" PY ",\"limits\":{\"cpu_ms\":60001}}", 422, "limits.cpu_ms"},
	{"{" PY ",\"limits\":{\"stack_bytes\":9223372036854775807}}", 422, "limits.stack_bytes"},
	{"{" PY ",\"priority\":\"urgent\"}", 400, "priority"},
	{"{" PY ",\"standby\":\"no\"}", 400, "standby"},
	{"{" PY ",\"deadline_ms\":0}", 400, "deadline_ms"},
	{"{" PY ",\"deadline_ms\":604800001}", 400, "deadline_ms"},
};

static void request_bad_is_refused_with_its_field(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_bodies); i++) {
		const struct bad *b = &bad_bodies[i];
		struct task_spec *s = NULL;
		struct problem p = {.field = ""};
		int status = submit(b->text, strlen(b->text), &s, &p);

		if (status != b->status || !str_eq(p.field, b->field))
			fail_msg("%s: %d \"%s\": %s", b->text, status, p.field, p.detail);
		assert_null(s);
		assert_true(p.detail[0]);
	}
}

static void request_long_names_are_counted_in_bytes(void **state)
{
	char text[1024], name[300] = "";
	struct problem p;

	(void)state;
	for (size_t len = 254; len <= 256; len++) {
		AUTO(task_spec_free) struct task_spec *s = NULL;

		/* Two bytes each, one more in front where the length is odd. */
		(void)snprintf(name, sizeof name, "%s", len % 2 ? "x" : "");
		while (strlen(name) < len)
			(void)snprintf(name + strlen(name), 4, "\xc3\xa4");
		(void)snprintf(text, sizeof text,
			       "{" PY ",\"files\":[{\"name\":\"%s\",\"content\":\"\"}]}", name);
		assert_int_equal(submit(text, strlen(text), &s, &p), len > 255 ? 422 : 0);
	}
}

static void request_unknown_language_lists_near_names(void **state)
{
	static const char text[] = "{\"language\":\"pyton\",\"code\":\"1\"}";
	struct task_spec *s = NULL;
	struct problem p;

	(void)state;
	assert_int_equal(submit(text, sizeof text - 1, &s, &p), 422);
	assert_int_equal(p.kind, PROBLEM_UNKNOWN_LANGUAGE);
	assert_string_equal(p.near[0], "python");
}

static void request_missing_language_says_how_to_install(void **state)
{
	static const char text[] = "{\"language\":\"rb\",\"code\":\"1\"}";
	struct task_spec *s = NULL;
	struct problem p;

	(void)state;
	assert_int_equal(submit(text, sizeof text - 1, &s, &p), 422);
	assert_int_equal(p.kind, PROBLEM_LANGUAGE_NOT_INSTALLED);
	assert_string_equal(p.install, "apt-get install ruby");
}

static void request_above_ceiling_names_it(void **state)
{
	static const char text[] = "{" PY ",\"limits\":{\"cpu_ms\":60001}}";
	struct task_spec *s = NULL;
	struct problem p;

	(void)state;
	assert_int_equal(submit(text, sizeof text - 1, &s, &p), 422);
	assert_int_equal(p.ceiling, 60000);
	assert_non_null(strstr(p.detail, "60000"));
}

static void request_least_gets_defaults(void **state)
{
	AUTO(task_spec_free)
	struct task_spec *s = submitted("{\"language\":\"py\",\"code\":\"x\"}");

	(void)state;
	assert_string_equal(s->program.language, "python");
	assert_string_equal(s->program.entry, "main.py");
	assert_int_equal(s->program.n_files, 1);
	assert_string_equal(s->program.files[0].name, "main.py");
	assert_string_equal(s->program.files[0].content.data, "x");
	assert_int_equal(s->class, TASK_CLASS_NORMAL);
	assert_int_equal(s->created_us, 1000000);
	assert_int_equal(s->deadline_us, 0);
	assert_int_equal(s->n_runs, 1);
	assert_int_equal(s->runs[0].n_args, 0);
	assert_int_equal(s->runs[0].stdin_data.len, 0);
	assert_int_equal(s->runs[0].limits.cpu_ms, 10000);
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		assert_true(task_limit_get(&s->runs[0].limits, &task_limit_fields[i]) > 0);
		assert_true(task_limit_get(&s->program.compile_limits, &task_limit_fields[i]) > 0);
	}
}

static void request_defaults_are_cut_to_the_ceiling(void **state)
{
	(void)state;
	ceilings.wall_ms = 77;
	AUTO(task_spec_free) struct task_spec *s = submitted("{" PY "}");
	ceilings.wall_ms = INT64_C(1) << 32;
	assert_int_equal(s->runs[0].limits.wall_ms, 77);
	assert_int_equal(s->program.compile_limits.wall_ms, 77);
}

static void request_full_is_taken_whole(void **state)
{
	AUTO(task_spec_free)
	struct task_spec *s = submitted(
		"{\"language\":\"c++\",\"code\":\"aW50\",\"code_encoding\":\"base64\","
		"\"entry\":\"prog.cc\",\"stdin\":\"AP8=\",\"stdin_encoding\":\"base64\","
		"\"args\":[\"\",\"\xc3\xa4\"],\"files\":[{\"name\":\"a b\",\"content\":\"\"},"
		"{\"name\":\"-x\",\"content\":\"/w==\",\"encoding\":\"base64\"}],"
		"\"limits\":{\"cpu_ms\":60000,\"memory_bytes\":5e6},\"priority\":\"low\","
		"\"deadline_ms\":250,\"standby\":false}");
	const struct task_program *p = &s->program;

	(void)state;
	assert_string_equal(p->language, "cpp");
	assert_string_equal(p->entry, "prog.cc");
	assert_int_equal(p->n_files, 3);
	assert_string_equal(p->files[0].name, "prog.cc");
	assert_string_equal(p->files[0].content.data, "int");
	assert_int_equal(p->files[1].content.len, 0);
	assert_int_equal(p->files[2].content.len, 1);
	assert_memory_equal(p->files[2].content.data, "\xff", 1);
	assert_int_equal(s->runs[0].n_args, 2);
	assert_string_equal(s->runs[0].args[0], "");
	assert_string_equal(s->runs[0].args[1], "\xc3\xa4");
	assert_int_equal(s->runs[0].stdin_data.len, 2);
	assert_memory_equal(s->runs[0].stdin_data.data, "\0\xff", 2);
	assert_int_equal(s->runs[0].limits.cpu_ms, 60000);
	assert_int_equal(s->runs[0].limits.memory_bytes, 5000000);
	assert_int_equal(s->class, TASK_CLASS_LOW);
	assert_true(s->runs[0].cold);
	assert_int_equal(s->deadline_us, 1250000);
}

static void request_files_without_code_have_an_entry(void **state)
{
	AUTO(task_spec_free)
	struct task_spec *s = submitted("{\"language\":\"python\",\"files\":[{\"name\":\"m.py\","
					"\"content\":\"1\"}],\"entry\":\"m.py\"}");

	(void)state;
	assert_string_equal(s->program.entry, "m.py");
	assert_int_equal(s->program.n_files, 1);
	assert_false(s->runs[0].cold);
}

/* A body with n elements in an array: what stands before and after the number of each. */
static char *body_with(const char *field, const char *before, const char *after, size_t n)
{
	struct buf b;

	buf_init(&b, 1024 * 1024);
	(void)buf_printf(&b, "{" PY ",\"%s\":[", field);
	for (size_t i = 0; i < n; i++)
		(void)buf_printf(&b, "%s%s%zu%s", i ? "," : "", before, i, after);
	(void)buf_append_str(&b, "]}");
	assert_int_equal(buf_error(&b), 0);
	return buf_steal(&b, NULL);
}

static void expect_many(const char *field, const char *before, const char *after, size_t max)
{
	struct problem p;

	for (size_t n = max; n <= max + 1; n++) {
		AUTO_FREE char *text = body_with(field, before, after, n);
		AUTO(task_spec_free) struct task_spec *s = NULL;
		int status = submit(text, strlen(text), &s, &p);

		assert_int_equal(status, n > max ? 413 : 0);
		if (status) {
			assert_int_equal(p.ceiling, max);
			assert_string_equal(p.field, field);
		}
	}
}

static void request_too_many_items_is_413_with_the_ceiling(void **state)
{
	(void)state;
	expect_many("files", "{\"name\":\"", "\",\"content\":\"\"}", TASK_FILES_MAX);
	expect_many("args", "\"", "\"", TASK_ARGS_MAX);
}

static void idempotency_key_is_visible_ascii(void **state)
{
	char key[257];

	(void)state;
	memset(key, 'k', sizeof key);
	key[256] = '\0';
	assert_false(request_idempotency_key_valid(key));
	key[255] = '\0';
	assert_true(request_idempotency_key_valid(key));
	assert_true(request_idempotency_key_valid("~!"));
	assert_false(request_idempotency_key_valid(""));
	assert_false(request_idempotency_key_valid("a b"));
	assert_false(request_idempotency_key_valid("\xc3\xa4"));
	assert_false(request_idempotency_key_valid("\x7f"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_bad_is_refused_with_its_field),
		cmocka_unit_test(request_long_names_are_counted_in_bytes),
		cmocka_unit_test(request_unknown_language_lists_near_names),
		cmocka_unit_test(request_missing_language_says_how_to_install),
		cmocka_unit_test(request_above_ceiling_names_it),
		cmocka_unit_test(request_least_gets_defaults),
		cmocka_unit_test(request_defaults_are_cut_to_the_ceiling),
		cmocka_unit_test(request_full_is_taken_whole),
		cmocka_unit_test(request_files_without_code_have_an_entry),
		cmocka_unit_test(request_too_many_items_is_413_with_the_ceiling),
		cmocka_unit_test(idempotency_key_is_visible_ascii),
	};

	return cmocka_run_group_tests(tests, load_languages, free_languages);
}
