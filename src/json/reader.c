/* SPDX-License-Identifier: Apache-2.0 */
#include "json/reader.h"

#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Counts what the parser would have to build, before it builds it. Quotes and brackets are ASCII
 * and never part of a longer UTF-8 sequence, so bytes will do; what is no JSON at all is left to
 * the parser. */
static int check_bounds(const char *text, size_t len, const struct json_bounds *b, struct err *e)
{
	size_t depth = 0, values = 1;

	for (size_t i = 0; i < len; i++) {
		switch (text[i]) {
		case '"':
			for (i++; i < len && text[i] != '"'; i++)
				i += text[i] == '\\';
			break;
		case '{':
		case '[':
			if (++depth > b->depth)
				return err_set(e, -E2BIG, "more than %zu levels of nesting",
					       b->depth);
			values++;
			break;
		case '}':
		case ']':
			depth -= depth > 0;
			break;
		case ',':
		case ':':
			values++;
			break;
		}
		if (values > b->values)
			return err_set(e, -E2BIG, "more than %zu values", b->values);
	}
	return 0;
}

int json_decode(const char *text, size_t len, const struct json_bounds *bounds, json_t **ret_value,
		struct err *e)
{
	const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
	json_error_t error;
	json_t *value;
	int r;

	r = check_bounds(text, len, bounds, e);
	if (r < 0)
		return r;
	value = json_loadb(text, len, flags, &error);
	/* A whole number beyond int64 is no fault of the document: as a real it comes to whoever
	 * reads the field, who can name it. */
	if (!value && json_error_code(&error) == json_error_numeric_overflow)
		value = json_loadb(text, len, flags | JSON_DECODE_INT_AS_REAL, &error);
	if (value) {
		*ret_value = value;
		return 0;
	}
	if (json_error_code(&error) == json_error_out_of_memory)
		return err_errno(e, -ENOMEM, "could not read JSON");
	return err_set(e, -EINVAL, "not JSON: line %d, column %d: %s", error.line, error.column,
		       error.text);
}

/* Writes the path of at into dst, cut where it is too long, and returns its length. */
static size_t format_path(const struct json_at *at, char *dst, size_t size)
{
	size_t len;
	int n;

	dst[0] = '\0';
	if (!at || !at->up)
		return 0;
	len = format_path(at->up, dst, size);
	if (at->name)
		n = snprintf(dst + len, size - len, "%s%s", len ? "." : "", at->name);
	else
		n = snprintf(dst + len, size - len, "[%zu]", at->index);
	return n < 0 || (size_t)n >= size - len ? size - 1 : len + (size_t)n;
}

__attribute__((format(printf, 4, 0))) static int
refuse(struct json_reader *r, const struct json_at *at, int code, const char *fmt, va_list ap)
{
	char text[ERR_MSG_MAX];

	(void)format_path(at, r->path, sizeof r->path);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	return err_set(&r->err, code, "%s %s", r->path[0] ? r->path : "the document", text);
}

int json_refuse(struct json_reader *r, const struct json_at *at, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = refuse(r, at, code, fmt, ap);
	va_end(ap);
	return code;
}

int json_refuse_field(struct json_reader *r, const struct json_at *at, const char *name, int code,
		      const char *fmt, ...)
{
	struct json_at here = {.up = at, .name = name};
	va_list ap;

	va_start(ap, fmt);
	code = refuse(r, &here, code, fmt, ap);
	va_end(ap);
	return code;
}

static int read_content(struct json_reader *r, const struct json_at *at, const json_t *value,
			size_t min, size_t max, struct json_text *ret_text)
{
	size_t len;

	if (!json_is_string(value))
		return json_refuse(r, at, -EINVAL, "must be a string");
	len = json_string_length(value);
	if (len < min && min == 1)
		return json_refuse(r, at, -EINVAL, "must not be empty");
	if (len < min || len > max)
		return json_refuse(r, at, -EINVAL, "must have %zu to %zu bytes", min, max);
	*ret_text = (struct json_text){.data = json_string_value(value), .len = len};
	return 0;
}

int json_read_text(struct json_reader *r, const struct json_at *at, const json_t *value, size_t min,
		   size_t max, struct json_text *ret_text)
{
	struct json_text text;
	int code = read_content(r, at, value, min, max, &text);

	if (code < 0)
		return code;
	if (memchr(text.data, 0, text.len))
		return json_refuse(r, at, -EINVAL, "must not contain NUL");
	*ret_text = text;
	return 0;
}

