/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the group of a box is charged with: the memory of all its processes and files that nobody
 * else has. One number of the kernel's, where /proc/PID/smaps walks every page table. Which groups
 * there are is the spawner's affair; here they are found as the host shows them.
 */

#include "base/cleanup.h"
#include "base/err.h"

#include <stdint.h>

struct charge;

/* proc: "/proc", or a test's. NULL in *ret_charge where no hierarchy counts memory: that is no
 * failure. */
int charge_open(const char *proc, struct charge **ret_charge, struct err *e);
void charge_close(struct charge *c); /* accepts NULL */
DEFINE_CLEANUP(struct charge, charge_close);

/* Of the box whose first process this is. -ENOENT where the process is in no group of a box, or is
 * gone; accepts NULL, which knows of none. */
int charge_read(const struct charge *c, uint32_t init_pid, uint64_t *ret_bytes);
