/* SPDX-License-Identifier: Apache-2.0 */
#include "yaml/yaml.h"

#include "base/buf.h"
#include "base/fs.h"
#include "base/str.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct yaml_value {
	struct yaml_value *allocated; /* next in the document's list of all values */
	const struct yaml_doc *doc;
	enum yaml_kind kind;
	bool plain;
	unsigned line, column;
	char *text;		   /* scalar */
	struct yaml_value **keys;  /* mapping: scalars */
	struct yaml_value **items; /* sequence and mapping */
	size_t n, cap;
};

struct yaml_doc {
	char *name;
	struct yaml_value *all;
	struct yaml_value *root;
};

/* What is being read: the collections that are open, and the key that waits for its value. */
struct builder {
	struct yaml_doc *doc;
	struct yaml_value *open[YAML_DEPTH_MAX];
	struct yaml_value *key[YAML_DEPTH_MAX];
	size_t depth;
	bool ended;
};

static int error_at(const char *name, size_t line, size_t column, int code, struct err *e,
		    const char *message)
{
	return err_set(e, code, "%s:%zu:%zu: %s", name, line + 1, column + 1, message);
}

static int error_event(const struct builder *b, const yaml_event_t *ev, struct err *e,
		       const char *message)
{
	return error_at(b->doc->name, ev->start_mark.line, ev->start_mark.column, -EBADMSG, e,
			message);
}

static int out_of_memory(const struct builder *b, struct err *e)
{
	return err_errno(e, -ENOMEM, "could not read \"%s\"", b->doc->name);
}

static struct yaml_value *value_new(struct yaml_doc *d, enum yaml_kind kind, size_t line,
				    size_t column)
{
	struct yaml_value *v = calloc(1, sizeof *v);

	if (!v)
		return NULL;
	v->doc = d;
	v->kind = kind;
	v->line = (unsigned)line + 1;
	v->column = (unsigned)column + 1;
	v->allocated = d->all;
	d->all = v;
	return v;
}

static int value_add(struct yaml_value *parent, struct yaml_value *key, struct yaml_value *item)
{
	if (parent->n == parent->cap) {
		size_t cap = parent->cap ? parent->cap * 2 : 8;
		struct yaml_value **p = reallocarray(parent->items, cap, sizeof(void *));

		if (!p)
			return -ENOMEM;
		parent->items = p;
		if (parent->kind == YAML_MAPPING) {
			p = reallocarray(parent->keys, cap, sizeof(void *));
			if (!p)
				return -ENOMEM;
			parent->keys = p;
		}
		parent->cap = cap;
	}
	if (key)
		parent->keys[parent->n] = key;
	parent->items[parent->n++] = item;
	return 0;
}

/* Takes v as the next key, item or value of the innermost open collection, or as the root. */
static int builder_put(struct builder *b, struct yaml_value *v, const yaml_event_t *ev,
		       struct err *e)
{
	struct yaml_value *parent = b->depth ? b->open[b->depth - 1] : NULL;
	struct yaml_value **key = b->depth ? &b->key[b->depth - 1] : NULL;

	if (!parent) {
		b->doc->root = v;
		return 0;
	}
	if (parent->n >= YAML_ITEMS_MAX)
		return error_event(b, ev, e, "too many items");
	if (parent->kind == YAML_MAPPING && !*key) {
		if (v->kind != YAML_SCALAR || !v->text[0])
			return error_event(b, ev, e, "a key must be text");
		if (yaml_find(parent, v->text))
			return yaml_error(v, e, "duplicate key \"%s\"", v->text);
		*key = v;
		return 0;
	}
	if (value_add(parent, *key, v) < 0)
		return out_of_memory(b, e);
	*key = NULL;
	return 0;
}

static int on_scalar(struct builder *b, const yaml_event_t *ev, struct err *e)
{
	struct yaml_value *v;
	size_t len = ev->data.scalar.length;

	if (memchr(ev->data.scalar.value, '\0', len))
		return error_event(b, ev, e, "text must not hold NUL");
	v = value_new(b->doc, YAML_SCALAR, ev->start_mark.line, ev->start_mark.column);
	if (!v)
		return out_of_memory(b, e);
	v->plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	v->text = strndup((const char *)ev->data.scalar.value, len);
	if (!v->text)
		return out_of_memory(b, e);
	return builder_put(b, v, ev, e);
}

static int on_open(struct builder *b, const yaml_event_t *ev, enum yaml_kind kind, struct err *e)
{
	struct yaml_value *v;
	int r;

	if (b->depth == YAML_DEPTH_MAX)
		return error_event(b, ev, e, "nested too deeply");
	v = value_new(b->doc, kind, ev->start_mark.line, ev->start_mark.column);
	if (!v)
		return out_of_memory(b, e);
	r = builder_put(b, v, ev, e);
	if (r < 0)
		return r;
	b->open[b->depth] = v;
	b->key[b->depth] = NULL;
	b->depth++;
	return 0;
}

