/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Strict reading of JSON, on jansson.
 *
 * json_decode refuses what a lenient parser lets pass: duplicate names, bytes behind the document,
 * NUL in names, text that is not UTF-8, numbers outside of double, and documents that
 * nest deeper or hold more values than the caller allows (a tree takes far more memory than its
 * text, so the bytes alone bound nothing).
 *
 * An object is then read by a table of its fields. The first thing that is wrong is kept in the
 * reader: a message that names the field by its path, "limits.cpu_ms must be a whole number from 1
 * to 60000", and that path alone. Names that are not in the table are refused, with a near one as
 * a hint. Null counts as a wrong type.
 *
 * Texts that were read point into the tree and live as long as it does.
 */

#include "base/cleanup.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_bounds {
	size_t depth;  /* arrays and objects inside each other */
	size_t values; /* of any kind, names counted too */
};

static inline void json_cleanup(json_t *v)
{
	json_decref(v);
}
DEFINE_CLEANUP(json_t, json_cleanup);

/* The document as a tree that the caller releases with json_decref. -EINVAL with a message that
 * gives line and column, -E2BIG past a bound, -ENOMEM. */
int json_decode(const char *text, size_t len, const struct json_bounds *bounds, json_t **ret_value,
		struct err *e);

/* Where a value stands: the names and indexes on the way to it, on the stack of who reads. */
struct json_at {
	const struct json_at *up; /* NULL: the document */
	const char *name;	  /* NULL: an element of an array */
	size_t index;
};

enum { JSON_PATH_MAX = 128 };

struct json_reader {
	struct err err;
	char path[JSON_PATH_MAX]; /* of the value that was refused; "" for the document */
};

struct json_text {
	const char *data; /* NULL: the field was not there */
	size_t len;
};

enum json_kind {
	JSON_KIND_TEXT,	   /* struct json_text without NUL; min and max are bytes */
	JSON_KIND_CONTENT, /* the same, and NUL is a character like any other */
	JSON_KIND_INT,	   /* int64_t */
	JSON_KIND_BOOL,	   /* bool */
	JSON_KIND_READ,	   /* whatever the read function makes of it */
};

/* Puts what it finds into target, the structure that json_read_object was given. 0, or what
 * json_refuse returned. */
typedef int (*json_read_cb)(struct json_reader *r, const struct json_at *at, const json_t *value,
			    void *target);

struct json_field {
	const char *name;
	enum json_kind kind;
	bool required;
	size_t offset;	   /* of the field in target */
	int64_t min, max;  /* inclusive; of TEXT and INT */
	json_read_cb read; /* of READ */
};

/* Fields that are absent leave target as it was. 0, -EINVAL, or what a read function returned. */
int json_read_object(struct json_reader *r, const struct json_at *at, const json_t *value,
		     const struct json_field *fields, size_t n, void *target);

/* One call of read for each element, with target. */
int json_read_array(struct json_reader *r, const struct json_at *at, const json_t *value,
		    json_read_cb read, void *target);

int json_read_text(struct json_reader *r, const struct json_at *at, const json_t *value, size_t min,
		   size_t max, struct json_text *ret_text);

/* A number with a fraction of zero is whole, as in JSON Schema. */
int json_read_int(struct json_reader *r, const struct json_at *at, const json_t *value, int64_t min,
		  int64_t max, int64_t *ret_value);

/* Keeps "PATH MESSAGE" and the path; returns code, which is negative. */
int json_refuse(struct json_reader *r, const struct json_at *at, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The same about a field of the object at "at". */
int json_refuse_field(struct json_reader *r, const struct json_at *at, const char *name, int code,
		      const char *fmt, ...) __attribute__((format(printf, 5, 6)));
