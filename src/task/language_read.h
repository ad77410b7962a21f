/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The words that language files are read with: mappings by their tables, lists by a rule, limits.
 * Errors name the place; what a failed reading leaves behind belongs to the language all the same.
 */

#include "base/err.h"
#include "task/task.h"
#include "yaml/yaml.h"

#include <stdbool.h>
#include <stddef.h>

/* One key of a mapping: how its value goes into the structure that the mapping describes. */
struct read_key {
	const char *name;
	bool required;
	int (*read)(const struct yaml_value *v, void *dst, struct err *e);
};

int read_out_of_memory(struct err *e);

/* Reads a mapping by its table: unknown and missing keys are errors. */
int read_mapping(const struct yaml_value *v, const struct read_key *keys, size_t n, void *dst,
		 struct err *e);

int read_text(const struct yaml_value *v, char **ret_text, struct err *e);

/* A list whose items all keep a rule; what: the kind of thing, for the error. */
int read_list(const struct yaml_value *v, bool (*rule)(const char *), const char *what, char ***dst,
	      struct err *e);

int read_limits(const struct yaml_value *v, struct task_limits *l, struct err *e);

/* ---- rules of single values ---- */

/* Small letters, digits and "+-._#", so that a name fits URLs, queue names and file names. */
bool read_is_name(const char *text);
bool read_is_file_name(const char *text);
bool read_is_extension(const char *text);
bool read_is_absolute(const char *text);
bool read_is_pattern(const char *text); /* relative, and stays below */
bool read_is_env_name(const char *text);
