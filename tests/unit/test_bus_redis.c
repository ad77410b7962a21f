/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The bus' suite over a real Redis, and what two buses do with each other: between two connections
 * of one process, and between two processes (this program starts itself as "echo URL").
 */

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "bus/bus.h"
#include "bus/envelope.h"
#include "loop_fixture.h"
#include "redis/redis.h"
#include "redis_server.h"

#include "bus_suite.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { N_ROUNDS = 2000, WARM_UP = 100 };

static char url[512];

static const char *fresh(void)
{
	return url;
}

static const struct bus_backend backend = {.fresh = fresh};

/* ---- two buses ---- */

struct ear {
	size_t heard;
	enum bus_topic topic;
	struct uuid id;
	char payload[BUS_PAYLOAD_MAX];
	size_t len;
	int64_t at_us;
};

struct pair {
	uv_loop_t loop;
	struct redis_server server;
	struct bus *a, *b;
	struct ear heard_by_a, heard_by_b;
	size_t changes;
	char text[600];
};

static void on_message(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		       size_t len)
{
	struct ear *e = ctx;

	e->heard++;
	e->topic = topic;
	e->id = *id;
	e->len = len;
	e->at_us = clock_monotonic_us();
	if (len)
		memcpy(e->payload, payload, len);
}

static void on_change(void *ctx, bool up, const char *text)
{
	struct pair *p = ctx;

	(void)up;
	p->changes++;
	(void)snprintf(p->text, sizeof p->text, "%s", text);
}

static struct bus *open_bus(uv_loop_t *loop, const char *at, struct ear *e)
{
	struct bus *b = NULL;
	struct err err = {""};

	if (bus_open(loop, at, &b, &err) < 0)
		fail_msg("%s", err.msg);
	for (int t = 0; t < _BUS_TOPIC_MAX; t++)
		assert_int_equal(bus_subscribe(b, (enum bus_topic)t, on_message, e), 0);
	return b;
}

static void wait_until(uv_loop_t *loop, const struct bus *b, bool up)
{
	int64_t end_us = clock_monotonic_us() + 10000000;

	while (bus_is_up(b, NULL) != up && clock_monotonic_us() < end_us)
		(void)uv_run(loop, UV_RUN_ONCE);
	assert_int_equal(bus_is_up(b, NULL), up);
}

static void run_for_ms(uv_loop_t *loop, int64_t ms)
{
	int64_t end_us = clock_monotonic_us() + ms * 1000;

	while (clock_monotonic_us() < end_us)
		(void)uv_run(loop, UV_RUN_NOWAIT);
}

static void expect_heard(struct pair *p, const struct ear *e, size_t n)
{
	int64_t end_us = clock_monotonic_us() + 5000000;

	while (e->heard < n && clock_monotonic_us() < end_us)
		(void)uv_run(&p->loop, UV_RUN_ONCE);
	assert_int_equal(e->heard, n);
}

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof *p);

	assert_non_null(p);
	assert_int_equal(uv_loop_init(&p->loop), 0);
	*state = p;
	return 0;
}

static void open_pair(struct pair *p, const char *at, const char *at_b)
{
	p->a = open_bus(&p->loop, at, &p->heard_by_a);
	p->b = open_bus(&p->loop, at_b, &p->heard_by_b);
	(void)bus_watch(p->a, on_change, p);
	wait_until(&p->loop, p->a, true);
	wait_until(&p->loop, p->b, true);
}

static int teardown(void **state)
{
	struct pair *p = *state;
	bool closed[2] = {false, false};

	bus_close(p->a, loop_on_closed, &closed[0]);
	bus_close(p->b, loop_on_closed, &closed[1]);
	loop_run_until(&p->loop, &closed[0]);
	loop_run_until(&p->loop, &closed[1]);
	redis_server_kill(&p->server);
	loop_end(&p->loop);
	free(p);
	return 0;
}

static void message_is_heard_once_by_each(void **state)
{
	static const size_t sizes[] = {0, 1, 100, BUS_PAYLOAD_MAX};
	struct pair *p = *state;
	char payload[BUS_PAYLOAD_MAX];
	struct uuid id;

	for (size_t i = 0; i < sizeof payload; i++)
		payload[i] = (char)i;
	open_pair(p, url, url);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uuid7_new(&id);
		bus_publish(p->a, (enum bus_topic)(i % _BUS_TOPIC_MAX), &id, payload, sizes[i]);
		expect_heard(p, &p->heard_by_b, i + 1);
		assert_int_equal(p->heard_by_b.topic, i % _BUS_TOPIC_MAX);
		assert_true(uuid_eq(&p->heard_by_b.id, &id));
		assert_int_equal(p->heard_by_b.len, sizes[i]);
		assert_memory_equal(p->heard_by_b.payload, payload, sizes[i]);
	}
	run_for_ms(&p->loop, 50);
	assert_int_equal(p->heard_by_a.heard, ARRAY_SIZE(sizes));
	assert_int_equal(p->heard_by_b.heard, ARRAY_SIZE(sizes));
}

