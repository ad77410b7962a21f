/* SPDX-License-Identifier: Apache-2.0 */
#include "api/request.h"

#include "base/str.h"
#include "base/uuid7.h"
#include "json/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	DEPTH_MAX = 8,
	VALUES_MAX = 16 * 1024,
	/* What the kernel takes for one argument, and what it takes surely for all together. */
	ARG_BYTES_MAX = 128 * 1024 - 1,
	ARGS_BYTES_MAX = 1024 * 1024,
	ENCODING_MAX = 16,
	CLASS_MAX = 16,
	IDEMPOTENCY_KEY_MAX = 255,
};

#define DEADLINE_MS_MAX (INT64_C(7) * 24 * 3600 * 1000)

/* Contents as they came: still in the tree, or decoded. */
struct content {
	struct json_text text;
	struct json_text encoding;
	struct bytes decoded;
};

struct file {
	struct json_text name;
	struct content content;
};

struct request {
	json_t *tree;
	struct json_text language;
	struct json_text entry;
	struct json_text priority;
	struct content code;
	struct content stdin_data;
	struct json_text args[TASK_ARGS_MAX];
	size_t n_args, args_bytes;
	struct file *files;
	size_t n_files;
	bool has_files;
	struct task_limits limits;
	int64_t deadline_ms;
	enum task_class class;
	bool standby; /* may run in an interpreter that was started beforehand */
};

void request_free(struct request *q)
{
	if (!q)
		return;
	json_decref(q->tree);
	bytes_fini(&q->code.decoded);
	bytes_fini(&q->stdin_data.decoded);
	for (size_t i = 0; i < q->n_files; i++)
		bytes_fini(&q->files[i].content.decoded);
	free(q->files);
	free(q);
}

/* ---- fields ---- */

#define TEXT_FIELD(where, field, low, high)                                                        \
	.kind = JSON_KIND_TEXT, .offset = offsetof(where, field), .min = (low), .max = (high)

#define CONTENT_FIELD(where, field, low)                                                           \
	.kind = JSON_KIND_CONTENT, .offset = offsetof(where, field), .min = (low), .max = INT64_MAX

/* A name of a file in the work directory: flat, and nothing that a shell or a terminal would
 * stumble over unseen. */
static int check_file_name(struct json_reader *r, const struct json_at *at, const char *field,
			   const struct json_text *name)
{
	if (str_eq(name->data, ".") || str_eq(name->data, ".."))
		return json_refuse_field(r, at, field, -EINVAL, "must not be \".\" or \"..\"");
	for (size_t i = 0; i < name->len; i++) {
		unsigned char c = (unsigned char)name->data[i];

		if (c == '/')
			return json_refuse_field(r, at, field, -EINVAL,
						 "must be a plain name without \"/\"");
		if (c < 0x20 || c == 0x7f)
			return json_refuse_field(r, at, field, -EINVAL,
						 "must not contain control characters");
	}
	if (name->len > TASK_FILE_NAME_MAX)
		return json_refuse_field(r, at, field, -EDOM, "must have at most %d bytes",
					 TASK_FILE_NAME_MAX);
	return 0;
}

static int read_arg(struct json_reader *r, const struct json_at *at, const json_t *v, void *target)
{
	struct request *q = target;
	struct json_text arg = {0};
	int code;

	code = json_read_text(r, at, v, 0, ARG_BYTES_MAX, &arg);
	if (code < 0)
		return code;
	q->args_bytes += arg.len + 1;
	if (q->args_bytes > ARGS_BYTES_MAX)
		return json_refuse(r, at, -EINVAL, "makes the arguments longer than %d bytes",
				   ARGS_BYTES_MAX);
	q->args[q->n_args++] = arg;
	return 0;
}

static int read_args(struct json_reader *r, const struct json_at *at, const json_t *v, void *target)
{
	if (json_is_array(v) && json_array_size(v) > TASK_ARGS_MAX)
		return json_refuse(r, at, -EFBIG, "are %zu, at most %d are taken",
				   json_array_size(v), TASK_ARGS_MAX);
	return json_read_array(r, at, v, read_arg, target);
}

