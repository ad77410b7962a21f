/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/cache.h"
#include "loop_fixture.h"

#include "cache_suite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct cache_backend *cache_backend;

int cache_setup(void **state)
{
	struct cache_config cfg = {
		.url = cache_backend->fresh(),
		.max_bytes = cache_backend->max_bytes,
	};
	struct cache_fixture *f = calloc(1, sizeof *f);
	struct err e = {""};

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	if (cache_open(&f->loop, &cfg, &f->cache, &e) < 0)
		fail_msg("%s", e.msg);
	while (!cache_is_up(f->cache, NULL))
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	*state = f;
	return 0;
}

int cache_teardown(void **state)
{
	struct cache_fixture *f = *state;

	if (!f->closed) {
		cache_close(f->cache, loop_on_closed, &f->closed);
		assert_false(f->closed);
		loop_run_until(&f->loop, &f->closed);
	}
	loop_end(&f->loop);
	free(f);
	return 0;
}

struct getting {
	struct cache_get r;
	struct cache *cache;
	const void *bytes; /* NULL: a miss is expected */
	size_t len;
	bool done;
	bool drop, put, close; /* what to do from inside the callback, before looking */
	bool closed;
};

static void on_got(struct cache_get *r, int code, const void *bytes, size_t len)
{
	struct getting *g = r->ctx;

	assert_false(g->done);
	g->done = true;
	if (g->drop)
		cache_drop(g->cache, r->kind, &r->id);
	if (g->put)
		cache_put(g->cache, r->kind, &r->id, "other", 5);
	if (g->close)
		cache_close(g->cache, loop_on_closed, &g->closed);
	assert_int_equal(code, g->bytes ? 0 : -ENOENT);
	assert_int_equal(len, g->bytes ? g->len : 0);
	if (g->bytes)
		assert_memory_equal(bytes, g->bytes, len);
	else
		assert_null(bytes);
}

static void get(struct cache_fixture *f, struct getting *g, enum cache_kind kind,
		const struct uuid *id)
{
	g->cache = f->cache;
	g->r = (struct cache_get){.kind = kind, .id = *id, .done = on_got, .ctx = g};
	cache_get(f->cache, &g->r);
	assert_false(g->done);
}

void expect_cached(struct cache_fixture *f, enum cache_kind kind, const struct uuid *id,
		   const void *bytes, size_t len)
{
	struct getting g = {.bytes = bytes, .len = len};

	get(f, &g, kind, id);
	loop_run_until(&f->loop, &g.done);
}

static void put_then_get_gives_the_bytes(void **state)
{
	struct cache_fixture *f = *state;
	struct uuid id, other;

	uuid7_new(&id);
	uuid7_new(&other);
	expect_cached(f, CACHE_TASK, &id, NULL, 0);
	cache_put(f->cache, CACHE_TASK, &id, "a\0b", 3);
	expect_cached(f, CACHE_TASK, &id, "a\0b", 3);
	expect_cached(f, CACHE_TASK, &id, "a\0b", 3);
	expect_cached(f, CACHE_SPEC, &id, NULL, 0);
	expect_cached(f, CACHE_TASK, &other, NULL, 0);
}

static void put_again_replaces(void **state)
{
	struct cache_fixture *f = *state;
	struct uuid id;

	uuid7_new(&id);
	cache_put(f->cache, CACHE_SPEC, &id, "one", 3);
	cache_put(f->cache, CACHE_TASK, &id, "task", 4);
	cache_put(f->cache, CACHE_SPEC, &id, "twotwo", 6);
	expect_cached(f, CACHE_SPEC, &id, "twotwo", 6);
	expect_cached(f, CACHE_TASK, &id, "task", 4);
}

static void put_keeps_a_copy(void **state)
{
	struct cache_fixture *f = *state;
	char bytes[] = "before";
	struct uuid id;

	uuid7_new(&id);
	cache_put(f->cache, CACHE_TASK, &id, bytes, 6);
	memset(bytes, 'x', 6);
	expect_cached(f, CACHE_TASK, &id, "before", 6);
}

