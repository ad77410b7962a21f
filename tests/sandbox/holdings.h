/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a spawner holds of the machine; equal before and after, or something was left. */

#include <sys/types.h>

struct holdings {
	unsigned int descriptors, mounts, children, groups;
};

/* Looks for the groups of a spawner, kiln-sandbox.NAMESPACE.PID.START, which holdings_of then looks
 * into. */
void holdings_find_groups(pid_t spawner);
/* How many were found. */
unsigned int holdings_groups(void);
struct holdings holdings_of(pid_t pid);
