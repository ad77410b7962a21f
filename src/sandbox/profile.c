/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/host.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* 1 where it is there, 0 where it may be missing and is. */
static int look_at(const struct sandbox_bind *from, struct sandbox_bind *to, struct err *e)
{
	struct stat st;
	ssize_t n;

	*to = *from;
	if (from->flags & SANDBOX_BIND_SYMLINK)
		return 1;
	if (!to->target[0])
		memcpy(to->target, from->source, sizeof(to->target));
	if (lstat(from->source, &st) < 0) {
		if (errno == ENOENT && from->flags & SANDBOX_BIND_OPTIONAL)
			return 0;
		return err_errno(e, -errno, "could not open \"%s\"", from->source);
	}
	if (S_ISDIR(st.st_mode))
		to->flags |= SANDBOX_BIND_FOLDER;
	if (!S_ISLNK(st.st_mode))
		return 1;
	to->flags |= SANDBOX_BIND_SYMLINK;
	memset(to->source, 0, sizeof(to->source));
	n = readlink(from->source, to->source, sizeof(to->source) - 1);
	return n < 0 ? err_errno(e, -errno, "could not read \"%s\"", from->source) : 1;
}

int profile_look(const struct sandbox_bind *from, size_t count, struct sandbox_bind *to,
		 size_t *ret_count, struct err *e)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		int r = look_at(&from[i], &to[n], e);

		if (r < 0)
			return r;
		n += (size_t)r;
	}
	*ret_count = n;
	return 0;
}
