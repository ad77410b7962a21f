/* SPDX-License-Identifier: Apache-2.0 */

/* The cache's suite over a real Redis, with and without a memory of the process in front; what two
 * caches have in common; and what it does about a Redis that dies, hangs, or does not let it in. */

#include "base/clock.h"
#include "base/str.h"
#include "cache/cache.h"
#include "loop_fixture.h"
#include "observe/metrics.h"
#include "redis/redis.h"
#include "redis_server.h"

#include "cache_suite.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	ANSWER_MAX_US = 200000, /* 20 ms, and what a loaded machine adds */
	USUAL_MAX_US = 40000,
	PAUSE_MS = 3000,
};

static char url[512];

static const char *fresh(void)
{
	return url; /* ids are new each time */
}

static const struct cache_backend far_only = {.fresh = fresh, .max_bytes = 0};
static const struct cache_backend with_near = {.fresh = fresh, .max_bytes = CACHE_ROOM};

/* ---- what processes have in common ---- */

static struct cache *open_at(uv_loop_t *loop, const char *at, size_t max_bytes)
{
	struct cache_config cfg = {.url = at, .max_bytes = max_bytes};
	struct cache *c = NULL;
	struct err e = {""};

	if (cache_open(loop, &cfg, &c, &e) < 0)
		fail_msg("%s", e.msg);
	return c;
}

static void wait_until(uv_loop_t *loop, const struct cache *c, bool up)
{
	int64_t end_us = clock_monotonic_us() + 10000000;

	while (cache_is_up(c, NULL) != up && clock_monotonic_us() < end_us)
		(void)uv_run(loop, UV_RUN_ONCE);
	assert_int_equal(cache_is_up(c, NULL), up);
}

static void close_at(uv_loop_t *loop, struct cache *c)
{
	bool closed = false;

	cache_close(c, loop_on_closed, &closed);
	loop_run_until(loop, &closed);
}

struct asking {
	struct cache_get r;
	bool done, hit;
	size_t len;
	int64_t took_us;
};

static void on_got(struct cache_get *r, int code, const void *bytes, size_t len)
{
	struct asking *a = r->ctx;

	assert_false(a->done);
	assert_int_equal(code == 0, bytes != NULL);
	a->done = true;
	a->hit = code == 0;
	a->len = len;
	a->took_us = clock_monotonic_us() - a->took_us;
}

static void start_asking(struct cache *c, const struct uuid *id, struct asking *a)
{
	*a = (struct asking){.took_us = clock_monotonic_us()};
	a->r = (struct cache_get){.kind = CACHE_TASK, .id = *id, .done = on_got, .ctx = a};
	cache_get(c, &a->r);
	assert_false(a->done);
}

static bool is_hit(uv_loop_t *loop, struct cache *c, const struct uuid *id, struct asking *a)
{
	start_asking(c, id, a);
	loop_run_until(loop, &a->done);
	return a->hit;
}

static void value_put_by_one_is_got_and_dropped_by_another(void **state)
{
	struct cache_fixture *f = *state;
	struct cache *other = open_at(&f->loop, url, 0);
	struct asking a;
	struct uuid id;

	uuid7_new(&id);
	wait_until(&f->loop, other, true);
	cache_put(f->cache, CACHE_TASK, &id, "a\0b", 3);
	expect_cached(f, CACHE_TASK, &id, "a\0b", 3);
	assert_true(is_hit(&f->loop, other, &id, &a));
	assert_int_equal(a.len, 3);
	cache_drop(other, CACHE_TASK, &id);
	assert_false(is_hit(&f->loop, other, &id, &a));
	close_at(&f->loop, other);
}

