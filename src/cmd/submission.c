/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/submission.h"

#include "base/fs.h"
#include "base/str.h"
#include "base/uuid7.h"
#include "json/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { CONTENT_MAX = 64 * 1024 * 1024, PATH_TEXT_MAX = 64 };

static int out_of_memory(struct err *e)
{
	return err_errno(e, -ENOMEM, "could not make the submission");
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int read_content(const char *path, struct buf *b, struct err *e)
{
	int r;

	if (!str_eq(path, "-"))
		return fs_read_file(AT_FDCWD, path, b, e);
	r = fs_read_fd(STDIN_FILENO, b);
	return r < 0 ? err_errno(e, r, "could not read the standard input") : 0;
}

int submission_set_bytes(json_t *object, const char *name, const char *encoding_name,
			 const void *bytes, size_t len)
{
	AUTO_FREE char *text = NULL;
	size_t text_len = base64_encoded_len(len);

	if (utf8_valid(bytes, len) && !memchr(bytes, '\0', len))
		return json_object_set_new(object, name, json_stringn(bytes, len));
	text = malloc(text_len + 1);
	if (!text)
		return -1;
	base64_encode(bytes, len, text);
	return json_object_set_new(object, encoding_name, json_string("base64")) |
	       json_object_set_new(object, name, json_stringn(text, text_len));
}

static int set_file(json_t *object, const char *path, const char *name, const char *encoding,
		    struct err *e)
{
	struct buf b;
	int r;

	buf_init(&b, CONTENT_MAX);
	r = read_content(path, &b, e);
	if (r >= 0 && submission_set_bytes(object, name, encoding, b.data, b.len) < 0)
		r = out_of_memory(e);
	buf_fini(&b);
	return r;
}

static int add_file(json_t *files, const char *name, const char *path, struct err *e)
{
	json_t *file = json_object();

	if (!file || json_array_append_new(files, file) < 0 ||
	    json_object_set_new(file, "name", json_string(name)) < 0)
		return out_of_memory(e);
	return set_file(file, path, "content", "encoding", e);
}

static int add_further_file(json_t *files, const char *given, struct err *e)
{
	AUTO_FREE char *name = NULL;
	const char *equals = strchr(given, '=');
	const char *path = equals ? equals + 1 : given;

	name = equals ? strndup(given, (size_t)(equals - given)) : strdup(base_name(given));
	return name ? add_file(files, name, path, e) : out_of_memory(e);
}

/* ---- limits ---- */

static int set_limit(json_t *limits, const char *option, const char *name, const char *text,
		     struct err *e)
{
	uint64_t bytes = 0;
	int64_t value = 0;
	int r;

	if (!text)
		return 0;
	if (strstr(name, "_ms")) {
		r = str_to_ms(text, &value);
	} else if (strstr(name, "_bytes")) {
		r = str_to_bytes(text, &bytes);
		value = (int64_t)bytes;
	} else {
		r = str_to_i64(text, 1, INT32_MAX, &value);
	}
	/* Elsewhere a bare number is milliseconds; a person who types 5 means seconds. */
	if (r >= 0 && strstr(name, "_ms") && !text[strspn(text, "0123456789")])
		return err_set(e, -EINVAL, "--%s %s needs a unit: --%s %sms or --%s %ss", option,
			       text, option, text, option, text);
	if (r < 0)
		return err_set(e, -EINVAL, "\"%s\" is no value for --%s (like 500ms, 5s, 64MiB)",
			       text, option);
	return json_object_set_new(limits, name, json_integer(value)) < 0 ? out_of_memory(e) : 0;
}

static int set_limits(json_t *body, const struct submission *s, struct err *e)
{
	json_t *limits = json_object();
	int r;

	if (!limits || json_object_set_new(body, "limits", limits) < 0)
		return out_of_memory(e);
	r = set_limit(limits, "cpu", "cpu_ms", s->cpu, e);
	if (r >= 0)
		r = set_limit(limits, "wall", "wall_ms", s->wall, e);
	if (r >= 0)
		r = set_limit(limits, "memory", "memory_bytes", s->memory, e);
	if (r >= 0)
		r = set_limit(limits, "processes", "processes", s->processes, e);
	if (r >= 0)
		r = set_limit(limits, "output", "output_bytes", s->output, e);
	if (r >= 0)
		r = set_limit(body, "deadline", "deadline_ms", s->deadline, e);
	if (r >= 0 && s->priority &&
	    json_object_set_new(body, "priority", json_string(s->priority)) < 0)
		r = out_of_memory(e);
	return r;
}

/* ---- the language ---- */

static bool has_word(const json_t *list, const char *word)
{
	size_t i;
	const json_t *item;

	json_array_foreach(list, i, item)
	{
		if (json_is_string(item) && str_eq(json_string_value(item), word))
			return true;
	}
	return false;
}

static bool has_name(const json_t *language, const char *name)
{
	const char *its = json_string_value(json_object_get(language, "name"));

	return (its && str_eq(its, name)) || has_word(json_object_get(language, "aliases"), name);
}

/* The server's language for a file: by the name that was given, else by extension. *ret_by_name is
 * NULL where the file's name does not fit the language: it is sent under the usual name then. */
static int choose_language(const struct submission *s, struct client *c, const char *path,
			   char **ret_name, bool *ret_extension_fits, struct err *e)
{
	AUTO(json_cleanup) json_t *answer = NULL;
	const char *extension = strrchr(base_name(path), '.');
	const char *found = s->language;
	const json_t *languages, *l;
	size_t i;
	int r;

	if (!s->language && (!extension || extension == base_name(path)))
		return err_set(e, -EINVAL,
			       "cannot tell the language of \"%s\" without an extension: name it "
			       "with --language",
			       path);
	r = client_json(c, "GET", "/languages", NULL, NULL, &answer, NULL, e);
	if (r < 0)
		return r;
	*ret_extension_fits = false;
	languages = json_object_get(answer, "languages");
	json_array_foreach(languages, i, l)
	{
		bool fits = extension && has_word(json_object_get(l, "extensions"), extension);

		if (!s->language && fits)
			found = json_string_value(json_object_get(l, "name"));
		if (fits && found && has_name(l, found))
			*ret_extension_fits = true;
	}
	if (!found)
		return err_set(e, -EINVAL,
			       "no language of the server has the extension \"%s\": name one with "
			       "--language (`kiln languages` lists them)",
			       extension);
	*ret_name = strdup(found);
	return *ret_name ? 0 : out_of_memory(e);
}

/* ---- the whole ---- */

static int set_program(json_t *body, const struct submission *s, const char *path,
		       bool extension_fits, struct err *e)
{
	json_t *files = json_array();
	int r = 0;

	if (!files || json_object_set_new(body, "files", files) < 0)
		return out_of_memory(e);
	if (extension_fits) {
		if (json_object_set_new(body, "entry", json_string(base_name(path))) < 0)
			return out_of_memory(e);
		r = add_file(files, base_name(path), path, e);
	} else {
		r = set_file(body, path, "code", "code_encoding", e);
	}
	for (size_t i = 0; r >= 0 && i < s->files.n; i++)
		r = add_further_file(files, s->files.items[i], e);
	if (r >= 0 && !json_array_size(files))
		(void)json_object_del(body, "files");
	return r;
}

static int set_input(json_t *body, const struct submission *s, const char *path, char *const *args,
		     size_t n_args, struct err *e)
{
	json_t *list = json_array();

	if (!list || json_object_set_new(body, "args", list) < 0)
		return out_of_memory(e);
	for (size_t i = 0; i < n_args; i++) {
		json_t *arg = json_string(args[i]);

		if (!arg)
			return err_set(e, -EINVAL, "argument %zu is not UTF-8", i + 1);
		if (json_array_append_new(list, arg) < 0)
			return out_of_memory(e);
	}
	if (s->stdin_path)
		return set_file(body, s->stdin_path, "stdin", "stdin_encoding", e);
	if (s->stdin_passed && !str_eq(path, "-"))
		return set_file(body, "-", "stdin", "stdin_encoding", e);
	return 0;
}

int submission_make(const struct submission *s, struct client *c, const char *path,
		    char *const *args, size_t n_args, char **ret_json, struct err *e)
{
	AUTO(json_cleanup) json_t *body = json_object();
	AUTO_FREE char *language = NULL;
	bool extension_fits = false;
	int r;

	/* Before the server is asked: a file that is not there is the nearer mistake. */
	if (!str_eq(path, "-") && access(path, R_OK) < 0)
		return err_errno(e, -errno, "could not open \"%s\"", path);
	r = choose_language(s, c, path, &language, &extension_fits, e);
	if (r < 0)
		return r;
	if (!body || json_object_set_new(body, "language", json_string(language)) < 0)
		return out_of_memory(e);
	r = set_program(body, s, path, extension_fits, e);
	if (r >= 0)
		r = set_limits(body, s, e);
	if (r >= 0)
		r = set_input(body, s, path, args, n_args, e);
	if (r < 0)
		return r;
	*ret_json = json_dumps(body, JSON_COMPACT);
	return *ret_json ? 0 : out_of_memory(e);
}

int submission_send(struct client *c, const char *json, int wait_s, json_t **ret_task,
		    struct buf *ret_text, struct err *e)
{
	char path[PATH_TEXT_MAX], key[UUID_TEXT_MAX];
	struct uuid id;

	/* So that a try after a cut connection does not run the program twice. */
	uuid7_new(&id);
	uuid_format(&id, key);
	(void)snprintf(path, sizeof path, "/submit?wait=%d", wait_s);
	return client_json(c, "POST", wait_s ? path : "/submit", json, key, ret_task, ret_text, e);
}
