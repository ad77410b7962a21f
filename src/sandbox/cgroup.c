/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cgroup.h"

#include "base/cleanup.h"
#include "sandbox/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void leaf_init(struct leaf *leaf, unsigned int box)
{
	*leaf = (struct leaf){.cpu = -EBADF};
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++)
		leaf->dir[i] = leaf->enter[i] = -EBADF;
	(void)snprintf(leaf->name, sizeof(leaf->name), "b%u", box);
}

/* All of it or nothing: a leaf that is kept with half of it would be one without its limit. */
static int make_in(struct limiter *l, struct leaf *leaf, enum sandbox_tree tree)
{
	const char *enter = l->ops->enter[tree];
	AUTO_FD int dir = -EBADF;
	int fd = -EBADF, r = 0;

	/* One that could not even be removed then is empty, and nobody's. */
	if (mkdirat(l->own[tree], leaf->name, 0755) < 0 &&
	    (errno != EEXIST || unlinkat(l->own[tree], leaf->name, AT_REMOVEDIR) < 0 ||
	     mkdirat(l->own[tree], leaf->name, 0755) < 0))
		return -errno;
	dir = openat(l->own[tree], leaf->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		r = -errno;
	if (r == 0 && enter) {
		fd = openat(dir, enter, O_WRONLY | O_CLOEXEC | (l->creates_files ? O_CREAT : 0),
			    0644);
		r = fd < 0 ? -errno : 0;
	}
	if (r < 0) {
		(void)unlinkat(l->own[tree], leaf->name, AT_REMOVEDIR);
		return r;
	}
	leaf->dir[tree] = TAKE_FD(dir);
	leaf->enter[tree] = fd;
	return 0;
}

int leaf_make(struct limiter *l, struct leaf *leaf)
{
	leaf->made = true;
	leaf->killed = false;
	leaf->cpu_seen = 0;
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++) {
		int r = 0;

		if (l->ops->trees[i] && l->own[i] >= 0 && leaf->dir[i] < 0)
			r = make_in(l, leaf, (enum sandbox_tree)i);
		if (r < 0)
			return r;
	}
	return 0;
}

int leaf_clone_fd(const struct leaf *leaf)
{
	return leaf->dir[SANDBOX_TREE_V2];
}

int leaf_enter(const struct leaf *leaf)
{
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++)
		if (leaf->enter[i] >= 0 && write(leaf->enter[i], "0", 1) != 1)
			return -errno;
	return 0;
}

int leaf_write(const struct limiter *l, const struct leaf *leaf, enum sandbox_tree tree,
	       const char *name, uint64_t value)
{
	return io_write_u64_at(leaf->dir[tree], name, value,
			       l->creates_files ? O_CREAT | O_TRUNC : 0);
}

int leaf_set(struct limiter *l, struct leaf *leaf, const struct sandbox_limits *limits)
{
	if (limits->cpu_rate_permille && !(l->has & SANDBOX_HAS_CPU_RATE))
		return -EOPNOTSUPP;
	return l->ops->set ? l->ops->set(l, leaf, limits) : 0;
}

int leaf_cpu(struct limiter *l, struct leaf *leaf, uint64_t *ret_usec)
{
	return l->ops->cpu(l, leaf, ret_usec);
}

int leaf_usage(struct limiter *l, struct leaf *leaf, struct usage *ret_usage)
{
	int r;

	*ret_usage = (struct usage){.memory_peak_bytes = -1};
	r = l->ops->cpu(l, leaf, &ret_usage->cpu_usec);
	return r < 0 ? r : l->ops->usage(l, leaf, ret_usage);
}

void leaf_kill(struct limiter *l, struct leaf *leaf)
{
	if (!(l->has & SANDBOX_HAS_CGROUP_KILL) || leaf->dir[SANDBOX_TREE_V2] < 0)
		return;
	(void)io_write_at(leaf->dir[SANDBOX_TREE_V2], "cgroup.kill", "1", 0);
	leaf->killed = true;
}

static int remove_in(struct limiter *l, struct leaf *leaf, enum sandbox_tree tree)
{
	if (leaf->dir[tree] < 0)
		return 0;
	if (unlinkat(l->own[tree], leaf->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return -errno;
	cleanup_close(&leaf->dir[tree]);
	cleanup_close(&leaf->enter[tree]);
	/* What was read and written of it. */
	if (tree == SANDBOX_TREE_V2 || tree == SANDBOX_TREE_CPUACCT)
		cleanup_close(&leaf->cpu);
	if (tree == SANDBOX_TREE_V2 || tree == SANDBOX_TREE_MEMORY)
		leaf->memory_set = 0;
	if (tree == SANDBOX_TREE_V2 || tree == SANDBOX_TREE_PIDS)
		leaf->processes_set = 0;
	return 0;
}

int leaf_remove(struct limiter *l, struct leaf *leaf)
{
	int r = 0;

	if (!leaf->made)
		return 0;
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++) {
		/* Linux 6.18 kills what is cloned into a group that was ever killed. */
		bool keep =
			l->ops->kept[i] && !leaf->failed && !(leaf->killed && i == SANDBOX_TREE_V2);
		int q = keep ? 0 : remove_in(l, leaf, (enum sandbox_tree)i);

		if (q < 0)
			r = q;
	}
	if (r == 0)
		leaf->made = leaf->failed = false;
	return r;
}