static int read_file(struct json_reader *r, const struct json_at *at, const json_t *v, void *target)
{
	static const struct json_field fields[] = {
		{.name = "name", .required = true, TEXT_FIELD(struct file, name, 1, INT64_MAX)},
		{.name = "content", .required = true, CONTENT_FIELD(struct file, content.text, 0)},
		{.name = "encoding", TEXT_FIELD(struct file, content.encoding, 1, ENCODING_MAX)},
	};
	struct request *q = target;
	struct file *file = &q->files[q->n_files];
	int code;

	code = json_read_object(r, at, v, fields, ARRAY_SIZE(fields), file);
	if (code < 0)
		return code;
	code = check_file_name(r, at, "name", &file->name);
	if (code < 0)
		return code;
	for (size_t i = 0; i < q->n_files; i++)
		if (str_eq(q->files[i].name.data, file->name.data))
			return json_refuse_field(r, at, "name", -EDOM,
						 "is the name of an earlier file");
	q->n_files++;
	return 0;
}

static int read_files(struct json_reader *r, const struct json_at *at, const json_t *v,
		      void *target)
{
	struct request *q = target;

	if (json_is_array(v) && json_array_size(v) > TASK_FILES_MAX)
		return json_refuse(r, at, -EFBIG, "are %zu, at most %d are taken",
				   json_array_size(v), TASK_FILES_MAX);
	q->has_files = true;
	q->files = calloc(TASK_FILES_MAX, sizeof *q->files);
	if (!q->files)
		return json_refuse(r, at, -ENOMEM, "could not be read");
	return json_read_array(r, at, v, read_file, q);
}

#define LIMIT_FIELD(field, low)                                                                    \
	{                                                                                          \
		.name = #field, .kind = JSON_KIND_INT,                                             \
		.offset = offsetof(struct task_limits, field), .min = (low), .max = INT64_MAX      \
	}

static int read_limits(struct json_reader *r, const struct json_at *at, const json_t *v,
		       void *target)
{
	/* Below these no program could start, and the verdict would say nothing about it. */
	static const struct json_field fields[] = {
		LIMIT_FIELD(cpu_ms, 1),
		LIMIT_FIELD(wall_ms, 1),
		LIMIT_FIELD(memory_bytes, 4 * 1024 * 1024),
		LIMIT_FIELD(processes, 1),
		LIMIT_FIELD(output_bytes, 1),
		LIMIT_FIELD(disk_bytes, 4096),
		LIMIT_FIELD(file_bytes, 1),
		LIMIT_FIELD(open_files, 16),
		LIMIT_FIELD(stack_bytes, 64 * 1024),
	};
	struct request *q = target;

	return json_read_object(r, at, v, fields, ARRAY_SIZE(fields), &q->limits);
}

static const struct json_field fields[] = {
	{.name = "language", .required = true, TEXT_FIELD(struct request, language, 0, INT64_MAX)},
	{.name = "code", CONTENT_FIELD(struct request, code.text, 1)},
	{.name = "code_encoding", TEXT_FIELD(struct request, code.encoding, 1, ENCODING_MAX)},
	{.name = "stdin", CONTENT_FIELD(struct request, stdin_data.text, 0)},
	{.name = "stdin_encoding",
	 TEXT_FIELD(struct request, stdin_data.encoding, 1, ENCODING_MAX)},
	{.name = "args", .kind = JSON_KIND_READ, .read = read_args},
	{.name = "files", .kind = JSON_KIND_READ, .read = read_files},
	{.name = "entry", TEXT_FIELD(struct request, entry, 1, INT64_MAX)},
	{.name = "limits", .kind = JSON_KIND_READ, .read = read_limits},
	{.name = "standby", .kind = JSON_KIND_BOOL, .offset = offsetof(struct request, standby)},
	{.name = "priority", TEXT_FIELD(struct request, priority, 1, CLASS_MAX)},
	{.name = "deadline_ms",
	 .kind = JSON_KIND_INT,
	 .offset = offsetof(struct request, deadline_ms),
	 .min = 1,
	 .max = DEADLINE_MS_MAX},
};

