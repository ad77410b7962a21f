/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/pod.h"

#include "base/cleanup.h"
#include "sandbox/box.h"
#include "sandbox/io.h"
#include "sandbox/syscalls.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	KILL_ROUNDS = 200,
	EMPTY_DEPTH_MAX = 128, /* of directories in each other: one descriptor each */
};

static const char *const work_dirs[] = {SANDBOX_WORK_DIR, "/tmp", "/dev/shm"};

/* ---- the spawner's end ---- */

static int check_work_dir(const char *path, struct err *e)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_errno(e, -errno, "without namespaces \"%s\" must be there", path);
	if (!S_ISDIR(st.st_mode) || access(path, R_OK | W_OK | X_OK) < 0)
		return err_set(e, -EPERM, "without namespaces \"%s\" must be a writable directory",
			       path);
	return 0;
}

int pod_enter(struct spawner *s, struct err *e)
{
	const struct inside_plan *plan = &s->plan;
	int r;

	if (geteuid() == 0)
		return err_set(e, -EPERM, "without namespaces nothing is run as root");
	if (!plan->landlock_abi)
		return err_set(e, -EPERM, "without namespaces the kernel must have Landlock");
	if (!plan->filter_len)
		return err_set(e, -EPERM, "without namespaces there must be a system call filter");
	r = check_work_dir(SANDBOX_WORK_DIR, e);
	if (r == 0)
		r = check_work_dir("/tmp", e);
	if (r < 0)
		return r;
	/* Of the same id as the task: not to be read or traced. Children of an init that dies are
	 * still below us, where they are found. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return err_errno(e, -errno, "could not get ready to run without namespaces");
	r = caps_set(0, 0);
	if (r < 0)
		return err_errno(e, r, "could not drop capabilities");
	s->identity.uid_base = geteuid();
	return 0;
}

/* clone(2), since runtimes' filters answer clone3 with ENOSYS: its flags are out of their sight. */
pid_t pod_clone_init(int *ret_pidfd)
{
	long pid = syscall(SYS_clone, (unsigned long)CLONE_PIDFD | SIGCHLD, 0L, ret_pidfd, 0L, 0L);

	return (pid_t)pid;
}

int pod_enter_group(const struct box *b)
{
	char text[24];

	if (b->leaf.dir[SANDBOX_TREE_V2] < 0 || b->leaf.enter[SANDBOX_TREE_V2] >= 0)
		return 0;
	(void)snprintf(text, sizeof(text), "%d", b->init);
	return io_write_at(b->leaf.dir[SANDBOX_TREE_V2], "cgroup.procs", text, 0);
}

/* Not those that wait to be reaped. */
static bool is_alive(const struct limiter *l, uint64_t pid)
{
	char name[40], text[1024];
	const char *p;

	(void)snprintf(name, sizeof(name), "%" PRIu64 "/stat", pid);
	if (io_read_at(l->proc_fd, name, text, sizeof(text)) < 0)
		return false;
	p = strrchr(text, ')');
	return p && p[1] && p[2] != 'Z' && p[2] != 'X';
}

static size_t signal_all(const struct limiter *l, const uint64_t *list, size_t n, int signo)
{
	size_t alive = 0;

	for (size_t i = 1; i < n; i++) {
		if (!is_alive(l, list[i]))
			continue;
		alive++;
		(void)kill((pid_t)list[i], signo);
	}
	return alive;
}

/* What is stopped starts nothing: first all are, and only when a second look finds no more of them
 * do they die. Whoever is faster than that for all rounds ends with the pod. */
void pod_kill_rest(struct spawner *s, const struct box *b)
{
	/* Not on the stack, whose pages would be touched also where there is nothing to do. */
	static uint64_t list[RLIMIT_PIDS_MAX];
	size_t before = 0, now = 1;

	if (!s->plan.pod || b->init <= 0)
		return;
	for (int round = 0; round < KILL_ROUNDS && now != before; round++) {
		before = now;
		now = 1 + signal_all(&s->limiter, list,
				     rlimit_descendants(&s->limiter, b->init, list), SIGSTOP);
	}
	for (int round = 0; round < KILL_ROUNDS && now > 1; round++)
		now = 1 + signal_all(&s->limiter, list,
				     rlimit_descendants(&s->limiter, b->init, list), SIGKILL);
}

/* ---- inside ---- */

struct dirent_64 {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static int empty(int dir, int depth);

/* What cannot be removed with the task's rights is not a task's: it belongs to the image. */
static bool is_not_ours(int error)
{
	return error == EACCES || error == EPERM || error == EBUSY || error == EROFS;
}

static int remove_folder(int dir, const char *name, int depth)
{
	int fd, r;

	if (depth == EMPTY_DEPTH_MAX)
		return -ELOOP;
	/* It may have been made unreadable. */
	if (fchmodat(dir, name, 0700, 0) < 0)
		return -errno;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = empty(fd, depth + 1);
	(void)close(fd);
	return r == 0 && unlinkat(dir, name, AT_REMOVEDIR) < 0 ? -errno : r;
}

/* 1: it is gone; 0: it stays. */
static int remove_entry(int dir, const struct dirent_64 *ent, int depth)
{
	int r;

	if (strcmp(ent->name, ".") == 0 || strcmp(ent->name, "..") == 0)
		return 0;
	if (ent->type == DT_DIR)
		r = remove_folder(dir, ent->name, depth);
	else
		r = unlinkat(dir, ent->name, 0) < 0 ? -errno : 0;
	if (r == 0)
		return 1;
	/* A folder of ours with something of others in it is not empty. */
	return is_not_ours(-r) || r == -ENOTEMPTY ? 0 : r;
}

static int empty_chunk(int dir, const char *buf, long n, int depth)
{
	int removed = 0;

	for (long at = 0; at < n;) {
		const struct dirent_64 *ent = (const void *)(buf + at);
		int r = remove_entry(dir, ent, depth);

		if (r < 0)
			return r;
		removed += r;
		at += ent->reclen;
	}
	return removed;
}

/* From the start until nothing more goes: what is removed meanwhile moves the rest about. */
static int empty(int dir, int depth)
{
	_Alignas(struct dirent_64) char buf[2048];
	int removed = 1;

	while (removed > 0) {
		long n;

		removed = 0;
		if (lseek(dir, 0, SEEK_SET) < 0)
			return -errno;
		while ((n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
			int r = empty_chunk(dir, buf, n, depth);

			if (r < 0)
				return r;
			removed += r;
		}
		if (n < 0)
			return -errno;
	}
	return 0;
}

int pod_empty_work(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(work_dirs); i++) {
		int fd = open(work_dirs[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

		if (fd < 0 && errno == ENOENT)
			continue; /* no /dev/shm */
		if (fd < 0)
			return -errno;
		r = empty(fd, 0);
		(void)close(fd);
		if (r < 0)
			return r;
	}
	return 0;
}

int pod_restrict(const struct inside_plan *plan)
{
	return landlock_restrict_pod(plan->landlock_abi, plan->binds, plan->binds_len);
}