static void drop_forgets(void **state)
{
	struct cache_fixture *f = *state;
	struct uuid id;

	uuid7_new(&id);
	cache_drop(f->cache, CACHE_TASK, &id);
	cache_put(f->cache, CACHE_TASK, &id, "t", 1);
	cache_put(f->cache, CACHE_SPEC, &id, "s", 1);
	cache_drop(f->cache, CACHE_TASK, &id);
	expect_cached(f, CACHE_TASK, &id, NULL, 0);
	expect_cached(f, CACHE_SPEC, &id, "s", 1);
}

static void cancelled_get_never_answers(void **state)
{
	struct cache_fixture *f = *state;
	struct getting g = {0}, h = {.bytes = "t", .len = 1};
	struct uuid id;

	uuid7_new(&id);
	cache_put(f->cache, CACHE_TASK, &id, "t", 1);
	get(f, &g, CACHE_TASK, &id);
	get(f, &h, CACHE_TASK, &id);
	cache_cancel(&g.r);
	cache_cancel(&g.r);
	loop_run_until(&f->loop, &h.done);
	loop_turn(&f->loop);
	assert_false(g.done);
	/* After its end there is nothing to cancel. */
	cache_cancel(&h.r);
}

static void bytes_hold_while_the_callback_changes_the_cache(void **state)
{
	struct cache_fixture *f = *state;
	struct getting dropping = {.bytes = "bytes", .len = 5, .drop = true};
	struct getting putting = {.bytes = "bytes", .len = 5, .put = true};
	struct uuid id;

	uuid7_new(&id);
	cache_put(f->cache, CACHE_TASK, &id, "bytes", 5);
	get(f, &dropping, CACHE_TASK, &id);
	loop_run_until(&f->loop, &dropping.done);
	expect_cached(f, CACHE_TASK, &id, NULL, 0);
	cache_put(f->cache, CACHE_TASK, &id, "bytes", 5);
	get(f, &putting, CACHE_TASK, &id);
	loop_run_until(&f->loop, &putting.done);
	expect_cached(f, CACHE_TASK, &id, "other", 5);
}

static void close_from_inside_an_answer_works(void **state)
{
	struct cache_fixture *f = *state;
	struct getting g = {.bytes = "bytes", .len = 5, .close = true};
	struct uuid id;

	uuid7_new(&id);
	cache_put(f->cache, CACHE_TASK, &id, "bytes", 5);
	get(f, &g, CACHE_TASK, &id);
	loop_run_until(&f->loop, &g.closed);
	f->closed = true;
}

static void close_answers_what_was_asked(void **state)
{
	struct cache_fixture *f = *state;
	struct getting g = {0};
	struct uuid id;

	uuid7_new(&id);
	get(f, &g, CACHE_TASK, &id);
	cache_close(f->cache, loop_on_closed, &f->closed);
	loop_run_until(&f->loop, &f->closed);
	assert_true(g.done);
}

static void stats_count_hits_and_misses(void **state)
{
	struct cache_fixture *f = *state;
	struct cache_stats s;
	struct uuid id;

	uuid7_new(&id);
	expect_cached(f, CACHE_TASK, &id, NULL, 0);
	cache_put(f->cache, CACHE_TASK, &id, "t", 1);
	expect_cached(f, CACHE_TASK, &id, "t", 1);
	expect_cached(f, CACHE_TASK, &id, "t", 1);
	cache_get_stats(f->cache, &s);
	assert_int_equal(s.hits, 2);
	assert_int_equal(s.misses, 1);
}

static void open_of_unknown_refused(void **state)
{
	static const char *const bad[] = {"", "nothing:", "memory", "memory:x"};
	struct cache_fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct cache_config cfg = {.url = bad[i], .max_bytes = 1};
		struct cache *c = NULL;
		struct err e = {""};

		assert_int_equal(cache_open(&f->loop, &cfg, &c, &e), -EINVAL);
		assert_null(c);
		assert_true(e.msg[0]);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, cache_setup, cache_teardown)

const struct CMUnitTest cache_suite[] = {
	CASE(put_then_get_gives_the_bytes),
	CASE(put_again_replaces),
	CASE(put_keeps_a_copy),
	CASE(drop_forgets),
	CASE(cancelled_get_never_answers),
	CASE(bytes_hold_while_the_callback_changes_the_cache),
	CASE(close_from_inside_an_answer_works),
	CASE(close_answers_what_was_asked),
	CASE(stats_count_hits_and_misses),
	CASE(open_of_unknown_refused),
};
const size_t cache_suite_count = ARRAY_SIZE(cache_suite);
