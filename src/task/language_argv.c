/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/str.h"
#include "task/language.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ARG_MAX_BYTES = 4096 };

#define SETUP_WORD "{setup}"

/* What the placeholders stand for. */
struct words {
	const char *entry;
	size_t stem_len; /* of entry, up to the dot of its extension */
	int64_t memory_mib;
	const char *setup;
};

static size_t stem_length(const char *entry)
{
	const char *slash = strrchr(entry, '/');
	const char *base = slash ? slash + 1 : entry;
	const char *dot = strrchr(base, '.');

	/* A dot in front makes a hidden file, not an extension. */
	return dot && dot != base ? (size_t)(dot - entry) : strlen(entry);
}

/* Copies arg with its placeholders replaced. NULL when memory is gone. */
static char *expand(const char *arg, const struct words *w)
{
	struct buf b;
	char *text;

	buf_init(&b, ARG_MAX_BYTES);
	while (*arg) {
		if (str_has_prefix(arg, "{entry}")) {
			(void)buf_append_str(&b, w->entry);
			arg += strlen("{entry}");
		} else if (str_has_prefix(arg, "{stem}")) {
			(void)buf_append(&b, w->entry, w->stem_len);
			arg += strlen("{stem}");
		} else if (str_has_prefix(arg, "{memory_mib}")) {
			(void)buf_printf(&b, "%lld", (long long)w->memory_mib);
			arg += strlen("{memory_mib}");
		} else if (w->setup && str_has_prefix(arg, SETUP_WORD)) {
			(void)buf_append_str(&b, w->setup);
			arg += strlen(SETUP_WORD);
		} else {
			(void)buf_append_char(&b, *arg++);
		}
	}
	text = buf_error(&b) ? NULL : buf_steal(&b, NULL);
	buf_fini(&b);
	return text;
}

static bool is_other_source(const struct language *l, const struct task_program *p, size_t i)
{
	const char *name = p->files[i].name;
	const char *extension = name + stem_length(name);

	if (str_eq(name, p->entry))
		return false;
	for (size_t k = 0; l->extensions && l->extensions[k]; k++) {
		if (str_eq(l->extensions[k], extension))
			return true;
	}
	return false;
}

static int push(char **argv, size_t *n, char *text)
{
	if (!text)
		return -ENOMEM;
	argv[(*n)++] = text;
	return 0;
}

static int push_sources(char **argv, size_t *n, const struct language *l,
			const struct task_program *p)
{
	int r = push(argv, n, strdup(p->entry));

	for (size_t i = 0; r >= 0 && i < p->n_files; i++) {
		if (is_other_source(l, p, i))
			r = push(argv, n, strdup(p->files[i].name));
	}
	return r;
}

int language_argv(const struct language *l, const struct language_step *step,
		  const struct task_program *program, const struct language_words *words,
		  char *const *args, size_t n_args, char ***ret_argv)
{
	const struct words w = {
		.entry = program->entry,
		.stem_len = stem_length(program->entry),
		.memory_mib = words->memory_bytes >> 20,
		.setup = words->setup,
	};
	size_t room = n_args + 1, n = 0;
	char **argv;
	int r = 0;

	if (!step->argv)
		return -EINVAL;
	for (size_t i = 0; step->argv[i]; i++)
		room += str_eq(step->argv[i], "{sources}") ? program->n_files + 1 : 1;
	argv = calloc(room, sizeof *argv);
	if (!argv)
		return -ENOMEM;
	for (size_t i = 0; r >= 0 && step->argv[i]; i++) {
		if (str_eq(step->argv[i], "{sources}"))
			r = push_sources(argv, &n, l, program);
		else if (w.setup || !strstr(step->argv[i], SETUP_WORD))
			r = push(argv, &n, expand(step->argv[i], &w));
	}
	for (size_t i = 0; r >= 0 && i < n_args; i++)
		r = push(argv, &n, strdup(args[i]));
	if (r < 0) {
		language_argv_free(argv);
		return r;
	}
	*ret_argv = argv;
	return 0;
}

void language_argv_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}
