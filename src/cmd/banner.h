/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What "kiln serve" says on standard output when it is ready: for the person who started it.
 */

#include "cmd/key_state.h"
#include "task/language.h"

#include <stdint.h>

/* isolation NULL: no runner yet. */
void banner_print(const char *address, const struct language_registry *languages,
		  const struct task_isolation *isolation, enum key_state keys, int64_t took_ms);

/* Of a role on its own. address_name: what is at the address. */
void banner_print_role(const char *role, const char *address_name, const char *address,
		       enum key_state keys);