/* The whole number that a JSON number is; a double holds whole numbers up to 2^53 exactly. */
static bool whole_number(const json_t *value, int64_t *ret_value)
{
	const double exact = 9007199254740992.0;
	double real;

	if (json_is_integer(value)) {
		*ret_value = json_integer_value(value);
		return true;
	}
	if (!json_is_real(value))
		return false;
	real = json_real_value(value);
	if (!(real >= -exact && real <= exact) || real != (double)(int64_t)real)
		return false;
	*ret_value = (int64_t)real;
	return true;
}

int json_read_int(struct json_reader *r, const struct json_at *at, const json_t *value, int64_t min,
		  int64_t max, int64_t *ret_value)
{
	int64_t number = 0;

	if (!whole_number(value, &number) || number < min || number > max)
		return max == INT64_MAX
			       ? json_refuse(r, at, -EINVAL,
					     "must be a whole number from %" PRId64 " on", min)
			       : json_refuse(r, at, -EINVAL,
					     "must be a whole number from %" PRId64 " to %" PRId64,
					     min, max);
	*ret_value = number;
	return 0;
}

static int read_bool(struct json_reader *r, const struct json_at *at, const json_t *value,
		     bool *ret_value)
{
	if (!json_is_boolean(value))
		return json_refuse(r, at, -EINVAL, "must be true or false");
	*ret_value = json_is_true(value);
	return 0;
}

static int read_field(struct json_reader *r, const struct json_at *at, const json_t *value,
		      const struct json_field *f, void *target)
{
	void *place = (char *)target + f->offset;

	switch (f->kind) {
	case JSON_KIND_TEXT:
		return json_read_text(r, at, value, (size_t)f->min, (size_t)f->max, place);
	case JSON_KIND_CONTENT:
		return read_content(r, at, value, (size_t)f->min, (size_t)f->max, place);
	case JSON_KIND_INT:
		return json_read_int(r, at, value, f->min, f->max, place);
	case JSON_KIND_BOOL:
		return read_bool(r, at, value, place);
	case JSON_KIND_READ:
		break;
	}
	return f->read(r, at, value, target);
}

static int refuse_unknown(struct json_reader *r, const struct json_at *at, const char *name,
			  const struct json_field *fields, size_t n)
{
	const char *near = NULL;
	size_t best = 3;

	for (size_t i = 0; i < n; i++) {
		size_t distance = str_distance(name, fields[i].name);

		if (distance < best) {
			best = distance;
			near = fields[i].name;
		}
	}
	return near ? json_refuse_field(r, at, name, -EINVAL,
					"is not a known field; did you mean \"%s\"?", near)
		    : json_refuse_field(r, at, name, -EINVAL, "is not a known field");
}

static const struct json_field *find_field(const char *name, const struct json_field *fields,
					   size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(fields[i].name, name))
			return &fields[i];
	return NULL;
}

int json_read_object(struct json_reader *r, const struct json_at *at, const json_t *value,
		     const struct json_field *fields, size_t n, void *target)
{
	void *it;

	if (!json_is_object(value))
		return json_refuse(r, at, -EINVAL, "must be an object");
	/* jansson's iterators take no const object, though they leave it alone. */
	for (it = json_object_iter((json_t *)(uintptr_t)value); it;
	     it = json_object_iter_next((json_t *)(uintptr_t)value, it)) {
		const char *name = json_object_iter_key(it);

		if (!find_field(name, fields, n))
			return refuse_unknown(r, at, name, fields, n);
	}
	for (size_t i = 0; i < n; i++) {
		const struct json_field *f = &fields[i];
		struct json_at here = {.up = at, .name = f->name};
		const json_t *member = json_object_get(value, f->name);
		int code;

		if (!member) {
			if (f->required)
				return json_refuse(r, &here, -EINVAL, "is required");
			continue;
		}
		code = read_field(r, &here, member, f, target);
		if (code < 0)
			return code;
	}
	return 0;
}

int json_read_array(struct json_reader *r, const struct json_at *at, const json_t *value,
		    json_read_cb read, void *target)
{
	if (!json_is_array(value))
		return json_refuse(r, at, -EINVAL, "must be an array");
	for (size_t i = 0; i < json_array_size(value); i++) {
		struct json_at here = {.up = at, .index = i};
		int code = read(r, &here, json_array_get(value, i), target);

		if (code < 0)
			return code;
	}
	return 0;
}
