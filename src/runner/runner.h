/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A runner: takes tasks from schedulers, compiles and runs them in the boxes of its spawner, and
 * tells what came of it. It has one connection that it was given, or listens for those of any
 * number of schedulers that hold its key. One event loop, one thread.
 *
 * It starts the spawner with the rights that it was started with, then gives its own up, then finds
 * out which languages are there, and only then reads the first frame.
 *
 * It ends when the connection that it was given ends, when it was told to drain (by SIGTERM, or by
 * a scheduler's DRAIN) and the last task is done, or when its spawner is lost; whoever keeps it
 * starts another.
 */

#include "base/err.h"
#include "sandbox/protocol.h"
#include "wire/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { RUNNER_SLOTS_MAX = 8 };

enum runner_exit {
	RUNNER_EXIT_OK = 0,
	RUNNER_EXIT_FAILED = 1,	      /* could not start */
	RUNNER_EXIT_USAGE = 2,	      /* wrong options */
	RUNNER_EXIT_SANDBOX_LOST = 3, /* the spawner ended: start another runner */
};

/* Walls that may be demanded. */
enum runner_wall {
	RUNNER_WALL_CGROUP2 = 1 << 0,
	RUNNER_WALL_CGROUP = 1 << 1, /* of either version */
	RUNNER_WALL_USERNS = 1 << 2,
	RUNNER_WALL_NETNS = 1 << 3,
	RUNNER_WALL_SECCOMP = 1 << 4,
	RUNNER_WALL_LANDLOCK = 1 << 5,
	RUNNER_WALL_TWO_IDS = 1 << 6,
};

struct runner_options {
	int connection_fd;	   /* or negative, and: */
	const char *listen;	   /* address and port */
	const struct tls_psk *key; /* of whoever may connect there */
	const char *key_file;	   /* where the key is from */
	const char *name;
	unsigned slots;
	const char *languages; /* folder */
	const char *sandbox;   /* path of kiln-sandbox */
	const char *setup_dir; /* what languages make beforehand; NULL: nothing is made */
	uid_t uid;	       /* to become, where started as root */
	gid_t gid;
	unsigned uid_base; /* of the boxes; 0: the spawner's choice */
	enum sandbox_rung rung;
	unsigned walls; /* without which nothing is run */
	size_t cache_bytes;
	bool share_cache;
	size_t standby_bytes; /* for interpreters that stand by; 0: none does */
	int64_t lease_ms;
};

/* "netns,seccomp" and the like, or "none". -EINVAL naming the word that is not known. */
int runner_walls_parse(const char *list, unsigned *ret_walls, struct err *e);

/* Runs to its end. *ret_exit is set where it started; a failure to start is the return value. Takes
 * connection_fd. */
int runner_run(const struct runner_options *o, enum runner_exit *ret_exit, struct err *e);
