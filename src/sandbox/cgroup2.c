/* SPDX-License-Identifier: Apache-2.0 */

/* Limits by cgroup v2 (linux: Documentation/admin-guide/cgroup-v2.rst). */

#include "sandbox/cgroup.h"
#include "sandbox/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

static int set_memory(const struct limiter *l, struct leaf *leaf, uint64_t bytes)
{
	int r;

	if (leaf->memory_set == bytes)
		return 0;
	r = leaf_write(l, leaf, SANDBOX_TREE_V2, "memory.max", bytes);
	if (r < 0)
		return r;
	if (leaf->memory_set == 0) {
		r = leaf_write(l, leaf, SANDBOX_TREE_V2, "memory.oom.group", 1);
		/* Without swap there is no such file, and nothing to limit. */
		if (r == 0)
			r = leaf_write(l, leaf, SANDBOX_TREE_V2, "memory.swap.max", 0);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	leaf->memory_set = bytes;
	return 0;
}

static int set(struct limiter *l, struct leaf *leaf, const struct sandbox_limits *limits)
{
	int r = set_memory(l, leaf, limits->memory_bytes);

	if (r == 0 && leaf->processes_set != limits->processes) {
		r = leaf_write(l, leaf, SANDBOX_TREE_V2, "pids.max",
			       (uint64_t)limits->processes + 1);
		leaf->processes_set = limits->processes;
	}
	if (r == 0 && limits->cpu_rate_permille) {
		char text[48];

		(void)snprintf(text, sizeof(text), "%" PRIu64 " 100000",
			       UINT64_C(100) * limits->cpu_rate_permille);
		r = io_write_at(leaf->dir[SANDBOX_TREE_V2], "cpu.max", text,
				l->creates_files ? O_CREAT | O_TRUNC : 0);
	}
	return r;
}

static int cpu(struct limiter *l, struct leaf *leaf, uint64_t *ret_usec)
{
	char text[2048];
	int r = io_read_at(leaf->dir[SANDBOX_TREE_V2], "cpu.stat", text, sizeof(text));

	(void)l;
	return r < 0 ? r : io_find_u64(text, "usage_usec", ret_usec);
}

static int usage(struct limiter *l, struct leaf *leaf, struct usage *u)
{
	int dir = leaf->dir[SANDBOX_TREE_V2];
	char text[2048];
	uint64_t peak;
	int r = io_read_at(dir, "memory.events", text, sizeof(text));

	if (r >= 0)
		r = io_find_u64(text, "oom_kill", &u->oom_kills);
	if (r >= 0 && l->has & SANDBOX_HAS_MEMORY_PEAK &&
	    io_read_u64_at(dir, "memory.peak", &peak) == 0)
		u->memory_peak_bytes = (int64_t)peak;
	return r < 0 ? r : 0;
}

/* CLONE_INTO_CGROUP puts a box there. */
const struct limiter_ops cgroup2_ops = {
	.set = set, .cpu = cpu, .usage = usage, .trees = {[SANDBOX_TREE_V2] = true}};