/* Tags and anchors may stand on a scalar, a sequence or a mapping. */
static bool has_anchor(const yaml_event_t *ev)
{
	return (ev->type == YAML_SCALAR_EVENT && ev->data.scalar.anchor) ||
	       (ev->type == YAML_SEQUENCE_START_EVENT && ev->data.sequence_start.anchor) ||
	       (ev->type == YAML_MAPPING_START_EVENT && ev->data.mapping_start.anchor) ||
	       ev->type == YAML_ALIAS_EVENT;
}

static bool has_tag(const yaml_event_t *ev)
{
	return (ev->type == YAML_SCALAR_EVENT && ev->data.scalar.tag) ||
	       (ev->type == YAML_SEQUENCE_START_EVENT && ev->data.sequence_start.tag) ||
	       (ev->type == YAML_MAPPING_START_EVENT && ev->data.mapping_start.tag);
}

static int on_document(struct builder *b, const yaml_event_t *ev, struct err *e)
{
	if (b->doc->root)
		return error_event(b, ev, e, "a second document is not allowed");
	if (ev->data.document_start.version_directive ||
	    ev->data.document_start.tag_directives.start !=
		    ev->data.document_start.tag_directives.end)
		return error_event(b, ev, e, "directives are not allowed");
	return 0;
}

static int builder_event(struct builder *b, const yaml_event_t *ev, struct err *e)
{
	if (has_anchor(ev))
		return error_event(b, ev, e, "anchors and aliases are not allowed");
	if (has_tag(ev))
		return error_event(b, ev, e, "tags are not allowed");
	switch (ev->type) {
	case YAML_DOCUMENT_START_EVENT:
		return on_document(b, ev, e);
	case YAML_SCALAR_EVENT:
		return on_scalar(b, ev, e);
	case YAML_SEQUENCE_START_EVENT:
		return on_open(b, ev, YAML_SEQUENCE, e);
	case YAML_MAPPING_START_EVENT:
		return on_open(b, ev, YAML_MAPPING, e);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		b->depth--;
		return 0;
	case YAML_STREAM_END_EVENT:
		b->ended = true;
		return 0;
	default:
		return 0;
	}
}

static int parse_all(struct builder *b, yaml_parser_t *parser, struct err *e)
{
	while (!b->ended) {
		yaml_event_t ev;
		int r;

		if (!yaml_parser_parse(parser, &ev)) {
			if (parser->error == YAML_MEMORY_ERROR)
				return out_of_memory(b, e);
			return error_at(b->doc->name, parser->problem_mark.line,
					parser->problem_mark.column, -EBADMSG, e,
					parser->problem ? parser->problem : "this is no YAML");
		}
		r = builder_event(b, &ev, e);
		yaml_event_delete(&ev);
		if (r < 0)
			return r;
	}
	return 0;
}

int yaml_doc_load(const char *name, const void *text, size_t len, struct yaml_doc **ret_doc,
		  struct err *e)
{
	AUTO(yaml_doc_free) struct yaml_doc *d = calloc(1, sizeof *d);
	struct builder b = {.doc = d};
	yaml_parser_t parser;
	int r;

	if (!d || !(d->name = strdup(name)) || !yaml_parser_initialize(&parser))
		return err_errno(e, -ENOMEM, "could not read \"%s\"", name);
	/* Without this a byte order mark would choose another encoding than the rest of us read. */
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, text, len);
	r = parse_all(&b, &parser, e);
	yaml_parser_delete(&parser);
	if (r < 0)
		return r;
	if (!d->root && !(d->root = value_new(d, YAML_MAPPING, 0, 0)))
		return out_of_memory(&b, e);
	/* A file of comments and "---" alone has one empty plain scalar. */
	if (d->root->kind == YAML_SCALAR && d->root->plain && !d->root->text[0])
		d->root->kind = YAML_MAPPING;
	*ret_doc = TAKE_PTR(d);
	return 0;
}

int yaml_doc_load_file(const char *path, size_t max, struct yaml_doc **ret_doc, struct err *e)
{
	struct buf b;
	int r;

	buf_init(&b, max);
	r = fs_read_file(AT_FDCWD, path, &b, e);
	if (r == -ENOBUFS)
		r = -E2BIG;
	if (r >= 0)
		r = yaml_doc_load(path, b.data, b.len, ret_doc, e);
	buf_fini(&b);
	return r;
}

void yaml_doc_free(struct yaml_doc *d)
{
	if (!d)
		return;
	while (d->all) {
		struct yaml_value *v = d->all;

		d->all = v->allocated;
		free(v->text);
		free(v->keys);
		free(v->items);
		free(v);
	}
	free(d->name);
	free(d);
}

const struct yaml_value *yaml_doc_root(const struct yaml_doc *d)
{
	return d->root;
}

enum yaml_kind yaml_kind(const struct yaml_value *v)
{
	return v->kind;
}

