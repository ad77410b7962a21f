/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cgroup.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum { REMOVE_TRIES = 1000 };

static const struct limiter_ops *const ops[_SANDBOX_RUNG_MAX] = {
	[SANDBOX_RUNG_CGROUP2] = &cgroup2_ops,
	[SANDBOX_RUNG_CGROUP1] = &cgroup1_ops,
	[SANDBOX_RUNG_RLIMIT] = &rlimit_ops,
};

static bool is_group(int fd)
{
	struct statfs st;

	return fstatfs(fd, &st) == 0 &&
	       (st.f_type == CGROUP2_SUPER_MAGIC || st.f_type == CGROUP_SUPER_MAGIC);
}

int limiter_open(struct limiter *l, const struct sandbox_configure *c, int *fds, struct err *e)
{
	bool groups = true;

	*l = (struct limiter){.ops = ops[c->rung], .has = c->has};
	(void)snprintf(l->name, sizeof(l->name), "%s", c->group);
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++) {
		l->own[i] = l->parent[i] = -EBADF;
		if (!(c->trees >> i & 1))
			continue;
		l->own[i] = TAKE_FD(fds[0]);
		l->parent[i] = TAKE_FD(fds[1]);
		groups = groups && is_group(l->own[i]) && is_group(l->parent[i]);
		fds += 2;
	}
	if (!groups)
		return err_set(e, -EINVAL, "a group is none of the kernel's");
	l->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return l->proc_fd < 0 ? err_errno(e, -errno, "could not open \"/proc\"") : 0;
}

static int remove_own(const struct limiter *l, int tree)
{
	struct leaf leaf;

	for (unsigned int box = 0; box < SANDBOX_BOXES_MAX; box++) {
		leaf_init(&leaf, box);
		(void)unlinkat(l->own[tree], leaf.name, AT_REMOVEDIR);
	}
	return unlinkat(l->parent[tree], l->name, AT_REMOVEDIR);
}

/* Only ever empty groups go: the kernel sees to that. A dead process leaves its group a moment
 * after it was reaped; what else may be wrong with one is hardly a matter of time. */
void limiter_close(struct limiter *l)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	int tries = REMOVE_TRIES;

	for (int i = 0; i < _SANDBOX_TREE_MAX; i++) {
		while (l->own[i] >= 0 && remove_own(l, i) < 0 && tries > 0) {
			tries -= errno == EBUSY ? 1 : REMOVE_TRIES / 10;
			(void)nanosleep(&moment, NULL);
		}
		cleanup_close(&l->own[i]);
		cleanup_close(&l->parent[i]);
	}
	cleanup_close(&l->proc_fd);
}
