/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/fs.h"
#include "base/str.h"
#include "crypto/digest.h"
#include "task/language_internal.h"
#include "yaml/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_MAX = 32 };

/* One key of a mapping: how its value goes into the structure that the mapping describes. */
struct key {
	const char *name;
	bool required;
	int (*read)(const struct yaml_value *v, void *dst, struct err *e);
};

static int out_of_memory(struct err *e)
{
	return err_errno(e, -ENOMEM, "could not read a language");
}

/* Reads a mapping by its table: unknown and missing keys are errors. */
static int read_mapping(const struct yaml_value *v, const struct key *keys, size_t n, void *dst,
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

static int copy_text(const struct yaml_value *v, char **ret_text, struct err *e)
{
	const char *text = NULL;
	char *copy;
	int r = yaml_as_text(v, &text, e);

	if (r < 0)
		return r;
	copy = strdup(text);
	if (!copy)
		return out_of_memory(e);
	*ret_text = copy;
	return 0;
}

/* ---- rules of single values ---- */

/* Small letters, digits and "+-._#", so that a name fits URLs, queue names and file names. */
static bool is_name(const char *text)
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

static bool is_file_name(const char *text)
{
	size_t len = strlen(text);

	return len && len <= TASK_FILE_NAME_MAX && text[0] != '.' && text[0] != '-' &&
	       !strchr(text, '/');
}

static bool is_extension(const char *text)
{
	return text[0] == '.' && text[1] && !strchr(text + 1, '.') && !strchr(text, '/');
}

static bool has_dots(const char *path)
{
	return str_eq(path, "..") || str_has_prefix(path, "../") || strstr(path, "/../") ||
	       (strlen(path) >= 3 && str_eq(path + strlen(path) - 3, "/.."));
}

static bool is_absolute(const char *text)
{
	return text[0] == '/' && !has_dots(text);
}

static bool is_pattern(const char *text)
{
	return text[0] && text[0] != '/' && !has_dots(text);
}

static bool is_env_name(const char *text)
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
static int read_list(const struct yaml_value *v, bool (*rule)(const char *), const char *what,
		     char ***dst, struct err *e)
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

static int read_limits(const struct yaml_value *v, struct task_limits *l, struct err *e)
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

/* ---- steps ---- */

static int check_placeholders(const struct yaml_value *v, const char *arg, struct err *e)
{
	static const char *const known[] = {"{entry}", "{stem}", "{memory_mib}"};

	if (str_eq(arg, "{sources}"))
		return 0;
	for (const char *p = strchr(arg, '{'); p; p = strchr(p + 1, '{')) {
		size_t k = 0;

		while (k < ARRAY_SIZE(known) && !str_has_prefix(p, known[k]))
			k++;
		if (k == ARRAY_SIZE(known))
			return yaml_error(v, e,
					  "\"%s\": only {entry}, {stem}, {memory_mib} and, alone, "
					  "{sources} may stand in braces",
					  arg);
	}
	return 0;
}

static int read_argv(const struct yaml_value *v, char ***dst, struct err *e)
{
	const char *first = NULL;
	int r = yaml_expect(v, YAML_SEQUENCE, e);

	if (r < 0)
		return r;
	if (!yaml_count(v))
		return yaml_error(v, e, "the command is empty");
	r = yaml_as_text(yaml_item(v, 0), &first, e);
	if (r < 0)
		return r;
	if (!is_absolute(first) && (!str_has_prefix(first, "./") || !is_pattern(first + 2)))
		return yaml_error(yaml_item(v, 0), e,
				  "a command starts with an absolute path, or ./FILE for what the "
				  "compile step made; found \"%s\"",
				  first);
	for (size_t i = 0; r >= 0 && i < yaml_count(v); i++) {
		const char *arg = NULL;

		r = yaml_as_text(yaml_item(v, i), &arg, e);
		if (r >= 0)
			r = check_placeholders(yaml_item(v, i), arg, e);
	}
	return r < 0 ? r : yaml_as_texts(v, dst, e);
}

static int step_argv(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_argv(v, &((struct language_step *)dst)->argv, e);
}

static int step_produces(const struct yaml_value *v, void *dst, struct err *e)
{
	int r = yaml_expect(v, YAML_SEQUENCE, e);

	if (r >= 0 && !yaml_count(v))
		return yaml_error(v, e, "the list is empty");
	return r < 0 ? r
		     : read_list(v, is_pattern, "pattern of files in the work directory",
				 &((struct language_step *)dst)->produces, e);
}

static int step_toolchain(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, is_absolute, "absolute path, or pattern of such",
			 &((struct language_step *)dst)->toolchain, e);
}

