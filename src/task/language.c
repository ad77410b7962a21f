/* SPDX-License-Identifier: Apache-2.0 */
#include "task/language.h"

#include "base/str.h"
#include "task/language_internal.h"
#include "yaml/yaml.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct language_registry {
	struct language *items[LANGUAGES_MAX]; /* sorted by name */
	char *paths[LANGUAGES_MAX];	       /* of items, for the errors of the loading */
	size_t n;
};

static bool is_yaml(const char *name)
{
	size_t len = strlen(name);

	return name[0] != '.' && len > 5 && str_eq(name + len - 5, ".yaml");
}

static bool in_list(char *const *list, const char *word)
{
	for (size_t i = 0; list && list[i]; i++) {
		if (str_eq(list[i], word))
			return true;
	}
	return false;
}

static bool has_name(const struct language *l, const char *name)
{
	return str_eq(l->name, name) || in_list(l->aliases, name);
}

/* Names, aliases and extensions each mean one language. */
static int check_unique(const struct language_registry *r, const struct language *l,
			const char *path, struct err *e)
{
	for (size_t i = 0; i < r->n; i++) {
		const struct language *other = r->items[i];
		const char *twice = has_name(other, l->name) ? l->name : NULL;

		for (size_t k = 0; !twice && l->aliases && l->aliases[k]; k++) {
			if (has_name(other, l->aliases[k]))
				twice = l->aliases[k];
		}
		for (size_t k = 0; !twice && l->extensions && l->extensions[k]; k++) {
			if (in_list(other->extensions, l->extensions[k]))
				twice = l->extensions[k];
		}
		if (twice)
			return err_set(e, -EINVAL, "%s: \"%s\" belongs to \"%s\" already (%s)",
				       path, twice, other->name, r->paths[i]);
	}
	return 0;
}

static int registry_add(struct language_registry *r, const char *path, struct err *e)
{
	AUTO(language_free) struct language *l = calloc(1, sizeof *l);
	AUTO_FREE char *copy = strdup(path);
	size_t at;
	int err;

	if (!l || !copy)
		return err_errno(e, -ENOMEM, "could not read \"%s\"", path);
	if (r->n == LANGUAGES_MAX)
		return err_set(e, -E2BIG, "more than %d languages", LANGUAGES_MAX);
	err = language_load_file(path, l, e);
	if (err >= 0)
		err = check_unique(r, l, path, e);
	if (err < 0)
		return err;
	for (at = r->n; at > 0 && strcmp(r->items[at - 1]->name, l->name) > 0; at--) {
		r->items[at] = r->items[at - 1];
		r->paths[at] = r->paths[at - 1];
	}
	r->items[at] = TAKE_PTR(l);
	r->paths[at] = TAKE_PTR(copy);
	r->n++;
	return 0;
}

/* Sorted by file name, so that errors do not depend on the order on disk. */
static int list_files(const char *dir, struct dirent ***ret_entries, struct err *e)
{
	int n = scandir(dir, ret_entries, NULL, alphasort);

	if (n < 0)
		return err_errno(e, -errno, "could not read the languages in \"%s\"", dir);
	return n;
}

int language_registry_load(const char *dir, struct language_registry **ret_registry, struct err *e)
{
	AUTO(language_registry_free) struct language_registry *r = calloc(1, sizeof *r);
	struct dirent **entries = NULL;
	int n, err = 0;

	if (!r)
		return err_errno(e, -ENOMEM, "could not read the languages");
	n = list_files(dir, &entries, e);
	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		char path[PATH_MAX];

		if (err >= 0 && is_yaml(entries[i]->d_name)) {
			if (snprintf(path, sizeof path, "%s/%s", dir, entries[i]->d_name) >=
			    (int)sizeof path)
				err = err_set(e, -ENAMETOOLONG, "the path \"%s\" is too long", dir);
			else
				err = registry_add(r, path, e);
		}
		free(entries[i]);
	}
	free(entries);
	if (err < 0)
		return err;
	if (!r->n)
		return err_set(e, -ENOENT, "no languages in \"%s\"", dir);
	*ret_registry = TAKE_PTR(r);
	return 0;
}

