/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * `kiln-runner derive-key`: from the key of a pool and the name of a pod the key of that pod alone.
 * It runs in an init container, which has the pool's key mounted; the runner's container has not,
 * so that who breaks into it finds no other's.
 */

#include "base/err.h"

/* argv[0] is the verb. Returns an exit code; says on stderr what is wrong. */
int derive_key(int argc, char **argv);
