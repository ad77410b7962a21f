/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How much memory this process could have: the machine's, or what a control group above it leaves
 * of that.
 */

#include <stdint.h>

/* The tightest memory limit of the control groups that this process is in, of either version;
 * UINT64_MAX where there is none. root is put before /proc and /sys: "", but in tests. */
uint64_t memory_cgroup_limit(const char *root);

/* The machine's memory or that limit, whatever is less. */
uint64_t memory_total(void);

/* What one of so many processes may spend on what is only kept ready: its share of a sixteenth of
 * total, 1 GiB at most. 0 where that is less than 128 MiB. */
uint64_t memory_to_spare(uint64_t total, unsigned processes);
