/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/cache.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BUILD_BYTES = 10000, ROOM_FOR_THREE = 3 * 11000 };

struct waiter {
	struct cache_waiter w;
	int calls;
	struct build *build; /* of the last call */
	struct cache *cache; /* asked again from inside the call where it is set */
	uint8_t key[DIGEST_SIZE];
	int answer;
};

static void on_call(struct cache_waiter *w, struct build *build)
{
	struct waiter *self = (struct waiter *)(void *)w;
	struct build *again = NULL;

	self->calls++;
	self->build = build;
	if (!self->cache)
		return;
	self->answer = cache_ask(self->cache, self->key, &self->w, &again);
	build_unref(again);
}

static void waiter_init(struct waiter *w)
{
	*w = (struct waiter){.w.call = on_call};
	list_init(&w->w.link);
}

static const uint8_t *key(unsigned char n)
{
	static uint8_t keys[256][DIGEST_SIZE];

	memset(keys[n], n, DIGEST_SIZE);
	return keys[n];
}

static struct build *new_build(int exit_code)
{
	struct task_compile_result r = {.ran = true, .exit_code = exit_code};
	struct build *b = build_new_consume(memfd_create("build", MFD_CLOEXEC), BUILD_BYTES, &r);

	assert_non_null(b);
	return b;
}

/* Leads a compile to its end. */
static void put(struct cache *c, unsigned char n, int exit_code)
{
	struct waiter w;
	struct build *b = NULL;

	waiter_init(&w);
	assert_int_equal(cache_ask(c, key(n), &w.w, &b), CACHE_LEAD);
	b = new_build(exit_code);
	cache_finish(c, key(n), b);
	build_unref(b);
}

static bool has(struct cache *c, unsigned char n)
{
	struct waiter w;
	struct build *b = NULL;
	int answer;

	waiter_init(&w);
	answer = cache_ask(c, key(n), &w.w, &b);
	if (answer == CACHE_LEAD)
		cache_finish(c, key(n), NULL);
	build_unref(b);
	return answer == CACHE_HIT;
}

static void cache_success_is_found_again(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 100);
	struct cache_stats s;

	(void)state;
	put(c, 1, 0);
	assert_true(has(c, 1));
	assert_false(has(c, 2));
	cache_stats(c, &s);
	assert_int_equal(s.hits, 1);
	assert_int_equal(s.misses, 2);
	assert_int_equal(s.entries, 1);
	assert_true(s.bytes >= BUILD_BYTES);
	cache_free(c);
}

static void cache_failure_is_not_kept(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 100);

	(void)state;
	put(c, 1, 1);
	assert_false(has(c, 1));
	cache_free(c);
}

static void cache_full_drops_the_least_recently_used(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 100);
	struct cache_stats s;

	(void)state;
	put(c, 1, 0);
	put(c, 2, 0);
	put(c, 3, 0);
	assert_true(has(c, 1));
	put(c, 4, 0);
	assert_true(has(c, 1));
	assert_false(has(c, 2));
	assert_true(has(c, 3));
	assert_true(has(c, 4));
	cache_stats(c, &s);
	assert_true(s.bytes <= ROOM_FOR_THREE);
	cache_free(c);
}

static void cache_entries_are_bounded_too(void **state)
{
	struct cache *c = cache_new(SIZE_MAX / 2, 2);

	(void)state;
	for (unsigned char n = 1; n < 20; n++)
		put(c, n, 0);
	assert_true(has(c, 18));
	assert_true(has(c, 19));
	assert_false(has(c, 17));
	cache_free(c);
}

static void cache_build_bigger_than_all_is_not_kept(void **state)
{
	struct cache *c = cache_new(BUILD_BYTES / 2, 100);
	struct cache *none = cache_new(SIZE_MAX / 2, 0);

	(void)state;
	put(c, 1, 0);
	assert_false(has(c, 1));
	put(none, 1, 0);
	assert_false(has(none, 1));
	cache_free(c);
	cache_free(none);
}

