/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"
#include "base/traceparent.h"

#include <errno.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 8192 };

static const char *const level_names[_LOG_LEVEL_MAX] = {"debug", "info", "warn", "error"};

static enum log_level threshold = LOG_INFO;

void log_set_level(enum log_level level)
{
	threshold = level;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (int i = 0; i < _LOG_LEVEL_MAX; i++) {
		if (str_eq(text, level_names[i])) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Bytes above ASCII pass as they are where the whole is UTF-8 and become '?' otherwise. */
static void put_string(struct buf *b, const char *text)
{
	bool utf8 = utf8_valid(text, __builtin_strlen(text));

	(void)buf_append_char(b, '"');
	for (const char *p = text; *p; p++) {
		unsigned char c = (unsigned char)*p;

		if (c == '"' || c == '\\')
			(void)buf_printf(b, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			(void)buf_printf(b, "\\u%04x", c);
		else
			(void)buf_append_char(b, c < 0x80 || utf8 ? *p : '?');
	}
	(void)buf_append_char(b, '"');
}

static void put_trace(struct buf *b, const struct log_field *f)
{
	struct trace_context c;
	char text[2 * TRACE_ID_SIZE + 1];

	if (!f->text || !traceparent_read(f->text, __builtin_strlen(f->text), &c))
		return;
	hex_encode(c.trace, sizeof c.trace, text);
	(void)buf_printf(b, ",\"%s\":\"%s\"", f->key, text);
}

static void put_field(struct buf *b, const struct log_field *f)
{
	char id[UUID_TEXT_MAX];

	if (f->kind == LOG_FIELD_TRACE) {
		put_trace(b, f);
		return;
	}
	(void)buf_printf(b, ",\"%s\":", f->key);
	switch (f->kind) {
	case LOG_FIELD_STR:
		put_string(b, f->text ? f->text : "");
		break;
	case LOG_FIELD_INT:
		(void)buf_printf(b, "%lld", (long long)f->number);
		break;
	case LOG_FIELD_ID:
		uuid_format(f->id, id);
		put_string(b, id);
		break;
	case LOG_FIELD_TRACE: /* above */
		break;
	}
}

void log_write(enum log_level level, const char *component, const char *message,
	       const struct log_field *fields, size_t n)
{
	char ts[CLOCK_RFC3339_MAX];
	struct buf line;
	int saved = errno;

	if (level < threshold)
		return;
	clock_format(clock_wall_us(), ts);
	buf_init(&line, LINE_MAX_BYTES);
	(void)buf_printf(&line, "{\"ts\":\"%s\",\"level\":\"%s\",\"component\":\"%s\",\"msg\":", ts,
			 level_names[level], component);
	put_string(&line, message);
	for (size_t i = 0; i < n; i++)
		put_field(&line, &fields[i]);
	(void)buf_append_str(&line, "}\n");
	/* A line over the maximum would be cut inside a string: it is dropped to its message. */
	if (buf_error(&line)) {
		buf_clear(&line);
		(void)buf_printf(&line,
				 "{\"ts\":\"%s\",\"level\":\"%s\",\"component\":\"%s\","
				 "\"msg\":\"a log line was too long\"}\n",
				 ts, level_names[level], component);
	}
	(void)!write(STDERR_FILENO, line.data, line.len);
	buf_fini(&line);
	errno = saved;
}
