/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keeper: the part of "kiln serve" that stays what it was started as, usually root. It does one
 * thing: it starts runner processes when asked, and tells when they end. It listens to nobody but
 * its own child, over a socket with fixed-size messages; it reads no configuration, no task, no
 * file; the command that it runs was fixed before the child existed. The child, which is everything
 * else (API, scheduler, store), drops its privileges and may ask for runner N to be started or
 * signalled, and for nothing more.
 *
 *	kiln serve (keeper)
 *	|- kiln serve (roles)          unprivileged
 *	|- kiln-runner                 one per up to eight slots
 *	   `- kiln-sandbox
 *
 * The keeper also outlives its child: when that is killed by a signal, the runners are ended and a
 * new child is made. It forwards SIGTERM and SIGINT as SIGTERM.
 */

#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

enum { KEEPER_RUNNERS_MAX = 64, KEEPER_CONNECTION_FD = 3, KEEPER_UIDS_PER_RUNNER = 64 };

struct keeper_config {
	/* The runner's command, NULL at its end. "--connection-fd 3 --name local-N --slots S
	 * --uid-base U" are appended. */
	char *const *runner_argv;
	unsigned max_runners;
	unsigned max_slots; /* per runner */
	uint32_t uid_base;  /* runner N has the KEEPER_UIDS_PER_RUNNER ids from uid_base + N times
			       that */
};

enum keeper_verb { KEEPER_SPAWN = 1, KEEPER_SIGNAL = 2, KEEPER_SPAWNED = 3, KEEPER_EXITED = 4 };

struct keeper_message {
	uint32_t verb;
	uint32_t index; /* of the runner, from 0 */
	uint32_t slots; /* SPAWN */
	int32_t number; /* SIGNAL: which; SPAWNED: pid or -errno; EXITED: wait status */
};

/* Splits the process in two. Returns 0 in each child, with the socket to the keeper, which the
 * child owns; in the keeper, only when all is over: 1, with the status that the process should exit
 * with. Negative when it could not begin. */
int keeper_split(const struct keeper_config *cfg, int *ret_fd, int *ret_status, struct err *e);
