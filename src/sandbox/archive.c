/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sandbox/format.h"

static size_t pad8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

bool archive_name_valid(const char *name, size_t len)
{
	size_t start = 0, parts = 0;

	if (len == 0 || len > ARCHIVE_NAME_MAX || memchr(name, 0, len))
		return false;
	for (size_t i = 0; i <= len; i++) {
		size_t part = i - start;

		if (i < len && name[i] != '/')
			continue;
		if (part == 0 || part > 255 || (part == 1 && name[start] == '.') ||
		    (part == 2 && name[start] == '.' && name[start + 1] == '.'))
			return false;
		start = i + 1;
		parts++;
	}
	return parts <= ARCHIVE_DEPTH_MAX;
}

int archive_open(struct archive_reader *r, const void *data, size_t len)
{
	struct archive_head head;

	if (len < sizeof(head))
		return -EBADMSG;
	memcpy(&head, data, sizeof(head));
	if (head.magic != ARCHIVE_MAGIC || head.files > ARCHIVE_FILES_MAX)
		return -EBADMSG;
	*r = (struct archive_reader){
		.data = data, .len = len, .pos = sizeof(head), .left = head.files};
	return 0;
}

int archive_next(struct archive_reader *r, struct archive_entry *ret_entry)
{
	struct archive_file f;
	size_t left, name_room;

	if (r->left == 0)
		return 0;
	left = r->len - r->pos;
	if (left < sizeof(f))
		return -EBADMSG;
	memcpy(&f, r->data + r->pos, sizeof(f));
	left -= sizeof(f);
	if (f.name_len > ARCHIVE_NAME_MAX || f.mode > 0777)
		return -EBADMSG;
	name_room = pad8(f.name_len);
	if (name_room > left || f.size > left - name_room || pad8(f.size) > left - name_room)
		return -EBADMSG;
	*ret_entry = (struct archive_entry){
		.name = (const char *)r->data + r->pos + sizeof(f),
		.name_len = f.name_len,
		.mode = f.mode,
		.data = r->data + r->pos + sizeof(f) + name_room,
		.size = f.size,
	};
	if (!archive_name_valid(ret_entry->name, ret_entry->name_len))
		return -EBADMSG;
	r->pos += sizeof(f) + name_room + pad8(f.size);
	r->left--;
	return 1;
}

int job_open(struct job *j, const void *data, size_t len)
{
	struct job_head head;
	size_t files_at;

	if (len < sizeof(head))
		return -EBADMSG;
	memcpy(&head, data, sizeof(head));
	if (head.magic != JOB_MAGIC || head.argc == 0 || head.argc > JOB_STRINGS_MAX ||
	    head.envc > JOB_STRINGS_MAX || head.collectc > JOB_COLLECT_MAX ||
	    head.strings_len > JOB_STRINGS_BYTES_MAX)
		return -EBADMSG;
	files_at = sizeof(head) + pad8(head.strings_len);
	if (files_at > len)
		return -EBADMSG;
	j->argc = head.argc;
	j->envc = head.envc;
	j->collectc = head.collectc;
	j->strings = (const char *)data + sizeof(head);
	j->strings_len = head.strings_len;
	return archive_open(&j->files, (const uint8_t *)data + files_at, len - files_at);
}

int job_strings(const struct job *j, const char **argv, const char **envp, const char **collect)
{
	const char *s = j->strings, *end = j->strings + j->strings_len;
	const struct {
		const char **list;
		uint32_t count;
	} lists[] = {{argv, j->argc}, {envp, j->envc}, {collect, j->collectc}};

	for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
		for (uint32_t i = 0; i < lists[l].count; i++) {
			const char *nul = s < end ? memchr(s, 0, (size_t)(end - s)) : NULL;

			if (!nul)
				return -EBADMSG;
			lists[l].list[i] = s;
			s = nul + 1;
		}
		lists[l].list[lists[l].count] = NULL;
	}
	return s == end ? 0 : -EBADMSG;
}

/* Writing: small parts are gathered, big ones go to the memfd directly. */

struct archive_writer {
	int fd;
	uint32_t files;
	off_t head_at;
	size_t used;
	uint8_t buf[16384];
};

