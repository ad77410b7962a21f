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
#include "sandbox/client.h"
#include "sandbox/nursery.h"
#include "sandbox/protocol.h"

#include <stdbool.h>
#include <sys/types.h>

/* A program of ours with its end of a socket pair as descriptor 3, which ends at the end of that.
 */
struct sandbox_child {
	int sock;
	pid_t pid; /* 0: somebody else's child */
};
#define SANDBOX_CHILD_NONE ((struct sandbox_child){.sock = -EBADF})

int sandbox_child_start(struct sandbox_child *c, const char *program, const char *command,
			struct err *e);
/* Waits at most two seconds, then kills it. */
void sandbox_child_end(struct sandbox_child *c);

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
/* Below a spawner's groups, those of interpreters that are spawners (nursery.h), who have the host
 * id given as their own (0: ours): ret_top by tree, or -EBADF; ret_places each as groups_open's.
 * The keeper who starts them is moved to where it may move them from. */
int groups_nest(const struct groups *g, pid_t keeper, uint32_t uid, unsigned int places,
		int ret_top[_SANDBOX_TREE_MAX], struct groups *ret_places, struct err *e);
/* Closes the descriptors; the groups stay, and are the spawner's to remove. */
void groups_close(struct groups *g);
/* Removes them too. */
void groups_remove(struct groups *g);

/* The first of that many host ids, two for each box (wish: 0 for any); 0 where boxes have to share
 * the caller's own: an ordinary user, or a container without a range of ids. */
int ids_choose(uint32_t wish, unsigned int count, uint32_t *ret_base, struct err *e);

/* A client over a socket whose other end is a spawner that has just been started, and is told what
 * it is to be without waiting for its answer. Takes the socket, also on failure. */
struct sandbox_site {
	const struct groups *groups;
	uint32_t uid_base;
	unsigned int boxes;
	int profile_fd, seccomp_fd;
};
int sandbox_client_new_placed(int sock, const struct sandbox_site *where,
			      struct sandbox_client **ret_client, struct err *e);

/* Looks at what the entries name, into `to`, which has as much room: what is optional and missing
 * is left out, symbolic links and folders are marked. */
int profile_look(const struct sandbox_bind *from, size_t count, struct sandbox_bind *to,
		 size_t *ret_count, struct err *e);

/* ---- a nursery ---- */

struct nursery_options {
	const char *program; /* path of kiln-sandbox */
	unsigned int places, boxes;
	uint32_t uid_first; /* of nursery_ids() host ids; 0: the caller is an ordinary user */
	int profile_fd;	    /* sealed memfd; the caller's, as the next is */
	int seccomp_fd;	    /* or -EBADF */
};

/* How many host ids that takes. */
unsigned int nursery_ids(unsigned int places, unsigned int boxes);

/* groups: the spawner's, which removes those that are made below at its end. */
int nursery_new(const struct nursery_options *o, const struct groups *groups,
		struct nursery **ret_nursery, struct err *e);
/* As sandbox_client_free; before the spawner whose groups they are in. */
void nursery_free(struct nursery *n);
DEFINE_CLEANUP(struct nursery, nursery_free);

void nursery_place_name(unsigned int place, char name[static SANDBOX_GROUP_MAX]);