/* Redis' channels know no databases; two installations at one Redis must not hear each other. */
static void databases_are_apart(void **state)
{
	struct pair *p = *state;
	char other[520];
	struct uuid id;

	(void)snprintf(other, sizeof other, "%.*s/11", (int)(strrchr(url, '/') - url), url);
	open_pair(p, url, other);
	uuid7_new(&id);
	bus_publish(p->a, BUS_FINISHED, &id, "x", 1);
	expect_heard(p, &p->heard_by_a, 1);
	run_for_ms(&p->loop, 50);
	assert_int_equal(p->heard_by_b.heard, 0);
}

static void message_from_a_stranger_is_ignored(void **state)
{
	static const char *const channels[] = {"kiln:10:finished", "kiln:10:cancel"};
	static char bytes[sizeof(struct envelope) + BUS_PAYLOAD_MAX + 1];
	static const size_t sizes[] = {0, 1, sizeof(struct envelope) - 1, sizeof bytes};
	const struct redis_config cfg = {
		.use = "test", .call_ms = 1000, .unsent_max = 100000, .reply_max = 65536};
	struct redis *stranger = NULL;
	struct pair *p = *state;
	bool closed = false;

	open_pair(p, url, url);
	assert_int_equal(redis_open(&p->loop, url, &cfg, &stranger, NULL), 0);
	while (!redis_is_up(stranger))
		(void)uv_run(&p->loop, UV_RUN_ONCE);
	for (size_t i = 0; i < ARRAY_SIZE(sizes) * ARRAY_SIZE(channels); i++) {
		const char *channel = channels[i / ARRAY_SIZE(sizes)];
		const struct redis_arg args[] = {REDIS_WORD("PUBLISH"),
						 {channel, strlen(channel)},
						 {bytes, sizes[i % ARRAY_SIZE(sizes)]}};

		bytes[0] = ENVELOPE_VERSION;
		assert_int_equal(redis_command(stranger, args, 3, NULL, NULL, NULL), 0);
	}
	/* Of the right size, but of another version. */
	bytes[0] = ENVELOPE_VERSION + 1;
	assert_int_equal(redis_command(stranger,
				       (struct redis_arg[]){REDIS_WORD("PUBLISH"),
							    REDIS_WORD("kiln:10:finished"),
							    {bytes, 100}},
				       3, NULL, NULL, NULL),
			 0);
	bytes[0] = ENVELOPE_VERSION;
	assert_int_equal(redis_command(stranger,
				       (struct redis_arg[]){REDIS_WORD("PUBLISH"),
							    REDIS_WORD("kiln:10:finished"),
							    {bytes, 100}},
				       3, NULL, NULL, NULL),
			 0);
	expect_heard(p, &p->heard_by_a, 1);
	assert_int_equal(p->heard_by_a.len, 100 - sizeof(struct envelope));
	redis_close(stranger, loop_on_closed, &closed);
	loop_run_until(&p->loop, &closed);
	assert_true(bus_is_up(p->a, NULL));
}

static void killed_server_leaves_the_own_process_and_comes_back(void **state)
{
	struct pair *p = *state;
	struct uuid id;
	struct buf why;

	redis_server_start(&p->server);
	open_pair(p, p->server.url, p->server.url);
	redis_server_kill(&p->server);
	wait_until(&p->loop, p->a, false);
	wait_until(&p->loop, p->b, false);
	buf_init(&why, 500);
	assert_false(bus_is_up(p->a, &why));
	assert_non_null(strstr(why.data, "bus: "));
	buf_fini(&why);
	uuid7_new(&id);
	bus_publish(p->a, BUS_CANCEL, &id, NULL, 0);
	expect_heard(p, &p->heard_by_a, 1);
	run_for_ms(&p->loop, 500);
	/* Two connections: that they were lost, and why they do not come back, each once. */
	assert_in_range(p->changes, 2, 4);
	redis_server_start(&p->server);
	wait_until(&p->loop, p->a, true);
	wait_until(&p->loop, p->b, true);
	assert_non_null(strstr(p->text, "connected to 127.0.0.1:"));
	assert_int_equal(p->heard_by_b.heard, 0);
	bus_publish(p->a, BUS_CANCEL, &id, NULL, 0);
	expect_heard(p, &p->heard_by_b, 1);
}

static void stopped_server_is_noticed_and_comes_back(void **state)
{
	struct pair *p = *state;
	struct uuid id;

	redis_server_start(&p->server);
	open_pair(p, p->server.url, p->server.url);
	assert_int_equal(kill(p->server.pid, SIGSTOP), 0);
	wait_until(&p->loop, p->a, false);
	uuid7_new(&id);
	for (int i = 0; i < 100; i++)
		bus_publish(p->a, BUS_FINISHED, &id, "x", 1);
	expect_heard(p, &p->heard_by_a, 100);
	assert_int_equal(kill(p->server.pid, SIGCONT), 0);
	wait_until(&p->loop, p->a, true);
	wait_until(&p->loop, p->b, true);
	bus_publish(p->a, BUS_QUEUED, &id, "y", 1);
	while (p->heard_by_b.topic != BUS_QUEUED)
		(void)uv_run(&p->loop, UV_RUN_ONCE);
}

