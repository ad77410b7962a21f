/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/compile.h"

#include "base/str.h"
#include "sandbox/archive.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/mman.h>

static int add_text(struct digest *d, const char *text)
{
	return digest_add_field(d, text, text ? strlen(text) : 0);
}

/* The texts and their number, so that no list runs into what follows it. */
static int add_texts(struct digest *d, const char *const *texts)
{
	uint64_t n = 0;
	int r = 0;

	while (texts && texts[n])
		n++;
	r = digest_add_field(d, &n, sizeof(n));
	for (uint64_t i = 0; r == 0 && i < n; i++)
		r = add_text(d, texts[i]);
	return r;
}

static int add_program(struct digest *d, const struct task_program *p)
{
	uint64_t n = p->n_files;
	int r = add_text(d, p->entry);

	if (r == 0)
		r = digest_add_field(d, &n, sizeof(n));
	for (size_t i = 0; r == 0 && i < p->n_files; i++) {
		r = add_text(d, p->files[i].name);
		if (r == 0)
			r = digest_add_field(d, p->files[i].content.data, p->files[i].content.len);
	}
	return r;
}

int compile_key(const struct intake *in, const struct language *l,
		const uint8_t identity[static DIGEST_SIZE], bool share_tenants,
		const char *const *envp, uint8_t ret_key[static DIGEST_SIZE])
{
	struct digest *d = digest_new();
	int r;

	if (!d)
		return -ENOMEM;
	r = add_text(d, share_tenants ? NULL : in->tenant);
	if (r == 0)
		r = add_text(d, l->name);
	if (r == 0)
		r = add_text(d, l->revision);
	if (r == 0)
		r = digest_add_field(d, identity, DIGEST_SIZE);
	if (r == 0)
		r = add_texts(d, envp);
	if (r == 0)
		r = add_texts(d, (const char *const *)l->compile.argv);
	if (r == 0)
		r = add_program(d, &in->program);
	if (r < 0) {
		digest_free(d);
		return r;
	}
	return digest_finish(d, ret_key);
}

enum { PRODUCES_MAX = JOB_COLLECT_MAX };

/* Which patterns some file of the archive matches, as bits. -EBADMSG where it is not whole. */
static int match_products(const void *data, size_t len, char *const *produces, uint64_t *ret_found)
{
	struct archive_reader reader;
	struct archive_entry entry;
	char name[ARCHIVE_NAME_MAX + 1];
	int r = archive_open(&reader, data, len);

	*ret_found = 0;
	if (r < 0)
		return r;
	while ((r = archive_next(&reader, &entry)) > 0) {
		memcpy(name, entry.name, entry.name_len);
		name[entry.name_len] = '\0';
		for (int i = 0; i < PRODUCES_MAX && produces[i]; i++) {
			if (fnmatch(produces[i], name, 0) == 0)
				*ret_found |= UINT64_C(1) << i;
		}
	}
	return r;
}

int compile_check_products(int archive_fd, char *const *produces,
			   const struct sandbox_event_exited *exited, size_t *ret_size,
			   struct buf *notes)
{
	const void *data;
	uint64_t found;
	int r;

	if (exited->collect_error != 0) {
		(void)buf_printf(notes, "kiln: could not take over what the compiler made: %s\n",
				 err_text(exited->collect_error));
		return -EBADMSG;
	}
	if (!produces)
		return 0;
	r = archive_map(archive_fd, &data, ret_size, NULL);
	if (r == 0) {
		r = match_products(data, *ret_size, produces, &found);
		if (*ret_size > 0)
			(void)munmap((void *)(uintptr_t)data, *ret_size);
	}
	if (r < 0) {
		(void)buf_append_str(notes, "kiln: could not read what the compiler made\n");
		return r;
	}
	for (int i = 0; i < PRODUCES_MAX && produces[i]; i++) {
		if (found & UINT64_C(1) << i)
			continue;
		(void)buf_printf(notes, "kiln: the compiler ended well, but made no \"%.200s\"\n",
				 produces[i]);
		return -ENOENT;
	}
	return 0;
}