static void largest_value_comes_through_and_larger_is_not_kept(void **state)
{
	static char bytes[4 * 1024 * 1024 + 1];
	struct cache_fixture *f = *state;
	struct asking a = {.hit = false};
	struct uuid id;

	uuid7_new(&id);
	cache_put(f->cache, CACHE_TASK, &id, bytes, sizeof bytes - 1);
	/* It may take longer than a question may. */
	for (int i = 0; i < 100 && !a.hit; i++) {
		wait_until(&f->loop, f->cache, true);
		(void)is_hit(&f->loop, f->cache, &id, &a);
	}
	assert_true(a.hit);
	assert_int_equal(a.len, sizeof bytes - 1);
	wait_until(&f->loop, f->cache, true);
	cache_put(f->cache, CACHE_TASK, &id, bytes, sizeof bytes);
	assert_false(is_hit(&f->loop, f->cache, &id, &a));
}

struct ttl {
	long long seconds;
	bool done;
};

static void on_ttl(void *ctx, const struct redisReply *reply)
{
	struct ttl *t = ctx;

	t->done = true;
	t->seconds = reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -3;
}

/* Asked by a connection of the test's own. */
static long long ttl_s(struct cache_fixture *f, const struct uuid *id)
{
	const struct redis_config cfg = {
		.use = "test", .call_ms = 1000, .unsent_max = 1000, .reply_max = 65536};
	struct redis *redis = NULL;
	struct ttl t = {0};
	char text[UUID_TEXT_MAX], key[64];
	bool closed = false;

	uuid_format(id, text);
	(void)snprintf(key, sizeof key, "kiln:task:%s", text);
	assert_int_equal(redis_open(&f->loop, url, &cfg, &redis, NULL), 0);
	while (!redis_is_up(redis))
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(redis_command(redis,
				       (struct redis_arg[]){REDIS_WORD("TTL"), {key, strlen(key)}},
				       2, on_ttl, &t, NULL),
			 0);
	loop_run_until(&f->loop, &t.done);
	redis_close(redis, loop_on_closed, &closed);
	loop_run_until(&f->loop, &closed);
	return t.seconds;
}

static void large_values_live_shorter(void **state)
{
	static char bytes[64 * 1024 + 1];
	struct cache_fixture *f = *state;
	struct asking a;
	struct uuid small, large;

	uuid7_new(&small);
	uuid7_new(&large);
	cache_put(f->cache, CACHE_TASK, &small, bytes, sizeof bytes - 1);
	cache_put(f->cache, CACHE_TASK, &large, bytes, sizeof bytes);
	(void)is_hit(&f->loop, f->cache, &large, &a);
	assert_in_range(ttl_s(f, &small), 3590, 3600);
	assert_in_range(ttl_s(f, &large), 590, 600);
}

/* ---- a Redis in trouble ---- */

struct trouble {
	uv_loop_t loop;
	struct redis_server server;
	struct cache *cache;
	size_t changes;
	bool up;
	char text[600];
};

static void on_change(void *ctx, bool up, const char *text)
{
	struct trouble *t = ctx;

	t->changes++;
	t->up = up;
	(void)snprintf(t->text, sizeof t->text, "%s", text);
}

static int trouble_setup(void **state)
{
	struct trouble *t = calloc(1, sizeof *t);

	assert_non_null(t);
	assert_int_equal(uv_loop_init(&t->loop), 0);
	*state = t;
	return 0;
}

static int trouble_teardown(void **state)
{
	struct trouble *t = *state;

	if (t->cache)
		close_at(&t->loop, t->cache);
	redis_server_kill(&t->server);
	loop_end(&t->loop);
	free(t);
	return 0;
}

static void open_cache(struct trouble *t, const char *at)
{
	if (t->cache)
		close_at(&t->loop, t->cache);
	t->cache = open_at(&t->loop, at, 0);
	cache_watch(t->cache, on_change, t);
}