/* ---- two processes ---- */

/* Answers each CANCEL with a QUEUED, until FINISHED. */
struct echo {
	struct bus *bus;
	bool end;
};

static void on_echo(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		    size_t len)
{
	struct echo *e = ctx;

	if (topic == BUS_FINISHED)
		e->end = true;
	else
		bus_publish(e->bus, BUS_QUEUED, id, payload, len);
}

static int run_echo(const char *at)
{
	struct echo e = {0};
	uv_loop_t loop;
	bool closed = false;

	if (uv_loop_init(&loop) < 0 || bus_open(&loop, at, &e.bus, NULL) < 0)
		return 1;
	(void)bus_subscribe(e.bus, BUS_CANCEL, on_echo, &e);
	(void)bus_subscribe(e.bus, BUS_FINISHED, on_echo, &e);
	while (!e.end)
		(void)uv_run(&loop, UV_RUN_ONCE);
	bus_close(e.bus, loop_on_closed, &closed);
	while (!closed)
		(void)uv_run(&loop, UV_RUN_ONCE);
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop) == 0 ? 0 : 1;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static bool round_trip(uv_loop_t *loop, struct bus *b, struct ear *e, int64_t wait_us,
		       int64_t *ret_took_us)
{
	int64_t start_us = clock_monotonic_us();
	size_t before = e->heard;
	struct uuid id;

	uuid7_new(&id);
	bus_publish(b, BUS_CANCEL, &id, "ping", 4);
	while ((e->heard == before || !uuid_eq(&e->id, &id)) &&
	       clock_monotonic_us() - start_us < wait_us)
		(void)uv_run(loop, UV_RUN_NOWAIT);
	*ret_took_us = e->at_us - start_us;
	return e->heard > before;
}

static void other_process_hears_within_a_millisecond_or_so(void **state)
{
	static int64_t took_us[N_ROUNDS];
	char self[] = "/proc/self/exe", word[] = "echo";
	char *argv[] = {self, word, url, NULL};
	extern char **environ;
	struct ear ear = {0};
	struct uuid id;
	struct bus *b = NULL;
	bool closed = false, ready = false;
	int status = -1;
	uv_loop_t loop;
	pid_t pid;

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(bus_open(&loop, url, &b, NULL), 0);
	assert_int_equal(bus_subscribe(b, BUS_QUEUED, on_message, &ear), 0);
	wait_until(&loop, b, true);
	assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
	for (int i = 0; i < 500 && !ready; i++)
		ready = round_trip(&loop, b, &ear, 20000, &took_us[0]);
	assert_true(ready);
	for (int i = 0; i < WARM_UP; i++)
		(void)round_trip(&loop, b, &ear, 100000, &took_us[0]);
	for (int i = 0; i < N_ROUNDS; i++)
		assert_true(round_trip(&loop, b, &ear, 1000000, &took_us[i]));
	uuid7_new(&id);
	bus_publish(b, BUS_FINISHED, &id, NULL, 0);
	bus_close(b, loop_on_closed, &closed);
	loop_run_until(&loop, &closed);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	loop_end(&loop);
	qsort(took_us, N_ROUNDS, sizeof took_us[0], compare);
	(void)printf("# one way, from publish to the callback in the other process: p50 %lld us, "
		     "p99 %lld us\n",
		     (long long)took_us[N_ROUNDS / 2] / 2,
		     (long long)took_us[N_ROUNDS * 99 / 100] / 2);
	assert_true(took_us[N_ROUNDS / 2] / 2 < 2000);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest own[] = {
	CASE(message_is_heard_once_by_each),
	CASE(databases_are_apart),
	CASE(message_from_a_stranger_is_ignored),
	CASE(killed_server_leaves_the_own_process_and_comes_back),
	CASE(stopped_server_is_noticed_and_comes_back),
	cmocka_unit_test(other_process_hears_within_a_millisecond_or_so),
};

int main(int argc, char *argv[])
{
	const char *base = getenv("KILN_TEST_REDIS_URL");
	struct CMUnitTest tests[64];

	if (argc == 3 && str_eq(argv[1], "echo"))
		return run_echo(argv[2]);
	if (!base || !*base) {
		(void)printf("1..0 # SKIP KILN_TEST_REDIS_URL is not set (tools/stack.sh)\n");
		return 0;
	}
	if (!redis_server_exists()) {
		(void)printf("1..0 # SKIP there is no redis-server to kill and stop\n");
		return 0;
	}
	(void)snprintf(url, sizeof url, "%.*s/10", (int)(strrchr(base, '/') - base), base);
	bus_backend = &backend;
	memcpy(tests, bus_suite, bus_suite_count * sizeof tests[0]);
	memcpy(tests + bus_suite_count, own, sizeof own);
	return _cmocka_run_group_tests("bus at Redis", tests, bus_suite_count + ARRAY_SIZE(own),
				       NULL, NULL);
}
