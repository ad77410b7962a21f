/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid7.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "unit.h"

#include <errno.h>
#include <string.h>

static void ids_increase(void **state)
{
	struct uuid last, id;

	(void)state;
	uuid7_new(&last);
	for (int i = 0; i < 100000; i++) {
		uuid7_new(&id);
		assert_true(memcmp(id.bytes, last.bytes, sizeof id.bytes) > 0);
		last = id;
	}
}

static void ids_have_version_variant_and_time(void **state)
{
	int64_t before_ms = clock_wall_us() / 1000;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		struct uuid id;
		int64_t ms = 0;

		uuid7_new(&id);
		assert_int_equal(id.bytes[6] >> 4, 7);
		assert_int_equal(id.bytes[8] >> 6, 2);
		for (int k = 0; k < 6; k++)
			ms = ms << 8 | id.bytes[k];
		assert_in_range(ms - before_ms, 0, 5000);
	}
}

static void ids_have_random_ends(void **state)
{
	unsigned char ors[8] = {0}, ands[8];

	(void)state;
	memset(ands, 0xff, sizeof ands);
	for (int i = 0; i < 1000; i++) {
		struct uuid id;

		uuid7_new(&id);
		for (int k = 0; k < 8; k++) {
			ors[k] |= id.bytes[8 + k];
			ands[k] &= id.bytes[8 + k];
		}
	}
	/* Every free bit was once set and once not. */
	assert_int_equal(ors[0], 0xbf);
	assert_int_equal(ands[0], 0x80);
	for (int k = 1; k < 8; k++) {
		assert_int_equal(ors[k], 0xff);
		assert_int_equal(ands[k], 0);
	}
}

static void floor_is_below_ids_of_that_time(void **state)
{
	struct uuid id, low, high;

	(void)state;
	uuid7_floor(clock_wall_us() - 10000000, &low);
	uuid7_new(&id);
	uuid7_floor(clock_wall_us() + 10000000, &high);
	assert_true(memcmp(low.bytes, id.bytes, 16) < 0);
	assert_true(memcmp(id.bytes, high.bytes, 16) < 0);
	uuid7_floor(0, &low);
	assert_memory_equal(low.bytes, "\0\0\0\0\0\0\x70\0\x80\0\0\0\0\0\0\0", 16);
	/* 2026-01-02T03:04:05.678Z */
	uuid7_floor(INT64_C(1767323045678000), &low);
	assert_memory_equal(low.bytes, "\x01\x9b\x7c\xa9\x8f\x2e\x70\0\x80\0\0\0\0\0\0\0", 16);
}

static void text_comes_back(void **state)
{
	char text[UUID_TEXT_MAX];
	struct uuid id, back;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uuid7_new(&id);
		uuid_format(&id, text);
		assert_int_equal(strlen(text), 36);
		assert_int_equal(uuid_parse(text, &back), 0);
		assert_true(uuid_eq(&id, &back));
	}
	assert_int_equal(uuid_parse("0123ABCD-4567-89ef-CDEF-0123456789ab", &id), 0);
	uuid_format(&id, text);
	assert_string_equal(text, "0123abcd-4567-89ef-cdef-0123456789ab");
}

static void malformed_text_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"0",
		"0123abcd-4567-89ef-cdef-0123456789a",	      /* short */
		"0123abcd-4567-89ef-cdef-0123456789abc",      /* long */
		"0123abcd456789efcdef0123456789ab",	      /* no dashes */
		"0123abcd-4567-89ef-cdef00123456789ab",	      /* one missing */
		"0123abcd-4567-89ef-cdef-0123456789ag",	      /* no digit */
		"0123abcd-4567-89ef-cdef-0123456789a ",	      /* blank */
		" 123abcd-4567-89ef-cdef-0123456789ab",	      /* blank */
		"{123abcd-4567-89ef-cdef-0123456789a}",	      /* braces */
		"0123abcd-45-6789ef-cdef-0123456789ab",	      /* dash elsewhere */
		"--------------------------------------",     /* dashes */
		"0123abcd-4567-89ef-cdef-0123456789ab\n",     /* more behind */
		"0123abcd-4567-89ef-cdef-0123456789\xc3\xa9", /* not ASCII */
	};
	struct uuid id;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (uuid_parse(bad[i], &id) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
}

static void failed_parse_leaves_the_id(void **state)
{
	struct uuid id, before;

	(void)state;
	uuid7_new(&id);
	before = id;
	assert_int_equal(uuid_parse("0123abcd-4567-89ef-cdef-0123456789ag", &id), -EINVAL);
	assert_true(uuid_eq(&id, &before));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(ids_increase),
	cmocka_unit_test(ids_have_version_variant_and_time),
	cmocka_unit_test(ids_have_random_ends),
	cmocka_unit_test(floor_is_below_ids_of_that_time),
	cmocka_unit_test(text_comes_back),
	cmocka_unit_test(malformed_text_refused),
	cmocka_unit_test(failed_parse_leaves_the_id),
};

UNIT_MAIN(tests)
