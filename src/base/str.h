/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Text: strict number parsing, UTF-8, base64, edit distance. The parsers take the whole string or
 * refuse it; they know no locale, no sign where none is meant, no leading or trailing blanks.
 */

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool str_eq(const char *a, const char *b);
bool str_has_prefix(const char *text, const char *prefix);

/* Decimal digits only. -EINVAL what is no number, -ERANGE what is outside [min, max]. */
int str_to_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value);
int str_to_i64(const char *text, int64_t min, int64_t max, int64_t *ret_value);

/* "512", "64KiB", "256MiB", "1GiB" (also kB, MB, GB as powers of ten), in bytes. */
int str_to_bytes(const char *text, uint64_t *ret_bytes);

/* "250ms", "15s", "5m", "24h", "7d", or a bare number of milliseconds, in milliseconds. */
int str_to_ms(const char *text, int64_t *ret_ms);

/* Seconds with an optional fraction ("2", "0.25"), in milliseconds. */
int str_seconds_to_ms(const char *text, int64_t max_ms, int64_t *ret_ms);

/* Well-formed UTF-8 as of RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF. */
bool utf8_valid(const void *bytes, size_t len);

/* RFC 4648 with padding. Decoding refuses blanks, missing padding and non-zero trailing bits. */
size_t base64_encoded_len(size_t len);
void base64_encode(const void *bytes, size_t len, char *dst); /* no NUL is added */
size_t base64_decoded_max(size_t len);
int base64_decode(const char *text, size_t len, void *dst, size_t *ret_len);

void hex_encode(const void *bytes, size_t len, char *dst); /* 2 * len + NUL */
int hex_decode(const char *text, size_t len, void *dst);   /* len / 2 bytes */

/* Edits (insert, delete, replace, swap of neighbours) from a to b; for "did you mean". Strings
 * longer than 63 bytes count as far apart (SIZE_MAX). */
size_t str_distance(const char *a, const char *b);

/* The word of the list that somebody who wrote "text" may have meant: at most one edit for each
 * three letters, or one that begins with it; NULL where none is near. Ties: the first. */
const char *str_nearest(const char *text, const char *const *words, size_t n);

/* Copies with strlcpy's contract: always a NUL, returns false where src was cut. */
bool str_copy(char *dst, size_t size, const char *src);
