/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Boxes where no namespace can be made, such as in a container under the runtime's default system
 * call filter. The place itself, a pod that has nothing else in it and ends after one task, is then
 * the wall; inside of it Landlock, the filter and limits keep the task from the runner and the
 * spawner, which run under the same id:
 *
 *	files		Landlock: it reads what boxes elsewhere are shown, and writes to the work
 *			directories, which the pod provides (SANDBOX_WORK_DIR, /tmp); no key,
 *			no secret
 *	processes	not dumpable, so neither traced nor read; not signalled from Linux 6.12 on
 *			(Landlock ABI 6), before that killed at most, which costs the task its pod
 *	network		no socket but AF_UNIX
 *	the kill	of every descendant of init, found in /proc; what outruns that ends with the
 *			pod
 *
 * There is one box at a time, and the task's compile step has the one before.
 */

#include "base/err.h"
#include "sandbox/inside.h"
#include "sandbox/protocol.h"

#include <sys/types.h>

struct spawner;
struct box;

/* In the spawner: whether boxes can be made so. -EPERM with a reason where not. */
int pod_enter(struct spawner *s, struct err *e);
/* As clone3 of a box's init, in the spawner's own namespaces. */
pid_t pod_clone_init(int *ret_pidfd);
/* Where a box has a group of version 2: moves its init there, which clone could not. */
int pod_enter_group(const struct box *b);
/* Kills all that came of init, and not init. Does nothing where boxes have namespaces. */
void pod_kill_rest(struct spawner *s, const struct box *b);

/* Inside. Takes away what an earlier box left in the work directories, with the rights of the
 * task. */
int pod_empty_work(void);
int pod_restrict(const struct inside_plan *plan);
