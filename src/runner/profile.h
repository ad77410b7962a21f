/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The host's files that every box of a runner shows read-only: the common ones, and the mounts of
 * all languages, so that one profile fits every task; and what languages made beforehand (setup.h),
 * where there is a folder for it (or NULL).
 */

#include "base/err.h"
#include "sandbox/protocol.h"
#include "task/language.h"

#include <stddef.h>

/* Caller frees. -E2BIG where there are more than a profile holds. */
int profile_new(const struct language_registry *languages, const char *setup_dir,
		struct sandbox_bind **ret_binds, size_t *ret_count, struct err *e);
