/* SPDX-License-Identifier: Apache-2.0 */

/* Rates that several processes count together at a real Redis, and alone without it. */

#include "base/clock.h"
#include "loop_fixture.h"
#include "rate/rate.h"
#include "redis_server.h"

#include <signal.h>
#include <stdio.h>

struct asked {
	struct rate_take take;
	bool done;
};

static void on_done(struct rate_take *t)
{
	((struct asked *)t->ctx)->done = true;
}

/* Microseconds to wait, 0 where one was taken. */
static int64_t ask(uv_loop_t *loop, struct rate *r, const char *name)
{
	struct asked a = {.take = {.name = name, .limit = {60, 4}, .done = on_done, .ctx = &a}};

	a.done = rate_take(r, &a.take);
	loop_run_until(loop, &a.done);
	return a.take.wait_us;
}

static struct rate *open_at(uv_loop_t *loop, const char *url)
{
	struct rate *r = NULL;
	struct err e = {""};

	if (rate_open(loop, url, &r, &e) < 0)
		fail_msg("%s", e.msg);
	return r;
}

static void end(uv_loop_t *loop, struct rate *r)
{
	bool closed = false;

	rate_close(r, loop_on_closed, &closed);
	loop_run_until(loop, &closed);
}

static void run_for(uv_loop_t *loop, int64_t ms)
{
	int64_t end_us = clock_monotonic_us() + ms * 1000;

	while (clock_monotonic_us() < end_us)
		(void)uv_run(loop, UV_RUN_NOWAIT);
}

static void counted_together_while_redis_is_there_and_alone_without(void **state)
{
	struct redis_server server = {0};
	struct rate *one, *two;
	uv_loop_t loop;
	int passed = 0;

	(void)state;
	redis_server_start(&server);
	assert_int_equal(uv_loop_init(&loop), 0);
	one = open_at(&loop, server.url);
	two = open_at(&loop, server.url);
	run_for(&loop, 500);
	for (int i = 0; i < 6; i++)
		passed += ask(&loop, i % 2 ? one : two, "acme") == 0;
	assert_int_equal(passed, 4);
	assert_int_equal(ask(&loop, two, "other"), 0);

	/* A Redis that hangs, then one that is gone: each is on its own, and nobody is refused
	 * because of it. */
	assert_int_equal(kill(server.pid, SIGSTOP), 0);
	passed = 0;
	for (int i = 0; i < 6; i++)
		passed += ask(&loop, one, "acme") == 0;
	assert_int_equal(passed, 4);
	assert_int_equal(kill(server.pid, SIGCONT), 0);
	redis_server_kill(&server);
	run_for(&loop, 100);
	passed = 0;
	for (int i = 0; i < 6; i++)
		passed += ask(&loop, two, "acme") == 0;
	assert_int_equal(passed, 4);
	end(&loop, one);
	end(&loop, two);
	loop_end(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counted_together_while_redis_is_there_and_alone_without),
	};

	if (!redis_server_exists()) {
		(void)printf("1..0 # SKIP there is no redis-server (tools/stack.sh)\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