/* ---- what concerns several fields ---- */

static int decode_content(struct json_reader *r, const struct json_at *at, const char *name,
			  const char *encoding_name, struct content *c)
{
	AUTO_FREE char *data = NULL;
	size_t len = 0;

	if (c->encoding.data && !str_eq(c->encoding.data, "utf8") &&
	    !str_eq(c->encoding.data, "base64"))
		return json_refuse_field(r, at, encoding_name, -EINVAL,
					 "must be \"utf8\" or \"base64\"");
	if (!c->encoding.data || !c->text.data || str_eq(c->encoding.data, "utf8"))
		return 0;
	data = malloc(base64_decoded_max(c->text.len) + 1);
	if (!data)
		return json_refuse_field(r, at, name, -ENOMEM, "could not be read");
	if (base64_decode(c->text.data, c->text.len, data, &len) < 0)
		return json_refuse_field(r, at, name, -EDOM, "is not base64");
	data[len] = '\0';
	c->decoded = (struct bytes){.data = TAKE_PTR(data), .len = len};
	return 0;
}

static int decode_contents(struct json_reader *r, const struct json_at *root, struct request *q)
{
	struct json_at files = {.up = root, .name = "files"};
	int code = decode_content(r, root, "code", "code_encoding", &q->code);

	if (!code)
		code = decode_content(r, root, "stdin", "stdin_encoding", &q->stdin_data);
	for (size_t i = 0; i < q->n_files && !code; i++) {
		struct json_at file = {.up = &files, .index = i};

		code = decode_content(r, &file, "content", "encoding", &q->files[i].content);
	}
	return code;
}

static int check_whole(struct json_reader *r, const struct json_at *root, struct request *q)
{
	int code = q->entry.data ? check_file_name(r, root, "entry", &q->entry) : 0;

	if (code < 0)
		return code;
	if (!q->code.text.data && !q->n_files)
		return json_refuse_field(r, root, q->has_files ? "files" : "code", -EINVAL,
					 q->has_files ? "must not be empty where there is no code"
						      : "or files is required");
	if (q->priority.data && task_class_parse(q->priority.data, &q->class) < 0)
		return json_refuse_field(r, root, "priority", -EINVAL,
					 "must be \"high\", \"normal\" or \"low\"");
	return decode_contents(r, root, q);
}

static int refused(const struct json_reader *r, int code, struct problem *p)
{
	enum problem_kind kind = code == -EFBIG	   ? PROBLEM_TOO_MANY_ITEMS
				 : code == -EDOM   ? PROBLEM_INVALID_CONTENT
				 : code == -ENOMEM ? PROBLEM_OVERLOADED
						   : PROBLEM_INVALID_FIELD;

	(void)problem_set(p, kind, "%s", r->err.msg);
	if (code == -EFBIG)
		p->ceiling = str_eq(r->path, "args") ? TASK_ARGS_MAX : TASK_FILES_MAX;
	(void)str_copy(p->field, sizeof p->field, r->path);
	return code;
}

int request_read(const char *body, size_t len, struct request **ret_request, struct problem *p)
{
	static const struct json_bounds bounds = {.depth = DEPTH_MAX, .values = VALUES_MAX};
	static const struct json_at root;
	AUTO(request_free) struct request *q = calloc(1, sizeof *q);
	struct json_reader r = {.path = ""};
	struct err e;
	int code;

	if (!q)
		return problem_set(p, PROBLEM_OVERLOADED, "out of memory");
	task_limits_unset(&q->limits);
	q->class = TASK_CLASS_NORMAL;
	q->standby = true;
	code = json_decode(body, len, &bounds, &q->tree, &e);
	if (code < 0) {
		(void)problem_set(p,
				  code == -E2BIG    ? PROBLEM_BODY_TOO_LARGE
				  : code == -ENOMEM ? PROBLEM_OVERLOADED
						    : PROBLEM_INVALID_JSON,
				  "%s", e.msg);
		return code;
	}
	code = json_read_object(&r, &root, q->tree, fields, ARRAY_SIZE(fields), q);
	if (!code)
		code = check_whole(&r, &root, q);
	if (code < 0)
		return refused(&r, code, p);
	*ret_request = TAKE_PTR(q);
	return 0;
}

