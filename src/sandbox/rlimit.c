/* SPDX-License-Identifier: Apache-2.0 */

/* Limits without any cgroup: the task's rlimits (RLIMIT_NPROC counts per user namespace since Linux
 * 5.14, so it is this box's own) and polling of /proc for CPU time and memory. */

#include "sandbox/cgroup.h"

#include "base/cleanup.h"
#include "sandbox/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* utime, stime, cutime and cstime are in clock ticks; with_waited adds the latter two. */
static uint64_t ticks_of(const struct limiter *l, uint64_t pid, bool with_waited)
{
	char name[40], text[1024], *p;
	uint64_t t[4];

	(void)snprintf(name, sizeof(name), "%" PRIu64 "/stat", pid);
	if (io_read_at(l->proc_fd, name, text, sizeof(text)) < 0)
		return 0;
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
			 " %" SCNu64 " %" SCNu64,
			 &t[0], &t[1], &t[2], &t[3]) != 4)
		return 0;
	return t[0] + t[1] + (with_waited ? t[2] + t[3] : 0);
}

/* Resident pages that are not file pages. Shared copies count twice: the bound is on the safe side.
 */
static uint64_t pages_of(const struct limiter *l, uint64_t pid)
{
	char name[40], text[256];
	uint64_t size, resident, shared;

	(void)snprintf(name, sizeof(name), "%" PRIu64 "/statm", pid);
	if (io_read_at(l->proc_fd, name, text, sizeof(text)) < 0 ||
	    sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &size, &resident, &shared) != 3)
		return 0;
	return resident > shared ? resident - shared : 0;
}

/* Appends the children of one thread. */
static size_t add_thread(int task_dir, const char *tid, uint64_t *list, size_t used)
{
	char name[280], text[8192];
	const char *p = text;
	uint64_t pid;

	(void)snprintf(name, sizeof(name), "%s/children", tid);
	if (io_read_at(task_dir, name, text, sizeof(text)) < 0)
		return used;
	while (used < RLIMIT_PIDS_MAX && io_parse_u64(p, &pid, &p) == 0) {
		list[used++] = pid;
		p += *p == ' ';
	}
	return used;
}

/* Appends the children of list[at]: a child belongs to the thread that forked it. */
static size_t add_children(const struct limiter *l, uint64_t *list, size_t at, size_t used)
{
	char name[40];
	int fd;
	DIR *d;

	(void)snprintf(name, sizeof(name), "%" PRIu64 "/task", list[at]);
	fd = openat(l->proc_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		cleanup_close(&fd);
		return used;
	}
	for (struct dirent *ent; (ent = readdir(d));)
		if (ent->d_name[0] != '.')
			used = add_thread(dirfd(d), ent->d_name, list, used);
	(void)closedir(d);
	return used;
}

size_t rlimit_descendants(const struct limiter *l, pid_t init,
			  uint64_t list[static RLIMIT_PIDS_MAX])
{
	size_t used = 1;

	list[0] = (uint64_t)init;
	for (size_t i = 0; i < used; i++)
		used = add_children(l, list, i, used);
	return used;
}

static int cpu(struct limiter *l, struct leaf *leaf, uint64_t *ret_usec)
{
	uint64_t list[RLIMIT_PIDS_MAX], ticks = 0, pages = 0;
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const uint64_t tick_usec = 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	size_t used = rlimit_descendants(l, leaf->init, list);

	for (size_t i = 0; i < used; i++) {
		ticks += ticks_of(l, list[i], true);
		if (i > 0)
			pages += pages_of(l, list[i]);
	}
	/* What ended unseen does not come back: time never runs backwards. */
	if (ticks * tick_usec > leaf->cpu_seen)
		leaf->cpu_seen = ticks * tick_usec;
	leaf->processes_seen = (uint32_t)used - 1;
	*ret_usec = leaf->cpu_seen;
	leaf->memory_seen = pages * page;
	return 0;
}

/* Seen with the CPU time, in one walk. */
static int usage(struct limiter *l, struct leaf *leaf, struct usage *u)
{
	(void)l;
	u->memory_bytes = leaf->memory_seen;
	return 0;
}

const struct limiter_ops rlimit_ops = {.cpu = cpu, .usage = usage, .poll_usec = 10000};
