/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who the spawner is and whom its boxes are mapped to. Root with a range of ids gives each box two
 * host ids of its own, init's and the task's, and keeps a short list of capabilities. An ordinary
 * user enters a user namespace first, in which the same code works, and has one id for all.
 */

#include "base/err.h"
#include "sandbox/protocol.h"

#include <linux/capability.h>
#include <stdbool.h>
#include <sys/types.h>

/* Above the ranges that systemd.io/UIDS-GIDS gives to users, services and containers. */
#define IDENTITY_UID_BASE 1900000000u

struct identity {
	bool root, two_ids;
	uint32_t uid_base;     /* two ids: of box 0; else the id of the task on the host */
	uint64_t capabilities; /* in force */
	uint64_t spare;
};

/* SYS_ADMIN: enter pooled network namespaces, resize a box's tmpfs; SETUID, SETGID: id maps;
 * NET_ADMIN: raise the loopback device of a new one; KILL: end what runs under other ids. */
#define IDENTITY_NEEDED                                                                            \
	(UINT64_C(1) << CAP_SYS_ADMIN | UINT64_C(1) << CAP_SETUID | UINT64_C(1) << CAP_SETGID |    \
	 UINT64_C(1) << CAP_NET_ADMIN | UINT64_C(1) << CAP_KILL)

/* Enters the user namespace of an ordinary user; uid_base: see struct sandbox_configure. */
int identity_enter(struct identity *id, uint32_t uid_base, struct err *e);
/* Drops every capability that a spawner does not need. */
int identity_drop(struct identity *id, struct err *e);
/* At the very end, for a moment: lets root remove its groups from a hierarchy's top, which the
 * kernel makes without write permission. */
void identity_raise_for_cleanup(const struct identity *id);
/* Writes the maps of a new box: proc_fd is /proc of the host. */
int identity_map(const struct identity *id, int proc_fd, unsigned int box, pid_t pid);
