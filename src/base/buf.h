/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A growable byte buffer with a hard maximum. data is never NULL and always has a NUL behind the
 * last byte, so text may be used in place; len does not count it.
 *
 * Mutators return 0, -ENOMEM, or -ENOBUFS where the maximum would be passed; the buffer then
 * holds what it held before, and "failed" stays set, so that a long series of appends may be
 * checked once at its end with buf_error.
 */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	char *data;
	size_t len;
	size_t cap; /* bytes allocated, 0 while data points at the shared empty string */
	size_t max; /* len never passes this */
	int failed; /* first error of a mutator, else 0 */
};

void buf_init(struct buf *b, size_t max); /* max is less than SIZE_MAX */
void buf_fini(struct buf *b);

/* Empties the buffer and its error; keeps the memory. */
void buf_clear(struct buf *b);

int buf_reserve(struct buf *b, size_t more);
int buf_append(struct buf *b, const void *bytes, size_t len);
int buf_append_str(struct buf *b, const char *text);
int buf_append_char(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

/* Drops n bytes from the front; n <= len. */
void buf_consume(struct buf *b, size_t n);

/* The first error since init or clear, 0 where there was none. */
int buf_error(const struct buf *b);

/* Hands the bytes over as one malloc'd block with a NUL behind; the buffer is empty afterwards.
 * NULL when memory is gone. */
char *buf_steal(struct buf *b, size_t *ret_len);
