/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include "base/buf.h"
#include "base/fs.h"
#include "base/str.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CGROUP_MAX = 64 * 1024, LIMIT_MAX = 64 };

#define SPARE_PART  16
#define SPARE_LEAST (UINT64_C(128) << 20)
#define SPARE_MOST  (UINT64_C(1) << 30)

/* Of one group. "max", which version 2 writes for none, is no number; version 1 writes a huge one.
 */
static uint64_t limit_of(const char *path)
{
	uint64_t n = UINT64_MAX;
	struct buf b;

	buf_init(&b, LIMIT_MAX);
	if (fs_read_file(AT_FDCWD, path, &b, NULL) == 0 && b.len > 0) {
		b.data[strcspn(b.data, "\n")] = '\0';
		if (str_to_u64(b.data, 0, UINT64_MAX, &n) < 0)
			n = UINT64_MAX;
	}
	buf_fini(&b);
	return n;
}

/* Of a group and all above it. In a container the path may be that of another view; what is at the
 * top is its own then. */
static uint64_t limit_above(const char *root, const char *tree, const char *file, char *group)
{
	uint64_t least = UINT64_MAX;
	char path[PATH_MAX];

	for (;;) {
		char *slash = strrchr(group, '/');
		uint64_t n;

		if (snprintf(path, sizeof(path), "%s%s%s/%s", root, tree, group, file) >=
		    (int)sizeof(path))
			return least;
		n = limit_of(path);
		least = n < least ? n : least;
		if (!slash)
			return least;
		*slash = '\0';
	}
}

/* Whether a list of controllers, with commas between them, has memory. */
static bool has_memory(const char *list)
{
	const char *at = strstr(list, "memory");

	return at && (at == list || at[-1] == ',') && (at[6] == '\0' || at[6] == ',');
}

/* A line of /proc/self/cgroup: "4:memory:/group", or "0::/group" of version 2. */
static uint64_t limit_by_line(const char *root, char *line)
{
	char *controllers = strchr(line, ':'), *group;

	group = controllers ? strchr(++controllers, ':') : NULL;
	if (!group)
		return UINT64_MAX;
	*group++ = '\0';
	if (has_memory(controllers))
		return limit_above(root, "/sys/fs/cgroup/memory", "memory.limit_in_bytes", group);
	if (!*controllers)
		return limit_above(root, "/sys/fs/cgroup", "memory.max", group);
	return UINT64_MAX;
}

uint64_t memory_cgroup_limit(const char *root)
{
	uint64_t least = UINT64_MAX;
	char path[PATH_MAX];
	struct buf b;

	buf_init(&b, CGROUP_MAX);
	if (snprintf(path, sizeof(path), "%s/proc/self/cgroup", root) < (int)sizeof(path) &&
	    fs_read_file(AT_FDCWD, path, &b, NULL) == 0) {
		char *rest = b.data;

		for (char *line; (line = strsep(&rest, "\n"));) {
			uint64_t n = limit_by_line(root, line);

			least = n < least ? n : least;
		}
	}
	buf_fini(&b);
	return least;
}

uint64_t memory_total(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
	uint64_t all = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
	uint64_t limit = memory_cgroup_limit("");

	return limit < all ? limit : all;
}

uint64_t memory_to_spare(uint64_t total, unsigned processes)
{
	uint64_t share = total / SPARE_PART / (processes > 0 ? processes : 1);

	if (share < SPARE_LEAST)
		return 0;
	return share < SPARE_MOST ? share : SPARE_MOST;
}
