/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The spawner leaves the host's mount tree for one of its own with three things in it: /proc (so
 * that boxes may mount theirs, and for id maps), /template (what every box's root is a clone of:
 * read-only parts of the host, /dev, /etc) and /mount (where a box assembles its root). A clone of
 * the namespace then costs a dozen mounts whatever the host has, and the spawner itself sees
 * nothing of the host's files any more.
 */

#include "base/err.h"
#include "sandbox/protocol.h"

/* Builds and enters it; irreversible. ret_binds: entries that exist on this host. */
int template_enter(const struct sandbox_bind *binds, size_t count, uint32_t *ret_binds,
		   struct err *e);
