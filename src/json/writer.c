/* SPDX-License-Identifier: Apache-2.0 */
#include "json/writer.h"

#include "base/str.h"

#include <errno.h>
#include <string.h>

void json_writer_init(struct json_writer *w, struct buf *out)
{
	*w = (struct json_writer){.out = out};
}

static void separate(struct json_writer *w)
{
	if (w->comma)
		(void)buf_append_char(w->out, ',');
	w->comma = true;
}

void json_write_begin_object(struct json_writer *w)
{
	separate(w);
	(void)buf_append_char(w->out, '{');
	w->comma = false;
}

void json_write_end_object(struct json_writer *w)
{
	(void)buf_append_char(w->out, '}');
	w->comma = true;
}

void json_write_begin_array(struct json_writer *w)
{
	separate(w);
	(void)buf_append_char(w->out, '[');
	w->comma = false;
}

void json_write_end_array(struct json_writer *w)
{
	(void)buf_append_char(w->out, ']');
	w->comma = true;
}

void json_write_name(struct json_writer *w, const char *name)
{
	separate(w);
	(void)buf_append_char(w->out, '"');
	(void)buf_append_str(w->out, name);
	(void)buf_append(w->out, "\":", 2);
	w->comma = false;
}

void json_write_null(struct json_writer *w)
{
	separate(w);
	(void)buf_append(w->out, "null", 4);
}

void json_write_bool(struct json_writer *w, bool value)
{
	separate(w);
	(void)buf_append_str(w->out, value ? "true" : "false");
}

void json_write_int(struct json_writer *w, int64_t value)
{
	uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
	char digits[24], *p = digits + sizeof digits;

	separate(w);
	do {
		*--p = (char)('0' + magnitude % 10);
		magnitude /= 10;
	} while (magnitude);
	if (value < 0)
		*--p = '-';
	(void)buf_append(w->out, p, (size_t)(digits + sizeof digits - p));
}

/* Bytes below 0x20, the quote and the backslash are what RFC 8259 wants escaped. */
static bool needs_escape(unsigned char c)
{
	return c < 0x20 || c == '"' || c == '\\';
}

static void put_escape(struct buf *out, unsigned char c)
{
	static const char shorts[] = {
		['"'] = '"',  ['\\'] = '\\', ['\b'] = 'b', ['\f'] = 'f',
		['\n'] = 'n', ['\r'] = 'r',  ['\t'] = 't',
	};
	char text[6] = {
		'\\', 'u', '0', '0', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15]};

	if (c < sizeof shorts && shorts[c]) {
		text[1] = shorts[c];
		(void)buf_append(out, text, 2);
		return;
	}
	(void)buf_append(out, text, sizeof text);
}

static void put_escaped(struct buf *out, const char *text, size_t len)
{
	const char *run = text, *end = text + len;

	for (const char *p = text; p < end; p++) {
		if (!needs_escape((unsigned char)*p))
			continue;
		(void)buf_append(out, run, (size_t)(p - run));
		put_escape(out, (unsigned char)*p);
		run = p + 1;
	}
	(void)buf_append(out, run, (size_t)(end - run));
}

/* Length of the UTF-8 sequence at p, 0 where there is none. */
static size_t sequence_at(const char *p, size_t len)
{
	for (size_t n = 1; n <= 4 && n <= len; n++)
		if (utf8_valid(p, n))
			return n;
	return 0;
}

static void put_repaired(struct buf *out, const char *text, size_t len)
{
	while (len) {
		size_t n = sequence_at(text, len);

		if (n)
			put_escaped(out, text, n);
		else
			(void)buf_append(out, "\xef\xbf\xbd", 3);
		n += !n;
		text += n;
		len -= n;
	}
}

void json_write_text(struct json_writer *w, const char *text)
{
	size_t len;

	if (!text) {
		json_write_null(w);
		return;
	}
	separate(w);
	len = strlen(text);
	(void)buf_append_char(w->out, '"');
	if (utf8_valid(text, len))
		put_escaped(w->out, text, len);
	else
		put_repaired(w->out, text, len);
	(void)buf_append_char(w->out, '"');
}

int json_write_bytes(struct json_writer *w, const void *bytes, size_t len)
{
	if (!utf8_valid(bytes, len))
		return -EILSEQ;
	separate(w);
	(void)buf_reserve(w->out, len + 2);
	(void)buf_append_char(w->out, '"');
	put_escaped(w->out, bytes, len);
	(void)buf_append_char(w->out, '"');
	return 0;
}

void json_write_base64(struct json_writer *w, const void *bytes, size_t len)
{
	size_t encoded = base64_encoded_len(len);

	separate(w);
	if (buf_reserve(w->out, encoded + 2) < 0)
		return;
	(void)buf_append_char(w->out, '"');
	base64_encode(bytes, len, w->out->data + w->out->len);
	w->out->len += encoded;
	(void)buf_append_char(w->out, '"');
}

void json_write_null_field(struct json_writer *w, const char *name)
{
	json_write_name(w, name);
	json_write_null(w);
}

void json_write_bool_field(struct json_writer *w, const char *name, bool value)
{
	json_write_name(w, name);
	json_write_bool(w, value);
}

void json_write_int_field(struct json_writer *w, const char *name, int64_t value)
{
	json_write_name(w, name);
	json_write_int(w, value);
}

void json_write_text_field(struct json_writer *w, const char *name, const char *text)
{
	json_write_name(w, name);
	json_write_text(w, text);
}
