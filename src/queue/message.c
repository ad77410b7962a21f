/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/message.h"

#include "base/str.h"

#include <errno.h>
#include <string.h>

enum { FIELDS_MAX = 32 };

static const char first_line[] = "kiln 1";

/* As names of languages are in the registry: they are part of queue names. */
static bool is_language(const char *text)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+-._#");

	return len && !text[len] && len < TASK_LANGUAGE_MAX;
}

static bool is_tenant(const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return false;
	return len < TASK_TENANT_MAX && utf8_valid(text, len);
}

int queue_message_write(const struct queue_message *m, struct buf *b)
{
	char id[UUID_TEXT_MAX];

	if (!is_language(m->language) || !is_tenant(m->tenant))
		return -EINVAL;
	uuid_format(&m->id, id);
	(void)buf_printf(b, "%s\nid %s\nclass %s\nlanguage %s\ntenant %s\nenqueued_us %lld\n",
			 first_line, id, task_class_name(m->class), m->language, m->tenant,
			 (long long)m->enqueued_us);
	return buf_error(b);
}

/* ---- reading ---- */

static int read_id(const char *text, struct queue_message *m)
{
	return uuid_parse(text, &m->id);
}

static int read_class(const char *text, struct queue_message *m)
{
	for (int c = 0; c < _TASK_CLASS_MAX; c++) {
		m->class = (enum task_class)c;
		if (str_eq(text, task_class_name(m->class)))
			return 0;
	}
	return -EINVAL;
}

static int read_language(const char *text, struct queue_message *m)
{
	return is_language(text) && str_copy(m->language, sizeof m->language, text) ? 0 : -EINVAL;
}

static int read_tenant(const char *text, struct queue_message *m)
{
	return is_tenant(text) && str_copy(m->tenant, sizeof m->tenant, text) ? 0 : -EINVAL;
}

static int read_enqueued(const char *text, struct queue_message *m)
{
	return str_to_i64(text, 0, INT64_MAX, &m->enqueued_us);
}

static const struct {
	const char *name;
	int (*read)(const char *text, struct queue_message *m);
} fields[] = {
	{"id", read_id},	 {"class", read_class},		 {"language", read_language},
	{"tenant", read_tenant}, {"enqueued_us", read_enqueued},
};

/* One line, without its end. *seen has a bit for each field that came. */
static int read_line(char *line, struct queue_message *m, unsigned *seen, struct err *e)
{
	char *blank = strchr(line, ' ');

	if (!blank)
		return err_set(e, -EBADMSG, "a line of the message has no value");
	*blank = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (!str_eq(line, fields[i].name))
			continue;
		if (*seen & (1u << i))
			return err_set(e, -EBADMSG, "the message has \"%s\" twice", fields[i].name);
		*seen |= 1u << i;
		if (fields[i].read(blank + 1, m) < 0)
			return err_set(e, -EBADMSG, "the message has a senseless \"%s\"",
				       fields[i].name);
		return 0;
	}
	return 0;
}

static int read_lines(char *text, struct queue_message *m, struct err *e)
{
	unsigned seen = 0;
	char *next;

	for (int n = 0; *text; text = next, n++) {
		int r;

		next = strchr(text, '\n');
		if (!next || n > FIELDS_MAX)
			return err_set(e, -EBADMSG, "the message does not end where it should");
		*next++ = '\0';
		if (n == 0 && !str_eq(text, first_line))
			return err_set(e, -EBADMSG, "the message is not one of Kiln's");
		r = n ? read_line(text, m, &seen, e) : 0;
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (!(seen & (1u << i)))
			return err_set(e, -EBADMSG, "the message has no \"%s\"", fields[i].name);
	return 0;
}

int queue_message_read(const void *bytes, size_t len, struct queue_message *ret_message,
		       struct err *e)
{
	char text[QUEUE_MESSAGE_BYTES_MAX + 1];
	struct queue_message m = {0};
	int r;

	if (len > QUEUE_MESSAGE_BYTES_MAX)
		return err_set(e, -EBADMSG, "the message is larger than %d bytes",
			       QUEUE_MESSAGE_BYTES_MAX);
	if (len && memchr(bytes, '\0', len))
		return err_set(e, -EBADMSG, "the message has a NUL in it");
	if (len)
		memcpy(text, bytes, len);
	text[len] = '\0';
	r = read_lines(text, &m, e);
	if (r == 0)
		*ret_message = m;
	return r;
}