static void cache_build_outlives_its_entry(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 1);
	struct waiter w;
	struct build *b = NULL;

	(void)state;
	waiter_init(&w);
	put(c, 1, 0);
	assert_int_equal(cache_ask(c, key(1), &w.w, &b), CACHE_HIT);
	put(c, 2, 0);
	assert_false(has(c, 1));
	assert_true(fcntl(b->archive_fd, F_GETFD) >= 0);
	cache_free(c);
	assert_true(fcntl(b->archive_fd, F_GETFD) >= 0);
	build_unref(b);
}

static void cache_waiters_get_what_the_leader_made(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 100);
	struct waiter w[3];
	struct build *b = NULL;

	(void)state;
	for (int i = 0; i < 3; i++) {
		waiter_init(&w[i]);
		assert_int_equal(cache_ask(c, key(1), &w[i].w, &b), i ? CACHE_WAIT : CACHE_LEAD);
	}
	b = new_build(0);
	cache_finish(c, key(1), b);
	assert_int_equal(w[0].calls, 0);
	assert_ptr_equal(w[1].build, b);
	assert_ptr_equal(w[2].build, b);
	build_unref(b);
	cache_free(c);
}

static void cache_waiters_share_a_failure(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 100);
	struct waiter lead, wait;
	struct build *b = NULL;

	(void)state;
	waiter_init(&lead);
	waiter_init(&wait);
	(void)cache_ask(c, key(1), &lead.w, &b);
	(void)cache_ask(c, key(1), &wait.w, &b);
	b = new_build(1);
	cache_finish(c, key(1), b);
	assert_ptr_equal(wait.build, b);
	build_unref(b);
	assert_false(has(c, 1));
	cache_free(c);
}

static void cache_leader_that_cannot_say_is_followed_by_one_waiter(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 100);
	struct waiter w[4];
	struct build *b = NULL;

	(void)state;
	for (int i = 0; i < 4; i++) {
		waiter_init(&w[i]);
		(void)cache_ask(c, key(1), &w[i].w, &b);
	}
	cache_leave(&w[1].w);
	cache_finish(c, key(1), NULL);
	assert_int_equal(w[1].calls, 0);
	assert_int_equal(w[2].calls, 1);
	assert_null(w[2].build);
	assert_int_equal(w[3].calls, 0);
	b = new_build(0);
	cache_finish(c, key(1), b);
	assert_int_equal(w[2].calls, 1);
	assert_ptr_equal(w[3].build, b);
	build_unref(b);
	cache_free(c);
}

static void cache_waiter_may_ask_from_inside_its_call(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 100);
	struct waiter lead, wait;
	struct build *b = NULL;

	(void)state;
	waiter_init(&lead);
	waiter_init(&wait);
	wait.cache = c;
	memcpy(wait.key, key(1), DIGEST_SIZE);
	(void)cache_ask(c, key(1), &lead.w, &b);
	(void)cache_ask(c, key(1), &wait.w, &b);
	b = new_build(0);
	cache_finish(c, key(1), b);
	assert_int_equal(wait.answer, CACHE_HIT);
	build_unref(b);
	cache_free(c);
}

static void cache_freed_with_waiters_forgets_them(void **state)
{
	struct cache *c = cache_new(ROOM_FOR_THREE, 100);
	struct waiter lead, wait;
	struct build *b = NULL;

	(void)state;
	waiter_init(&lead);
	waiter_init(&wait);
	(void)cache_ask(c, key(1), &lead.w, &b);
	(void)cache_ask(c, key(1), &wait.w, &b);
	cache_free(c);
	assert_true(list_empty(&wait.w.link));
	assert_int_equal(wait.calls, 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(cache_success_is_found_again),
	cmocka_unit_test(cache_failure_is_not_kept),
	cmocka_unit_test(cache_full_drops_the_least_recently_used),
	cmocka_unit_test(cache_entries_are_bounded_too),
	cmocka_unit_test(cache_build_bigger_than_all_is_not_kept),
	cmocka_unit_test(cache_build_outlives_its_entry),
	cmocka_unit_test(cache_waiters_get_what_the_leader_made),
	cmocka_unit_test(cache_waiters_share_a_failure),
	cmocka_unit_test(cache_leader_that_cannot_say_is_followed_by_one_waiter),
	cmocka_unit_test(cache_waiter_may_ask_from_inside_its_call),
	cmocka_unit_test(cache_freed_with_waiters_forgets_them),
};

UNIT_MAIN(tests)