static int step_limits(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_limits(v, &((struct language_step *)dst)->limits, e);
}

/* ---- check programs ---- */

static int check_code(const struct yaml_value *v, void *dst, struct err *e)
{
	return copy_text(v, &((struct language_check *)dst)->code, e);
}

static int check_stdin(const struct yaml_value *v, void *dst, struct err *e)
{
	return copy_text(v, &((struct language_check *)dst)->stdin_text, e);
}

static int check_args(const struct yaml_value *v, void *dst, struct err *e)
{
	return yaml_as_texts(v, &((struct language_check *)dst)->args, e);
}

static int check_stdout(const struct yaml_value *v, void *dst, struct err *e)
{
	return copy_text(v, &((struct language_check *)dst)->expect_stdout, e);
}

static int check_stderr(const struct yaml_value *v, void *dst, struct err *e)
{
	return copy_text(v, &((struct language_check *)dst)->expect_stderr, e);
}

static int check_limits(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_limits(v, &((struct language_check *)dst)->limits, e);
}

static int check_outcome(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language_check *c = dst;
	const char *text = NULL;
	int r = yaml_as_text(v, &text, e);

	if (r < 0)
		return r;
	for (int o = TASK_OUTCOME_OK; o < _TASK_OUTCOME_MAX; o++) {
		if (str_eq(text, task_outcome_name((enum task_outcome)o))) {
			c->expect_outcome = (enum task_outcome)o;
			return 0;
		}
	}
	return yaml_error(v, e, "\"%s\" is no outcome", text);
}

static int check_exit_code(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language_check *c = dst;
	int64_t code = 0;
	int r = yaml_as_int(v, 0, 255, &code, e);

	if (r < 0)
		return r;
	c->expect_exit_code = (int)code;
	return 0;
}

static int read_check(const struct yaml_value *v, const char *name, struct language_check *c,
		      struct err *e)
{
	static const struct key keys[] = {
		{"code", true, check_code},	   {"stdin", false, check_stdin},
		{"args", false, check_args},	   {"stdout", false, check_stdout},
		{"stderr", false, check_stderr},   {"exit_code", false, check_exit_code},
		{"outcome", false, check_outcome}, {"limits", false, check_limits},
	};
	int r;

	task_limits_unset(&c->limits);
	c->expect_exit_code = -1;
	c->name = strdup(name);
	if (!c->name)
		return out_of_memory(e);
	r = read_mapping(v, keys, ARRAY_SIZE(keys), c, e);
	if (r < 0)
		return r;
	/* An exit code says the outcome, and "ok" the exit code. */
	if (c->expect_outcome == TASK_OUTCOME_NONE)
		c->expect_outcome =
			c->expect_exit_code > 0 ? TASK_OUTCOME_RUNTIME_ERROR : TASK_OUTCOME_OK;
	if (c->expect_outcome == TASK_OUTCOME_OK && c->expect_exit_code < 0)
		c->expect_exit_code = 0;
	return 0;
}

/* ---- the language ---- */

static int lang_name(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language *l = dst;
	int r = copy_text(v, &l->name, e);

	if (r >= 0 && !is_name(l->name))
		return yaml_error(v, e,
				  "\"%s\" is no name: small letters, digits and + - . _ #, a "
				  "letter first",
				  l->name);
	return r;
}

static int lang_title(const struct yaml_value *v, void *dst, struct err *e)
{
	return copy_text(v, &((struct language *)dst)->title, e);
}

static int lang_aliases(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, is_name, "name", &((struct language *)dst)->aliases, e);
}

static int lang_extensions(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, is_extension, "file name extension (\".x\")",
			 &((struct language *)dst)->extensions, e);
}

static int lang_source(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language *l = dst;
	int r = copy_text(v, &l->source, e);

	if (r >= 0 && !is_file_name(l->source))
		return yaml_error(v, e, "\"%s\" is no plain file name", l->source);
	return r;
}

static int version_argv(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_argv(v, &((struct language *)dst)->version_argv, e);
}

static int lang_version(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct key keys[] = {{"argv", true, version_argv}};

	return read_mapping(v, keys, ARRAY_SIZE(keys), dst, e);
}

