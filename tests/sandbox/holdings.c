/* SPDX-License-Identifier: Apache-2.0 */
#include "holdings.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { GROUPS_MAX = 8 };

static char group_paths[GROUPS_MAX][256];
static unsigned int group_count;
static char group_tail[32];

static int see_group(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	if (type == FTW_D && strncmp(path + at->base, "kiln-sandbox.", 13) == 0 &&
	    strstr(path + at->base, group_tail) && group_count < GROUPS_MAX)
		(void)snprintf(group_paths[group_count++], sizeof(group_paths[0]), "%s", path);
	return 0;
}

void holdings_find_groups(pid_t spawner)
{
	group_count = 0;
	(void)snprintf(group_tail, sizeof(group_tail), ".%d.", spawner);
	(void)nftw("/sys/fs/cgroup", see_group, 16, FTW_PHYS);
}

static unsigned int entries(const char *path, bool folders)
{
	DIR *d = opendir(path);
	unsigned int n = 0;

	for (struct dirent *e; d && (e = readdir(d));)
		n += e->d_name[0] != '.' && (!folders || e->d_type == DT_DIR);
	if (d)
		(void)closedir(d);
	return n;
}

/* Words or lines of a file of /proc. */
static unsigned int count_of(pid_t pid, const char *name, char between)
{
	char path[96], text[16384];
	unsigned int n = 0;
	ssize_t got;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && (got = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < got; i++)
			n += text[i] == between;
	return n;
}

struct holdings holdings_of(pid_t pid)
{
	char path[64];
	struct holdings h = {0};

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	h.descriptors = entries(path, false);
	h.mounts = count_of(pid, "mountinfo", '\n');
	(void)snprintf(path, sizeof(path), "task/%d/children", pid);
	h.children = count_of(pid, path, ' ');
	for (unsigned int i = 0; i < group_count; i++)
		h.groups += entries(group_paths[i], true);
	return h;
}

unsigned int holdings_groups(void)
{
	return group_count;
}
