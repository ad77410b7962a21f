/* SPDX-License-Identifier: Apache-2.0 */

/* The parts of the client of Kubernetes that need no server. */

#include "pods/kube/access.h"
#include "pods/kube/lines.h"
#include "pods/kube/retry.h"
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- access ---- */

static void access_in_a_pod_is_the_service_accounts(void **state)
{
	struct kube_access a;

	(void)state;
	assert_int_equal(kube_access_parse("code-exec-system", "10.0.0.1", "443", &a, NULL), 0);
	assert_string_equal(a.namespace, "code-exec-system");
	assert_string_equal(a.server, "https://10.0.0.1:443");
	assert_string_equal(a.token_file, "/var/run/secrets/kubernetes.io/serviceaccount/token");
	assert_string_equal(a.ca_file, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt");
	assert_int_equal(kube_access_parse("x", "fd00::1", "6443", &a, NULL), 0);
	assert_string_equal(a.server, "https://[fd00::1]:6443");
}

static void access_with_server_asks_for_nothing_else(void **state)
{
	struct kube_access a;

	(void)state;
	assert_int_equal(kube_access_parse("ns?server=http://127.0.0.1:8001/&max_pods=12", NULL,
					   NULL, &a, NULL),
			 0);
	assert_string_equal(a.server, "http://127.0.0.1:8001");
	assert_string_equal(a.token_file, "");
	assert_int_equal(a.max_pods, 12);
	assert_int_equal(kube_access_parse("ns?token=/a%20b&server=https://x", "h", "1", &a, NULL),
			 0);
	assert_string_equal(a.token_file, "/a b");
	assert_string_equal(a.ca_file, "");
}

static void access_that_is_wrong_is_refused_by_name(void **state)
{
	static const struct {
		const char *rest, *part;
	} wrong[] = {
		{"", "no namespace"},
		{"Upper", "no namespace"},
		{"ns", "no pod of Kubernetes"},
		{"ns?", "no option"},
		{"ns?server=ftp://x", "no API server"},
		{"ns?server", "no option"},
		{"ns?servers=http://x", "no option"},
		{"ns?server=http://x&max_pods=0", "max_pods"},
		{"ns?server=http://x%zz", "cannot be read"},
		{"ns?server=http://x&", "no option"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct kube_access a;
		struct err e = {""};

		assert_int_equal(kube_access_parse(wrong[i].rest, NULL, NULL, &a, &e), -EINVAL);
		if (!strstr(e.msg, wrong[i].part))
			fail_msg("%s: %s", wrong[i].rest, e.msg);
	}
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	(void)fputs(text, f);
	(void)fclose(f);
}

static void token_is_read_again_each_minute(void **state)
{
	char path[] = "/tmp/kiln-token-XXXXXX";
	struct kube_token t = {0};
	const char *header = "";
	struct err e = {""};

	(void)state;
	(void)close(mkstemp(path));
	assert_int_equal(kube_token_get(&t, path, 0, &header, &e), -EINVAL);
	write_file(path, "one\n");
	assert_int_equal(kube_token_get(&t, path, 0, &header, NULL), 0);
	assert_string_equal(header, "Authorization: Bearer one");
	write_file(path, "two");
	assert_int_equal(kube_token_get(&t, path, 59999, &header, NULL), 0);
	assert_string_equal(header, "Authorization: Bearer one");
	assert_int_equal(kube_token_get(&t, path, 60000, &header, NULL), 0);
	assert_string_equal(header, "Authorization: Bearer two");
	write_file(path, "three");
	kube_token_refused(&t);
	assert_int_equal(kube_token_get(&t, path, 60001, &header, NULL), 0);
	assert_string_equal(header, "Authorization: Bearer three");
	(void)unlink(path);
	assert_int_equal(kube_token_get(&t, path, 200000, &header, NULL), 0); /* what there was */
	assert_string_equal(header, "Authorization: Bearer three");
	kube_token_fini(&t);
	assert_int_equal(kube_token_get(&t, "", 0, &header, NULL), 0);
	assert_null(header);
}

/* ---- lines ---- */

struct heard {
	char all[256];
	int code;
};

static int on_line(void *ctx, const char *text, size_t len)
{
	struct heard *h = ctx;

	assert_int_equal(strlen(text), len);
	(void)strncat(h->all, text, sizeof h->all - strlen(h->all) - 1);
	(void)strncat(h->all, "|", sizeof h->all - strlen(h->all) - 1);
	return h->code;
}

static void lines_in_pieces_of_any_size_are_the_same(void **state)
{
	static const char text[] = "one\ntwo\n\nthree\nrest";

	(void)state;
	for (size_t step = 1; step < sizeof text; step++) {
		struct heard h = {"", 0};
		struct kube_lines l;

		kube_lines_init(&l, 16);
		for (size_t at = 0; at < sizeof text - 1; at += step) {
			size_t n = sizeof text - 1 - at < step ? sizeof text - 1 - at : step;

			assert_int_equal(kube_lines_feed(&l, text + at, n, on_line, &h), 0);
		}
		assert_string_equal(h.all, "one|two|three|");
		kube_lines_clear(&l);
		assert_int_equal(kube_lines_feed(&l, "new\n", 4, on_line, &h), 0);
		assert_string_equal(h.all, "one|two|three|new|");
		kube_lines_fini(&l);
	}
}

static void line_that_is_too_long_is_refused(void **state)
{
	struct heard h = {"", 0};
	struct kube_lines l;

	(void)state;
	kube_lines_init(&l, 4);
	assert_int_equal(kube_lines_feed(&l, "1234\n", 5, on_line, &h), 0);
	assert_int_equal(kube_lines_feed(&l, "123", 3, on_line, &h), 0);
	assert_int_equal(kube_lines_feed(&l, "45", 2, on_line, &h), -EMSGSIZE);
	kube_lines_fini(&l);
}

static void line_that_is_refused_ends_the_feeding(void **state)
{
	struct heard h = {"", -EBADMSG};
	struct kube_lines l;

	(void)state;
	kube_lines_init(&l, 16);
	assert_int_equal(kube_lines_feed(&l, "a\nb\n", 4, on_line, &h), -EBADMSG);
	assert_string_equal(h.all, "a|");
	kube_lines_fini(&l);
}

/* ---- retries ---- */

static int64_t retry(int code, int status, unsigned tries, int64_t after_ms)
{
	struct kube_budget b;
	const struct kube_outcome o = {code, status, after_ms, tries};

	kube_budget_init(&b);
	return kube_retry_ms(&o, &b, 0);
}

static void retry_of_what_may_pass_grows(void **state)
{
	(void)state;
	assert_int_equal(retry(-ETIMEDOUT, 0, 1, 0), 100);
	assert_int_equal(retry(0, 500, 2, 0), 200);
	assert_int_equal(retry(0, 503, 4, 0), 800);
	assert_int_equal(retry(0, 504, 5, 0), -1);
	assert_int_equal(retry(0, 429, 1, 3000), 3000);
	assert_int_equal(retry(0, 503, 1, 3600000), 60000);
	assert_int_equal(retry(0, 401, 1, 0), 100);
}

static void retry_of_an_answer_is_none(void **state)
{
	static const int answers[] = {200, 201, 400, 403, 404, 409, 410, 413, 422};

	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
		assert_int_equal(retry(0, answers[i], 1, 0), -1);
	assert_int_equal(retry(0, 401, 2, 0), -1);
	assert_int_equal(retry(-EMSGSIZE, 200, 1, 0), -1);
}

static void retry_without_budget_is_none(void **state)
{
	const struct kube_outcome o = {0, 500, 0, 1};
	struct kube_budget b;
	int n = 0;

	(void)state;
	kube_budget_init(&b);
	while (kube_retry_ms(&o, &b, 0) >= 0)
		n++;
	assert_int_equal(n, 10);
	for (int i = 0; i < 6; i++)
		kube_budget_succeeded(&b);
	assert_true(kube_retry_ms(&o, &b, 0) >= 0);
	assert_int_equal(kube_retry_ms(&o, &b, 0), -1);
	for (int i = 0; i < 1000; i++)
		kube_budget_succeeded(&b);
	for (n = 0; kube_retry_ms(&o, &b, 0) >= 0;)
		n++;
	assert_int_equal(n, 10);
}

static void retry_is_never_sooner_than_asked(void **state)
{
	struct kube_budget b;
	const struct kube_outcome o = {0, 429, 1000, 1};

	(void)state;
	for (uint32_t spread = 0; spread < 1000; spread += 111) {
		int64_t ms;

		kube_budget_init(&b);
		ms = kube_retry_ms(&o, &b, spread);
		assert_true(ms >= 1000 && ms <= 1250);
	}
}

static void status_tells_what_the_server_said(void **state)
{
	static const char body[] = "{\"kind\":\"Status\",\"message\":\"no room\",\"code\":403}";
	struct err e = {""};

	(void)state;
	assert_int_equal(kube_status_code(201, "", 0, &e), 0);
	assert_int_equal(kube_status_code(403, body, sizeof body - 1, &e), -EPERM);
	assert_string_equal(e.msg, "the API server answered 403: no room");
	assert_int_equal(kube_status_code(502, "<html>", 6, &e), -EIO);
	assert_string_equal(e.msg, "the API server answered 502");
	assert_int_equal(kube_status_code(409, "[]", 2, &e), -EEXIST);
	assert_int_equal(kube_status_code(422, "{\"message\":7}", 13, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(access_in_a_pod_is_the_service_accounts),
		cmocka_unit_test(access_with_server_asks_for_nothing_else),
		cmocka_unit_test(access_that_is_wrong_is_refused_by_name),
		cmocka_unit_test(token_is_read_again_each_minute),
		cmocka_unit_test(lines_in_pieces_of_any_size_are_the_same),
		cmocka_unit_test(line_that_is_too_long_is_refused),
		cmocka_unit_test(line_that_is_refused_ends_the_feeding),
		cmocka_unit_test(retry_of_what_may_pass_grows),
		cmocka_unit_test(retry_of_an_answer_is_none),
		cmocka_unit_test(retry_without_budget_is_none),
		cmocka_unit_test(retry_is_never_sooner_than_asked),
		cmocka_unit_test(status_tells_what_the_server_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
