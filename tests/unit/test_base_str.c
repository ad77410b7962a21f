/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include "base/cleanup.h"
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers ---- */

static void u64_takes_digits_only(void **state)
{
	static const struct {
		const char *text;
		int code;
		uint64_t value;
	} cases[] = {
		{"0", 0, 0},
		{"7", 0, 7},
		{"007", 0, 7},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"99999999999999999999999", -ERANGE, 0},
		{"", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"1e3", -EINVAL, 0},
		{"1.0", -EINVAL, 0},
		{"a", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t value = 42;

		assert_int_equal(str_to_u64(cases[i].text, 0, UINT64_MAX, &value), cases[i].code);
		assert_true(value == (cases[i].code ? 42 : cases[i].value));
	}
}

static void u64_keeps_to_its_range(void **state)
{
	uint64_t value = 42;

	(void)state;
	assert_int_equal(str_to_u64("9", 10, 20, &value), -ERANGE);
	assert_int_equal(str_to_u64("21", 10, 20, &value), -ERANGE);
	assert_int_equal(value, 42);
	assert_int_equal(str_to_u64("10", 10, 20, &value), 0);
	assert_int_equal(str_to_u64("20", 10, 20, &value), 0);
	assert_int_equal(value, 20);
}

static void i64_takes_one_minus(void **state)
{
	static const struct {
		const char *text;
		int code;
		int64_t value;
	} cases[] = {
		{"0", 0, 0},
		{"-0", 0, 0},
		{"-1", 0, -1},
		{"9223372036854775807", 0, INT64_MAX},
		{"-9223372036854775808", 0, INT64_MIN},
		{"9223372036854775808", -ERANGE, 0},
		{"-9223372036854775809", -ERANGE, 0},
		{"-", -EINVAL, 0},
		{"--1", -EINVAL, 0},
		{"", -EINVAL, 0},
		{"- 1", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t value = 42;

		assert_int_equal(str_to_i64(cases[i].text, INT64_MIN, INT64_MAX, &value),
				 cases[i].code);
		assert_true(value == (cases[i].code ? 42 : cases[i].value));
	}
}

static void sizes_have_units(void **state)
{
	static const struct {
		const char *text;
		int code;
		uint64_t value;
	} cases[] = {
		{"512", 0, 512},
		{"512B", 0, 512},
		{"64KiB", 0, 65536},
		{"256MiB", 0, 268435456},
		{"1GiB", 0, 1073741824},
		{"2kB", 0, 2000},
		{"3MB", 0, 3000000},
		{"4GB", 0, 4000000000},
		{"0", 0, 0},
		{"8589934591GiB", 0, UINT64_C(9223372035781033984)},
		{"8589934592GiB", -ERANGE, 0},
		{"99999999999GiB", -ERANGE, 0},
		{"18446744073709551616", -ERANGE, 0},
		{"1 GiB", -EINVAL, 0},
		{"1gib", -EINVAL, 0},
		{"1K", -EINVAL, 0},
		{"GiB", -EINVAL, 0},
		{"-1GiB", -EINVAL, 0},
		{"1.5GiB", -EINVAL, 0},
		{"", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t value = 42;

		assert_int_equal(str_to_bytes(cases[i].text, &value), cases[i].code);
		assert_true(value == (cases[i].code ? 42 : cases[i].value));
	}
}

static void durations_have_units(void **state)
{
	static const struct {
		const char *text;
		int code;
		int64_t value;
	} cases[] = {
		{"250ms", 0, 250},
		{"250", 0, 250},
		{"15s", 0, 15000},
		{"5m", 0, 300000},
		{"24h", 0, 86400000},
		{"7d", 0, 604800000},
		{"0s", 0, 0},
		{"106751991167d", 0, INT64_C(9223372036828800000)},
		{"106751991168d", -ERANGE, 0},
		{"1.5s", -EINVAL, 0},
		{"-1s", -EINVAL, 0},
		{"1 s", -EINVAL, 0},
		{"1S", -EINVAL, 0},
		{"s", -EINVAL, 0},
		{"", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t value = 42;

		assert_int_equal(str_to_ms(cases[i].text, &value), cases[i].code);
		assert_true(value == (cases[i].code ? 42 : cases[i].value));
	}
}

static void seconds_have_fractions(void **state)
{
	static const struct {
		const char *text;
		int code;
		int64_t value;
	} cases[] = {
		{"0", 0, 0},
		{"2", 0, 2000},
		{"0.25", 0, 250},
		{"0.5", 0, 500},
		{"1.001", 0, 1001},
		{"0.0009", 0, 0},
		{"59.999", 0, 59999},
		{"60", 0, 60000},
		{"60.000", 0, 60000},
		{"60.001", -ERANGE, 0},
		{"61", -ERANGE, 0},
		{"99999999999999999999", -ERANGE, 0},
		{"9223372036854775807", -ERANGE, 0},
		{"1.", -EINVAL, 0},
		{".5", -EINVAL, 0},
		{"1.5.5", -EINVAL, 0},
		{"1,5", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"1e1", -EINVAL, 0},
		{"nan", -EINVAL, 0},
		{"inf", -EINVAL, 0},
		{"", -EINVAL, 0},
		{" 1", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t value = 42;

		assert_int_equal(str_seconds_to_ms(cases[i].text, 60000, &value), cases[i].code);
		assert_true(value == (cases[i].code ? 42 : cases[i].value));
	}
}

/* ---- UTF-8 ---- */

/* What is well-formed and what is not, by the tables of the Unicode standard (3-7) and the classes
 * of Markus Kuhn's stress test. */
static void utf8_table_agrees(void **state)
{
	static const struct {
		const char *bytes;
		bool valid;
	} cases[] = {
		{"", true},
		{"plain text", true},
		{"\x7f", true},
		{"\xc2\x80", true},
		{"\xdf\xbf", true},
		{"\xe0\xa0\x80", true},
		{"\xed\x9f\xbf", true},
		{"\xee\x80\x80", true},
		{"\xef\xbf\xbf", true},
		{"\xf0\x90\x80\x80", true},
		{"\xf4\x8f\xbf\xbf", true},
		{"caf\xc3\xa9, \xe2\x82\xac, \xf0\x9f\x98\x80", true},
		{"\x80", false},		     /* a continuation alone */
		{"\xbf", false},		     /* the last of them */
		{"\xc0\xaf", false},		     /* "/" in two bytes */
		{"\xc1\xbf", false},		     /* DEL in two bytes */
		{"\xe0\x80\xaf", false},	     /* "/" in three */
		{"\xe0\x9f\xbf", false},	     /* U+07FF in three */
		{"\xf0\x80\x80\xaf", false},	     /* "/" in four */
		{"\xf0\x8f\xbf\xbf", false},	     /* U+FFFF in four */
		{"\xed\xa0\x80", false},	     /* first surrogate */
		{"\xed\xbf\xbf", false},	     /* last surrogate */
		{"\xf4\x90\x80\x80", false},	     /* U+110000 */
		{"\xf5\x80\x80\x80", false},	     /* never a lead */
		{"\xf8\x88\x80\x80\x80", false},     /* five bytes */
		{"\xfc\x84\x80\x80\x80\x80", false}, /* six */
		{"\xfe", false},
		{"\xff", false},
		{"\xc3", false},	     /* cut after the lead */
		{"\xe2\x82", false},	     /* cut after two */
		{"\xf0\x9f\x98", false},     /* cut after three */
		{"\xc3(", false},	     /* no continuation */
		{"\xe2\x82(", false},	     /* no second continuation */
		{"\xf0\x9f\x98(", false},    /* no third */
		{"\xe2(\xa1", false},	     /* no first */
		{"abcdefgh\xff", false},     /* behind a full word */
		{"abcdefg\xc3\xa9h", true},  /* across a word's end */
		{"abcdefgh\xe2\x82", false}, /* cut behind a full word */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t len = strlen(cases[i].bytes);
		/* Of exactly this size, so that the sanitizer sees a read behind the end. */
		char *exact = malloc(len ? len : 1);

		assert_non_null(exact);
		memcpy(exact, cases[i].bytes, len);
		if (utf8_valid(exact, len) != cases[i].valid)
			fail_msg("case %zu", i);
		free(exact);
	}
}

/* Every code point encoded, at different places against the 8-byte step; surrogates refused. */
static void utf8_every_code_point_agrees(void **state)
{
	(void)state;
	for (uint32_t c = 0; c < 0x120000; c++) {
		unsigned char text[16] = "aaaaaaaaaaaaaaa", *p = text + c % 8;
		size_t n;

		if (c < 0x80) {
			p[0] = (unsigned char)c;
			n = 1;
		} else if (c < 0x800) {
			p[0] = (unsigned char)(0xc0 | c >> 6);
			p[1] = (unsigned char)(0x80 | (c & 63));
			n = 2;
		} else if (c < 0x10000) {
			p[0] = (unsigned char)(0xe0 | c >> 12);
			p[1] = (unsigned char)(0x80 | (c >> 6 & 63));
			p[2] = (unsigned char)(0x80 | (c & 63));
			n = 3;
		} else {
			p[0] = (unsigned char)(0xf0 | c >> 18);
			p[1] = (unsigned char)(0x80 | (c >> 12 & 63));
			p[2] = (unsigned char)(0x80 | (c >> 6 & 63));
			p[3] = (unsigned char)(0x80 | (c & 63));
			n = 4;
		}
		if (utf8_valid(text, c % 8 + n) != (c < 0x110000 && !(c >= 0xd800 && c < 0xe000)))
			fail_msg("U+%04X", c);
	}
}

static void utf8_nul_is_text(void **state)
{
	(void)state;
	assert_true(utf8_valid("\0\0a\0", 4));
	assert_true(utf8_valid(NULL, 0));
}

/* ---- base64, hex ---- */

static void base64_rfc_examples(void **state)
{
	static const char *const pairs[][2] = {
		{"", ""},
		{"f", "Zg=="},
		{"fo", "Zm8="},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg=="},
		{"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"},
	};
	char text[16] = {0}, back[16];
	size_t len;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		size_t n = strlen(pairs[i][0]);

		assert_int_equal(base64_encoded_len(n), strlen(pairs[i][1]));
		base64_encode(pairs[i][0], n, text);
		assert_memory_equal(text, pairs[i][1], strlen(pairs[i][1]));
		assert_int_equal(base64_decode(pairs[i][1], strlen(pairs[i][1]), back, &len), 0);
		assert_int_equal(len, n);
		assert_memory_equal(back, pairs[i][0], n);
	}
}

/* All lengths to 300, into blocks of exactly the promised size. */
static void base64_every_length_comes_back(void **state)
{
	(void)state;
	for (size_t n = 0; n <= 300; n++) {
		size_t text_len = base64_encoded_len(n), len = 999;
		unsigned char *bytes = malloc(n + 1);
		char *text = malloc(text_len + 1);
		unsigned char *back;

		assert_true(bytes && text);
		arc4random_buf(bytes, n);
		base64_encode(bytes, n, text);
		assert_true(base64_decoded_max(text_len) >= n);
		back = malloc(base64_decoded_max(text_len) + 1);
		assert_non_null(back);
		assert_int_equal(base64_decode(text, text_len, back, &len), 0);
		assert_int_equal(len, n);
		assert_memory_equal(back, bytes, n);
		free(bytes);
		free(text);
		free(back);
	}
}

static void base64_malformed_refused(void **state)
{
	static const char *const bad[] = {
		"Z",	    "Zg",     "Zg=",  "Zg=A",	  "=",	     "==",     "===",	   "====",
		"Z===",	    "Zm9vYg", "Zh==", "Zm9=",	  "Zm 9v",   "Zm9v\n", "Zm9-",	   "Zm9_",
		"Zg==Zg==", "Z=g=",   "=Zg=", "Zm9v====", "Zm9\xc3", "*m9v",   "Zm9vZg=a",
	};
	char back[16];
	size_t len;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (base64_decode(bad[i], strlen(bad[i]), back, &len) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
	assert_int_equal(base64_decode("Zm\0v", 4, back, &len), -EINVAL);
}

static void hex_comes_back(void **state)
{
	unsigned char bytes[256], back[256];
	char text[513];

	(void)state;
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)i;
	hex_encode(bytes, sizeof bytes, text);
	assert_int_equal(strlen(text), 512);
	assert_int_equal(hex_decode(text, 512, back), 0);
	assert_memory_equal(back, bytes, sizeof bytes);
	assert_int_equal(hex_decode("aBCdEf", 6, back), 0);
	assert_memory_equal(back, "\xab\xcd\xef", 3);
	assert_int_equal(hex_decode("", 0, back), 0);
	assert_int_equal(hex_decode("abc", 3, back), -EINVAL);
	assert_int_equal(hex_decode("ag", 2, back), -EINVAL);
	assert_int_equal(hex_decode(" a", 2, back), -EINVAL);
	assert_int_equal(hex_decode("a:", 2, back), -EINVAL);
	assert_int_equal(hex_decode("a@", 2, back), -EINVAL);
	assert_int_equal(hex_decode("a`", 2, back), -EINVAL);
}

/* ---- the rest ---- */

static void distance_counts_edits(void **state)
{
	static const struct {
		const char *a, *b;
		size_t edits;
	} cases[] = {
		{"", "", 0},
		{"a", "", 1},
		{"", "abc", 3},
		{"python", "python", 0},
		{"pyhton", "python", 1},
		{"pythn", "python", 1},
		{"pythonn", "python", 1},
		{"pithon", "python", 1},
		{"kitten", "sitting", 3},
		{"ab", "ba", 1},
		{"abc", "cba", 2},
		{"c", "cpp", 2},
	};
	char long_text[65];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(str_distance(cases[i].a, cases[i].b), cases[i].edits);
		assert_int_equal(str_distance(cases[i].b, cases[i].a), cases[i].edits);
	}
	memset(long_text, 'x', 64);
	long_text[64] = '\0';
	assert_true(str_distance(long_text, "x") == SIZE_MAX);
	assert_true(str_distance("x", long_text) == SIZE_MAX);
	long_text[63] = '\0';
	assert_int_equal(str_distance(long_text, long_text), 0);
	assert_int_equal(str_distance(long_text, ""), 63);
}

static void copy_cuts_and_says_so(void **state)
{
	char dst[4] = "zzz";

	(void)state;
	assert_true(str_copy(dst, sizeof dst, ""));
	assert_string_equal(dst, "");
	assert_true(str_copy(dst, sizeof dst, "abc"));
	assert_string_equal(dst, "abc");
	assert_false(str_copy(dst, sizeof dst, "abcd"));
	assert_string_equal(dst, "abc");
	assert_false(str_copy(dst, 1, "a"));
	assert_string_equal(dst, "");
}

static void prefix_and_equality(void **state)
{
	(void)state;
	assert_true(str_eq("", ""));
	assert_false(str_eq("a", "A"));
	assert_true(str_has_prefix("abc", ""));
	assert_true(str_has_prefix("abc", "abc"));
	assert_false(str_has_prefix("ab", "abc"));
	assert_false(str_has_prefix("xabc", "abc"));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(u64_takes_digits_only),
	cmocka_unit_test(u64_keeps_to_its_range),
	cmocka_unit_test(i64_takes_one_minus),
	cmocka_unit_test(sizes_have_units),
	cmocka_unit_test(durations_have_units),
	cmocka_unit_test(seconds_have_fractions),
	cmocka_unit_test(utf8_table_agrees),
	cmocka_unit_test(utf8_every_code_point_agrees),
	cmocka_unit_test(utf8_nul_is_text),
	cmocka_unit_test(base64_rfc_examples),
	cmocka_unit_test(base64_every_length_comes_back),
	cmocka_unit_test(base64_malformed_refused),
	cmocka_unit_test(hex_comes_back),
	cmocka_unit_test(distance_counts_edits),
	cmocka_unit_test(copy_cuts_and_says_so),
	cmocka_unit_test(prefix_and_equality),
};

UNIT_MAIN(tests)