static int install_debian(const struct yaml_value *v, void *dst, struct err *e)
{
	return copy_text(v, &((struct language *)dst)->install_debian, e);
}

static int lang_install(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct key keys[] = {{"debian", false, install_debian}};

	return read_mapping(v, keys, ARRAY_SIZE(keys), dst, e);
}

static int lang_compile(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct key keys[] = {
		{"argv", true, step_argv},
		{"produces", true, step_produces},
		{"toolchain", false, step_toolchain},
		{"limits", false, step_limits},
	};

	return read_mapping(v, keys, ARRAY_SIZE(keys), &((struct language *)dst)->compile, e);
}

static int lang_run(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct key keys[] = {{"argv", true, step_argv},
					  {"limits", false, step_limits}};

	return read_mapping(v, keys, ARRAY_SIZE(keys), &((struct language *)dst)->run, e);
}

static int lang_env(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language *l = dst;
	int r = yaml_expect(v, YAML_MAPPING, e);

	if (r < 0)
		return r;
	l->env = calloc(yaml_count(v) + 1, sizeof *l->env);
	if (!l->env)
		return out_of_memory(e);
	for (size_t i = 0; r >= 0 && i < yaml_count(v); i++) {
		struct language_env *env = &l->env[l->n_env++];

		if (!is_env_name(yaml_key(v, i)))
			return yaml_error(yaml_key_value(v, i), e,
					  "\"%s\" is no name of a variable", yaml_key(v, i));
		env->name = strdup(yaml_key(v, i));
		r = env->name ? copy_text(yaml_item(v, i), &env->value, e) : out_of_memory(e);
	}
	return r;
}

static int lang_mounts(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, is_absolute, "absolute path", &((struct language *)dst)->mounts, e);
}

static int lang_check(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language *l = dst;
	int r = yaml_expect(v, YAML_MAPPING, e);

	if (r < 0)
		return r;
	l->checks = calloc(yaml_count(v) + 1, sizeof *l->checks);
	if (!l->checks)
		return out_of_memory(e);
	for (size_t i = 0; r >= 0 && i < yaml_count(v); i++)
		r = read_check(yaml_item(v, i), yaml_key(v, i), &l->checks[l->n_checks++], e);
	return r;
}

/* What one key alone cannot tell. */
static int check_whole(const struct yaml_value *root, struct language *l, struct err *e)
{
	if (!l->compile.argv && str_has_prefix(l->run.argv[0], "./"))
		return yaml_error(yaml_find(root, "run"), e,
				  "\"%s\" is run, but there is no compile step to make it",
				  l->run.argv[0]);
	if (!l->title) {
		l->title = strdup(l->name);
		if (!l->title)
			return out_of_memory(e);
	}
	return 0;
}

static int read_language(const struct yaml_doc *d, struct language *l, struct err *e)
{
	static const struct key keys[] = {
		{"name", true, lang_name},	  {"title", false, lang_title},
		{"aliases", false, lang_aliases}, {"extensions", false, lang_extensions},
		{"source", true, lang_source},	  {"version", false, lang_version},
		{"install", false, lang_install}, {"compile", false, lang_compile},
		{"run", true, lang_run},	  {"env", false, lang_env},
		{"mounts", false, lang_mounts},	  {"check", false, lang_check},
	};
	int r;

	task_limits_unset(&l->compile.limits);
	task_limits_unset(&l->run.limits);
	r = read_mapping(yaml_doc_root(d), keys, ARRAY_SIZE(keys), l, e);
	return r < 0 ? r : check_whole(yaml_doc_root(d), l, e);
}

int language_load_file(const char *path, struct language *l, struct err *e)
{
	AUTO(yaml_doc_free) struct yaml_doc *d = NULL;
	uint8_t digest[DIGEST_SIZE];
	struct buf b;
	int r;

	buf_init(&b, LANGUAGE_FILE_MAX);
	r = fs_read_file(AT_FDCWD, path, &b, e);
	if (r >= 0)
		r = yaml_doc_load(path, b.data, b.len, &d, e);
	if (r >= 0 && digest_bytes(b.data, b.len, digest) < 0)
		r = err_set(e, -EIO, "could not hash \"%s\"", path);
	buf_fini(&b);
	if (r < 0)
		return r;
	hex_encode(digest, sizeof digest, l->revision);
	return read_language(d, l, e);
}
