/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/fs.h"
#include "base/str.h"
#include "crypto/digest.h"
#include "task/language_internal.h"
#include "task/language_read.h"
#include "yaml/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* ---- steps ---- */

static int check_placeholders(const struct yaml_value *v, const char *arg, struct err *e)
{
	static const char *const known[] = {"{entry}", "{stem}", "{memory_mib}", "{setup}"};

	if (str_eq(arg, "{sources}"))
		return 0;
	for (const char *p = strchr(arg, '{'); p; p = strchr(p + 1, '{')) {
		size_t k = 0;

		while (k < ARRAY_SIZE(known) && !str_has_prefix(p, known[k]))
			k++;
		if (k == ARRAY_SIZE(known))
			return yaml_error(v, e,
					  "\"%s\": only {entry}, {stem}, {memory_mib}, {setup} "
					  "and, alone, {sources} may stand in braces",
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
	if (!read_is_absolute(first) &&
	    (!str_has_prefix(first, "./") || !read_is_pattern(first + 2)))
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
		     : read_list(v, read_is_pattern, "pattern of files in the work directory",
				 &((struct language_step *)dst)->produces, e);
}

static int step_toolchain(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, read_is_absolute, "absolute path, or pattern of such",
			 &((struct language_step *)dst)->toolchain, e);
}

static int step_limits(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_limits(v, &((struct language_step *)dst)->limits, e);
}

/* ---- standby ---- */

static int standby_argv(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_argv(v, &((struct language_standby *)dst)->argv, e);
}

static int standby_memory(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_limit(v, "memory_bytes", &((struct language_standby *)dst)->memory_bytes, e);
}

static int standby_args(const struct yaml_value *v, void *dst, struct err *e)
{
	return yaml_as_bool(v, &((struct language_standby *)dst)->args, e);
}

static int standby_fork(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language_standby *s = dst;
	int r = read_text(v, &s->fork, e);

	return r < 0 || read_is_name(s->fork)
		       ? r
		       : yaml_error(v, e, "\"%s\" is no name of a folder", s->fork);
}

static int standby_variable(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language_standby *s = dst;
	int r = read_text(v, &s->variable, e);

	return r < 0 || read_is_env_name(s->variable)
		       ? r
		       : yaml_error(v, e, "\"%s\" is no name of a variable", s->variable);
}

static int standby_preload(const struct yaml_value *v, void *dst, struct err *e)
{
	return yaml_as_bool(v, &((struct language_standby *)dst)->preload, e);
}

static bool is_word(const char *text)
{
	return text[0] && !strpbrk(text, " \t\n");
}

static int standby_imports(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, is_word, "word", &((struct language_standby *)dst)->imports, e);
}

static int step_standby(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct read_key keys[] = {
		{"argv", true, standby_argv},	     {"memory_bytes", true, standby_memory},
		{"args", false, standby_args},	     {"fork", false, standby_fork},
		{"imports", false, standby_imports}, {"variable", false, standby_variable},
		{"preload", false, standby_preload},
	};
	struct language_standby *s = &((struct language_step *)dst)->standby;
	int r;

	s->args = true;
	r = read_mapping(v, keys, ARRAY_SIZE(keys), s, e);
	if (r == 0 && !s->fork && (s->imports || s->variable || s->preload))
		return yaml_error(v, e,
				  "\"imports\", \"variable\" and \"preload\" go with \"fork\"");
	return r;
}

/* Its arguments are the compiler's, which it must take. */
static int standby_of_compiler(const struct yaml_value *v, struct language_standby *dst,
			       struct err *e)
{
	static const struct read_key keys[] = {
		{"argv", true, standby_argv},
		{"memory_bytes", true, standby_memory},
	};

	dst->args = true;
	return read_mapping(v, keys, ARRAY_SIZE(keys), dst, e);
}

static int compile_standby(const struct yaml_value *v, void *dst, struct err *e)
{
	return standby_of_compiler(v, &((struct language_step *)dst)->standby, e);
}

static int compile_resident(const struct yaml_value *v, void *dst, struct err *e)
{
	return standby_of_compiler(v, &((struct language_step *)dst)->resident, e);
}

/* ---- what is made beforehand ---- */

static int setup_files(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language_setup *s = dst;
	int r = yaml_expect(v, YAML_MAPPING, e);

	if (r < 0)
		return r;
	s->files = calloc(yaml_count(v) + 1, sizeof *s->files);
	if (!s->files)
		return read_out_of_memory(e);
	for (size_t i = 0; r >= 0 && i < yaml_count(v); i++) {
		struct language_file *f = &s->files[s->n_files++];

		if (!read_is_pattern(yaml_key(v, i)))
			return yaml_error(yaml_key_value(v, i), e, "\"%s\" is no name of a file",
					  yaml_key(v, i));
		f->name = strdup(yaml_key(v, i));
		r = f->name ? read_text(yaml_item(v, i), &f->text, e) : read_out_of_memory(e);
	}
	return r;
}

static int setup_commands(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language_setup *s = dst;
	int r = yaml_expect(v, YAML_SEQUENCE, e);

	if (r < 0)
		return r;
	if (!yaml_count(v))
		return yaml_error(v, e, "the list is empty");
	s->commands = calloc(yaml_count(v) + 1, sizeof *s->commands);
	if (!s->commands)
		return read_out_of_memory(e);
	for (size_t i = 0; r >= 0 && i < yaml_count(v); i++) {
		char ***argv = &s->commands[i];

		r = read_argv(yaml_item(v, i), argv, e);
		for (size_t k = 0; r >= 0 && (*argv)[k]; k++) {
			if (strchr((*argv)[k], '{') || ((*argv)[0][0] != '/'))
				r = yaml_error(yaml_item(v, i), e,
					       "a command of \"setup\" has an absolute path, and "
					       "no placeholders");
		}
	}
	return r;
}

