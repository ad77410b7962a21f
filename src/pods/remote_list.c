/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/remote_list.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_MAX = POD_NAME_MAX + REMOTE_HOST_MAX + 16 };

_Static_assert((int)POD_NAME_MAX <= (int)TLS_IDENTITY_MAX, "a pod's name is its key's");

static bool copy(char *dst, size_t size, const char *from, size_t len)
{
	if (!len || len >= size)
		return false;
	memcpy(dst, from, len);
	dst[len] = '\0';
	return true;
}

/* HOST:PORT, or [ADDRESS]:PORT where the address has colons of its own. */
static bool parse_host(const char *text, struct remote_address *a)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;
	uint64_t port;

	if (!colon || str_to_u64(colon + 1, 1, 65535, &port) < 0)
		return false;
	(void)snprintf(a->port, sizeof a->port, "%u", (unsigned)(uint16_t)port);
	if (len > 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	} else if (memchr(text, ':', len)) {
		return false;
	}
	return copy(a->host, sizeof a->host, text, len);
}

static int parse_word(const char *word, struct remote_address *a, struct err *e)
{
	const char *at = strchr(word, '@');

	if (at && copy(a->name, sizeof a->name, word, (size_t)(at - word)) && parse_host(at + 1, a))
		return 0;
	return err_set(e, -EINVAL, "\"%s\" is no runner: expected NAME@HOST:PORT", word);
}

static int compare(const void *a, const void *b)
{
	const struct remote_address *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int check_names(struct remote_list *l, struct err *e)
{
	if (l->n)
		qsort(l->all, l->n, sizeof *l->all, compare);
	for (size_t i = 1; i < l->n; i++)
		if (str_eq(l->all[i].name, l->all[i - 1].name))
			return err_set(e, -EINVAL, "there are two runners named \"%s\"",
				       l->all[i].name);
	return 0;
}

static int add(struct remote_list *l, const char *from, size_t len, struct err *e)
{
	char word[WORD_MAX];
	struct remote_address *grown;
	int r;

	while (len && isspace((unsigned char)*from)) {
		from++;
		len--;
	}
	while (len && isspace((unsigned char)from[len - 1]))
		len--;
	if (!len)
		return 0;
	if (l->n == REMOTE_MAX)
		return err_set(e, -EINVAL, "there are more than %d runners", REMOTE_MAX);
	if (!copy(word, sizeof word, from, len))
		return err_set(e, -EINVAL, "\"%.64s\" is too long for NAME@HOST:PORT", from);
	grown = realloc(l->all, (l->n + 1) * sizeof *l->all);
	if (!grown)
		return err_set(e, -ENOMEM, "out of memory");
	l->all = grown;
	r = parse_word(word, &l->all[l->n], e);
	l->n += r == 0;
	return r;
}

int remote_list_parse(const char *text, bool file, struct remote_list *ret_list, struct err *e)
{
	struct remote_list l = {0};
	int r = 0;

	while (*text && r == 0) {
		size_t len = strcspn(text, file ? "\n" : ",");
		const char *comment = file ? memchr(text, '#', len) : NULL;

		r = add(&l, text, comment ? (size_t)(comment - text) : len, e);
		text += len + (text[len] != '\0');
	}
	if (r == 0)
		r = check_names(&l, e);
	if (r == 0 && !l.n && !file)
		r = err_set(e, -EINVAL, "no runner is named: expected runners:NAME@HOST:PORT,...");
	if (r < 0) {
		free(l.all);
		return r;
	}
	*ret_list = l;
	return 0;
}
