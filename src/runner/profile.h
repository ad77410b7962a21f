/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The host's files that every box of a runner shows read-only: the common ones, and the mounts of
 * all languages, so that one profile fits every task.
 */

#include "base/err.h"
#include "sandbox/protocol.h"
#include "task/language.h"

#include <stddef.h>

/* Caller frees. -E2BIG where there are more than a profile holds. */
int profile_new(const struct language_registry *languages, struct sandbox_bind **ret_binds,
		size_t *ret_count, struct err *e);
