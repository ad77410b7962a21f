/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The ladder of limits: one set of verbs over cgroup v2, cgroup v1, or nothing but rlimits and
 * polling /proc. A limiter is the spawner's own group, which it was given (host.h) and removes at
 * its end. A leaf is the group of one box. Where memory is counted it is fresh for each task: a
 * group that is used again keeps charges, and making one costs a tenth of emptying one. On version
 * 1 the groups beside it, which count processes (none is left) and CPU time (what was used before
 * is subtracted), stay with the box.
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

struct limiter {
	const struct limiter_ops *ops;
	int own[_SANDBOX_TREE_MAX]; /* -EBADF where there is none */
	int parent[_SANDBOX_TREE_MAX];
	int proc_fd;
	uint32_t has; /* SANDBOX_HAS_ of limits */
	char name[SANDBOX_GROUP_MAX];
	bool creates_files; /* a fake tree for tests: limits become plain files */
};

/* By a checked CONFIGURE; takes the descriptors, for each tree own and parent, from fds. Whoever
 * gives something else than groups is refused. */
int limiter_open(struct limiter *l, const struct sandbox_configure *c, int *fds, struct err *e);
void limiter_close(struct limiter *l);

struct leaf {
	int dir[_SANDBOX_TREE_MAX];
	int enter[_SANDBOX_TREE_MAX]; /* where a process moves itself to the group */
	int cpu;		      /* where CPU time is read, once it was */
	char name[16];
	bool made, killed;
	bool failed; /* it could not be used: not to be used again, somebody may have removed it */
	uint64_t memory_set; /* what is written now, 0 nothing */
	uint32_t processes_set;
	pid_t init; /* who entered, for the rlimit rung */
	uint64_t cpu_seen, memory_seen;
	uint32_t processes_seen; /* without init */
};

struct usage {
	uint64_t cpu_usec;
	uint64_t oom_kills;
	uint64_t memory_bytes;	   /* at present; 0 where the kernel enforces the limit itself */
	int64_t memory_peak_bytes; /* -1 unknown */
};

/* No group yet. */
void leaf_init(struct leaf *leaf, unsigned int box);
/* The verbs, 0 or negative errno. leaf_remove is to be tried again where it fails (-EBUSY while a
 * process is still going), and leaves what may be used again. */
int leaf_make(struct limiter *l, struct leaf *leaf);
/* Descriptor for CLONE_INTO_CGROUP, or -EBADF. */
int leaf_clone_fd(const struct leaf *leaf);
/* The calling process, single-threaded and just cloned, moves itself: unlike a move by somebody
 * else that takes no lock of the whole host. Async-signal-safe. */
int leaf_enter(const struct leaf *leaf);
/* limits->processes is without pid 1, which is added here. */
int leaf_set(struct limiter *l, struct leaf *leaf, const struct sandbox_limits *limits);
int leaf_write(const struct limiter *l, const struct leaf *leaf, enum sandbox_tree tree,
	       const char *name, uint64_t value);
int leaf_cpu(struct limiter *l, struct leaf *leaf, uint64_t *ret_usec);
int leaf_usage(struct limiter *l, struct leaf *leaf, struct usage *ret_usage);
void leaf_kill(struct limiter *l, struct leaf *leaf);
int leaf_remove(struct limiter *l, struct leaf *leaf);

struct limiter_ops {
	/* NULL: the task does it to itself */
	int (*set)(struct limiter *l, struct leaf *leaf, const struct sandbox_limits *limits);
	int (*cpu)(struct limiter *l, struct leaf *leaf, uint64_t *ret_usec);
	int (*usage)(struct limiter *l, struct leaf *leaf, struct usage *ret_usage); /* but CPU */
	uint32_t
		poll_usec; /* how often a running box must be looked at; 0: only at its deadlines */
	bool trees[_SANDBOX_TREE_MAX]; /* where a leaf is a directory */
	bool kept[_SANDBOX_TREE_MAX];  /* and where it stays with its box */
	const char *enter[_SANDBOX_TREE_MAX];
};
/* rlimit.c: init and all that came of it, in list, which begins with init. */
enum { RLIMIT_PIDS_MAX = 1024 }; /* what is beyond this bound is not looked at */
size_t rlimit_descendants(const struct limiter *l, pid_t init,
			  uint64_t list[static RLIMIT_PIDS_MAX]);

extern const struct limiter_ops cgroup2_ops, cgroup1_ops, rlimit_ops;
