/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/str.h"
#include "json/reader.h"
#include "json/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct json_bounds bounds = {.depth = 4, .values = 20};

struct refused {
	const char *text;
	size_t len; /* 0: of text */
	int code;
};

static void decode_foreign_bytes_refused(void **state)
{
	static const struct refused cases[] = {
		{"", 0, -EINVAL},
		{"{", 0, -EINVAL},
		{"{} x", 0, -EINVAL},
		{"{}{}", 0, -EINVAL},
		{"{\"a\":1,\"a\":2}", 0, -EINVAL},
		{"{}\0", 3, -EINVAL},
		{"\"a\0b\"", 5, -EINVAL},
		{"NaN", 0, -EINVAL},
		{"Infinity", 0, -EINVAL},
		{"1e999", 0, -EINVAL},
		{"'a'", 0, -EINVAL},
		{"[1,]", 0, -EINVAL},
		{"// a\n1", 0, -EINVAL},
		{"\"\xff\"", 0, -EINVAL},
		{"\"\xc0\x80\"", 0, -EINVAL},
		{"\"\\ud800\"", 0, -EINVAL},
		{"[[[[[1]]]]]", 0, -E2BIG},
		{"[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", 0, -E2BIG},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct refused *c = &cases[i];
		json_t *value = NULL;
		struct err e = {""};
		int r = json_decode(c->text, c->len ? c->len : strlen(c->text), &bounds, &value,
				    &e);

		if (r != c->code)
			fail_msg("%s: %d instead of %d", c->text, r, c->code);
		assert_null(value);
		assert_true(e.msg[0]);
	}
}

static void decode_brackets_in_strings_do_not_count(void **state)
{
	static const char text[] = "\"[[[[[[[[[ \\\" {{{{{{{,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,\"";
	AUTO(json_cleanup) json_t *value = NULL;

	(void)state;
	assert_int_equal(json_decode(text, sizeof text - 1, &bounds, &value, NULL), 0);
	assert_true(json_is_string(value));
}

struct target {
	struct json_text name;
	int64_t count;
	bool quick;
	size_t elements;
};

static int read_element(struct json_reader *r, const struct json_at *at, const json_t *v, void *ctx)
{
	static const struct json_field fields[] = {
		{.name = "name",
		 .kind = JSON_KIND_TEXT,
		 .required = true,
		 .offset = offsetof(struct target, name),
		 .min = 1,
		 .max = 4},
	};
	struct target *t = ctx;
	struct target element = {.count = 0};
	int code = json_read_object(r, at, v, fields, 1, &element);

	t->elements += code == 0;
	return code;
}

static int read_list(struct json_reader *r, const struct json_at *at, const json_t *v, void *ctx)
{
	return json_read_array(r, at, v, read_element, ctx);
}

static int read_target(const char *text, struct target *t, struct json_reader *r)
{
	static const struct json_field fields[] = {
		{.name = "name",
		 .kind = JSON_KIND_TEXT,
		 .required = true,
		 .offset = offsetof(struct target, name),
		 .min = 0,
		 .max = 8},
		{.name = "count",
		 .kind = JSON_KIND_INT,
		 .offset = offsetof(struct target, count),
		 .min = 1,
		 .max = 60000},
		{.name = "quick", .kind = JSON_KIND_BOOL, .offset = offsetof(struct target, quick)},
		{.name = "list", .kind = JSON_KIND_READ, .read = read_list},
	};
	static const struct json_at root;
	AUTO(json_cleanup) json_t *value = NULL;
	struct err e = {""};
	int code;

	*r = (struct json_reader){0};
	*t = (struct target){.count = -7};
	if (json_decode(text, strlen(text), &bounds, &value, &e) < 0)
		fail_msg("%s: %s", text, e.msg);
	code = json_read_object(r, &root, value, fields, 4, t);
	/* The text goes away with the tree. */
	t->name.data = NULL;
	return code;
}

static void read_object_fills_what_is_there(void **state)
{
	struct json_reader r;
	struct target t;

	(void)state;
	assert_int_equal(read_target("{\"name\": \"\"}", &t, &r), 0);
	assert_int_equal(t.count, -7);
	assert_int_equal(
		read_target("{\"name\": \"abc\", \"count\": 3.0, \"quick\": true, \"list\": "
			    "[{\"name\": \"x\"}, {\"name\": \"y\"}]}",
			    &t, &r),
		0);
	assert_int_equal(t.name.len, 3);
	assert_int_equal(t.count, 3);
	assert_true(t.quick);
	assert_int_equal(t.elements, 2);
}

struct wrong {
	const char *text;
	const char *path;
	const char *message;
};

