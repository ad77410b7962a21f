/* SPDX-License-Identifier: Apache-2.0 */

/* The cache's suite in memory, and what a bounded cache has to show. */

#include "cache/cache.h"
#include "loop_fixture.h"

#include "cache_suite.h"

#include <string.h>

static const char *fresh(void)
{
	return "memory:";
}

static const struct cache_backend backend = {.fresh = fresh, .max_bytes = CACHE_ROOM};

static void full_cache_forgets_what_was_not_used_longest(void **state)
{
	enum { SIZE = 1000, MANY = 200 };
	struct cache_fixture *f = *state;
	struct uuid ids[MANY];
	struct cache_stats s;
	char bytes[SIZE];

	memset(bytes, 'c', sizeof bytes);
	for (int i = 0; i < MANY; i++) {
		uuid7_new(&ids[i]);
		cache_put(f->cache, CACHE_TASK, &ids[i], bytes, sizeof bytes);
		/* The first is used all the while, and stays. */
		expect_cached(f, CACHE_TASK, &ids[0], bytes, sizeof bytes);
		cache_get_stats(f->cache, &s);
		assert_true(s.bytes <= CACHE_ROOM);
	}
	assert_true(s.entries > CACHE_ROOM / SIZE / 2);
	assert_int_equal(s.entries + s.evictions, MANY);
	assert_true(s.bytes > s.entries * SIZE);
	expect_cached(f, CACHE_TASK, &ids[MANY - 1], bytes, sizeof bytes);
	expect_cached(f, CACHE_TASK, &ids[1], NULL, 0);
}

static void small_entries_count_with_their_overhead(void **state)
{
	struct cache_fixture *f = *state;
	struct cache_stats s;

	for (int i = 0; i < 10000; i++) {
		struct uuid id;

		uuid7_new(&id);
		cache_put(f->cache, CACHE_TASK, &id, "", 0);
		if (i == 9999)
			expect_cached(f, CACHE_TASK, &id, "", 0);
	}
	cache_get_stats(f->cache, &s);
	assert_true(s.bytes <= CACHE_ROOM);
	assert_true(s.entries < CACHE_ROOM / 64);
}

static void giant_is_not_kept(void **state)
{
	static char giant[CACHE_ROOM];
	struct cache_fixture *f = *state;
	struct uuid small, big;

	uuid7_new(&small);
	uuid7_new(&big);
	cache_put(f->cache, CACHE_TASK, &small, "s", 1);
	cache_put(f->cache, CACHE_TASK, &big, giant, sizeof giant);
	expect_cached(f, CACHE_TASK, &big, NULL, 0);
	expect_cached(f, CACHE_TASK, &small, "s", 1);
	/* Nor does what it replaces stay, which would be old. */
	cache_put(f->cache, CACHE_TASK, &small, giant, sizeof giant);
	expect_cached(f, CACHE_TASK, &small, NULL, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, cache_setup, cache_teardown)

int main(void)
{
	struct CMUnitTest tests[64] = {
		CASE(full_cache_forgets_what_was_not_used_longest),
		CASE(small_entries_count_with_their_overhead),
		CASE(giant_is_not_kept),
	};

	cache_backend = &backend;
	memcpy(tests + 3, cache_suite, cache_suite_count * sizeof tests[0]);
	return _cmocka_run_group_tests("cache in memory", tests, cache_suite_count + 3, NULL, NULL);
}
