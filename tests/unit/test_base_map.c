/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#include "unit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void empty_map_holds_nothing(void **state)
{
	struct map m;
	size_t cursor;
	void *value;

	(void)state;
	map_init(&m);
	assert_int_equal(map_count(&m), 0);
	assert_null(map_get(&m, "a", 1));
	assert_null(map_get(&m, "", 0));
	assert_null(map_remove(&m, "a", 1));
	MAP_FOREACH (value, cursor, &m)
		fail();
	map_fini(&m);
	map_fini(&m);
}

static void put_get_remove(void **state)
{
	struct map m;
	int a = 1, b = 2;

	(void)state;
	map_init(&m);
	assert_int_equal(map_put(&m, "key", 3, &a), 0);
	assert_int_equal(map_put(&m, "key", 3, &b), -EEXIST);
	assert_ptr_equal(map_get(&m, "key", 3), &a);
	assert_null(map_get(&m, "key", 2));
	assert_null(map_get(&m, "kez", 3));
	assert_int_equal(map_put(&m, "", 0, &b), 0);
	assert_ptr_equal(map_get(&m, "", 0), &b);
	assert_int_equal(map_count(&m), 2);
	assert_ptr_equal(map_remove(&m, "key", 3), &a);
	assert_null(map_remove(&m, "key", 3));
	assert_null(map_get(&m, "key", 3));
	assert_ptr_equal(map_get(&m, "", 0), &b);
	assert_int_equal(map_count(&m), 1);
	map_fini(&m);
}

static void keys_with_nul_bytes_differ(void **state)
{
	struct map m;
	int a, b;

	(void)state;
	map_init(&m);
	assert_int_equal(map_put(&m, "x\0y", 3, &a), 0);
	assert_int_equal(map_put(&m, "x\0z", 3, &b), 0);
	assert_ptr_equal(map_get(&m, "x\0y", 3), &a);
	assert_ptr_equal(map_get(&m, "x\0z", 3), &b);
	map_fini(&m);
}

/* Random puts and removes over few keys, beside an array that knows what must be there. The low
 * number of keys makes long runs of full slots, and holes in them, common. */
static void random_operations_agree_with_a_model(void **state)
{
	enum { KEYS = 700, STEPS = 200000 };
	static uint32_t keys[KEYS];
	static bool present[KEYS];
	static unsigned visits[KEYS];
	struct map m;
	size_t count = 0, cursor;

	(void)state;
	map_init(&m);
	for (uint32_t i = 0; i < KEYS; i++)
		keys[i] = i;
	for (int step = 0; step < STEPS; step++) {
		/* Phases that fill and phases that empty. */
		bool filling = step / 5000 % 2 == 0;
		uint32_t k = arc4random_uniform(KEYS);
		bool put = arc4random_uniform(10) < (filling ? 8 : 2);
		uint32_t *value;

		if (put) {
			assert_int_equal(map_put(&m, &keys[k], sizeof keys[k], &keys[k]),
					 present[k] ? -EEXIST : 0);
			count += !present[k];
			present[k] = true;
		} else {
			value = map_remove(&m, &keys[k], sizeof keys[k]);
			assert_ptr_equal(value, present[k] ? &keys[k] : NULL);
			count -= present[k];
			present[k] = false;
		}
		assert_int_equal(map_count(&m), count);
		if (step % 1000)
			continue;
		memset(visits, 0, sizeof visits);
		MAP_FOREACH (value, cursor, &m)
			visits[*value]++;
		for (size_t i = 0; i < KEYS; i++) {
			assert_int_equal(visits[i], present[i]);
			assert_ptr_equal(map_get(&m, &keys[i], sizeof keys[i]),
					 present[i] ? &keys[i] : NULL);
		}
	}
	map_fini(&m);
}

static void many_entries_all_found(void **state)
{
	enum { MANY = 100000 };
	uint64_t *keys = calloc(MANY, sizeof *keys);
	struct map m;

	(void)state;
	assert_non_null(keys);
	map_init(&m);
	for (uint64_t i = 0; i < MANY; i++) {
		keys[i] = i * 4096;
		assert_int_equal(map_put(&m, &keys[i], sizeof keys[i], &keys[i]), 0);
	}
	for (uint64_t i = 0; i < MANY; i++)
		assert_ptr_equal(map_get(&m, &keys[i], sizeof keys[i]), &keys[i]);
	map_fini(&m);
	free(keys);
}

/* A weak test of a hash, but one that sees a byte that is left out, or a length. */
static void hash_depends_on_key_and_every_byte(void **state)
{
	uint64_t seed[2] = {1, 2}, other[2] = {1, 3};
	unsigned char bytes[64] = {0};

	(void)state;
	for (size_t len = 0; len <= sizeof bytes; len++) {
		uint64_t h = map_hash(seed, bytes, len);

		assert_true(h == map_hash(seed, bytes, len));
		assert_true(h != map_hash(other, bytes, len));
		if (len < sizeof bytes)
			assert_true(h != map_hash(seed, bytes, len + 1));
		for (size_t i = 0; i < len; i++) {
			bytes[i] ^= 1;
			assert_true(h != map_hash(seed, bytes, len));
			bytes[i] ^= 1;
		}
	}
}

static void seeds_differ_between_maps(void **state)
{
	struct map a, b;

	(void)state;
	map_init(&a);
	map_init(&b);
	assert_true(memcmp(a.seed, b.seed, sizeof a.seed) != 0);
	map_fini(&a);
	map_fini(&b);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(empty_map_holds_nothing),
	cmocka_unit_test(put_get_remove),
	cmocka_unit_test(keys_with_nul_bytes_differ),
	cmocka_unit_test(random_operations_agree_with_a_model),
	cmocka_unit_test(many_entries_all_found),
	cmocka_unit_test(hash_depends_on_key_and_every_byte),
	cmocka_unit_test(seeds_differ_between_maps),
};

UNIT_MAIN(tests)