static void read_object_names_what_is_wrong(void **state)
{
	static const struct wrong cases[] = {
		{"[]", "", "the document must be an object"},
		{"{}", "name", "name is required"},
		{"{\"name\": null}", "name", "name must be a string"},
		{"{\"name\": \"123456789\"}", "name", "name must have 0 to 8 bytes"},
		{"{\"name\": \"a\\u0000b\"}", "name", "name must not contain NUL"},
		{"{\"name\": \"a\", \"count\": 0}", "count",
		 "count must be a whole number from 1 to 60000"},
		{"{\"name\": \"a\", \"count\": 1.5}", "count",
		 "count must be a whole number from 1 to 60000"},
		{"{\"name\": \"a\", \"count\": 1e300}", "count",
		 "count must be a whole number from 1 to 60000"},
		{"{\"name\": \"a\", \"count\": 18446744073709551616}", "count",
		 "count must be a whole number from 1 to 60000"},
		{"{\"name\": \"a\", \"count\": true}", "count",
		 "count must be a whole number from 1 to 60000"},
		{"{\"name\": \"a\", \"quick\": 1}", "quick", "quick must be true or false"},
		{"{\"name\": \"a\", \"list\": {}}", "list", "list must be an array"},
		{"{\"name\": \"a\", \"list\": [{\"name\": \"x\"}, {\"name\": \"\"}]}",
		 "list[1].name", "list[1].name must not be empty"},
		{"{\"name\": \"a\", \"list\": [7]}", "list[0]", "list[0] must be an object"},
		{"{\"nmae\": \"a\"}", "nmae", "nmae is not a known field; did you mean \"name\"?"},
		{"{\"name\": \"a\", \"zzzzzz\": 1}", "zzzzzz", "zzzzzz is not a known field"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct json_reader r;
		struct target t;

		assert_int_equal(read_target(cases[i].text, &t, &r), -EINVAL);
		assert_string_equal(r.path, cases[i].path);
		assert_string_equal(r.err.msg, cases[i].message);
	}
}

static void write_structures_have_commas(void **state)
{
	struct json_writer w;
	struct buf b;

	(void)state;
	buf_init(&b, 4096);
	json_writer_init(&w, &b);
	json_write_begin_object(&w);
	json_write_int_field(&w, "min", INT64_MIN);
	json_write_null_field(&w, "none");
	json_write_name(&w, "list");
	json_write_begin_array(&w);
	json_write_int(&w, 0);
	json_write_bool(&w, true);
	json_write_begin_object(&w);
	json_write_end_object(&w);
	json_write_text(&w, NULL);
	json_write_end_array(&w);
	json_write_text_field(&w, "last", "x");
	json_write_end_object(&w);
	assert_int_equal(buf_error(&b), 0);
	assert_string_equal(b.data, "{\"min\":-9223372036854775808,\"none\":null,"
				    "\"list\":[0,true,{},null],\"last\":\"x\"}");
	buf_fini(&b);
}

/* Every byte below 0x80, and a word with each lead byte, through jansson and back. */
static void write_bytes_come_back_as_they_were(void **state)
{
	struct json_writer w;
	struct buf b;
	char text[160];
	size_t len = 0;

	(void)state;
	for (int c = 0; c < 0x80; c++)
		text[len++] = (char)c;
	memcpy(text + len, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\xa5", 9);
	len += 9;
	buf_init(&b, 4096);
	json_writer_init(&w, &b);
	assert_int_equal(json_write_bytes(&w, text, len), 0);
	json_t *back = json_loadb(b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	assert_non_null(back);
	assert_int_equal(json_string_length(back), len);
	assert_memory_equal(json_string_value(back), text, len);
	json_decref(back);
	buf_fini(&b);
}

static void write_bytes_not_utf8_writes_nothing(void **state)
{
	struct json_writer w;
	struct buf b;

	(void)state;
	buf_init(&b, 4096);
	json_writer_init(&w, &b);
	assert_int_equal(json_write_bytes(&w, "ab\xff", 3), -EILSEQ);
	assert_int_equal(b.len, 0);
	json_write_base64(&w, "ab\xff", 3);
	assert_string_equal(b.data, "\"YWL/\"");
	buf_fini(&b);
}

static void write_text_repairs_what_is_not_utf8(void **state)
{
	struct json_writer w;
	struct buf b;

	(void)state;
	buf_init(&b, 4096);
	json_writer_init(&w, &b);
	json_write_text(&w, "a\xc3\xa4\xff\"\xe2\x82");
	assert_string_equal(b.data, "\"a\xc3\xa4\xef\xbf\xbd\\\"\xef\xbf\xbd\xef\xbf\xbd\"");
	buf_fini(&b);
}

static void write_past_the_maximum_is_remembered(void **state)
{
	struct json_writer w;
	struct buf b;

	(void)state;
	buf_init(&b, 8);
	json_writer_init(&w, &b);
	json_write_text(&w, "0123456789");
	json_write_int(&w, 1);
	assert_int_equal(buf_error(&b), -ENOBUFS);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decode_foreign_bytes_refused),
		cmocka_unit_test(decode_brackets_in_strings_do_not_count),
		cmocka_unit_test(read_object_fills_what_is_there),
		cmocka_unit_test(read_object_names_what_is_wrong),
		cmocka_unit_test(write_structures_have_commas),
		cmocka_unit_test(write_bytes_come_back_as_they_were),
		cmocka_unit_test(write_bytes_not_utf8_writes_nothing),
		cmocka_unit_test(write_text_repairs_what_is_not_utf8),
		cmocka_unit_test(write_past_the_maximum_is_remembered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