void language_registry_free(struct language_registry *r)
{
	for (size_t i = 0; r && i < r->n; i++) {
		language_free(r->items[i]);
		free(r->paths[i]);
	}
	free(r);
}

static void check_fini(struct language_check *c)
{
	free(c->name);
	free(c->code);
	free(c->stdin_text);
	yaml_texts_free(c->args);
	free(c->expect_stdout);
	free(c->expect_stderr);
}

static void setup_fini(struct language_setup *s)
{
	for (size_t i = 0; i < s->n_files; i++) {
		free(s->files[i].name);
		free(s->files[i].text);
	}
	free(s->files);
	for (size_t i = 0; s->commands && s->commands[i]; i++)
		yaml_texts_free(s->commands[i]);
	free(s->commands);
	yaml_texts_free(s->produces);
}

void language_free(struct language *l)
{
	if (!l)
		return;
	free(l->name);
	free(l->title);
	yaml_texts_free(l->aliases);
	yaml_texts_free(l->extensions);
	free(l->source);
	yaml_texts_free(l->version_argv);
	free(l->install_debian);
	yaml_texts_free(l->compile.argv);
	yaml_texts_free(l->compile.produces);
	yaml_texts_free(l->compile.toolchain);
	yaml_texts_free(l->run.argv);
	yaml_texts_free(l->run.produces);
	yaml_texts_free(l->compile.standby.argv);
	yaml_texts_free(l->compile.resident.argv);
	yaml_texts_free(l->run.standby.argv);
	yaml_texts_free(l->run.standby.imports);
	free(l->run.standby.fork);
	free(l->run.standby.variable);
	for (size_t i = 0; i < l->n_env; i++) {
		free(l->env[i].name);
		free(l->env[i].value);
	}
	free(l->env);
	setup_fini(&l->setup);
	yaml_texts_free(l->mounts);
	for (size_t i = 0; i < l->n_checks; i++)
		check_fini(&l->checks[i]);
	free(l->checks);
	free(l->version);
	free(l);
}

size_t language_count(const struct language_registry *r)
{
	return r->n;
}

struct language *language_at(const struct language_registry *r, size_t i)
{
	return r->items[i];
}

struct language *language_find(const struct language_registry *r, const char *name)
{
	for (size_t i = 0; i < r->n; i++) {
		if (has_name(r->items[i], name))
			return r->items[i];
	}
	return NULL;
}

struct language *language_find_by_extension(const struct language_registry *r, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *dot = strrchr(slash ? slash : path, '.');

	for (size_t i = 0; dot && i < r->n; i++) {
		if (in_list(r->items[i]->extensions, dot))
			return r->items[i];
	}
	return NULL;
}

/* Distance from a word to a language: the nearest of its names; an alias is as good as the name. */
static size_t distance_to(const struct language *l, const char *word)
{
	size_t best = str_distance(word, l->name);

	if (strlen(word) >= 2 && str_has_prefix(l->name, word))
		best = 1;
	for (size_t i = 0; l->aliases && l->aliases[i]; i++) {
		size_t d = str_distance(word, l->aliases[i]);

		if (d < best && d < strlen(l->aliases[i]))
			best = d;
	}
	return best;
}

size_t language_near(const struct language_registry *r, const char *name, const char **ret_names,
		     size_t max)
{
	size_t far = 2 + strlen(name) / 3, n = 0;

	/* Round by round from the nearest; names come in their own order within one distance. */
	for (size_t d = 0; d < far; d++) {
		for (size_t i = 0; i < r->n && n < max; i++) {
			const struct language *l = r->items[i];

			if (distance_to(l, name) == d && d < strlen(l->name))
				ret_names[n++] = l->name;
		}
	}
	return n;
}

int language_set_status(struct language *l, bool installed, const char *version)
{
	char *copy = version ? strdup(version) : NULL;

	if (version && !copy)
		return -ENOMEM;
	free(l->version);
	l->version = copy;
	l->installed = installed;
	return 0;
}
