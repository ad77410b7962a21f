/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The code that runs inside a box, from clone3 to the task's execve. It starts as a copy of the
 * spawner and gives everything away step by step; no malloc, no stdio, no locks in any of it.
 *
 *	init      pid 1: builds the root, gives up its rights, forks the task, reaps, reports
 *	task      waits with everything but its job done; takes START, unpacks, executes
 *	collector a fresh child of init after the task: copies products to the output memfd
 *
 * Landlock and the system call filter are installed by init before the fork, so that the task and
 * the collector inherit them and START does not pay for them.
 *
 * All three share one end of a SOCK_SEQPACKET pair (INSIDE_FD, close-on-exec) with the spawner. The
 * task reads one START from it and writes a report only where something failed; init writes the
 * others and reads COLLECT. User code has neither the descriptor nor a way to init's.
 */

#include "sandbox/archive.h"
#include "sandbox/cgroup.h"
#include "sandbox/protocol.h"

#include <linux/filter.h>
#include <sys/types.h>

enum {
	INSIDE_FD = SANDBOX_TARGET_FD_MAX, /* above every number that a task may be given */
	INSIDE_UID = 1000,
};

/* Decided at CONFIGURE, the same for all boxes. */
struct inside_plan {
	/* Where a task does not execute its command, but goes on as what the spawner is (zygote.h):
	 * does not return. Else NULL. */
	void (*resume)(const char **argv, const char **envp);
	bool two_ids; /* init is 0 inside, else it shares INSIDE_UID */
	bool proc;
	uint32_t landlock_abi;
	uint16_t filter_len;
	const struct sock_filter *filter;
	int last_capability;
	bool pod;			  /* no namespaces: see pod.h */
	const struct sandbox_bind *binds; /* pod: what may be read */
	size_t binds_len;
};

enum inside_type {
	INSIDE_GO = 1,	  /* to init: identity mapped, group entered */
	INSIDE_PREPARED,  /* from init; fd: file system context of the work tmpfs */
	INSIDE_FAILED,	  /* from any: step, error */
	INSIDE_EXITED,	  /* from init: the main process ended and everything else is gone */
	INSIDE_COLLECT,	  /* to init: collect_bytes, collect_files; fds: job, output */
	INSIDE_COLLECTED, /* from init */
};

struct inside_message {
	uint32_t type;
	uint32_t step;
	int32_t error;
	int32_t status; /* wait status */
	uint64_t bytes;
	uint32_t files;
	uint32_t reserved;
};

/* init.c. Never returns. */
_Noreturn void inside_init(const struct inside_plan *plan, const struct sandbox_limits *limits,
			   const struct leaf *leaf, int sock);
/* Reports a failure to the spawner and ends the process. */
_Noreturn void inside_fail(enum sandbox_step step, int error);
/* One message with descriptors, which get numbers of the kernel's choice. Returns the length, 0 at
 * end of file. */
ssize_t inside_receive(void *buf, size_t size, int *fds, size_t fds_max, size_t *ret_fds);
int inside_send(const struct inside_message *m, int fd);
/* From root inside to the task's id, without any capability. */
void inside_become_task(const struct inside_plan *plan);

/* setup.c: mounts, host name. ret_context: descriptor of the work tmpfs's context. */
void inside_setup(const struct inside_plan *plan, const struct sandbox_limits *limits,
		  int *ret_context);

/* landlock.c. The ABI of the kernel, 0 for none, or negative errno; 0 or negative errno. */
int landlock_abi(void);
int landlock_restrict(uint32_t abi);
/* Where there is no root of its own: only the sources of binds, and what every program needs, can
 * be read. From ABI 6 on with a domain that signals do not leave. */
int landlock_restrict_pod(uint32_t abi, const struct sandbox_bind *binds, size_t n);

/* caps.c */
int caps_set(uint64_t effective, uint64_t permitted); /* inheritable and ambient: empty */
int caps_bound(uint64_t keep, int last);
int caps_last(void);
uint64_t caps_effective(void);

/* task.c. Waits for START, becomes the program. */
_Noreturn void inside_task(const struct inside_plan *plan);

/* files.c. Below the work directory, which must be the current one. */
/* The archive is part of what files_map made of a descriptor. */
int files_unpack(struct archive_reader *archive, const void *map, int fd);
/* Copies what matches into output as an archive. Returns 0 or a negative errno with what fitted. */
int files_collect(int output, const char *const *patterns, uint64_t bytes_max, uint32_t files_max,
		  uint64_t *ret_bytes, uint32_t *ret_files);
/* Maps a sealed memfd for reading; -EPERM where it could still change. */
int files_map(int fd, const void **ret_data, size_t *ret_len);
