/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fs.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { READ_STEP = 16384 };

int fs_read_fd(int fd, struct buf *b)
{
	char chunk[READ_STEP];

	for (;;) {
		ssize_t n = read(fd, chunk, sizeof chunk);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		r = buf_append(b, chunk, (size_t)n);
		if (r < 0)
			return r;
	}
}

int fs_read_file(int dir_fd, const char *path, struct buf *b, struct err *e)
{
	AUTO_FD int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int r;

	if (fd < 0)
		return err_errno(e, -errno, "could not open \"%s\"", path);
	r = fs_read_fd(fd, b);
	if (r == -ENOBUFS)
		return err_set(e, r, "\"%s\" is larger than %zu bytes", path, b->max);
	if (r < 0)
		return err_errno(e, r, "could not read \"%s\"", path);
	return 0;
}

int fs_read_secret(const char *path, struct buf *b, struct err *e)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, -errno, "could not open \"%s\"", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "\"%s\" is no file", path);
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return err_set(
			e, -EACCES,
			"\"%s\" holds a secret, and others than its owner may read or write it "
			"(mode %03o): chmod 600 it, and make a new secret if it was read",
			path, (unsigned)st.st_mode & 0777);
	r = fs_read_fd(fd, b);
	if (r == -ENOBUFS)
		return err_set(e, r, "\"%s\" is larger than %zu bytes", path, b->max);
	if (r < 0)
		return err_errno(e, r, "could not read \"%s\"", path);
	return b->len ? 0 : err_set(e, -EINVAL, "\"%s\" is empty", path);
}

int fs_write_all(int fd, const void *bytes, size_t len)
{
	const char *p = bytes;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int fs_make_dirs(const char *path, unsigned mode, struct err *e)
{
	char part[PATH_MAX];
	size_t len = strlen(path);

	if (!len || len >= sizeof part)
		return err_set(e, -ENAMETOOLONG, "the path of a folder is empty or too long");
	memcpy(part, path, len + 1);
	for (size_t i = 1; i <= len; i++) {
		if (part[i] != '/' && part[i] != '\0')
			continue;
		part[i] = '\0';
		if (mkdir(part, (mode_t)mode) < 0 && errno != EEXIST)
			return err_errno(e, -errno, "could not make the folder \"%s\"", part);
		part[i] = path[i];
	}
	return 0;
}

char *fs_self_dir(void)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	char *slash;

	if (n <= 0)
		return NULL;
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (slash && slash != path)
		*slash = '\0';
	return strdup(path);
}
