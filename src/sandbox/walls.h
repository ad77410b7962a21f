/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What stands between a task and the machine, held against what the operator demands: by a runner
 * before it takes a task, by `kiln-sandbox probe` for people and `kiln doctor`. */

#include "base/err.h"
#include "sandbox/protocol.h"

/* Walls that may be demanded. */
enum sandbox_wall {
	SANDBOX_WALL_CGROUP2 = 1 << 0,
	SANDBOX_WALL_CGROUP = 1 << 1, /* of either version */
	SANDBOX_WALL_USERNS = 1 << 2,
	SANDBOX_WALL_NETNS = 1 << 3,
	SANDBOX_WALL_SECCOMP = 1 << 4,
	SANDBOX_WALL_LANDLOCK = 1 << 5,
	SANDBOX_WALL_TWO_IDS = 1 << 6,
};

/* "netns,seccomp" and the like, or "none". -EINVAL naming the word that is not known. */
int sandbox_walls_parse(const char *list, unsigned *ret_walls, struct err *e);
/* -EPERM naming what is missing of the walls wanted. */
int sandbox_walls_check(const struct sandbox_reply_configured *in_force, unsigned wanted,
			struct err *e);
