/* SPDX-License-Identifier: Apache-2.0 */
#include "task/language_read.h"

#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_MAX = 32 };

int read_out_of_memory(struct err *e)
{
	return err_errno(e, -ENOMEM, "could not read a language");
}

/* Reads a mapping by its table: unknown and missing keys are errors. */
int read_mapping(const struct yaml_value *v, const struct read_key *keys, size_t n, void *dst,
		 struct err *e)
{
	const char *names[KEYS_MAX] = {NULL};
	int r;

	for (size_t k = 0; k < n; k++)
		names[k] = keys[k].name;
	r = yaml_check_keys(v, names, n, e);
	for (size_t k = 0; r >= 0 && k < n; k++) {
		const struct yaml_value *item = yaml_find(v, keys[k].name);

		if (item)
			r = keys[k].read(item, dst, e);
		else if (keys[k].required)
			r = yaml_error(v, e, "the key \"%s\" is missing", keys[k].name);
	}
	return r;
}

int read_text(const struct yaml_value *v, char **ret_text, struct err *e)
{
	const char *text = NULL;
	char *copy;
	int r = yaml_as_text(v, &text, e);

	if (r < 0)
		return r;
	copy = strdup(text);
	if (!copy)
		return read_out_of_memory(e);
	*ret_text = copy;
	return 0;
}

/* ---- rules of single values ---- */

/* Small letters, digits and "+-._#", so that a name fits URLs, queue names and file names. */
bool read_is_name(const char *text)
{
	size_t len = strlen(text);

	if (!len || len >= TASK_LANGUAGE_MAX || !islower((unsigned char)text[0]))
		return false;
	for (const char *p = text; *p; p++) {
		unsigned char c = (unsigned char)*p;

		if (!islower(c) && !isdigit(c) && !strchr("+-._#", c))
			return false;
	}
	return true;
}

bool read_is_file_name(const char *text)
{
	size_t len = strlen(text);

	return len && len <= TASK_FILE_NAME_MAX && text[0] != '.' && text[0] != '-' &&
	       !strchr(text, '/');
}

bool read_is_extension(const char *text)
{
	return text[0] == '.' && text[1] && !strchr(text + 1, '.') && !strchr(text, '/');
}

static bool has_dots(const char *path)
{
	return str_eq(path, "..") || str_has_prefix(path, "../") || strstr(path, "/../") ||
	       (strlen(path) >= 3 && str_eq(path + strlen(path) - 3, "/.."));
}

bool read_is_absolute(const char *text)
{
	return text[0] == '/' && !has_dots(text);
}

bool read_is_pattern(const char *text)
{
	return text[0] && text[0] != '/' && !has_dots(text);
}

bool read_is_env_name(const char *text)
{
	if (!isalpha((unsigned char)text[0]) && text[0] != '_')
		return false;
	for (const char *p = text; *p; p++) {
		if (!isalnum((unsigned char)*p) && *p != '_')
			return false;
	}
	return true;
}

/* A list whose items all keep a rule. */
int read_list(const struct yaml_value *v, bool (*rule)(const char *), const char *what, char ***dst,
	      struct err *e)
{
	int r = yaml_expect(v, YAML_SEQUENCE, e);

	for (size_t i = 0; r >= 0 && i < yaml_count(v); i++) {
		const char *text = NULL;

		r = yaml_as_text(yaml_item(v, i), &text, e);
		if (r >= 0 && !rule(text))
			r = yaml_error(yaml_item(v, i), e, "\"%s\" is no %s", text, what);
	}
	return r < 0 ? r : yaml_as_texts(v, dst, e);
}

/* ---- limits ---- */

static bool ends_with(const char *text, const char *suffix)
{
	size_t lt = strlen(text), ls = strlen(suffix);

	return lt >= ls && str_eq(text + lt - ls, suffix);
}

static int read_limit(const struct yaml_value *v, const char *name, int64_t *ret_value,
		      struct err *e)
{
	const char *text = NULL;
	uint64_t bytes = 0;
	int64_t value = 0;
	int r = yaml_as_plain(v, &text, e);

	if (r < 0)
		return r;
	if (ends_with(name, "_ms")) {
		r = str_to_ms(text, &value);
	} else if (ends_with(name, "_bytes")) {
		r = str_to_bytes(text, &bytes);
		value = (int64_t)bytes;
	} else {
		r = str_to_i64(text, 1, INT32_MAX, &value);
	}
	if (r < 0 || value < 1)
		return yaml_error(v, e, "\"%s\" is no value for %s (try 500ms, 5s, 64MiB, 1GiB)",
				  text, name);
	*ret_value = value;
	return 0;
}

int read_limits(const struct yaml_value *v, struct task_limits *l, struct err *e)
{
	const char *names[KEYS_MAX] = {NULL};
	int r;

	for (size_t i = 0; i < task_limit_fields_count; i++)
		names[i] = task_limit_fields[i].name;
	r = yaml_check_keys(v, names, task_limit_fields_count, e);
	for (size_t i = 0; r >= 0 && i < task_limit_fields_count; i++) {
		const struct yaml_value *item = yaml_find(v, names[i]);

		if (item)
			r = read_limit(item, names[i], task_limit_at(l, &task_limit_fields[i]), e);
	}
	return r;
}
