/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Giving up root. A role that was started as root becomes an ordinary user of its own before it
 * listens or reads a task: the named user where one is installed, else a fixed high number, so that
 * nothing needs to be installed first.
 */

#include "base/err.h"

#include <sys/types.h>

/* The ids of a user by name; fallback for both where there is no such user. */
void priv_lookup(const char *user, uid_t fallback, uid_t *ret_uid, gid_t *ret_gid);

/* Becomes uid and gid for good, without supplementary groups, and checks that there is no way
 * back. Nothing happens for a process that is not root. */
int priv_drop(uid_t uid, gid_t gid, struct err *e);
