/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/answer.h"

#include "base/cleanup.h"
#include "sandbox/archive.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <string.h>

enum { MODE = 0644 };

/* What is left of an answer; short once there was less than was wanted. */
struct rest {
	const uint8_t *next;
	size_t len;
	bool is_short;
};

static const uint8_t *take(struct rest *r, size_t n)
{
	const uint8_t *from = r->next;

	if (r->is_short || n > r->len) {
		r->is_short = true;
		return NULL;
	}
	r->next += n;
	r->len -= n;
	return from;
}

static uint32_t number_at(const uint8_t *b)
{
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static uint32_t take_number(struct rest *r)
{
	const uint8_t *b = take(r, 4);

	return b ? number_at(b) : 0;
}

static const uint8_t *take_bytes(struct rest *r, size_t *ret_len)
{
	*ret_len = take_number(r);
	return take(r, *ret_len);
}

/* The next file; all but its content is in the entry. */
static void take_file(struct rest *r, struct archive_entry *ret_entry)
{
	size_t size;

	*ret_entry = (struct archive_entry){.mode = MODE};
	ret_entry->name = (const char *)take_bytes(r, &ret_entry->name_len);
	ret_entry->data = take_bytes(r, &size);
	ret_entry->size = size;
}

uint32_t answer_length(const void *head)
{
	return number_at(head);
}

int answer_read(const void *bytes, size_t len, struct answer *ret_answer)
{
	struct rest r = {.next = bytes, .len = len};
	struct archive_entry file;
	struct answer a = {0};

	a.exit_code = (int32_t)take_number(&r);
	a.cpu_usec = (uint64_t)take_number(&r) << 32;
	a.cpu_usec |= take_number(&r);
	a.text = (const char *)take_bytes(&r, &a.text_len);
	a.n_files = take_number(&r);
	a.files = r.next;
	a.files_len = r.len;
	if (a.n_files > ANSWER_FILES_MAX)
		return -EBADMSG;
	for (uint32_t i = 0; i < a.n_files && !r.is_short; i++) {
		take_file(&r, &file);
		if (!r.is_short && !archive_name_valid(file.name, file.name_len))
			return -EBADMSG;
	}
	if (r.is_short || r.len > 0)
		return -EBADMSG;
	*ret_answer = a;
	return 0;
}

static bool is_product(const char *name, char *const *produces)
{
	for (size_t i = 0; produces && produces[i]; i++) {
		if (fnmatch(produces[i], name, 0) == 0)
			return true;
	}
	return false;
}

int answer_pack(const struct answer *a, char *const *produces, int *ret_fd, struct err *e)
{
	AUTO(archive_writer_free) struct archive_writer *w = NULL;
	struct rest rest = {.next = a->files, .len = a->files_len};
	char name[ARCHIVE_NAME_MAX + 1];
	int r = archive_writer_new(&w, e);

	for (uint32_t i = 0; r == 0 && i < a->n_files; i++) {
		struct archive_entry file;

		take_file(&rest, &file);
		memcpy(name, file.name, file.name_len);
		name[file.name_len] = '\0';
		if (is_product(name, produces))
			r = archive_add(w, name, file.mode, file.data, (size_t)file.size, e);
	}
	return r < 0 ? r : archive_finish(w, ret_fd, e);
}
