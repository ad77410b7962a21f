/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as JSON, and any bytes as text that is written as JSON: no crash, bounds are kept, and
 * what the writer writes is read back as it was. */
#include "base/buf.h"
#include "base/str.h"
#include "json/reader.h"
#include "json/writer.h"

#include <assert.h>
#include <string.h>

enum { INPUT_MAX = 64 * 1024 };

static const struct json_bounds bounds = {.depth = 6, .values = 500};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t depth_of(json_t *v)
{
	size_t deepest = 0, i;
	const char *name;
	json_t *member;

	json_object_foreach(v, name, member) deepest =
		depth_of(member) > deepest ? depth_of(member) : deepest;
	json_array_foreach(v, i, member) deepest =
		depth_of(member) > deepest ? depth_of(member) : deepest;
	return deepest + (json_is_object(v) || json_is_array(v));
}

static void read_any(const char *text, size_t len)
{
	static const struct json_field fields[] = {
		{.name = "a", .kind = JSON_KIND_INT, .min = -5, .max = 5},
		{.name = "b", .kind = JSON_KIND_TEXT, .offset = 8, .min = 1, .max = 8},
	};
	static const struct json_at root;
	struct {
		int64_t number;
		struct json_text text;
	} target = {0};
	AUTO(json_cleanup) json_t *v = NULL;
	struct json_reader r = {.path = ""};
	struct err e = {""};

	if (json_decode(text, len, &bounds, &v, &e) < 0) {
		assert(e.msg[0]);
		return;
	}
	assert(depth_of(v) <= bounds.depth);
	if (json_read_object(&r, &root, v, fields, 2, &target) < 0)
		assert(r.err.msg[0]);
	else
		assert(target.number >= -5 && target.number <= 5 && target.text.len <= 8);
}

static void write_any(const char *bytes, size_t len)
{
	struct json_writer w;
	struct buf b;
	json_t *back;

	buf_init(&b, 8 * INPUT_MAX);
	json_writer_init(&w, &b);
	if (json_write_bytes(&w, bytes, len) < 0) {
		assert(!utf8_valid(bytes, len) && !b.len);
		json_write_base64(&w, bytes, len);
		assert(utf8_valid(b.data, b.len));
	} else {
		back = json_loadb(b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		assert(back && json_string_length(back) == len);
		assert(memcmp(json_string_value(back), bytes, len) == 0);
		json_decref(back);
	}
	buf_clear(&b);
	json_writer_init(&w, &b);
	json_write_text(&w, bytes);
	back = json_loadb(b.data, b.len, JSON_DECODE_ANY, NULL);
	assert(back);
	json_decref(back);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = NULL;

	if (size > INPUT_MAX)
		return 0;
	text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	read_any(text, size);
	write_any(text, size);
	return 0;
}
