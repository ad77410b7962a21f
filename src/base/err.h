/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Errors: a negative errno as the return value, and a message in a buffer that the caller gave.
 *
 * A function that can fail returns 0 or a positive number on success and a negative errno on
 * failure, and takes "struct err *e" last. Outputs ("ret_x") are untouched on failure, e is
 * untouched on success. e may be NULL where only the number matters. Nothing here allocates, so
 * an error can be told when memory is gone.
 *
 * Messages follow PostgreSQL's style guide: lower case, no full stop, "could not X: reason" for
 * what may succeed later, "cannot X" for what never will, no function names.
 */

enum { ERR_MSG_MAX = 512 };

struct err {
	char msg[ERR_MSG_MAX];
};

/* Sets the message and returns code, which must be negative. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and the kernel's text for the error number appended. code is negative. */
int err_errno(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts context before a message that is already there: "context: message". Returns code. */
int err_wrap(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The kernel's text for an error number of either sign; never NULL, never allocates. */
const char *err_text(int code);
