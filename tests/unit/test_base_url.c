/* SPDX-License-Identifier: Apache-2.0 */
#include "base/url.h"

#include "base/cleanup.h"
#include "unit.h"

#include <errno.h>
#include <string.h>

static void scheme_is_told_with_its_rest(void **state)
{
	const char *rest = NULL;

	(void)state;
	assert_true(url_scheme_is("sqlite:/a/b.db", "sqlite", &rest));
	assert_string_equal(rest, "/a/b.db");
	assert_true(url_scheme_is("memory:", "memory", &rest));
	assert_string_equal(rest, "");
	assert_true(url_scheme_is("a:b:c", "a", NULL));
	assert_false(url_scheme_is("sqlite", "sqlite", &rest));
	assert_false(url_scheme_is("sqlite3:x", "sqlite", &rest));
	assert_false(url_scheme_is("sql:x", "sqlite", &rest));
	assert_false(url_scheme_is("SQLITE:x", "sqlite", &rest));
	assert_false(url_scheme_is("", "sqlite", &rest));
}

static void listen_addresses_parsed_and_formatted(void **state)
{
	static const struct {
		const char *text, *back;
		uint16_t port;
		bool loopback;
	} cases[] = {
		{"127.0.0.1:8080", "127.0.0.1:8080", 8080, true},
		{"127.1.2.3:1", "127.1.2.3:1", 1, true},
		{"localhost:80", "127.0.0.1:80", 80, true},
		{"0.0.0.0:0", "0.0.0.0:0", 0, false},
		{"10.0.0.1:65535", "10.0.0.1:65535", 65535, false},
		{"128.0.0.1:1", "128.0.0.1:1", 1, false},
		{"[::1]:8080", "[::1]:8080", 8080, true},
		{"[::]:8080", "[::]:8080", 8080, false},
		{"[2001:db8::1]:443", "[2001:db8::1]:443", 443, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sockaddr_storage addr;
		socklen_t len = 0;
		struct err e = {""};
		char text[80];

		if (url_parse_listen(cases[i].text, &addr, &len, &e) < 0)
			fail_msg("%s", e.msg);
		assert_true(len > 0 && len <= sizeof addr);
		url_format_addr(&addr, text, sizeof text);
		assert_string_equal(text, cases[i].back);
		assert_int_equal(url_addr_port(&addr), cases[i].port);
		assert_int_equal(url_is_loopback(&addr), cases[i].loopback);
	}
}

static void malformed_listen_addresses_refused(void **state)
{
	static const char *const bad[] = {
		"",
		":",
		":8080",
		"8080",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:65536",
		"127.0.0.1:-1",
		"127.0.0.1:80 ",
		"127.0.0.1:http",
		"127.0.0:80",
		"256.0.0.1:80",
		"example.com:80",
		"[::1]",
		"[::1]80",
		"[::1:80",
		"::1]:80",
		"::1:80", /* which colon is the port's? */
		"[]:80",
		"[:80",
		"[127.0.0.1]:80",
		"[::g]:80",
		"[1111:2222:3333:4444:5555:6666:7777:8888:9999:1111:2222]:80",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct sockaddr_storage addr = {.ss_family = 77};
		socklen_t len = 5;
		struct err e = {""};

		if (url_parse_listen(bad[i], &addr, &len, &e) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_non_null(strstr(e.msg, "\""));
		/* Outputs are untouched on failure. */
		assert_int_equal(addr.ss_family, 77);
		assert_int_equal(len, 5);
	}
}

static bool is_hidden(const char *shown)
{
	return strcmp(shown, "***") == 0 || strcmp(shown + strcspn(shown, ":"), "://***") == 0;
}

/* "X" and "hunter2" are passwords, or parts of them. */
static void of_addresses_only_what_holds_no_secret_is_shown(void **state)
{
	static const struct {
		const char *url, *shown;
	} cases[] = {
		{"memory:", "memory:"},
		{"local:", "local:"},
		{"sqlite:/var/lib/kiln/a@b.db", "sqlite:/var/lib/kiln/a@b.db"},
		{"postgresql://h/d", "postgresql://h/d"},
		{"postgresql:///d", "postgresql:///d"},
		{"postgresql://u:X@h,h-2.x:5433/d_1", "postgresql://***@h,h-2.x:5433/d_1"},
		{"amqp://u:X@[::1]:5672,h/%2Fv", "amqp://***@[::1]:5672,h/%2Fv"},
		{"amqp://u@h?heartbeat=9", "amqp://***@h?***"},
		{"redis://:X@127.0.0.1:6379/0", "redis://***@127.0.0.1:6379/0"},
		{"redis://X@h", "redis://***@h"},
		{"redis://:hun@ter2@127.0.0.1:1/0", "redis://***@127.0.0.1:1/0"},
		{"http://u:X@h:4318", "http://***@h:4318"},
		{"http://u:X@h:4318/v1/traces", "http://***@h:4318/v1/traces"},
		{"https://h/a~b?token=X", "https://h/a~b?***"},
		{"postgresql://h/d?user=u&password=X", "postgresql://h/d?***"},
		{"postgresql://h/d?user=u&pass%77ord=X", "postgresql://h/d?***"},

		/* The form of another thing than it is: nothing behind the scheme. */
		{"postgresql://u:hun/ter2@h/d", "postgresql://***"},
		{"postgresql://u:12/ter2@h/d", "postgresql://***"},
		{"postgresql://u:12?ter2@h/d", "postgresql://***"},
		{"postgresql://u:12#ter2@h/d", "postgresql://***"},
		{"postgresql://u:X", "postgresql://***"},
		{"amqp://u:X/v", "amqp://***"},
		{"amqp://u:hun ter2@h h/v", "amqp://***"},
		{"amqp://u:X@h,/v", "amqp://***"},
		{"amqp://u:X@h:99999/v", "amqp://***"},
		{"amqp://u:X@[::1/v", "amqp://***"},
		{"redis://h/0#X", "redis://***"},
		{"redis://h/0 X", "redis://***"},

		/* No URL: nothing at all. */
		{"", "***"},
		{"host=127.0.0.1 password=X", "***"},
		{"memory:X", "***"},
		{"sqlite:postgresql://u:X@h", "***"},
		{"http:u:X@h", "***"},
		{"u:X@h", "***"},
		{"amqp:u:X@h", "***"},
		{"amqp//u:X@h", "***"},
		{"amqp:/u:X@h", "***"},
		{"postgresql:u:X@h/d", "***"},
		{"redis:u:X@h", "***"},
		{"://u:X@h", "***"},
		{"X", "***"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[URL_SHOWN_MAX], small[12];
		bool whole = url_show(cases[i].url, text, sizeof text);

		assert_string_equal(text, cases[i].shown);
		if (whole != !is_hidden(text))
			fail_msg("\"%s\" was %staken", cases[i].url, whole ? "" : "not ");
		(void)url_show(cases[i].url, small, sizeof small);
		if (strlen(text) >= sizeof small)
			assert_string_equal(small, "***");
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(scheme_is_told_with_its_rest),
	cmocka_unit_test(listen_addresses_parsed_and_formatted),
	cmocka_unit_test(of_addresses_only_what_holds_no_secret_is_shown),
	cmocka_unit_test(malformed_listen_addresses_refused),
};

UNIT_MAIN(tests)
