/* SPDX-License-Identifier: Apache-2.0 */

/* Limits by cgroup v1 (linux: Documentation/admin-guide/cgroup-v1), with the version 2 tree beside
 * it for CPU time where it is mounted. There is no oom.group: the spawner looks at oom_kill now and
 * then and ends the rest itself. */

#include "sandbox/cgroup.h"
#include "sandbox/io.h"

#include <errno.h>
#include <fcntl.h>

#define LIMIT "memory.limit_in_bytes"
#define SWAP  "memory.memsw.limit_in_bytes"

/* memory.limit <= memory.memsw.limit must hold after each write. */
static int set_memory(const struct limiter *l, struct leaf *leaf, uint64_t bytes)
{
	bool raise = leaf->memory_set != 0 && bytes > leaf->memory_set;
	int r = 0;

	if (leaf->memory_set == bytes)
		return 0;
	if (raise && l->has & SANDBOX_HAS_SWAP_LIMIT)
		r = leaf_write(l, leaf, SANDBOX_TREE_MEMORY, SWAP, bytes);
	if (r == 0)
		r = leaf_write(l, leaf, SANDBOX_TREE_MEMORY, LIMIT, bytes);
	if (r == 0 && !raise && l->has & SANDBOX_HAS_SWAP_LIMIT)
		r = leaf_write(l, leaf, SANDBOX_TREE_MEMORY, SWAP, bytes);
	if (r == 0)
		leaf->memory_set = bytes;
	return r;
}

static int set(struct limiter *l, struct leaf *leaf, const struct sandbox_limits *limits)
{
	int r = set_memory(l, leaf, limits->memory_bytes);

	if (r == 0 && leaf->processes_set != limits->processes) {
		r = leaf_write(l, leaf, SANDBOX_TREE_PIDS, "pids.max",
			       (uint64_t)limits->processes + 1);
		leaf->processes_set = limits->processes;
	}
	return r;
}

static int cpu(struct limiter *l, struct leaf *leaf, uint64_t *ret_usec)
{
	const bool v2 = leaf->dir[SANDBOX_TREE_V2] >= 0;
	char text[1024];
	int r;

	(void)l;
	if (leaf->cpu < 0)
		leaf->cpu =
			v2 ? openat(leaf->dir[SANDBOX_TREE_V2], "cpu.stat", O_RDONLY | O_CLOEXEC)
			   : openat(leaf->dir[SANDBOX_TREE_CPUACCT], "cpuacct.usage",
				    O_RDONLY | O_CLOEXEC);
	if (leaf->cpu < 0)
		return -errno;
	r = io_read_start(leaf->cpu, text, sizeof(text));
	if (r < 0)
		return r;
	if (v2)
		return io_find_u64(text, "usage_usec", ret_usec);
	r = io_parse_u64(text, ret_usec, NULL);
	*ret_usec /= 1000;
	return r;
}

static int usage(struct limiter *l, struct leaf *leaf, struct usage *u)
{
	char text[1024];
	uint64_t v;
	int r = io_read_at(leaf->dir[SANDBOX_TREE_MEMORY], "memory.oom_control", text,
			   sizeof(text));

	if (r >= 0)
		r = io_find_u64(text, "oom_kill", &u->oom_kills);
	if (r >= 0 && l->has & SANDBOX_HAS_MEMORY_PEAK &&
	    io_read_u64_at(leaf->dir[SANDBOX_TREE_MEMORY], "memory.max_usage_in_bytes", &v) == 0)
		u->memory_peak_bytes = (int64_t)v;
	return r < 0 ? r : 0;
}

/* By enum sandbox_tree. "tasks" moves one thread, which is all there is, and by itself. */
const struct limiter_ops cgroup1_ops = {
	.set = set,
	.cpu = cpu,
	.usage = usage,
	.poll_usec = 50000,
	.trees = {true, true, true, true},
	.kept = {true, [SANDBOX_TREE_PIDS] = true, [SANDBOX_TREE_CPUACCT] = true},
	.enter = {NULL, "tasks", "tasks", "tasks"},
};
