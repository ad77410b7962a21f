/* SPDX-License-Identifier: Apache-2.0 */

/* Addresses of Redis, and what is made of the bytes that it sends. */

#include "base/cleanup.h"
#include "cache/cache.h"
#include "loop_fixture.h"
#include "redis/address.h"
#include "redis/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- addresses ---- */

static void address_full_form_is_taken_apart(void **state)
{
	struct redis_address a;

	(void)state;
	assert_int_equal(redis_address_parse("redis://me:p%40s%3as@one:7000,[::1]:7001,10.0.0.1/12",
					     &a, NULL),
			 0);
	assert_string_equal(a.user, "me");
	assert_string_equal(a.password, "p@s:s");
	assert_int_equal(a.n_hosts, 3);
	assert_string_equal(a.hosts[0].name, "one");
	assert_int_equal(a.hosts[0].port, 7000);
	assert_string_equal(a.hosts[1].name, "::1");
	assert_int_equal(a.hosts[1].port, 7001);
	assert_string_equal(a.hosts[2].name, "10.0.0.1");
	assert_int_equal(a.hosts[2].port, 6379);
	assert_int_equal(a.db, 12);
}

static void address_short_forms_have_defaults(void **state)
{
	static const char *const urls[] = {"redis://h", "redis://h/", "redis://h/0",
					   "redis://h:6379", "redis://[h]"};
	struct redis_address a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
		assert_int_equal(redis_address_parse(urls[i], &a, NULL), 0);
		assert_int_equal(a.n_hosts, 1);
		assert_string_equal(a.hosts[0].name, "h");
		assert_int_equal(a.hosts[0].port, 6379);
		assert_int_equal(a.db, 0);
		assert_string_equal(a.password, "");
	}
	assert_int_equal(redis_address_parse("redis://:secret@h", &a, NULL), 0);
	assert_string_equal(a.user, "");
	assert_string_equal(a.password, "secret");
}

static void address_bad_is_refused_without_telling_the_password(void **state)
{
	static const char *const bad[] = {
		"",
		"redis:",
		"redis:/",
		"redis://",
		"redis:///0",
		"redis://u:hunter2@",
		"redis://hunter2@h",
		"redis://u:@h",
		"redis://u:hunter2%4@h",
		"redis://u:hunter2%zz@h",
		"redis://u:hunter2%00@h",
		"redis://u:hunter2@h:0",
		"redis://u:hunter2@h:65536",
		"redis://u:hunter2@h:1x",
		"redis://u:hunter2@h:",
		"redis://u:hunter2@h,",
		"redis://u:hunter2@,h",
		"redis://u:hunter2@[::1",
		"redis://u:hunter2@[::1]6379",
		"redis://u:hunter2@h/x",
		"redis://u:hunter2@h/1024",
		"redis://u:hunter2@h/-1",
		"redis://u:hunter2@h/0/1",
		"redis://u:hunter2@h/0?x=y",
		"redis://u:hun@ter2@h:x",
		"redis://u:hunter2@1,2,3,4,5,6,7,8,9",
		"rediss://u:hunter2@h",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct redis_address a = {.db = 77};
		struct err e = {""};

		if (redis_address_parse(bad[i], &a, &e) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_int_equal(a.db, 77);
		assert_true(e.msg[0]);
		assert_null(strstr(e.msg, "hunter2"));
		assert_null(strstr(e.msg, "ter2"));
	}
}

static void address_of_tls_names_what_is_known(void **state)
{
	struct cache_config cfg = {.url = "rediss://u:hunter2@h:1/0"};
	struct cache *c = NULL;
	struct err e = {""};
	uv_loop_t loop;

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(cache_open(&loop, &cfg, &c, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "rediss"));
	assert_null(strstr(e.msg, "hunter2"));
	loop_end(&loop);
}

/* ---- replies ---- */

static int read_all(const char *bytes, size_t len, size_t step, size_t max_bytes, size_t *ret_n)
{
	struct redis_reader *r = redis_reader_new(max_bytes);
	struct err e = {""};
	int code = 0;

	assert_non_null(r);
	*ret_n = 0;
	for (size_t at = 0; at < len && code == 0; at += step) {
		struct redisReply *reply;

		code = redis_reader_feed(r, bytes + at, len - at < step ? len - at : step, &e);
		while (code == 0 && (code = redis_reader_next(r, &reply, &e)) > 0) {
			freeReplyObject(reply);
			(*ret_n)++;
			code = 0;
		}
	}
	redis_reader_free(r);
	assert_true(code == 0 || e.msg[0]);
	return code;
}

static void replies_in_pieces_are_the_same(void **state)
{
	static const char good[] = "+OK\r\n$3\r\na\0b\r\n$-1\r\n:12\r\n-ERR x\r\n$0\r\n\r\n"
				   "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n*-1\r\n*0\r\n";
	size_t n;

	(void)state;
	for (size_t step = 1; step < sizeof good; step++) {
		assert_int_equal(read_all(good, sizeof good - 1, step, 1024, &n), 0);
		assert_int_equal(n, 9);
	}
}

static void replies_of_hostile_form_are_refused(void **state)
{
	static const char *const bad[] = {
		"HTTP/1.1 400 Bad Request\r\n\r\n",
		"*2147483647\r\n",
		"*9\r\n",
		"*4294967296\r\n",
		"*-2\r\n",
		"*1\r\n*1\r\n*1\r\n:1\r\n",
		"$-2\r\n",
		"$9223372036854775808\r\n",
		"$x\r\n",
		":abc\r\n",
		":99999999999999999999\r\n",
		"%1\r\n+a\r\n+b\r\n",
		">3\r\n",
		"_\r\n",
		"\r\n",
	};
	size_t n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (read_all(bad[i], strlen(bad[i]), 1000, 1024, &n) >= 0)
			fail_msg("%s was taken", bad[i]);
		assert_int_equal(n, 0);
	}
}

static void replies_that_do_not_end_take_bounded_memory(void **state)
{
	static const char *const heads[] = {"$9223372036854775807\r\n", "$2000000000\r\n", "+",
					    ":"};
	static char bytes[100000];
	size_t n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
		memset(bytes, '1', sizeof bytes);
		memcpy(bytes, heads[i], strlen(heads[i]));
		assert_int_equal(read_all(bytes, sizeof bytes, 4096, 65536, &n), -EMSGSIZE);
		assert_int_equal(n, 0);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(address_full_form_is_taken_apart),
	cmocka_unit_test(address_short_forms_have_defaults),
	cmocka_unit_test(address_bad_is_refused_without_telling_the_password),
	cmocka_unit_test(address_of_tls_names_what_is_known),
	cmocka_unit_test(replies_in_pieces_are_the_same),
	cmocka_unit_test(replies_of_hostile_form_are_refused),
	cmocka_unit_test(replies_that_do_not_end_take_bounded_memory),
};

UNIT_MAIN(tests)