static int write_all(int fd, const void *data, size_t size)
{
	const uint8_t *p = data;

	while (size > 0) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

static int flush(struct archive_writer *w)
{
	int r = write_all(w->fd, w->buf, w->used);

	w->used = 0;
	return r;
}

static int put(struct archive_writer *w, const void *data, size_t size)
{
	int r;

	if (size > sizeof(w->buf) - w->used) {
		r = flush(w);
		if (r < 0)
			return r;
		if (size > sizeof(w->buf))
			return write_all(w->fd, data, size);
	}
	if (size > 0)
		memcpy(w->buf + w->used, data, size);
	w->used += size;
	return 0;
}

static int put_padded(struct archive_writer *w, const void *data, size_t size)
{
	static const uint8_t zero[8];
	int r = put(w, data, size);

	return r < 0 ? r : put(w, zero, pad8(size) - size);
}

static int writer_start(struct archive_writer **ret_writer, struct err *e)
{
	struct archive_writer *w = malloc(sizeof(*w));

	if (!w)
		return err_set(e, -ENOMEM, "could not allocate an archive");
	*w = (struct archive_writer){
		.fd = memfd_create("kiln-archive", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
	if (w->fd < 0) {
		int r = -errno;

		free(w);
		return err_errno(e, r, "could not create a memory file");
	}
	*ret_writer = w;
	return 0;
}

static int put_archive_head(struct archive_writer *w, off_t at)
{
	struct archive_head head = {.magic = ARCHIVE_MAGIC};

	w->head_at = at;
	return put(w, &head, sizeof(head));
}

int archive_writer_new(struct archive_writer **ret_writer, struct err *e)
{
	int r = writer_start(ret_writer, e);

	return r < 0 ? r : put_archive_head(*ret_writer, 0);
}

void archive_writer_free(struct archive_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0)
		(void)close(w->fd);
	free(w);
}

static int put_file(struct archive_writer *w, const struct archive_entry *entry)
{
	struct archive_file f = {
		.name_len = (uint32_t)entry->name_len, .mode = entry->mode, .size = entry->size};
	int r = put(w, &f, sizeof(f));

	if (r == 0)
		r = put_padded(w, entry->name, entry->name_len);
	if (r == 0)
		r = put_padded(w, entry->data, entry->size);
	if (r == 0)
		w->files++;
	return r;
}

static int file_check(const struct archive_writer *w, const struct archive_entry *entry,
		      struct err *e)
{
	if (!archive_name_valid(entry->name, entry->name_len))
		return err_set(e, -EINVAL, "\"%.*s\" is not a valid file name",
			       (int)(entry->name_len < 200 ? entry->name_len : 200), entry->name);
	if (entry->mode > 0777)
		return err_set(e, -EINVAL, "mode %o of a file is not permission bits only",
			       entry->mode);
	if (w->files >= ARCHIVE_FILES_MAX)
		return err_set(e, -E2BIG, "more than %d files", ARCHIVE_FILES_MAX);
	return 0;
}

int archive_add(struct archive_writer *w, const char *name, uint32_t mode, const void *data,
		size_t size, struct err *e)
{
	struct archive_entry entry = {
		.name = name, .name_len = strlen(name), .mode = mode, .data = data, .size = size};
	int r = file_check(w, &entry, e);

	if (r < 0)
		return r;
	r = put_file(w, &entry);
	return r < 0 ? err_errno(e, r, "could not write an archive") : 0;
}

enum { SEALS = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW };

static int seal(int fd, struct err *e)
{
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals >= 0 && (seals & SEALS) == SEALS)
		return 0;
	if (fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
		return err_errno(e, -errno, "could not seal a memory file");
	return 0;
}

int archive_finish(struct archive_writer *w, int *ret_fd, struct err *e)
{
	int r = flush(w);

	if (r == 0 && pwrite(w->fd, &w->files, sizeof(w->files),
			     w->head_at + (off_t)offsetof(struct archive_head, files)) < 0)
		r = -errno;
	if (r < 0)
		return err_errno(e, r, "could not write an archive");
	r = seal(w->fd, e);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(w->fd);
	return 0;
}

static size_t strings_size(const char *const *list, uint32_t *ret_count)
{
	size_t size = 0;

	*ret_count = 0;
	for (; list && list[*ret_count]; (*ret_count)++)
		size += strlen(list[*ret_count]) + 1;
	return size;
}

static int put_strings(struct archive_writer *w, const char *const *list)
{
	int r = 0;

	for (; r == 0 && list && *list; list++)
		r = put(w, *list, strlen(*list) + 1);
	return r;
}

static int job_head_fill(const struct job_spec *spec, struct job_head *head, struct err *e)
{
	size_t strings = strings_size(spec->argv, &head->argc);

	strings += strings_size(spec->envp, &head->envc);
	strings += strings_size(spec->collect, &head->collectc);
	if (head->argc == 0)
		return err_set(e, -EINVAL, "a job needs a program");
	if (head->argc > JOB_STRINGS_MAX || head->envc > JOB_STRINGS_MAX ||
	    head->collectc > JOB_COLLECT_MAX || strings > JOB_STRINGS_BYTES_MAX)
		return err_set(e, -E2BIG, "arguments and environment are too big");
	head->magic = JOB_MAGIC;
	head->strings_len = (uint32_t)strings;
	return 0;
}

int job_write(const struct job_spec *spec, const struct archive_entry *files, size_t count,
	      int *ret_fd, struct err *e)
{
	static const uint8_t zero[8];
	AUTO(archive_writer_free) struct archive_writer *w = NULL;
	struct job_head head = {0};
	int r = job_head_fill(spec, &head, e);

	if (r < 0)
		return r;
	r = writer_start(&w, e);
	if (r < 0 || !w) /* gcc 12 cannot see that these are one */
		return r;
	r = put(w, &head, sizeof(head));
	if (r == 0)
		r = put_strings(w, spec->argv);
	if (r == 0)
		r = put_strings(w, spec->envp);
	if (r == 0)
		r = put_strings(w, spec->collect);
	if (r == 0)
		r = put(w, zero, pad8(head.strings_len) - head.strings_len);
	if (r == 0)
		r = put_archive_head(w, (off_t)(sizeof(head) + pad8(head.strings_len)));
	if (r < 0)
		return err_errno(e, r, "could not write a job");
	for (size_t i = 0; i < count; i++) {
		r = file_check(w, &files[i], e);
		if (r < 0)
			return r;
		r = put_file(w, &files[i]);
		if (r < 0)
			return err_errno(e, r, "could not write a job");
	}
	return archive_finish(w, ret_fd, e);
}

int archive_map(int fd, const void **ret_data, size_t *ret_len, struct err *e)
{
	struct stat st;
	void *p;
	int r = seal(fd, e);

	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return err_errno(e, -errno, "could not read an archive");
	if (st.st_size == 0) {
		*ret_data = NULL;
		*ret_len = 0;
		return 0;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return err_errno(e, -errno, "could not map an archive");
	*ret_data = p;
	*ret_len = (size_t)st.st_size;
	return 0;
}

int archive_output_new(int *ret_fd, struct err *e)
{
	int fd = memfd_create("kiln-output", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return err_errno(e, -errno, "could not create a memory file");
	*ret_fd = fd;
	return 0;
}
