/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include "base/cleanup.h"
#include "unit.h"

#include <time.h>

static void format_is_rfc3339(void **state)
{
	static const struct {
		int64_t us;
		const char *text;
	} cases[] = {
		{0, "1970-01-01T00:00:00.000000Z"},
		{1, "1970-01-01T00:00:00.000001Z"},
		{999999, "1970-01-01T00:00:00.999999Z"},
		{-1, "1969-12-31T23:59:59.999999Z"},
		{-1000000, "1969-12-31T23:59:59.000000Z"},
		{INT64_C(951782400000000), "2000-02-29T00:00:00.000000Z"},
		{INT64_C(1767323045678901), "2026-01-02T03:04:05.678901Z"},
		{INT64_C(4102444799999999), "2099-12-31T23:59:59.999999Z"},
		{INT64_C(253402300799999999), "9999-12-31T23:59:59.999999Z"},
	};
	char text[CLOCK_RFC3339_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		clock_format(cases[i].us, text);
		assert_string_equal(text, cases[i].text);
	}
}

static void clocks_go_forward(void **state)
{
	int64_t monotonic = clock_monotonic_us(), wall = clock_wall_us();
	const struct timespec wait = {.tv_nsec = 2000000};

	(void)state;
	assert_int_equal(nanosleep(&wait, NULL), 0);
	assert_in_range(clock_monotonic_us() - monotonic, 2000, 10000000);
	assert_true(clock_wall_us() - wall >= 2000);
	assert_in_range(wall / 1000000 - time(NULL) + 2, 0, 4);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(format_is_rfc3339),
	cmocka_unit_test(clocks_go_forward),
};

UNIT_MAIN(tests)
