/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The spawner leaves the host's mount tree for one of its own, which is at once the root of every
 * box: read-only parts of the host, /dev, /etc, and a /proc that shows nobody. A box gets a copy
 * with its mount namespace, for nothing but the cost of that, and since the copy belongs to a user
 * namespace with fewer rights, the kernel locks every mount of it in place (mount_namespaces(7)).
 * The spawner itself sees nothing else of the host's files any more.
 */

#include "base/err.h"
#include "sandbox/protocol.h"

/* Builds and enters it; irreversible. The entries are as the client saw them (host.h). */
int template_enter(const struct sandbox_bind *binds, size_t count, struct err *e);
