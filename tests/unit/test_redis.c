/* SPDX-License-Identifier: Apache-2.0 */

/* A connection, and the cache over it, to a server that misbehaves; no Redis is needed. */

#include "base/clock.h"
#include "cache/cache.h"
#include "fake_redis.h"
#include "loop_fixture.h"
#include "redis/redis.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* More than the cache's: both ends are on one loop, on a machine that may be loaded. */
enum { CALL_MS = 60, CACHE_CALL_MS = 20, LATE_MS = 200 };

/* ---- a connection ---- */

struct fixture {
	uv_loop_t loop;
	struct fake_redis fake;
	struct redis *redis;
	struct cache *cache;
	size_t changes;
	bool up;
	char text[512];
	size_t messages;
	bool closed;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	fake_redis_start(&f->fake, &f->loop);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->closed = true;
	if (f->redis) {
		f->closed = false;
		redis_close(f->redis, loop_on_closed, &f->closed);
	}
	loop_run_until(&f->loop, &f->closed);
	if (f->cache) {
		f->closed = false;
		cache_close(f->cache, loop_on_closed, &f->closed);
	}
	loop_run_until(&f->loop, &f->closed);
	fake_redis_stop(&f->fake);
	loop_end(&f->loop);
	free(f);
	return 0;
}

static void on_changed(void *ctx, bool up, const char *text)
{
	struct fixture *f = ctx;

	f->changes++;
	f->up = up;
	(void)snprintf(f->text, sizeof f->text, "%s", text);
}

static void on_message(void *ctx, size_t channel, const void *bytes, size_t len)
{
	struct fixture *f = ctx;

	assert_int_equal(channel, 1);
	assert_int_equal(len, 2);
	assert_memory_equal(bytes, "hi", 2);
	f->messages++;
}

