/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/io.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int io_read_at(int dirfd, const char *name, char *buf, size_t size)
{
	AUTO_FD int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	size_t used = 0;

	if (fd < 0)
		return -errno;
	while (used < size - 1) {
		ssize_t n = read(fd, buf + used, size - 1 - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		used += (size_t)n;
	}
	buf[used] = 0;
	return (int)used;
}

int io_read_start(int fd, char *buf, size_t size)
{
	ssize_t n = pread(fd, buf, size - 1, 0);

	if (n < 0)
		return -errno;
	buf[n] = 0;
	return (int)n;
}

int io_write_at(int dirfd, const char *name, const char *text, int extra_flags)
{
	AUTO_FD int fd = openat(dirfd, name, O_WRONLY | O_CLOEXEC | extra_flags, 0644);
	size_t len = strlen(text);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, len);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

int io_write_u64_at(int dirfd, const char *name, uint64_t value, int extra_flags)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRIu64, value);
	return io_write_at(dirfd, name, text, extra_flags);
}

int io_parse_u64(const char *text, uint64_t *ret_value, const char **ret_end)
{
	uint64_t v = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return -ERANGE;
	}
	if (p == text)
		return -EINVAL;
	*ret_value = v;
	if (ret_end)
		*ret_end = p;
	return 0;
}

int io_find_u64(const char *text, const char *key, uint64_t *ret_value)
{
	size_t len = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, len) == 0 && line[len] == ' ')
			return io_parse_u64(line + len + 1, ret_value, NULL);
	}
	return -ENOENT;
}

int io_read_u64_at(int dirfd, const char *name, uint64_t *ret_value)
{
	char buf[64];
	int r = io_read_at(dirfd, name, buf, sizeof(buf));

	return r < 0 ? r : io_parse_u64(buf, ret_value, NULL);
}

bool io_is_shortage(int error)
{
	static const int shortages[] = {ENOMEM, ENOBUFS, EMFILE, ENFILE, ENOSPC, EAGAIN};

	for (size_t i = 0; i < ARRAY_SIZE(shortages); i++)
		if (error == -shortages[i])
			return true;
	return false;
}

uint64_t io_now_nsec(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
