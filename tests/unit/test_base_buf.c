/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void empty_buffer_is_text(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 10);
	assert_string_equal(b.data, "");
	assert_int_equal(b.len, 0);
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(buf_append(&b, "", 0), 0);
	buf_clear(&b);
	buf_consume(&b, 0);
	assert_string_equal(b.data, "");
	buf_fini(&b);
	buf_fini(&b);
	assert_string_equal(b.data, "");
}

static void append_grows_and_ends_with_nul(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 100000);
	for (size_t i = 0; i < 50000; i++) {
		assert_int_equal(buf_append_char(&b, (char)('a' + i % 26)), 0);
		assert_int_equal(b.len, i + 1);
		assert_int_equal(b.data[b.len], '\0');
	}
	for (size_t i = 0; i < b.len; i++)
		assert_int_equal(b.data[i], 'a' + i % 26);
	assert_true(b.cap <= b.max + 1);
	buf_fini(&b);
}

static void append_keeps_nul_bytes(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 100);
	assert_int_equal(buf_append(&b, "a\0b", 3), 0);
	assert_int_equal(buf_append_str(&b, "cd"), 0);
	assert_int_equal(b.len, 5);
	assert_memory_equal(b.data, "a\0bcd", 6);
	buf_fini(&b);
}

static void maximum_is_reached_and_not_passed(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 5);
	assert_int_equal(buf_append_str(&b, "12345"), 0);
	assert_int_equal(buf_append_char(&b, '6'), -ENOBUFS);
	assert_string_equal(b.data, "12345");
	assert_int_equal(buf_error(&b), -ENOBUFS);
	/* The error stays, though what fits is still taken. */
	buf_consume(&b, 2);
	assert_int_equal(buf_append_str(&b, "ab"), 0);
	assert_string_equal(b.data, "345ab");
	assert_int_equal(buf_error(&b), -ENOBUFS);
	buf_clear(&b);
	assert_int_equal(buf_error(&b), 0);
	assert_string_equal(b.data, "");
	buf_fini(&b);
}

static void maximum_of_nothing_takes_nothing(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 0);
	assert_int_equal(buf_append(&b, "", 0), 0);
	assert_int_equal(buf_append_char(&b, 'x'), -ENOBUFS);
	assert_int_equal(buf_printf(&b, "%d", 1), -ENOBUFS);
	assert_string_equal(b.data, "");
	buf_fini(&b);
}

static void huge_request_refused_without_overflow(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1000);
	assert_int_equal(buf_append_str(&b, "x"), 0);
	assert_int_equal(buf_reserve(&b, SIZE_MAX), -ENOBUFS);
	assert_int_equal(buf_reserve(&b, SIZE_MAX - 1), -ENOBUFS);
	assert_int_equal(buf_reserve(&b, 1000), -ENOBUFS);
	assert_int_equal(buf_reserve(&b, 999), 0);
	assert_string_equal(b.data, "x");
	buf_fini(&b);
}

static void printf_appends(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1000);
	assert_int_equal(buf_printf(&b, "%s-%d", "a", 7), 0);
	assert_int_equal(buf_printf(&b, "%0*d", 500, 1), 0);
	assert_int_equal(b.len, 503);
	assert_int_equal(buf_printf(&b, "%0*d", 498, 1), -ENOBUFS);
	assert_int_equal(b.len, 503);
	assert_memory_equal(b.data, "a-70000", 7);
	buf_fini(&b);
}

static void consume_drops_from_the_front(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 100);
	assert_int_equal(buf_append_str(&b, "abcdef"), 0);
	buf_consume(&b, 2);
	assert_string_equal(b.data, "cdef");
	buf_consume(&b, 4);
	assert_string_equal(b.data, "");
	assert_int_equal(b.len, 0);
	buf_fini(&b);
}

static void steal_hands_the_bytes_over(void **state)
{
	struct buf b;
	size_t len = 99;
	char *text;

	(void)state;
	buf_init(&b, 100);
	text = buf_steal(&b, &len);
	assert_string_equal(text, "");
	assert_int_equal(len, 0);
	free(text);
	assert_int_equal(buf_append_str(&b, "mine"), 0);
	text = buf_steal(&b, NULL);
	assert_string_equal(text, "mine");
	assert_int_equal(b.len, 0);
	assert_int_equal(buf_append_str(&b, "other"), 0);
	assert_string_equal(text, "mine");
	free(text);
	buf_fini(&b);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(empty_buffer_is_text),
	cmocka_unit_test(append_grows_and_ends_with_nul),
	cmocka_unit_test(append_keeps_nul_bytes),
	cmocka_unit_test(maximum_is_reached_and_not_passed),
	cmocka_unit_test(maximum_of_nothing_takes_nothing),
	cmocka_unit_test(huge_request_refused_without_overflow),
	cmocka_unit_test(printf_appends),
	cmocka_unit_test(consume_drops_from_the_front),
	cmocka_unit_test(steal_hands_the_bytes_over),
};

UNIT_MAIN(tests)