size_t yaml_count(const struct yaml_value *v)
{
	return v->n;
}

const struct yaml_value *yaml_item(const struct yaml_value *v, size_t i)
{
	return v->items[i];
}

const char *yaml_key(const struct yaml_value *v, size_t i)
{
	return v->keys[i]->text;
}

const struct yaml_value *yaml_key_value(const struct yaml_value *v, size_t i)
{
	return v->keys[i];
}

const struct yaml_value *yaml_find(const struct yaml_value *mapping, const char *key)
{
	for (size_t i = 0; mapping->kind == YAML_MAPPING && i < mapping->n; i++) {
		if (str_eq(mapping->keys[i]->text, key))
			return mapping->items[i];
	}
	return NULL;
}

unsigned yaml_line(const struct yaml_value *v)
{
	return v->line;
}

unsigned yaml_column(const struct yaml_value *v)
{
	return v->column;
}

int yaml_error(const struct yaml_value *v, struct err *e, const char *fmt, ...)
{
	char message[ERR_MSG_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	return err_set(e, -EINVAL, "%s:%u:%u: %s", v->doc->name, v->line, v->column, message);
}

int yaml_expect(const struct yaml_value *v, enum yaml_kind kind, struct err *e)
{
	static const char *const words[] = {"a single value", "a list", "a mapping"};

	if (v->kind == kind)
		return 0;
	return yaml_error(v, e, "expected %s, found %s", words[kind], words[v->kind]);
}

int yaml_unknown_key(const struct yaml_value *v, size_t i, const char *const *known, size_t n,
		     struct err *e)
{
	const struct yaml_value *key = v->keys[i];
	const char *near = str_nearest(key->text, known, n);

	if (near)
		return yaml_error(key, e, "unknown key \"%s\" (did you mean \"%s\"?)", key->text,
				  near);
	return yaml_error(key, e, "unknown key \"%s\"", key->text);
}

int yaml_check_keys(const struct yaml_value *v, const char *const *known, size_t n, struct err *e)
{
	int r = yaml_expect(v, YAML_MAPPING, e);

	for (size_t i = 0; r >= 0 && i < v->n; i++) {
		size_t k = 0;

		while (k < n && !str_eq(v->keys[i]->text, known[k]))
			k++;
		if (k == n)
			return yaml_unknown_key(v, i, known, n, e);
	}
	return r;
}

int yaml_as_text(const struct yaml_value *v, const char **ret_text, struct err *e)
{
	int r = yaml_expect(v, YAML_SCALAR, e);

	if (r < 0)
		return r;
	if (v->plain && (!v->text[0] || str_eq(v->text, "~") || str_eq(v->text, "null")))
		return yaml_error(v, e, "a value is missing here (\"\" is the empty text)");
	*ret_text = v->text;
	return 0;
}

int yaml_as_plain(const struct yaml_value *v, const char **ret_text, struct err *e)
{
	int r = yaml_as_text(v, ret_text, e);

	if (r >= 0 && !v->plain)
		return yaml_error(v, e, "expected a value without quotes");
	return r;
}

int yaml_as_bool(const struct yaml_value *v, bool *ret_value, struct err *e)
{
	const char *text = NULL;
	int r = yaml_as_plain(v, &text, e);

	if (r < 0)
		return r;
	if (!str_eq(text, "true") && !str_eq(text, "false"))
		return yaml_error(v, e, "expected true or false, found \"%s\"", text);
	*ret_value = str_eq(text, "true");
	return 0;
}

int yaml_as_int(const struct yaml_value *v, int64_t min, int64_t max, int64_t *ret_value,
		struct err *e)
{
	const char *text = NULL;
	int r = yaml_as_plain(v, &text, e);

	if (r < 0)
		return r;
	if (str_to_i64(text, min, max, ret_value) < 0)
		return yaml_error(v, e, "expected a number from %lld to %lld, found \"%s\"",
				  (long long)min, (long long)max, text);
	return 0;
}

int yaml_as_texts(const struct yaml_value *v, char ***ret_texts, struct err *e)
{
	char **texts;
	int r = yaml_expect(v, YAML_SEQUENCE, e);

	if (r < 0)
		return r;
	texts = calloc(v->n + 1, sizeof *texts);
	if (!texts)
		return err_errno(e, -ENOMEM, "could not read \"%s\"", v->doc->name);
	for (size_t i = 0; i < v->n; i++) {
		const char *text = NULL;

		r = yaml_as_text(v->items[i], &text, e);
		if (r >= 0 && !(texts[i] = strdup(text)))
			r = err_errno(e, -ENOMEM, "could not read \"%s\"", v->doc->name);
		if (r < 0) {
			yaml_texts_free(texts);
			return r;
		}
	}
	*ret_texts = texts;
	return 0;
}

void yaml_texts_free(char **texts)
{
	for (size_t i = 0; texts && texts[i]; i++)
		free(texts[i]);
	free(texts);
}
