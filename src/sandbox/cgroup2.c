/* SPDX-License-Identifier: Apache-2.0 */

/* Limits by cgroup v2 (linux: Documentation/admin-guide/cgroup-v2.rst). */

#include "sandbox/cgroup.h"
#include "sandbox/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

static int write_limit(const struct limiter *l, int dir, const char *name, uint64_t value)
{
	return io_write_u64_at(dir, name, value, l->creates_files ? O_CREAT | O_TRUNC : 0);
}

static int set_memory(const struct limiter *l, struct leaf *leaf, uint64_t bytes)
{
	int dir = leaf->dir[TREE_V2], r;

	if (leaf->memory_set == bytes)
		return 0;
	r = write_limit(l, dir, "memory.max", bytes);
	if (r < 0)
		return r;
	if (leaf->memory_set == 0) {
		r = write_limit(l, dir, "memory.oom.group", 1);
		/* Without swap there is no such file, and nothing to limit. */
		if (r == 0)
			r = write_limit(l, dir, "memory.swap.max", 0);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	leaf->memory_set = bytes;
	return 0;
}

static int set(struct limiter *l, struct leaf *leaf, const struct sandbox_limits *limits)
{
	int dir = leaf->dir[TREE_V2], r = set_memory(l, leaf, limits->memory_bytes);

	if (r == 0 && leaf->processes_set != limits->processes) {
		r = write_limit(l, dir, "pids.max", (uint64_t)limits->processes + 1);
		leaf->processes_set = limits->processes;
	}
	if (r == 0 && limits->cpu_rate_permille) {
		char text[48];

		(void)snprintf(text, sizeof(text), "%" PRIu64 " 100000",
			       UINT64_C(100) * limits->cpu_rate_permille);
		r = io_write_at(dir, "cpu.max", text, l->creates_files ? O_CREAT | O_TRUNC : 0);
	}
	return r;
}

static int cpu(struct limiter *l, struct leaf *leaf, uint64_t *ret_usec)
{
	char text[2048];
	int r = io_read_at(leaf->dir[TREE_V2], "cpu.stat", text, sizeof(text));

	(void)l;
	return r < 0 ? r : io_find_u64(text, "usage_usec", ret_usec);
}

static int usage(struct limiter *l, struct leaf *leaf, struct usage *u)
{
	int dir = leaf->dir[TREE_V2];
	char text[2048];
	uint64_t peak;
	int r = io_read_at(dir, "memory.events", text, sizeof(text));

	if (r >= 0)
		r = io_find_u64(text, "oom_kill", &u->oom_kills);
	if (r >= 0 && l->has_peak && io_read_u64_at(dir, "memory.peak", &peak) == 0)
		u->memory_peak_bytes = (int64_t)peak;
	return r < 0 ? r : 0;
}

/* CLONE_INTO_CGROUP puts a box there. */
const struct limiter_ops cgroup2_ops = {
	.set = set, .cpu = cpu, .usage = usage, .trees = {[TREE_V2] = true}};