static void open_url(struct fixture *f, const char *url, const char *const *channels)
{
	const struct redis_config cfg = {
		.use = "test",
		.call_ms = CALL_MS,
		.unsent_max = 1024 * 1024,
		.reply_max = 256 * 1024,
		.channels = channels,
		.message = on_message,
		.changed = on_changed,
		.ctx = f,
	};
	struct err e = {""};

	if (redis_open(&f->loop, url, &cfg, &f->redis, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(f->changes, 0);
}

/* A loaded machine may need another attempt than the first. */
static void expect_up(struct fixture *f)
{
	while (!redis_is_up(f->redis))
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	assert_true(f->up);
	assert_non_null(strstr(f->text, "connected to "));
}

static void expect_down(struct fixture *f, const char *part)
{
	int64_t end_us = clock_monotonic_us() + 5000000;

	while ((f->up || !strstr(f->text, part)) && clock_monotonic_us() < end_us)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	assert_false(f->up);
	if (!strstr(f->text, part))
		fail_msg("\"%s\" has no \"%s\"", f->text, part);
}

static void run_for_ms(struct fixture *f, int64_t ms)
{
	int64_t end_us = clock_monotonic_us() + ms * 1000;

	while (clock_monotonic_us() < end_us)
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
}

struct asking {
	bool done;
	bool answered;
	int type;
	int64_t took_us;
};

static void on_answer(void *ctx, const struct redisReply *reply)
{
	struct asking *a = ctx;

	assert_false(a->done);
	a->done = true;
	a->answered = reply != NULL;
	a->type = reply ? reply->type : 0;
	a->took_us = clock_monotonic_us() - a->took_us;
}

static const struct redis_arg get[] = {REDIS_WORD("GET"), REDIS_WORD("k")};

static int start_asking(struct fixture *f, struct asking *a)
{
	*a = (struct asking){.took_us = clock_monotonic_us()};
	return redis_command(f->redis, get, 2, on_answer, a, NULL);
}

static void connection_comes_up_and_answers(void **state)
{
	struct fixture *f = *state;
	struct asking a;

	open_url(f, f->fake.url, NULL);
	assert_false(redis_is_up(f->redis));
	assert_int_equal(start_asking(f, &a), -ENOTCONN);
	expect_up(f);
	assert_int_equal(start_asking(f, &a), 0);
	loop_run_until(&f->loop, &a.done);
	assert_true(a.answered);
}

static void server_that_is_not_there_is_told_once(void **state)
{
	struct fixture *f = *state;
	struct asking a;

	fake_redis_stop(&f->fake);
	open_url(f, f->fake.url, NULL);
	expect_down(f, "could not connect to 127.0.0.1:");
	assert_non_null(strstr(f->text, "refused"));
	assert_int_equal(start_asking(f, &a), -ENOTCONN);
	run_for_ms(f, 400);
	assert_int_equal(f->changes, 1);
	f->fake.peers = NULL;
	fake_redis_start(&f->fake, &f->loop); /* teardown stops it */
}

static void second_host_is_tried_at_once(void **state)
{
	struct fixture *f = *state;
	struct fake_redis other = {0};
	int64_t fastest_us = INT64_MAX;
	char url[160];

	fake_redis_start(&other, &f->loop);
	fake_redis_stop(&other);
	(void)snprintf(url, sizeof url, "%.*s,%s", (int)strlen(other.url) - 2, other.url,
		       f->fake.url + strlen("redis://"));
	for (int i = 0; i < 5; i++) {
		int64_t start_us = clock_monotonic_us();

		f->changes = 0;
		open_url(f, url, NULL);
		expect_up(f);
		start_us = clock_monotonic_us() - start_us;
		fastest_us = start_us < fastest_us ? start_us : fastest_us;
		f->closed = false;
		redis_close(f->redis, loop_on_closed, &f->closed);
		loop_run_until(&f->loop, &f->closed);
	}
	f->redis = NULL;
	/* Less than the shortest wait. */
	assert_in_range(fastest_us, 0, 40000);
}

/* Each is what comes in answer to SELECT. */
static void greeting_gone_wrong_is_told(void **state)
{
	static const struct {
		const char *bytes, *part;
	} cases[] = {
		{"-NOAUTH Authentication required.\r\n",
		 "wants a password, and its address has none"},
		{"-ERR DB index is out of range\r\n", "refuses the number of the database: ERR DB"},
		{"-ERR max number of clients\x01\x1b[31m reached\r\n", "clients??[31m reached"},
		{":1\r\n", "does not answer as a Redis does"},
		{"*3\r\n:1\r\n:1\r\n:1\r\n", "does not answer as a Redis does"},
		{"$-1\r\n", "does not answer as a Redis does"},
		{"HTTP/1.1 400 Bad Request\r\n\r\n", "sent what no Redis sends"},
		{"*2147483647\r\n", "sent what no Redis sends"},
		{"$3000000000\r\n", "gave no answer within 60 ms"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fixture *f = *state;

		f->fake.special[0] =
			(struct fake_answer){"SELECT", cases[i].bytes, strlen(cases[i].bytes)};
		f->changes = 0;
		open_url(f, f->fake.url, NULL);
		expect_down(f, cases[i].part);
		if (i + 1 == ARRAY_SIZE(cases))
			break;
		f->closed = false;
		redis_close(f->redis, loop_on_closed, &f->closed);
		loop_run_until(&f->loop, &f->closed);
	}
}

static void replica_is_refused(void **state)
{
	static const char replica[] = "$12\r\nrole:slave\r\n\r\n";
	struct fixture *f = *state;

	f->fake.special[0] = (struct fake_answer){"INFO", replica, sizeof replica - 1};
	open_url(f, f->fake.url, NULL);
	expect_down(f, "is a replica");
}

static void role_that_may_not_be_asked_is_no_fault(void **state)
{
	static const char refused[] = "-NOPERM this user has no permissions\r\n";
	struct fixture *f = *state;

	f->fake.special[0] = (struct fake_answer){"INFO", refused, sizeof refused - 1};
	open_url(f, f->fake.url, NULL);
	expect_up(f);
}

static void hostile_answer_ends_the_connection_and_it_comes_back(void **state)
{
	static const char *const bad[] = {
		"HTTP/1.1 200 OK\r\n",	 "*2147483647\r\n", "*1\r\n*1\r\n*1\r\n",
		"+OK\r\n+OK\r\n+OK\r\n", "$-2\r\n",
	};
	struct fixture *f = *state;
	struct asking a, b;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		f->fake.special[0] = (struct fake_answer){"GET", bad[i], strlen(bad[i])};
		assert_int_equal(start_asking(f, &a), 0);
		expect_down(f, "sent");
		assert_true(a.done);
		f->fake.special[0] = (struct fake_answer){0};
		expect_up(f);
		assert_int_equal(start_asking(f, &b), 0);
		loop_run_until(&f->loop, &b.done);
		assert_true(b.answered);
		assert_int_equal(b.type, REDIS_REPLY_NIL);
	}
}

static void unasked_reply_ends_the_connection(void **state)
{
	struct fixture *f = *state;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	fake_redis_push(&f->fake, "+OK\r\n", 5);
	expect_down(f, "nobody asked for");
}

static void endless_answer_takes_bounded_memory(void **state)
{
	static char endless[1024 * 1024];
	struct fixture *f = *state;
	struct asking a;

	memset(endless, 'x', sizeof endless);
	memcpy(endless, "$1000000000\r\n", 13);
	open_url(f, f->fake.url, NULL);
	expect_up(f);
	f->fake.special[0] = (struct fake_answer){"GET", endless, sizeof endless};
	assert_int_equal(start_asking(f, &a), 0);
	expect_down(f, "a reply of more than 262144 bytes");
	assert_true(a.done);
	assert_false(a.answered);
}

static void became_replica_ends_the_connection(void **state)
{
	static const char readonly[] = "-READONLY You can't write against a read only replica.\r\n";
	static const struct redis_arg set[] = {REDIS_WORD("SET"), REDIS_WORD("k"), REDIS_WORD("v")};
	struct fixture *f = *state;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	f->fake.special[0] = (struct fake_answer){"SET", readonly, sizeof readonly - 1};
	assert_int_equal(redis_command(f->redis, set, 3, NULL, NULL, NULL), 0);
	expect_down(f, "became a replica");
}

static void error_is_a_reply(void **state)
{
	static const char wrong[] = "-WRONGTYPE Operation against a key\r\n";
	struct fixture *f = *state;
	struct asking a;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	f->fake.special[0] = (struct fake_answer){"GET", wrong, sizeof wrong - 1};
	assert_int_equal(start_asking(f, &a), 0);
	loop_run_until(&f->loop, &a.done);
	assert_true(a.answered);
	assert_int_equal(a.type, REDIS_REPLY_ERROR);
	assert_true(redis_is_up(f->redis));
}

static void silence_opens_the_breaker_and_a_probe_closes_it(void **state)
{
	struct fixture *f = *state;
	int64_t fastest_us = INT64_MAX;
	struct asking a;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	f->fake.silent = true;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(start_asking(f, &a), 0);
		loop_run_until(&f->loop, &a.done);
		assert_false(a.answered);
		assert_in_range(a.took_us, CALL_MS * 1000, (CALL_MS + LATE_MS) * 1000);
		fastest_us = a.took_us < fastest_us ? a.took_us : fastest_us;
	}
	assert_in_range(fastest_us, 0, (CALL_MS + 20) * 1000);
	expect_down(f, "left 3 requests in a row without an answer for 60 ms");
	assert_int_equal(start_asking(f, &a), -ENOTCONN);
	run_for_ms(f, 300);
	assert_int_equal(start_asking(f, &a), -ENOTCONN);
	f->fake.silent = false;
	expect_up(f);
	assert_int_equal(start_asking(f, &a), 0);
	loop_run_until(&f->loop, &a.done);
	assert_true(a.answered);
}

static void late_answer_goes_to_nobody_else(void **state)
{
	struct fixture *f = *state;
	struct asking a, b;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	f->fake.special[0] = (struct fake_answer){"GET", ":1\r\n", 4};
	f->fake.delay_ms = 2 * CALL_MS;
	assert_int_equal(start_asking(f, &a), 0);
	loop_run_until(&f->loop, &a.done);
	assert_false(a.answered);
	f->changes = 0;
	f->fake.special[0].bytes = "+2\r\n";
	f->fake.delay_ms = CALL_MS + CALL_MS / 3; /* behind that of the first */
	run_for_ms(f, CALL_MS / 3);
	assert_int_equal(start_asking(f, &b), 0);
	run_for_ms(f, 3 * CALL_MS);
	assert_true(b.done);
	assert_true(redis_is_up(f->redis));
	f->fake.delay_ms = 0;
	assert_int_equal(start_asking(f, &b), 0);
	loop_run_until(&f->loop, &b.done);
	assert_true(b.answered);
	assert_int_equal(b.type, REDIS_REPLY_STATUS);
	assert_int_equal(f->changes, 0);
}

/* The probe is refused as callers would be: a slow Redis is not taken into use again and again. */
static void slow_server_stays_out_of_use(void **state)
{
	struct fixture *f = *state;

	f->fake.delay_ms = 2 * CALL_MS;
	open_url(f, f->fake.url, NULL);
	expect_down(f, "gave no answer within 60 ms");
	run_for_ms(f, 700);
	assert_int_equal(f->changes, 1);
	assert_in_range(f->fake.accepted, 2, 8);
}

static void busy_loop_is_not_taken_for_a_slow_server(void **state)
{
	const struct timespec nap = {.tv_nsec = 5000000};
	struct fixture *f = *state;
	struct asking a[8];
	size_t changes;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	changes = f->changes;
	for (int i = 0; i < 8; i++) {
		assert_int_equal(start_asking(f, &a[i]), 0);
		/* Both ends are on this loop: the answer is in the socket when the nap begins. */
		for (int turn = 0; turn < 2; turn++)
			(void)uv_run(&f->loop, UV_RUN_NOWAIT);
		if (a[i].done)
			continue;
		for (int nap_ms = 0; nap_ms < 2 * CALL_MS; nap_ms += 5)
			(void)nanosleep(&nap, NULL);
	}
	for (int i = 0; i < 8; i++) {
		loop_run_until(&f->loop, &a[i].done);
		assert_true(a[i].answered);
	}
	assert_int_equal(f->changes, changes);
}

static void idle_connection_that_died_is_noticed(void **state)
{
	struct fixture *f = *state;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	f->fake.silent = true;
	expect_down(f, "gave no answer for 1000 ms");
}

static void idle_connection_stays_up(void **state)
{
	struct fixture *f = *state;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	f->changes = f->fake.accepted = f->fake.received = 0;
	run_for_ms(f, 3500);
	assert_int_equal(f->changes, 0);
	assert_int_equal(f->fake.accepted, 0);
	assert_in_range(f->fake.received, 1, 4);
}

static void cut_connection_ends_what_was_asked_and_comes_back(void **state)
{
	struct fixture *f = *state;
	struct asking a;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	f->fake.hangs_up = true;
	assert_int_equal(start_asking(f, &a), 0);
	loop_run_until(&f->loop, &a.done);
	assert_false(a.answered);
	expect_down(f, "127.0.0.1:");
	f->fake.hangs_up = false;
	expect_up(f);
	assert_int_equal(start_asking(f, &a), 0);
	loop_run_until(&f->loop, &a.done);
	assert_true(a.answered);
}

static void unsent_commands_are_bounded_with_room_for_questions(void **state)
{
	static char value[100000];
	const struct redis_arg set[] = {REDIS_WORD("SET"), REDIS_WORD("k"), {value, sizeof value}};
	struct fixture *f = *state;
	struct asking a;
	int taken = 0;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	while (redis_command(f->redis, set, 3, NULL, NULL, NULL) == 0)
		taken++;
	assert_in_range(taken, 9, 10);
	assert_int_equal(redis_command(f->redis, set, 3, NULL, NULL, NULL), -ENOBUFS);
	assert_int_equal(start_asking(f, &a), 0);
	loop_run_until(&f->loop, &a.done);
	run_for_ms(f, 100);
	assert_int_equal(redis_command(f->redis, set, 3, NULL, NULL, NULL), 0);
}

static void subscriber_hears_messages_between_answers(void **state)
{
	static const char *const channels[] = {"zero", "one", NULL};
	static const char messages[] = "*3\r\n$7\r\nmessage\r\n$3\r\none\r\n$2\r\nhi\r\n"
				       "*3\r\n$7\r\nmessage\r\n$7\r\nunknown\r\n$2\r\nhi\r\n"
				       "*3\r\n$7\r\nmessage\r\n$3\r\none\r\n:12\r\n"
				       "*3\r\n$7\r\nmessage\r\n$3\r\none\r\n$2\r\nhi\r\n";
	static const char pong[] = "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
	struct fixture *f = *state;

	f->fake.special[0] = (struct fake_answer){"PING", pong, sizeof pong - 1};
	open_url(f, f->fake.url, channels);
	expect_up(f);
	fake_redis_push(&f->fake, messages, sizeof messages - 1);
	run_for_ms(f, 1500);
	assert_int_equal(f->messages, 2);
	assert_true(f->up);
	fake_redis_cut(&f->fake);
	expect_down(f, "closed the connection");
	expect_up(f);
	fake_redis_push(&f->fake, messages, sizeof messages - 1);
	run_for_ms(f, 50);
	assert_int_equal(f->messages, 4);
}

static void cancelled_call_is_never_told(void **state)
{
	struct fixture *f = *state;
	struct redis_call *call = NULL;
	struct asking a = {0}, b;

	open_url(f, f->fake.url, NULL);
	expect_up(f);
	assert_int_equal(redis_command(f->redis, get, 2, on_answer, &a, &call), 0);
	redis_cancel(call);
	assert_int_equal(start_asking(f, &b), 0);
	loop_run_until(&f->loop, &b.done);
	assert_true(b.answered);
	assert_false(a.done);
}

/* A label of 64 bytes, which no resolver asks anybody for. */
static void unresolvable_name_is_told(void **state)
{
	struct fixture *f = *state;

	open_url(f,
		 "redis://"
		 "a234567890123456789012345678901234567890123456789012345678901234.invalid",
		 NULL);
	expect_down(f, "could not resolve a234567890");
}

static void name_is_resolved(void **state)
{
	struct fixture *f = *state;
	char url[80];

	(void)snprintf(url, sizeof url, "redis://localhost%s", strrchr(f->fake.url, ':'));
	open_url(f, url, NULL);
	expect_up(f);
	assert_non_null(strstr(f->text, "connected to localhost:"));
}

static void close_in_every_state_ends(void **state)
{
	const struct timespec nap = {.tv_nsec = 200000};
	struct fixture *f = *state;

	for (int i = 0; i < 36; i++) {
		struct asking a;
		bool asked;

		f->changes = 0;
		f->fake.silent = i % 3 == 1;
		open_url(f, f->fake.url, NULL);
		for (int turn = 0; turn < i / 3; turn++) {
			(void)uv_run(&f->loop, UV_RUN_NOWAIT);
			(void)nanosleep(&nap, NULL);
		}
		if (i % 3 == 2)
			f->fake.silent = true;
		asked = start_asking(f, &a) == 0;
		f->closed = false;
		redis_close(f->redis, loop_on_closed, &f->closed);
		assert_false(f->closed);
		loop_run_until(&f->loop, &f->closed);
		assert_int_equal(a.done, asked);
	}
	f->redis = NULL;
}

/* ---- the cache over it ---- */

static void on_cached(struct cache_get *r, int code, const void *bytes, size_t len)
{
	struct asking *a = r->ctx;

	(void)len;
	a->done = true;
	a->answered = code == 0;
	assert_int_equal(code == 0, bytes != NULL);
	a->took_us = clock_monotonic_us() - a->took_us;
}

static void open_cache(struct fixture *f, size_t max_bytes)
{
	struct cache_config cfg = {.url = f->fake.url, .max_bytes = max_bytes};

	assert_int_equal(cache_open(&f->loop, &cfg, &f->cache, NULL), 0);
	while (!cache_is_up(f->cache, NULL))
		(void)uv_run(&f->loop, UV_RUN_ONCE);
}

static void ask_cache(struct fixture *f, struct asking *a)
{
	struct cache_get r = {.kind = CACHE_TASK, .done = on_cached, .ctx = a};

	uuid7_new(&r.id);
	*a = (struct asking){.took_us = clock_monotonic_us()};
	cache_get(f->cache, &r);
	assert_false(a->done);
	loop_run_until(&f->loop, &a->done);
}

static void cache_of_a_silent_server_misses_late_then_at_once(void **state)
{
	struct fixture *f = *state;
	int64_t fastest_us = INT64_MAX;
	struct buf why;
	struct asking a;

	open_cache(f, 0);
	f->fake.silent = true;
	for (int i = 0; i < 3; i++) {
		ask_cache(f, &a);
		assert_false(a.answered);
		assert_in_range(a.took_us, CACHE_CALL_MS * 1000, (CACHE_CALL_MS + LATE_MS) * 1000);
		fastest_us = a.took_us < fastest_us ? a.took_us : fastest_us;
	}
	assert_in_range(fastest_us, 0, 2 * CACHE_CALL_MS * 1000);
	fastest_us = INT64_MAX;
	for (int i = 0; i < 10; i++) {
		ask_cache(f, &a);
		assert_false(a.answered);
		assert_in_range(a.took_us, 0, LATE_MS * 1000);
		fastest_us = a.took_us < fastest_us ? a.took_us : fastest_us;
	}
	assert_in_range(fastest_us, 0, 2000);
	buf_init(&why, 400);
	assert_false(cache_is_up(f->cache, &why));
	assert_non_null(strstr(why.data, "cache: 127.0.0.1:"));
	buf_fini(&why);
}

static void cache_takes_other_types_for_a_miss(void **state)
{
	static const char *const types[] = {":1\r\n",		"*1\r\n+a\r\n", "+OK\r\n",
					    "-WRONGTYPE x\r\n", "*-1\r\n",	"*0\r\n"};
	struct fixture *f = *state;
	struct asking a;

	open_cache(f, 4096);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		f->fake.special[0] = (struct fake_answer){"GET", types[i], strlen(types[i])};
		ask_cache(f, &a);
		assert_false(a.answered);
		assert_true(cache_is_up(f->cache, NULL));
	}
	assert_int_equal(f->fake.accepted, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
	CASE(connection_comes_up_and_answers),
	CASE(server_that_is_not_there_is_told_once),
	CASE(second_host_is_tried_at_once),
	CASE(greeting_gone_wrong_is_told),
	CASE(replica_is_refused),
	CASE(role_that_may_not_be_asked_is_no_fault),
	CASE(hostile_answer_ends_the_connection_and_it_comes_back),
	CASE(unasked_reply_ends_the_connection),
	CASE(endless_answer_takes_bounded_memory),
	CASE(became_replica_ends_the_connection),
	CASE(error_is_a_reply),
	CASE(silence_opens_the_breaker_and_a_probe_closes_it),
	CASE(late_answer_goes_to_nobody_else),
	CASE(slow_server_stays_out_of_use),
	CASE(busy_loop_is_not_taken_for_a_slow_server),
	CASE(idle_connection_that_died_is_noticed),
	CASE(idle_connection_stays_up),
	CASE(cut_connection_ends_what_was_asked_and_comes_back),
	CASE(unsent_commands_are_bounded_with_room_for_questions),
	CASE(subscriber_hears_messages_between_answers),
	CASE(cancelled_call_is_never_told),
	CASE(unresolvable_name_is_told),
	CASE(name_is_resolved),
	CASE(close_in_every_state_ends),
	CASE(cache_of_a_silent_server_misses_late_then_at_once),
	CASE(cache_takes_other_types_for_a_miss),
};

int main(void)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};

	/* The server writes to connections that the other end has left. */
	(void)sigaction(SIGPIPE, &ignore, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