/* ---- against the registry ---- */

static int find_language(const struct request *q, const struct request_rules *rules,
			 const struct language **ret_language, struct problem *p)
{
	const struct language *l = language_find(rules->languages, q->language.data);

	if (!l) {
		(void)problem_set(p, PROBLEM_UNKNOWN_LANGUAGE,
				  "the language \"%.100s\" is not known", q->language.data);
		(void)str_copy(p->field, sizeof p->field, "language");
		(void)language_near(rules->languages, q->language.data, p->near, PROBLEM_NEAR_MAX);
		return -ENOENT;
	}
	if (!l->installed && rules->languages_known) {
		(void)problem_set(p, PROBLEM_LANGUAGE_NOT_INSTALLED, "%s is not installed",
				  l->title ? l->title : l->name);
		(void)str_copy(p->field, sizeof p->field, "language");
		if (l->install_debian)
			(void)snprintf(p->install, sizeof p->install, "apt-get install %s",
				       l->install_debian);
		return -ENOENT;
	}
	*ret_language = l;
	return 0;
}

/* What the client asks for must be below the ceiling; defaults are cut to it. */
static int settle_limits(struct task_limits *l, const struct task_limits *language,
			 const struct task_limits *defaults, const struct task_limits *ceilings,
			 struct problem *p)
{
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		const struct task_limit_field *f = &task_limit_fields[i];
		int64_t asked = task_limit_get(l, f), ceiling = task_limit_get(ceilings, f);
		char field[PROBLEM_FIELD_MAX];

		if (asked == TASK_LIMIT_UNSET || ceiling == TASK_LIMIT_UNSET || asked <= ceiling)
			continue;
		(void)problem_set(p, PROBLEM_ABOVE_CEILING,
				  "limits.%s is %" PRId64 ", at most %" PRId64 " is allowed",
				  f->name, asked, ceiling);
		p->ceiling = ceiling;
		(void)snprintf(field, sizeof field, "limits.%s", f->name);
		(void)str_copy(p->field, sizeof p->field, field);
		return -EDOM;
	}
	task_limits_default(l, language);
	task_limits_default(l, defaults);
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		const struct task_limit_field *f = &task_limit_fields[i];
		int64_t ceiling = task_limit_get(ceilings, f), *value = task_limit_at(l, f);

		if (ceiling != TASK_LIMIT_UNSET && *value > ceiling)
			*value = ceiling;
	}
	return 0;
}

static int take_content(struct content *c, struct bytes *dst)
{
	if (!c->decoded.data)
		return bytes_set(dst, c->text.data, c->text.len);
	*dst = c->decoded;
	c->decoded = (struct bytes){0};
	return 0;
}

static int add_file(struct task_program *program, const char *name, struct content *content)
{
	struct task_file *f = &program->files[program->n_files];
	int r;

	f->name = strdup(name);
	if (!f->name)
		return -ENOMEM;
	program->n_files++;
	r = take_content(content, &f->content);
	return r;
}

static int find_file(const struct request *q, const char *name)
{
	for (size_t i = 0; i < q->n_files; i++)
		if (str_eq(q->files[i].name.data, name))
			return (int)i;
	return -ENOENT;
}

