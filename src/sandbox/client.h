/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The runner's end of a spawner: starts `kiln-sandbox serve`, sends requests, receives events.
 * protocol.h has the rules. No event loop of its own: poll sandbox_client_fd() for reading and call
 * sandbox_client_receive() until it returns 0. No call blocks but sandbox_client_new, which is for
 * start-up. Not thread-safe. Descriptors handed to a request stay the caller's and may be closed as
 * soon as the call returns; descriptors are duplicated by the kernel, not shared in number.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/archive.h"
#include "sandbox/protocol.h"

#include <sys/types.h>

struct sandbox_client;
struct nursery;

struct sandbox_client_options {
	const char *program; /* path of kiln-sandbox */
	unsigned int boxes;
	unsigned int uid_base; /* 0: chosen */
	enum sandbox_rung rung;
	unsigned int flags;	   /* SANDBOX_CONFIGURE_ */
	const char *cgroup_parent; /* NULL: the spawner's own group */
	int seccomp_fd;		   /* sealed memfd with struct sock_filter[]; -EBADF: no filter */
	const struct sandbox_bind *binds; /* the profile; see sandbox_profile_default */
	size_t bind_count;
	int timeout_ms; /* for the whole start-up; 0: 10 s */
	/* With places there is a nursery beside it, for interpreters (nursery.h), where the host
	 * has what it needs; boxes are then at most SANDBOX_BOXES_NURSING. */
	unsigned int places, place_boxes;
};

enum { SANDBOX_BOXES_NURSING = SANDBOX_BOXES_MAX - 2 };

/* Starts a spawner and configures it. What is in force: sandbox_client_in_force(). */
int sandbox_client_new(const struct sandbox_client_options *o, struct sandbox_client **ret_client,
		       struct err *e);
/* Closes the socket, on which the spawner kills and removes everything, and reaps it: waits at most
 * two seconds, then kills it. */
void sandbox_client_free(struct sandbox_client *c);
DEFINE_CLEANUP(struct sandbox_client, sandbox_client_free);

/* Ends a spawner without waiting: it kills and removes everything, and then receive says -EPIPE. */
void sandbox_client_end(struct sandbox_client *c);

const struct sandbox_reply_configured *sandbox_client_in_force(const struct sandbox_client *c);
int sandbox_client_fd(const struct sandbox_client *c);
/* NULL where there is none; the client's. */
struct nursery *sandbox_client_nursery(const struct sandbox_client *c);
/* Why there is none although there were to be places; "" otherwise. */
const char *sandbox_client_no_nursery(const struct sandbox_client *c);
pid_t sandbox_client_pid(const struct sandbox_client *c);

int sandbox_client_prepare(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			   const struct sandbox_limits *expected, struct err *e);

struct sandbox_task {
	struct sandbox_limits limits;
	int job_fd;	      /* sealed memfd from job_write() */
	int output_fd;	      /* memfd that receives the collected files; -EBADF: collect nothing */
	const int *input_fds; /* sealed archives (a collected output, once sealed, is one) */
	size_t input_count;
	const int *map_fds; /* map_fds[i] becomes map_targets[i] in the task */
	const uint8_t *map_targets;
	size_t map_count;
};

int sandbox_client_start(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			 const struct sandbox_task *task, struct err *e);
/* Replaces the limits of a running box and restarts its clocks: for a standby that boots first and
 * is given a program later. Disk, files and stack stay as they were at START. */
int sandbox_client_limit(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			 const struct sandbox_limits *limits, struct err *e);
/* reason comes back as `limit` in EXITED: SANDBOX_LIMIT_OUTPUT or _REQUESTED. */
int sandbox_client_kill(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			enum sandbox_limit reason, struct err *e);
int sandbox_client_release(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			   struct err *e);

/* 1 with an event, 0 where there is none now, -EPIPE when the spawner is gone. */
int sandbox_client_receive(struct sandbox_client *c, union sandbox_event *ret_event, struct err *e);

const char *sandbox_rung_name(unsigned int rung); /* "auto", "cgroup2", "cgroup1", "rlimit" */
int sandbox_rung_parse(const char *text, enum sandbox_rung *ret_rung); /* or -EINVAL */
const char *sandbox_step_name(unsigned int step);
const char *sandbox_limit_name(unsigned int limit);

/* Binds that fit a Debian-like or Alpine-like host: /usr, /bin, /lib*, /sbin, the parts of /etc
 * that languages need (ld.so.cache, alternatives, localtime, java-*, ...). Caller frees. */
int sandbox_profile_default(struct sandbox_bind **ret_binds, size_t *ret_count, struct err *e);
