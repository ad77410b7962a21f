/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include "base/str.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_BYTES_MAX = 16 * 1024 * 1024 };

/* The value of a field of the head, NULL where there is none; end: of the head. */
static const char *field(const struct buf *b, const char *end, const char *name)
{
	const char *at = strcasestr(b->data, name);

	return at && at < end ? at + strlen(name) : NULL;
}

/* A number in base 10 or 16 at *at, which is moved behind it; negative where it is none. */
static int64_t number(const char **at, const char *end, int base)
{
	static const char digits[] = "0123456789abcdef";
	const char *begin = *at;
	int64_t n = 0;

	for (; *at < end && n < ANSWER_BYTES_MAX; (*at)++) {
		int c = **at >= 'A' && **at <= 'F' ? **at - 'A' + 'a' : **at;
		const char *digit = c ? strchr(digits, c) : NULL;

		if (!digit || digit - digits >= base)
			break;
		n = n * base + (digit - digits);
	}
	return *at > begin && n < ANSWER_BYTES_MAX ? n : -EBADMSG;
}

/* One chunk at *at: its size (0 for the last), *at at its bytes; -EAGAIN where not all is there. */
static int64_t chunk(const char **at, const char *end)
{
	const char *line = memmem(*at, (size_t)(end - *at), "\r\n", 2);
	int64_t n;

	if (!line)
		return -EAGAIN;
	n = number(at, line, 16);
	*at = line + 2;
	if (n >= 0 && end - *at < n + 2)
		return -EAGAIN;
	return n;
}

static int64_t chunked_length(const struct buf *b, const char *at)
{
	const char *end = b->data + b->len;

	for (;;) {
		int64_t n = chunk(&at, end);

		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return n;
		at += n + 2;
		if (n == 0) /* no trailers: nobody here sends some */
			return at - b->data;
	}
}

static bool is_chunked(const struct buf *b, const char *end)
{
	const char *coding = field(b, end, "\r\nTransfer-Encoding: ");

	return coding && strncasecmp(coding, "chunked", 7) == 0;
}

int64_t answer_length(const struct buf *b)
{
	const char *end = b->len ? memmem(b->data, b->len, "\r\n\r\n", 4) : NULL;
	const char *at;
	int64_t n;

	if (!end)
		return 0;
	if (is_chunked(b, end))
		return chunked_length(b, end + 4);
	at = field(b, end, "\r\nContent-Length: ");
	n = at ? number(&at, end, 10) : -EBADMSG;
	if (n < 0)
		return n;
	n += end + 4 - b->data;
	return b->len >= (size_t)n ? n : 0;
}

char *answer_body(struct buf *b, size_t *ret_len)
{
	char *head_end = memmem(b->data, b->len, "\r\n\r\n", 4);
	char *body = head_end + 4, *to = body;
	const char *at = body, *end = b->data + b->len;
	int64_t n;

	*ret_len = (size_t)(end - body);
	if (!is_chunked(b, head_end))
		return body;
	while ((n = chunk(&at, end)) > 0) {
		memmove(to, at, (size_t)n);
		to += n;
		at += n + 2;
	}
	*to = '\0'; /* there is room: chunks have heads */
	*ret_len = (size_t)(to - body);
	return body;
}

/* A step of the pointer: of *at up to the next slash. */
static const json_t *step(const json_t *value, const char **at)
{
	size_t len = strcspn(*at, "/");
	char name[64];
	uint64_t index;

	if (len >= sizeof name)
		return NULL;
	memcpy(name, *at, len);
	name[len] = '\0';
	*at += len;
	if (json_is_array(value))
		return str_to_u64(name, 0, UINT32_MAX, &index) < 0
			       ? NULL
			       : json_array_get(value, (size_t)index);
	return json_object_get(value, name);
}

bool answer_has(const char *body, size_t len, const char *pointer, const char *expect)
{
	json_t *root = json_loadb(body, len, JSON_ALLOW_NUL, NULL);
	const json_t *value = root;
	bool has;

	while (value && *pointer == '/') {
		pointer++;
		value = step(value, &pointer);
	}
	has = json_is_string(value) && json_string_length(value) == strlen(expect) &&
	      memcmp(json_string_value(value), expect, strlen(expect)) == 0;
	json_decref(root);
	return has;
}
