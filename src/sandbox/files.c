/* SPDX-License-Identifier: Apache-2.0 */

/* Files in and out of the work directory, by code with the rights of the task and no more: whatever
 * a name or a link leads to, it is something that the task could have reached itself. The walk is
 * still strict about what it follows and opens, so that it cannot be led astray or made to hang. */

#include "sandbox/archive.h"
#include "sandbox/format.h"
#include "sandbox/inside.h"
#include "sandbox/io.h"
#include "sandbox/syscalls.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)

enum { PASS_MIN = 32768, PASS_MAX = 1 << 20 };

int files_map(int fd, const void **ret_data, size_t *ret_len)
{
	const int need = F_SEAL_WRITE | F_SEAL_SHRINK;
	struct stat st;
	void *p;
	int seals = fcntl(fd, F_GET_SEALS);

	/* What can shrink would kill the reader with SIGBUS, what can change would fool it. */
	if (seals < 0)
		return errno == EINVAL ? -EPERM : -errno;
	if ((seals & need) != need)
		return -EPERM;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_data = NULL;
	*ret_len = (size_t)st.st_size;
	if (st.st_size == 0)
		return 0;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret_data = p;
	return 0;
}

static int write_all(int fd, const void *data, uint64_t size)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		size -= (uint64_t)n;
	}
	return 0;
}

/* Through a pipe: from the file to it, and all of that on to fd. */
static int pass(int fd, uint64_t size, int from, off_t offset, const int ends[2])
{
	while (size > 0) {
		ssize_t in = splice(from, &offset, ends[1], NULL, size, 0);

		if (in < 0 && errno == EINTR)
			continue;
		if (in <= 0)
			return in < 0 ? -errno : -EIO;
		while (in > 0) {
			ssize_t out = splice(ends[0], NULL, fd, NULL, (size_t)in, 0);

			if (out < 0 && errno == EINTR)
				continue;
			if (out <= 0)
				return out < 0 ? -errno : -EIO;
			in -= out;
			size -= (uint64_t)out;
		}
	}
	return 0;
}

/* As write_all, of bytes that are at offset in a file. Large ones go from page to page without
 * being mapped first. Not by sendfile, whose own pipe holds 64 KiB: the file would get no larger
 * folios than that. */
static int copy_out(int fd, const void *data, uint64_t size, int from, off_t offset)
{
	int ends[2], r;

	if (size < PASS_MIN)
		return write_all(fd, data, size);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	/* One that stays small does as well. */
	(void)fcntl(ends[1], F_SETPIPE_SZ, size < PASS_MAX ? (int)size : PASS_MAX);
	r = pass(fd, size, from, offset, ends);
	(void)close(ends[0]);
	(void)close(ends[1]);
	return r;
}

/* Makes the directories that a name goes through. */
static int make_parents(const char *path)
{
	char part[ARCHIVE_NAME_MAX + 1];

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		size_t len = (size_t)(slash - path);

		memcpy(part, path, len);
		part[len] = 0;
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

/* A later file of the same name takes the place of an earlier one, permissions included: what a
 * compiler made goes before what the user sent. No program of the user has run yet. */
static int create(const char *path, unsigned int mode)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
	int fd = sys_openat2(AT_FDCWD, path, flags, mode, BENEATH);

	if (fd < 0 && errno == EEXIST && unlinkat(AT_FDCWD, path, 0) == 0)
		fd = sys_openat2(AT_FDCWD, path, flags, mode, BENEATH);
	return fd < 0 ? -errno : fd;
}