/* Questions that Redis did not answer in time, as counted. */
static unsigned long timeouts(void)
{
	static const char series[] = "kiln_redis_calls_total{use=\"cache\",result=\"timeout\"} ";
	struct buf text;
	uint64_t n = 0;
	char *at, *end;

	buf_init(&text, 1024 * 1024);
	assert_int_equal(metrics_write(&text), 0);
	at = strstr(text.data, series);
	end = at ? strchr(at, '\n') : NULL;
	if (end) {
		*end = '\0';
		assert_int_equal(str_to_u64(at + sizeof series - 1, 0, UINT32_MAX, &n), 0);
	}
	buf_fini(&text);
	return n;
}

/* Asks all the time, for ms; each has to be answered soon. Returns the hits. */
static size_t ask_for_ms(struct trouble *t, const struct uuid *id, int64_t ms)
{
	const struct timespec nap = {.tv_nsec = 1000000};
	int64_t end_us = clock_monotonic_us() + ms * 1000;
	size_t hits = 0, n = 0, late = 0;
	struct asking a;

	while (clock_monotonic_us() < end_us) {
		hits += is_hit(&t->loop, t->cache, id, &a);
		assert_in_range(a.took_us, 0, ANSWER_MAX_US);
		n++;
		late += a.took_us > USUAL_MAX_US;
		(void)nanosleep(&nap, NULL);
	}
	assert_true(late <= n / 10);
	return hits;
}

static void expect_told(struct trouble *t, const char *part)
{
	int64_t end_us = clock_monotonic_us() + 3000000;

	while (!strstr(t->text, part) && clock_monotonic_us() < end_us)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	if (!strstr(t->text, part))
		fail_msg("\"%s\" has no \"%s\"", t->text, part);
	assert_null(strstr(t->text, "hunter2"));
}

static void killed_server_is_missed_and_found_again(void **state)
{
	struct trouble *t = *state;
	struct asking a;
	struct uuid id;

	redis_server_start(&t->server);
	open_cache(t, t->server.url);
	for (int round = 0; round < 3; round++) {
		wait_until(&t->loop, t->cache, true);
		assert_non_null(strstr(t->text, "connected to 127.0.0.1:"));
		uuid7_new(&id);
		cache_put(t->cache, CACHE_TASK, &id, "x", 1);
		assert_true(ask_for_ms(t, &id, 50) > 0);
		redis_server_kill(&t->server);
		assert_int_equal(ask_for_ms(t, &id, 300), 0);
		assert_false(cache_is_up(t->cache, NULL));
		expect_told(t, "refused");
		/* What is put meanwhile is lost, and nobody minds. */
		cache_put(t->cache, CACHE_TASK, &id, "y", 1);
		redis_server_start(&t->server);
	}
	wait_until(&t->loop, t->cache, true);
	assert_false(is_hit(&t->loop, t->cache, &id, &a));
}

static void stopped_server_costs_twenty_ms_three_times_and_comes_back(void **state)
{
	struct trouble *t = *state;
	unsigned long before;
	struct asking a;
	struct uuid id;
	int64_t start_us;

	redis_server_start(&t->server);
	open_cache(t, t->server.url);
	wait_until(&t->loop, t->cache, true);
	uuid7_new(&id);
	cache_put(t->cache, CACHE_TASK, &id, "x", 1);
	assert_true(is_hit(&t->loop, t->cache, &id, &a));
	before = timeouts();
	assert_int_equal(kill(t->server.pid, SIGSTOP), 0);
	assert_int_equal(ask_for_ms(t, &id, PAUSE_MS), 0);
	assert_int_equal(timeouts() - before, 3);
	assert_int_equal(kill(t->server.pid, SIGCONT), 0);
	start_us = clock_monotonic_us();
	wait_until(&t->loop, t->cache, true);
	assert_in_range(clock_monotonic_us() - start_us, 0, 2000000);
	assert_true(is_hit(&t->loop, t->cache, &id, &a));
}

