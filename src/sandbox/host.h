/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a spawner is given of its host by who starts it, with the rights that both have at that
 * moment and that the runner has no more when it sees its first task: groups to make those of boxes
 * in, ids to map boxes to, and a profile of which all is known. So the spawner looks for nothing,
 * and reads no text about the host.
 *
 * Groups are named after their spawner ("kiln-sandbox.PIDNS.PID.START") and made below the present
 * one; what a killed spawner left, or a client that was killed before it could hand them over, is
 * recognised by that and removed by the next.
 */

#include "base/err.h"
#include "sandbox/protocol.h"

#include <stdbool.h>
#include <sys/types.h>

struct groups {
	enum sandbox_rung rung;
	int parent[_SANDBOX_TREE_MAX]; /* where own is; -EBADF where there is none */
	int own[_SANDBOX_TREE_MAX];
	uint32_t has; /* SANDBOX_HAS_ of limits */
	char name[SANDBOX_GROUP_MAX];
	char path[SANDBOX_PATH_MAX]; /* for reports */
};

/* Tests point the last four at a fake tree; all others leave them NULL. */
struct groups_options {
	enum sandbox_rung rung;
	pid_t spawner;
	const char *parent;	  /* cgroup path to nest under; NULL or "": own group */
	const char *mountinfo;	  /* "/proc/self/mountinfo" */
	const char *own_cgroups;  /* "/proc/self/cgroup" */
	const char *mount_prefix; /* put before mount points */
	bool creates_files;	  /* limits become plain files */
};

/* Chooses the highest rung that works (or the one wished for, or fails), makes the own groups and
 * removes stale ones. A shortage of memory or descriptors fails: it chooses no lower rung. */
int groups_open(struct groups *g, const struct groups_options *o, struct err *e);
/* Closes the descriptors; the groups stay, and are the spawner's to remove. */
void groups_close(struct groups *g);
/* Removes them too. */
void groups_remove(struct groups *g);

/* The first of two host ids for each box (wish: 0 for any); 0 where boxes have to share the
 * caller's own: an ordinary user, or a container without a range of ids. */
int ids_choose(uint32_t wish, unsigned int boxes, uint32_t *ret_base, struct err *e);

/* Looks at what the entries name, into `to`, which has as much room: what is optional and missing
 * is left out, symbolic links and folders are marked. */
int profile_look(const struct sandbox_bind *from, size_t count, struct sandbox_bind *to,
		 size_t *ret_count, struct err *e);