static int unpack_one(const struct archive_entry *entry, const void *map, int from)
{
	char path[ARCHIVE_NAME_MAX + 1];
	int fd, r;

	memcpy(path, entry->name, entry->name_len);
	path[entry->name_len] = 0;
	r = make_parents(path);
	if (r < 0)
		return r;
	fd = create(path, entry->mode | 0600);
	if (fd < 0)
		return fd;
	r = copy_out(fd, entry->data, entry->size, from,
		     (const char *)entry->data - (const char *)map);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int files_unpack(struct archive_reader *archive, const void *map, int fd)
{
	struct archive_entry entry;
	int r;

	while ((r = archive_next(archive, &entry)) > 0) {
		r = unpack_one(&entry, map, fd);
		if (r < 0)
			return r;
	}
	return r;
}

struct collect {
	int output;
	const char *const *patterns;
	uint64_t bytes_left, bytes;
	uint32_t files_left, files;
	int error; /* the first thing that was left out */
	char path[ARCHIVE_NAME_MAX + 1];
};

static bool wanted(const struct collect *c)
{
	for (const char *const *p = c->patterns; *p; p++)
		if (fnmatch(*p, c->path, 0) == 0)
			return true;
	return false;
}

static void leave_out(struct collect *c, int error)
{
	if (c->error == 0)
		c->error = error;
}

static int copy_bytes(struct collect *c, int fd, uint64_t size)
{
	static char buf[65536];

	while (size > 0) {
		ssize_t n = read(fd, buf, size < sizeof(buf) ? (size_t)size : sizeof(buf));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		r = write_all(c->output, buf, (uint64_t)n);
		if (r < 0)
			return r;
		size -= (uint64_t)n;
	}
	return 0;
}

static int copy_one(struct collect *c, int fd, const struct stat *st)
{
	static const char zero[8];
	struct archive_file f = {.name_len = (uint32_t)strlen(c->path),
				 .mode = st->st_mode & 0777,
				 .size = (uint64_t)st->st_size};
	int r = write_all(c->output, &f, sizeof(f));

	if (r == 0)
		r = write_all(c->output, c->path, f.name_len);
	if (r == 0)
		r = write_all(c->output, zero, -f.name_len & 7);
	if (r == 0)
		r = copy_bytes(c, fd, f.size);
	return r < 0 ? r : write_all(c->output, zero, -f.size & 7);
}

static int take_file(struct collect *c, int dir, const char *name)
{
	int fd, r = 0;
	struct stat st;

	if (!wanted(c))
		return 0;
	/* Never waits: a FIFO opens at once, and is then refused. */
	fd = sys_openat2(dir, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0, BENEATH);
	if (fd < 0 && io_is_shortage(-errno))
		return -errno;
	if (fd < 0) {
		leave_out(c, errno);
		return 0;
	}
	if (fstat(fd, &st) < 0) {
		r = -errno;
	} else if (!S_ISREG(st.st_mode) || st.st_nlink != 1) {
		leave_out(c, EINVAL);
	} else if ((uint64_t)st.st_size > c->bytes_left) {
		leave_out(c, EFBIG);
	} else if (c->files_left == 0) {
		leave_out(c, EDQUOT);
	} else {
		r = copy_one(c, fd, &st);
		c->bytes_left -= (uint64_t)st.st_size;
		c->bytes += (uint64_t)st.st_size;
		c->files_left--;
		c->files++;
	}
	(void)close(fd);
	return r;
}

/* getdents64(2); readdir would allocate. */
struct dirent_64 {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static int walk(struct collect *c, int dir, size_t path_len, int depth);

static int walk_entry(struct collect *c, int dir, const char *name, uint8_t type, size_t path_len,
		      int depth)
{
	size_t len = strlen(name), start = path_len + (path_len > 0);
	int fd, r;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return 0;
	if (start + len > ARCHIVE_NAME_MAX) {
		leave_out(c, ENAMETOOLONG);
		return 0;
	}
	if (path_len > 0)
		c->path[path_len] = '/';
	memcpy(c->path + start, name, len + 1);
	if (type != DT_DIR)
		return take_file(c, dir, name);
	/* A directory itself is never collected, so one too deep is only not looked into. */
	if (depth + 1 >= ARCHIVE_DEPTH_MAX)
		return 0;
	fd = sys_openat2(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, BENEATH);
	if (fd < 0)
		return io_is_shortage(-errno) ? -errno : 0;
	r = walk(c, fd, start + len, depth + 1);
	(void)close(fd);
	return r;
}

static int walk(struct collect *c, int dir, size_t path_len, int depth)
{
	_Alignas(struct dirent_64) char buf[2048];
	long n;

	while ((n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n;) {
			const struct dirent_64 *ent = (const void *)(buf + at);
			int r = walk_entry(c, dir, ent->name, ent->type, path_len, depth);

			if (r < 0)
				return r;
			at += ent->reclen;
		}
	}
	return n < 0 ? -errno : 0;
}

int files_collect(int output, const char *const *patterns, uint64_t bytes_max, uint32_t files_max,
		  uint64_t *ret_bytes, uint32_t *ret_files)
{
	static struct collect c;
	struct archive_head head = {.magic = ARCHIVE_MAGIC};
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	c = (struct collect){
		.output = output,
		.patterns = patterns,
		.bytes_left = bytes_max,
		.files_left = files_max < ARCHIVE_FILES_MAX ? files_max : ARCHIVE_FILES_MAX,
	};
	r = write_all(output, &head, sizeof(head));
	if (r == 0)
		r = walk(&c, fd, 0, 0);
	(void)close(fd);
	*ret_bytes = c.bytes;
	*ret_files = c.files;
	head.files = c.files;
	if (r == 0 && pwrite(output, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
		r = -errno;
	return r < 0 ? r : -c.error;
}
