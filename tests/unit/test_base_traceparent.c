/* SPDX-License-Identifier: Apache-2.0 */
#include "base/traceparent.h"

#include "unit.h"

#include <string.h>

static const char good[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

static bool is_read(const char *text)
{
	return traceparent_read(text, strlen(text), NULL);
}

static void is_taken_by_the_letter(void **state)
{
	(void)state;
	assert_true(is_read(good));
	assert_true(is_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
	assert_false(is_read(""));
	assert_false(is_read("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
	assert_false(is_read("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
	assert_false(is_read("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
	assert_false(is_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"));
	assert_false(is_read("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01"));
	assert_false(is_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01"));
	assert_false(is_read("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
	assert_false(is_read("00-4bf92f3577b34da6a3ce929d0e0e47g6-00f067aa0ba902b7-01"));
}

static void is_written_as_it_was_read(void **state)
{
	struct trace_context c = {0};
	char text[TRACEPARENT_LEN + 1];

	(void)state;
	assert_true(traceparent_read(good, sizeof good - 1, &c));
	assert_int_equal(c.trace[0], 0x4b);
	assert_int_equal(c.span[7], 0xb7);
	assert_int_equal(c.flags, TRACE_FLAG_SAMPLED);
	traceparent_write(&c, text);
	assert_string_equal(text, good);
}

static void nothing_is_touched_by_what_is_wrong(void **state)
{
	struct trace_context c = {.flags = 7};

	(void)state;
	assert_false(traceparent_read("00-", 3, &c));
	assert_int_equal(c.flags, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_taken_by_the_letter),
		cmocka_unit_test(is_written_as_it_was_read),
		cmocka_unit_test(nothing_is_touched_by_what_is_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
