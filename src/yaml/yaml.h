/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A strict reader for YAML files that people write (configuration, languages), on libyaml's event
 * parser. It takes the part of YAML that says what it looks like: one document of mappings,
 * sequences and scalars. Aliases, anchors, tags, directives, duplicate keys, keys that are no text,
 * NUL in text and nesting beyond YAML_DEPTH_MAX are errors.
 *
 * A scalar is text until it is asked for as something else: there is no "no" that becomes false.
 * Numbers, truth values, sizes and durations must be plain (unquoted); a key without a value is an
 * error wherever a value is asked for.
 *
 * All errors are "FILE:LINE:COL: message", counted from 1. Values and their texts belong to the
 * document and live as long as it does.
 */

#include "base/cleanup.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { YAML_DEPTH_MAX = 16, YAML_ITEMS_MAX = 1024 };

enum yaml_kind { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

struct yaml_doc;
struct yaml_value;

/* name stands for the file in errors. An empty document is an empty mapping. -EBADMSG or
 * -EINVAL for what is no YAML or not of the part above. */
int yaml_doc_load(const char *name, const void *text, size_t len, struct yaml_doc **ret_doc,
		  struct err *e);
/* -E2BIG where the file has more than max bytes. */
int yaml_doc_load_file(const char *path, size_t max, struct yaml_doc **ret_doc, struct err *e);
void yaml_doc_free(struct yaml_doc *d);
DEFINE_CLEANUP(struct yaml_doc, yaml_doc_free);

const struct yaml_value *yaml_doc_root(const struct yaml_doc *d);

/* ---- shape ---- */

enum yaml_kind yaml_kind(const struct yaml_value *v);
size_t yaml_count(const struct yaml_value *v); /* items, or keys; 0 of a scalar */
const struct yaml_value *yaml_item(const struct yaml_value *v, size_t i); /* or the i-th value */
const char *yaml_key(const struct yaml_value *v, size_t i);		  /* the i-th key */
const struct yaml_value *yaml_key_value(const struct yaml_value *v,
					size_t i); /* for errors at it */
const struct yaml_value *yaml_find(const struct yaml_value *mapping, const char *key); /* or NULL */

/* The position of a value, for those who report it later. */
unsigned yaml_line(const struct yaml_value *v);
unsigned yaml_column(const struct yaml_value *v);

/* Sets "FILE:LINE:COL: message" for the place of v and returns -EINVAL. */
int yaml_error(const struct yaml_value *v, struct err *e, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- checks and typed reading; all return -EINVAL with the place ---- */

int yaml_expect(const struct yaml_value *v, enum yaml_kind kind, struct err *e);

/* v must be a mapping with no key outside known; tells the nearest known one. */
int yaml_check_keys(const struct yaml_value *v, const char *const *known, size_t n, struct err *e);

/* The error of yaml_check_keys for the i-th key of v, for those who look keys up themselves. */
int yaml_unknown_key(const struct yaml_value *v, size_t i, const char *const *known, size_t n,
		     struct err *e);

int yaml_as_text(const struct yaml_value *v, const char **ret_text, struct err *e);
int yaml_as_bool(const struct yaml_value *v, bool *ret_value, struct err *e);
int yaml_as_int(const struct yaml_value *v, int64_t min, int64_t max, int64_t *ret_value,
		struct err *e);
/* The text of a scalar that must be plain: what a number, size or duration is parsed from. */
int yaml_as_plain(const struct yaml_value *v, const char **ret_text, struct err *e);
/* A sequence of texts as a NULL-terminated array of copies; each and the array are the caller's.
 * -ENOMEM too. */
int yaml_as_texts(const struct yaml_value *v, char ***ret_texts, struct err *e);
void yaml_texts_free(char **texts);
