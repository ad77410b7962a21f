/* SPDX-License-Identifier: Apache-2.0 */
#include "yaml/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct yaml_doc *load(const char *text)
{
	struct yaml_doc *d = NULL;
	struct err e = {""};

	if (yaml_doc_load("t.yaml", text, strlen(text), &d, &e) < 0)
		fail_msg("%s", e.msg);
	return d;
}

static void load_values_typed(void **state)
{
	AUTO(yaml_doc_free)
	struct yaml_doc *d = load("a: 7\nb: 'x y'\nc: [p, \"q\"]\nd: true\nno: no\n");
	const struct yaml_value *root = yaml_doc_root(d);
	const char *text = NULL;
	char **texts = NULL;
	int64_t number = 0;
	bool truth = false;

	(void)state;
	assert_int_equal(yaml_count(root), 5);
	assert_int_equal(yaml_as_int(yaml_find(root, "a"), 0, 9, &number, NULL), 0);
	assert_int_equal(number, 7);
	assert_int_equal(yaml_as_text(yaml_find(root, "b"), &text, NULL), 0);
	assert_string_equal(text, "x y");
	assert_int_equal(yaml_as_texts(yaml_find(root, "c"), &texts, NULL), 0);
	assert_string_equal(texts[1], "q");
	assert_null(texts[2]);
	yaml_texts_free(texts);
	assert_int_equal(yaml_as_bool(yaml_find(root, "d"), &truth, NULL), 0);
	assert_true(truth);
	assert_int_equal(yaml_as_text(yaml_find(root, "no"), &text, NULL), 0);
	assert_string_equal(text, "no");
	assert_null(yaml_find(root, "e"));
}

static void load_empty_is_empty_mapping(void **state)
{
	static const char *const texts[] = {"", "# nothing\n", "---\n"};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		AUTO(yaml_doc_free) struct yaml_doc *d = load(texts[i]);

		assert_int_equal(yaml_kind(yaml_doc_root(d)), YAML_MAPPING);
		assert_int_equal(yaml_count(yaml_doc_root(d)), 0);
	}
}

static void load_refuses_with_place(void **state)
{
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {
		{"a: &x 1\n", "t.yaml:1:4: anchors and aliases are not allowed"},
		{"a: *x\n", "t.yaml:1:4: anchors and aliases are not allowed"},
		{"a: !!str 1\n", "t.yaml:1:4: tags are not allowed"},
		{"a: 1\nb: 2\na: 3\n", "t.yaml:3:1: duplicate key \"a\""},
		{"[x]: 1\n", "t.yaml:1:1: a key must be text"},
		{"a: \"x\\0y\"\n", "t.yaml:1:4: text must not hold NUL"},
		{"a: 1\n---\nb: 2\n", "t.yaml:2:1: a second document is not allowed"},
		{"%YAML 1.1\n---\na: 1\n", "t.yaml:1:1: directives are not allowed"},
		{"[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "t.yaml:1:17: nested too deeply"},
		{"a: [1, 2\n", "t.yaml:2:1: did not find expected ',' or ']'"},
		{"a:\n\tb: 1\n", "t.yaml:2:1: found character that cannot start any token"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct yaml_doc *d = NULL;
		struct err e = {""};

		assert_true(yaml_doc_load("t.yaml", cases[i].text, strlen(cases[i].text), &d, &e) <
			    0);
		assert_null(d);
		assert_string_equal(e.msg, cases[i].message);
	}
}

static void read_wrong_type_refused(void **state)
{
	AUTO(yaml_doc_free) struct yaml_doc *d = load("a: '7'\nb: yes\nc:\nd: 12\ne: [1]\n");
	const struct yaml_value *root = yaml_doc_root(d);
	const char *text = "kept";
	int64_t number = 5;
	bool truth = true;
	struct err e;

	(void)state;
	assert_int_equal(yaml_as_int(yaml_find(root, "a"), 0, 9, &number, &e), -EINVAL);
	assert_string_equal(e.msg, "t.yaml:1:4: expected a value without quotes");
	assert_int_equal(yaml_as_bool(yaml_find(root, "b"), &truth, &e), -EINVAL);
	assert_string_equal(e.msg, "t.yaml:2:4: expected true or false, found \"yes\"");
	assert_int_equal(yaml_as_text(yaml_find(root, "c"), &text, &e), -EINVAL);
	assert_int_equal(yaml_as_int(yaml_find(root, "d"), 0, 9, &number, &e), -EINVAL);
	assert_string_equal(e.msg, "t.yaml:4:4: expected a number from 0 to 9, found \"12\"");
	assert_int_equal(yaml_as_text(yaml_find(root, "e"), &text, &e), -EINVAL);
	assert_string_equal(e.msg, "t.yaml:5:4: expected a single value, found a list");
	assert_string_equal(text, "kept");
	assert_int_equal(number, 5);
	assert_true(truth);
}

static void check_keys_unknown_tells_near_one(void **state)
{
	static const char *const known[] = {"name", "limits"};
	AUTO(yaml_doc_free) struct yaml_doc *d = load("name: x\nlimit: 3\n");
	AUTO(yaml_doc_free) struct yaml_doc *far = load("name: x\nzebra: 3\n");
	struct err e;

	(void)state;
	assert_int_equal(yaml_check_keys(yaml_doc_root(d), known, 2, &e), -EINVAL);
	assert_string_equal(e.msg, "t.yaml:2:1: unknown key \"limit\" (did you mean \"limits\"?)");
	assert_int_equal(yaml_check_keys(yaml_doc_root(far), known, 2, &e), -EINVAL);
	assert_string_equal(e.msg, "t.yaml:2:1: unknown key \"zebra\"");
}

static void load_many_items_refused(void **state)
{
	char text[3 * (YAML_ITEMS_MAX + 1) + 1];
	struct yaml_doc *d = NULL;
	struct err e;

	(void)state;
	for (size_t i = 0; i <= YAML_ITEMS_MAX; i++)
		memcpy(text + 3 * i, "- \n", 4);
	assert_true(yaml_doc_load("t.yaml", text, strlen(text), &d, &e) < 0);
	assert_non_null(strstr(e.msg, "too many items"));
	text[3 * YAML_ITEMS_MAX] = '\0';
	assert_int_equal(yaml_doc_load("t.yaml", text, strlen(text), &d, &e), 0);
	yaml_doc_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(load_values_typed),
		cmocka_unit_test(load_empty_is_empty_mapping),
		cmocka_unit_test(load_refuses_with_place),
		cmocka_unit_test(load_many_items_refused),
		cmocka_unit_test(read_wrong_type_refused),
		cmocka_unit_test(check_keys_unknown_tells_near_one),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
