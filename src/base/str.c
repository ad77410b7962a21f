/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <errno.h>
#include <string.h>

bool str_eq(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

bool str_has_prefix(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool str_copy(char *dst, size_t size, const char *src)
{
	size_t len = strlen(src);
	size_t n = len < size ? len : size - 1;

	memcpy(dst, src, n);
	dst[n] = '\0';
	return n == len;
}

/* Reads digits up to the first other byte; returns a pointer to that byte, NULL on no digits or
 * overflow (which sets *ret_overflow). */
static const char *digits(const char *text, uint64_t *ret_value, bool *ret_overflow)
{
	uint64_t value = 0;
	const char *p = text;

	*ret_overflow = false;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)) {
			*ret_overflow = true;
			return NULL;
		}
	}
	if (p == text)
		return NULL;
	*ret_value = value;
	return p;
}

int str_to_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;
	bool overflow;
	const char *end = digits(text, &value, &overflow);

	if (overflow)
		return -ERANGE;
	if (!end || *end)
		return -EINVAL;
	if (value < min || value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

int str_to_i64(const char *text, int64_t min, int64_t max, int64_t *ret_value)
{
	bool negative = text[0] == '-';
	uint64_t magnitude = 0;
	int64_t value;
	int r;

	r = str_to_u64(text + negative, 0, negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX,
		       &magnitude);
	if (r < 0)
		return r;
	value = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
	if (value < min || value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

struct unit {
	const char *suffix;
	uint64_t factor;
};

static int with_unit(const char *text, const struct unit *units, size_t n, uint64_t max,
		     uint64_t *ret_value)
{
	uint64_t value = 0;
	bool overflow;
	const char *suffix = digits(text, &value, &overflow);

	if (overflow)
		return -ERANGE;
	if (!suffix)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (!str_eq(suffix, units[i].suffix))
			continue;
		if (__builtin_mul_overflow(value, units[i].factor, &value) || value > max)
			return -ERANGE;
		*ret_value = value;
		return 0;
	}
	return -EINVAL;
}

int str_to_bytes(const char *text, uint64_t *ret_bytes)
{
	static const struct unit units[] = {
		{"", 1},
		{"B", 1},
		{"kB", 1000},
		{"MB", 1000000},
		{"GB", 1000000000},
		{"KiB", 1024},
		{"MiB", 1024 * 1024},
		{"GiB", 1024 * 1024 * 1024},
	};

	return with_unit(text, units, sizeof units / sizeof *units, INT64_MAX, ret_bytes);
}

int str_to_ms(const char *text, int64_t *ret_ms)
{
	static const struct unit units[] = {
		{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
	};
	uint64_t value = 0;
	int r = with_unit(text, units, sizeof units / sizeof *units, INT64_MAX, &value);

	if (r < 0)
		return r;
	*ret_ms = (int64_t)value;
	return 0;
}

int str_seconds_to_ms(const char *text, int64_t max_ms, int64_t *ret_ms)
{
	uint64_t whole = 0, ms = 0, scale = 100;
	bool overflow;
	const char *p = digits(text, &whole, &overflow);

	if (overflow || (p && whole > (uint64_t)INT64_MAX / 2000))
		return -ERANGE;
	if (!p)
		return -EINVAL;
	if (*p == '.') {
		if (p[1] < '0' || p[1] > '9')
			return -EINVAL;
		for (p++; *p >= '0' && *p <= '9'; p++, scale /= 10)
			ms += (uint64_t)(*p - '0') * scale;
	}
	if (*p)
		return -EINVAL;
	ms += whole * 1000;
	if (ms > (uint64_t)max_ms)
		return -ERANGE;
	*ret_ms = (int64_t)ms;
	return 0;
}

/* Length of the sequence at s and the range its second byte must lie in, by the lead byte: the
 * table 3-7 of the Unicode standard, which rules out overlong forms and surrogates at once. */
static size_t utf8_lead(unsigned char c, unsigned char *ret_low, unsigned char *ret_high)
{
	*ret_low = 0x80;
	*ret_high = 0xbf;
	if (c >= 0xc2 && c <= 0xdf)
		return 2;
	if (c >= 0xe0 && c <= 0xef) {
		if (c == 0xe0)
			*ret_low = 0xa0;
		if (c == 0xed)
			*ret_high = 0x9f;
		return 3;
	}
	if (c >= 0xf0 && c <= 0xf4) {
		if (c == 0xf0)
			*ret_low = 0x90;
		if (c == 0xf4)
			*ret_high = 0x8f;
		return 4;
	}
	return 0;
}

bool utf8_valid(const void *bytes, size_t len)
{
	const unsigned char *s = bytes, *end = s + len;
	unsigned char low, high;

	while (s < end) {
		uint64_t word;
		size_t n;

		if (end - s >= 8 && (memcpy(&word, s, 8), !(word & 0x8080808080808080u))) {
			s += 8;
			continue;
		}
		if (*s < 0x80) {
			s++;
			continue;
		}
		n = utf8_lead(*s, &low, &high);
		if (!n || (size_t)(end - s) < n || s[1] < low || s[1] > high)
			return false;
		for (size_t i = 2; i < n; i++)
			if ((s[i] & 0xc0) != 0x80)
				return false;
		s += n;
	}
	return true;
}

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encoded_len(size_t len)
{
	return (len + 2) / 3 * 4;
}

void base64_encode(const void *bytes, size_t len, char *dst)
{
	const unsigned char *s = bytes;

	for (; len >= 3; len -= 3, s += 3) {
		*dst++ = base64_digits[s[0] >> 2];
		*dst++ = base64_digits[(s[0] & 3) << 4 | s[1] >> 4];
		*dst++ = base64_digits[(s[1] & 15) << 2 | s[2] >> 6];
		*dst++ = base64_digits[s[2] & 63];
	}
	if (!len)
		return;
	*dst++ = base64_digits[s[0] >> 2];
	*dst++ = base64_digits[(s[0] & 3) << 4 | (len == 2 ? s[1] >> 4 : 0)];
	*dst++ = len == 2 ? base64_digits[(s[1] & 15) << 2] : '=';
	*dst = '=';
}

size_t base64_decoded_max(size_t len)
{
	return len / 4 * 3;
}

static int base64_digit(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(const char *text, size_t len, void *dst, size_t *ret_len)
{
	const unsigned char *s = (const unsigned char *)text;
	unsigned char *out = dst;
	size_t pad = 0;

	if (len % 4)
		return -EINVAL;
	if (len && s[len - 1] == '=')
		pad = s[len - 2] == '=' ? 2 : 1;
	for (size_t i = 0; i < len; i += 4) {
		size_t have = i + 4 == len ? 4 - pad : 4;
		uint32_t group = 0;

		for (size_t k = 0; k < 4; k++) {
			int digit = k < have ? base64_digit(s[i + k]) : 0;

			if (digit < 0)
				return -EINVAL;
			group = group << 6 | (uint32_t)digit;
		}
		if ((have == 2 && (group & 0xffff)) || (have == 3 && (group & 0xff)))
			return -EINVAL;
		*out++ = (unsigned char)(group >> 16);
		if (have > 2)
			*out++ = (unsigned char)(group >> 8);
		if (have > 3)
			*out++ = (unsigned char)group;
	}
	*ret_len = (size_t)(out - (unsigned char *)dst);
	return 0;
}

void hex_encode(const void *bytes, size_t len, char *dst)
{
	const unsigned char *s = bytes;

	for (size_t i = 0; i < len; i++) {
		*dst++ = "0123456789abcdef"[s[i] >> 4];
		*dst++ = "0123456789abcdef"[s[i] & 15];
	}
	*dst = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int hex_decode(const char *text, size_t len, void *dst)
{
	unsigned char *out = dst;

	if (len % 2)
		return -EINVAL;
	for (size_t i = 0; i < len; i += 2) {
		int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		*out++ = (unsigned char)(high << 4 | low);
	}
	return 0;
}

size_t str_distance(const char *a, const char *b)
{
	enum { MAX = 63 };
	size_t rows[3][MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > MAX || lb > MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= lb; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t *row = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t best = up[j - 1] + (a[i - 1] != b[j - 1]);

			if (up[j] + 1 < best)
				best = up[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    up2[j - 2] + 1 < best)
				best = up2[j - 2] + 1;
			row[j] = best;
		}
	}
	return rows[la % 3][lb];
}

const char *str_nearest(const char *text, const char *const *words, size_t n)
{
	size_t len = strlen(text);
	size_t best = 1 + (len + 2) / 3;
	const char *near = NULL;

	for (size_t i = 0; i < n; i++) {
		size_t distance = str_distance(text, words[i]);

		if (len >= 2 && str_has_prefix(words[i], text))
			distance = 1;
		if (distance < best && distance < strlen(words[i])) {
			best = distance;
			near = words[i];
		}
	}
	return near;
}
