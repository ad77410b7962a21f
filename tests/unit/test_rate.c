/* SPDX-License-Identifier: Apache-2.0 */

/* Rates: the arithmetic with a clock of the test's own, and the interface in memory. */

#include "loop_fixture.h"
#include "rate/rate-private.h"
#include "rate/rate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SECOND_US = 1000000 };

static const struct rate_limit one_a_second = {.per_minute = 60, .burst = 3};

static int64_t take(struct rate_counts *c, const char *name, int64_t now_us)
{
	return rate_counts_take(c, name, &one_a_second, now_us);
}

static void burst_passes_then_one_at_a_time(void **state)
{
	struct rate_counts c;
	int64_t now_us = 1000 * INT64_C(1000000);

	(void)state;
	rate_counts_init(&c);
	for (int i = 0; i < 3; i++)
		assert_int_equal(take(&c, "a", now_us), 0);
	assert_int_equal(take(&c, "a", now_us), SECOND_US);
	/* What was refused costs nothing. */
	assert_int_equal(take(&c, "a", now_us + SECOND_US - 1), 1);
	for (int i = 1; i <= 5; i++) {
		assert_int_equal(take(&c, "a", now_us + i * SECOND_US), 0);
		assert_int_equal(take(&c, "a", now_us + i * SECOND_US), SECOND_US);
	}
	rate_counts_fini(&c);
}

static void pause_gives_the_burst_back_and_no_more(void **state)
{
	struct rate_counts c;
	int64_t now_us = SECOND_US;

	(void)state;
	rate_counts_init(&c);
	for (int i = 0; i < 3; i++)
		assert_int_equal(take(&c, "a", now_us), 0);
	now_us += 3600 * INT64_C(1000000);
	for (int i = 0; i < 3; i++)
		assert_int_equal(take(&c, "a", now_us), 0);
	assert_true(take(&c, "a", now_us) > 0);
	rate_counts_fini(&c);
}

static void names_are_counted_apart_however_many(void **state)
{
	struct rate_counts c;
	char name[RATE_NAME_MAX];

	(void)state;
	rate_counts_init(&c);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 25000; i++) {
			(void)snprintf(name, sizeof name, "tenant-%d-%d", round, i);
			assert_int_equal(take(&c, name, SECOND_US + round * INT64_C(100000000)), 0);
		}
	}
	/* Those that are at rest were forgotten to make room. */
	assert_true(map_count(&c.by_name) <= 25000);
	rate_counts_fini(&c);
}

static void on_done(struct rate_take *t)
{
	(void)t;
	fail_msg("what was settled at once is not told again");
}

static void open_take_and_close(void **state)
{
	struct rate_take t = {.name = "a", .limit = {1, 2}, .done = on_done};
	struct rate *r = NULL;
	bool closed = false;
	struct err e = {""};
	uv_loop_t loop;

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(rate_open(&loop, "amqp://x", &r, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "amqp"));
	assert_int_equal(rate_open(&loop, "memory:", &r, NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_true(rate_take(r, &t));
		assert_int_equal(t.wait_us, 0);
	}
	assert_true(rate_take(r, &t));
	assert_true(t.wait_us > 50 * SECOND_US && t.wait_us <= 60 * SECOND_US);
	loop_turn(&loop);
	rate_close(r, loop_on_closed, &closed);
	loop_run_until(&loop, &closed);
	loop_end(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(burst_passes_then_one_at_a_time),
		cmocka_unit_test(pause_gives_the_burst_back_and_no_more),
		cmocka_unit_test(names_are_counted_apart_however_many),
		cmocka_unit_test(open_take_and_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