static void refusals_are_told(void **state)
{
	struct trouble *t = *state;
	char at[128];

	t->server.password = "right";
	redis_server_start(&t->server);
	open_cache(t, t->server.url);
	expect_told(t, "wants a password, and its address has none");
	(void)snprintf(at, sizeof at, "redis://:hunter2@127.0.0.1:%u/0", t->server.port);
	open_cache(t, at);
	expect_told(t, "does not accept the user or password: WRONGPASS");
	(void)snprintf(at, sizeof at, "redis://nobody:hunter2@127.0.0.1:%u/0", t->server.port);
	open_cache(t, at);
	expect_told(t, "does not accept the user or password: WRONGPASS");
	(void)snprintf(at, sizeof at, "redis://:right@127.0.0.1:%u/99", t->server.port);
	open_cache(t, at);
	expect_told(t, "refuses the number of the database: ERR DB index is out of range");
	(void)snprintf(at, sizeof at, "redis://default:right@127.0.0.1:%u/3", t->server.port);
	open_cache(t, at);
	expect_told(t, "connected to 127.0.0.1:");
	wait_until(&t->loop, t->cache, true);
}

/* A change of state is told once, however often it is tried meanwhile. */
static void server_that_went_is_told_once(void **state)
{
	struct trouble *t = *state;
	struct uuid id;

	redis_server_start(&t->server);
	open_cache(t, t->server.url);
	wait_until(&t->loop, t->cache, true);
	t->changes = 0;
	redis_server_kill(&t->server);
	uuid7_new(&id);
	(void)ask_for_ms(t, &id, 1500);
	/* That the connection was lost, and why it does not come back. */
	assert_in_range(t->changes, 1, 2);
	assert_false(t->up);
}

#define CASE(name)    cmocka_unit_test_setup_teardown(name, cache_setup, cache_teardown)
#define TROUBLE(name) cmocka_unit_test_setup_teardown(name, trouble_setup, trouble_teardown)

static const struct CMUnitTest common[] = {
	CASE(value_put_by_one_is_got_and_dropped_by_another),
	CASE(largest_value_comes_through_and_larger_is_not_kept),
	CASE(large_values_live_shorter),
};

static const struct CMUnitTest troubles[] = {
	TROUBLE(killed_server_is_missed_and_found_again),
	TROUBLE(stopped_server_costs_twenty_ms_three_times_and_comes_back),
	TROUBLE(refusals_are_told),
	TROUBLE(server_that_went_is_told_once),
};

/* One run of all, since a program prints one plan. The suite's tests take their cache from
 * cache_backend, which the tests between them set. */
static void use_far_only(void **state)
{
	(void)state;
	cache_backend = &far_only;
}

static void use_with_near(void **state)
{
	(void)state;
	cache_backend = &with_near;
}

static size_t add(struct CMUnitTest *tests, size_t n, const struct CMUnitTest *more, size_t n_more)
{
	memcpy(tests + n, more, n_more * sizeof *more);
	return n + n_more;
}

int main(void)
{
	static const struct CMUnitTest far = cmocka_unit_test(use_far_only);
	static const struct CMUnitTest near = cmocka_unit_test(use_with_near);
	const char *base = getenv("KILN_TEST_REDIS_URL");
	struct CMUnitTest tests[64];
	size_t n = 0;

	if (!base || !*base) {
		(void)printf("1..0 # SKIP KILN_TEST_REDIS_URL is not set (tools/stack.sh)\n");
		return 0;
	}
	if (!redis_server_exists()) {
		(void)printf("1..0 # SKIP there is no redis-server to kill and stop\n");
		return 0;
	}
	/* A database of its own: 0 may be in use. */
	(void)snprintf(url, sizeof url, "%.*s/9", (int)(strrchr(base, '/') - base), base);
	n = add(tests, n, &far, 1);
	n = add(tests, n, cache_suite, cache_suite_count);
	n = add(tests, n, common, ARRAY_SIZE(common));
	n = add(tests, n, &near, 1);
	n = add(tests, n, cache_suite, cache_suite_count);
	n = add(tests, n, troubles, ARRAY_SIZE(troubles));
	return _cmocka_run_group_tests("cache at Redis", tests, n, NULL, NULL);
}
