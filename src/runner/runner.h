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
 * a scheduler's DRAIN) and the last task is done, when it has had as many tasks as it is to have,
 * or when its spawner is lost; whoever keeps it starts another.
 */

#include "base/err.h"
#include "sandbox/protocol.h"
#include "wire/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { RUNNER_SLOTS_MAX = 8, RUNNER_RESIDENT_MAX = 1000000 };

enum runner_exit {
	RUNNER_EXIT_OK = 0,
	RUNNER_EXIT_FAILED = 1,	      /* could not start */
	RUNNER_EXIT_USAGE = 2,	      /* wrong options */
	RUNNER_EXIT_SANDBOX_LOST = 3, /* the spawner ended: start another runner */
};

enum runner_level {
	RUNNER_LEVEL_SANDBOX,
	RUNNER_LEVEL_POD,
	RUNNER_LEVEL_AUTO, /* sandbox where it can be had */
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
	enum runner_level level;
	unsigned walls; /* without which nothing is run (enum sandbox_wall); if given, else by level
			 */
	bool walls_given;
	uint64_t max_tasks; /* after which it ends; 0: any number */
	size_t cache_bytes;
	bool share_cache;
	uint64_t fork_tasks;	     /* of one interpreter, before another takes its place */
	size_t standby_bytes;	     /* for interpreters that stand by; 0: none does */
	size_t fork_bytes;	     /* for those that tasks are forked of; 0: none are */
	unsigned resident_compilers; /* programs of one tenant that one is used for; 0: none is */
	int64_t lease_ms;
};

/* Runs to its end. *ret_exit is set where it started; a failure to start is the return value. Takes
 * connection_fd. */
int runner_run(const struct runner_options *o, enum runner_exit *ret_exit, struct err *e);