static int setup_produces(const struct yaml_value *v, void *dst, struct err *e)
{
	int r = yaml_expect(v, YAML_SEQUENCE, e);

	if (r >= 0 && !yaml_count(v))
		return yaml_error(v, e, "the list is empty");
	return r < 0 ? r
		     : read_list(v, read_is_pattern, "name of a file",
				 &((struct language_setup *)dst)->produces, e);
}

static int lang_setup(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct read_key keys[] = {
		{"files", false, setup_files},
		{"commands", true, setup_commands},
		{"produces", true, setup_produces},
	};

	return read_mapping(v, keys, ARRAY_SIZE(keys), &((struct language *)dst)->setup, e);
}

/* ---- check programs ---- */

static int check_code(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_text(v, &((struct language_check *)dst)->code, e);
}

static int check_stdin(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_text(v, &((struct language_check *)dst)->stdin_text, e);
}

static int check_args(const struct yaml_value *v, void *dst, struct err *e)
{
	return yaml_as_texts(v, &((struct language_check *)dst)->args, e);
}

static int check_stdout(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_text(v, &((struct language_check *)dst)->expect_stdout, e);
}

static int check_stderr(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_text(v, &((struct language_check *)dst)->expect_stderr, e);
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
	static const struct read_key keys[] = {
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
		return read_out_of_memory(e);
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
	int r = read_text(v, &l->name, e);

	if (r >= 0 && !read_is_name(l->name))
		return yaml_error(v, e,
				  "\"%s\" is no name: small letters, digits and + - . _ #, a "
				  "letter first",
				  l->name);
	return r;
}

static int lang_title(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_text(v, &((struct language *)dst)->title, e);
}

static int lang_aliases(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, read_is_name, "name", &((struct language *)dst)->aliases, e);
}

static int lang_extensions(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, read_is_extension, "file name extension (\".x\")",
			 &((struct language *)dst)->extensions, e);
}

static int lang_source(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language *l = dst;
	int r = read_text(v, &l->source, e);

	if (r >= 0 && !read_is_file_name(l->source))
		return yaml_error(v, e, "\"%s\" is no plain file name", l->source);
	return r;
}

static int version_argv(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_argv(v, &((struct language *)dst)->version_argv, e);
}

static int lang_version(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct read_key keys[] = {{"argv", true, version_argv}};

	return read_mapping(v, keys, ARRAY_SIZE(keys), dst, e);
}

static int install_debian(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_text(v, &((struct language *)dst)->install_debian, e);
}

static int lang_install(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct read_key keys[] = {{"debian", false, install_debian}};

	return read_mapping(v, keys, ARRAY_SIZE(keys), dst, e);
}

static int lang_compile(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct read_key keys[] = {
		{"argv", true, step_argv},
		{"produces", true, step_produces},
		{"toolchain", false, step_toolchain},
		{"limits", false, step_limits},
		{"standby", false, compile_standby},
		{"resident", false, compile_resident},
	};

	return read_mapping(v, keys, ARRAY_SIZE(keys), &((struct language *)dst)->compile, e);
}

static int lang_run(const struct yaml_value *v, void *dst, struct err *e)
{
	static const struct read_key keys[] = {
		{"argv", true, step_argv},
		{"limits", false, step_limits},
		{"standby", false, step_standby},
	};

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
		return read_out_of_memory(e);
	for (size_t i = 0; r >= 0 && i < yaml_count(v); i++) {
		struct language_env *env = &l->env[l->n_env++];

		if (!read_is_env_name(yaml_key(v, i)))
			return yaml_error(yaml_key_value(v, i), e,
					  "\"%s\" is no name of a variable", yaml_key(v, i));
		env->name = strdup(yaml_key(v, i));
		r = env->name ? read_text(yaml_item(v, i), &env->value, e) : read_out_of_memory(e);
	}
	return r;
}

static int lang_mounts(const struct yaml_value *v, void *dst, struct err *e)
{
	return read_list(v, read_is_absolute, "absolute path", &((struct language *)dst)->mounts,
			 e);
}

static int lang_check(const struct yaml_value *v, void *dst, struct err *e)
{
	struct language *l = dst;
	int r = yaml_expect(v, YAML_MAPPING, e);

	if (r < 0)
		return r;
	l->checks = calloc(yaml_count(v) + 1, sizeof *l->checks);
	if (!l->checks)
		return read_out_of_memory(e);
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
			return read_out_of_memory(e);
	}
	return 0;
}

static int read_language(const struct yaml_doc *d, struct language *l, struct err *e)
{
	static const struct read_key keys[] = {
		{"name", true, lang_name},	  {"title", false, lang_title},
		{"aliases", false, lang_aliases}, {"extensions", false, lang_extensions},
		{"source", true, lang_source},	  {"version", false, lang_version},
		{"install", false, lang_install}, {"compile", false, lang_compile},
		{"run", true, lang_run},	  {"setup", false, lang_setup},
		{"env", false, lang_env},	  {"mounts", false, lang_mounts},
		{"check", false, lang_check},
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
