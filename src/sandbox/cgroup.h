/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The ladder of limits: one set of verbs over cgroup v2, cgroup v1, or nothing but rlimits and
 * polling /proc. A limiter is the spawner's own group, made below its present one and named after
 * it ("kiln-sandbox.PIDNS.PID.START"), so that what a killed spawner left is recognised and removed
 * by the next. A leaf is the group of one box, fresh for each task: a version 1 group that is
 * reused keeps charges, and making one costs a tenth of emptying one.
 *
 * Polling (the rlimit rung) sees what lives and what its parents waited for; a process whose parent
 * ignores SIGCHLD escapes the CPU count there, not the wall clock.
 *
 * Files are reached from directory descriptors only, which stay valid after the spawner has left
 * the host's mount tree. Nothing here allocates after limiter_open.
 */

#include "base/err.h"
#include "sandbox/protocol.h"

#include <stdbool.h>
#include <sys/types.h>

struct limiter_ops;

enum limiter_tree { TREE_V2, TREE_MEMORY, TREE_PIDS, TREE_CPUACCT, _TREE_MAX };

struct limiter {
	const struct limiter_ops *ops;
	enum sandbox_rung rung;
	int parent[_TREE_MAX]; /* where own groups are made; -EBADF where there is none */
	int own[_TREE_MAX];
	int proc_fd;
	char name[80];
	char path[SANDBOX_PATH_MAX]; /* for reports */
	bool has_swap, has_peak, has_kill, has_cpu_rate;
	bool creates_files; /* a fake tree for tests: limits become plain files */
};

/* Tests point these at a fake tree; the spawner leaves them NULL. */
struct limiter_options {
	enum sandbox_rung rung;
	const char *parent;	  /* cgroup path to nest under; NULL or "": own group */
	const char *mountinfo;	  /* "/proc/self/mountinfo" */
	const char *own_cgroups;  /* "/proc/self/cgroup" */
	const char *mount_prefix; /* put before mount points, for tests */
	bool creates_files;
};

/* Chooses the highest rung that works (or the one wished for, or fails), makes the own groups and
 * removes stale ones. */
int limiter_open(struct limiter *l, const struct limiter_options *o, struct err *e);
void limiter_close(struct limiter *l);

struct leaf {
	int dir[_TREE_MAX];
	char name[16];
	bool made;
	uint64_t memory_set; /* what is written now, 0 nothing */
	uint32_t processes_set;
	pid_t init; /* rlimit rung */
	uint64_t cpu_seen;
};

struct usage {
	uint64_t cpu_usec;
	uint64_t oom_kills;
	uint64_t memory_bytes;	   /* at present; 0 where the kernel enforces the limit itself */
	int64_t memory_peak_bytes; /* -1 unknown */
};

/* The verbs, 0 or negative errno. leaf_remove gives -EBUSY while a process is still going. */
int leaf_make(struct limiter *l, struct leaf *leaf, unsigned int box);
/* Descriptor for CLONE_INTO_CGROUP, or -EBADF. */
int leaf_clone_fd(const struct leaf *leaf);
int leaf_attach(struct limiter *l, struct leaf *leaf, pid_t pid);
/* limits->processes is without pid 1, which is added here. */
int leaf_set(struct limiter *l, struct leaf *leaf, const struct sandbox_limits *limits);
int leaf_usage(struct limiter *l, struct leaf *leaf, struct usage *ret_usage);
void leaf_kill(struct limiter *l, struct leaf *leaf);
int leaf_remove(struct limiter *l, struct leaf *leaf);

struct limiter_ops {
	int (*attach)(struct limiter *l, struct leaf *leaf, pid_t pid);
	int (*set)(struct limiter *l, struct leaf *leaf, const struct sandbox_limits *limits);
	int (*usage)(struct limiter *l, struct leaf *leaf, struct usage *ret_usage);
	uint32_t
		poll_usec; /* how often a running box must be looked at; 0: only at its deadlines */
	bool trees[_TREE_MAX]; /* where a leaf is a directory */
};
extern const struct limiter_ops cgroup2_ops, cgroup1_ops, rlimit_ops;