/* With code, entry is the name that the code is given; without, it is one of the files. */
static int check_entry(const struct request *q, const char *entry, struct problem *p)
{
	int at = find_file(q, entry);

	if (q->code.text.data && at >= 0) {
		(void)problem_set(p, PROBLEM_INVALID_CONTENT,
				  "files[%d].name is \"%s\", the name that the code has", at,
				  entry);
		(void)snprintf(p->field, sizeof p->field, "files[%d].name", at);
		return -EINVAL;
	}
	if (!q->code.text.data && at < 0) {
		(void)problem_set(p, PROBLEM_UNKNOWN_ENTRY,
				  "there is no file \"%s\"; name the one to run in \"entry\"",
				  entry);
		(void)str_copy(p->field, sizeof p->field, "entry");
		return -ENOENT;
	}
	return 0;
}

static int fill_program(struct task_program *program, struct request *q, const struct language *l,
			const char *entry)
{
	int r = 0;

	program->language = strdup(l->name);
	program->entry = strdup(entry);
	program->files = calloc(q->n_files + 1, sizeof *program->files);
	if (!program->language || !program->entry || !program->files)
		return -ENOMEM;
	if (q->code.text.data)
		r = add_file(program, entry, &q->code);
	for (size_t i = 0; i < q->n_files && !r; i++)
		r = add_file(program, q->files[i].name.data, &q->files[i].content);
	return r;
}

static int fill_run(struct task_run *run, struct request *q)
{
	run->limits = q->limits;
	run->cold = !q->standby;
	run->args = calloc(q->n_args + 1, sizeof *run->args);
	if (!run->args)
		return -ENOMEM;
	for (size_t i = 0; i < q->n_args; i++) {
		run->args[i] = strdup(q->args[i].data);
		if (!run->args[i])
			return -ENOMEM;
		run->n_args++;
	}
	return q->stdin_data.text.len ? take_content(&q->stdin_data, &run->stdin_data) : 0;
}

static int fill_spec(struct task_spec *s, struct request *q, const struct language *l,
		     const char *entry, int64_t now_us)
{
	int r;

	uuid7_new(&s->id);
	s->class = q->class;
	s->created_us = now_us;
	s->deadline_us = q->deadline_ms ? now_us + q->deadline_ms * 1000 : 0;
	s->runs = calloc(1, sizeof *s->runs);
	if (!s->runs)
		return -ENOMEM;
	s->n_runs = 1;
	r = fill_program(&s->program, q, l, entry);
	return r < 0 ? r : fill_run(&s->runs[0], q);
}

int request_resolve(struct request *q, const struct request_rules *rules,
		    struct task_spec **ret_spec, struct problem *p)
{
	AUTO(task_spec_free) struct task_spec *s = NULL;
	struct task_limits compile;
	const struct language *l = NULL;
	const char *entry;
	int r;

	r = find_language(q, rules, &l, p);
	if (r < 0)
		return r;
	entry = q->entry.data ? q->entry.data : l->source;
	r = check_entry(q, entry, p);
	if (!r)
		r = settle_limits(&q->limits, &l->run.limits, rules->run_defaults,
				  rules->run_ceilings, p);
	task_limits_unset(&compile);
	if (!r)
		r = settle_limits(&compile, &l->compile.limits, rules->compile_defaults,
				  rules->compile_ceilings, p);
	if (r < 0)
		return r;
	s = calloc(1, sizeof *s);
	r = s ? fill_spec(s, q, l, entry, rules->now_us) : -ENOMEM;
	if (r < 0) {
		(void)problem_set(p, PROBLEM_OVERLOADED, "out of memory");
		return r;
	}
	s->program.compile_limits = compile;
	*ret_spec = TAKE_PTR(s);
	return 0;
}

/* ---- headers ---- */

bool request_idempotency_key_valid(const char *text)
{
	size_t len = strnlen(text, IDEMPOTENCY_KEY_MAX + 1);

	for (size_t i = 0; i < len; i++)
		if (text[i] <= 0x20 || text[i] >= 0x7f)
			return false;
	return len >= 1 && len <= IDEMPOTENCY_KEY_MAX;
}
