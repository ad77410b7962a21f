/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The data folder of `kiln serve`. */

#include "base/err.h"

#include <sys/types.h>

/* Makes the folder, locks it for this process and all that it forks (the lock ends with
 * ret_lock_fd, the caller's, in the last of them), and gives it to the user that the server will
 * be where started as root. -EBUSY where another server has it. */
int data_dir_prepare(const char *path, uid_t uid, gid_t gid, int *ret_lock_fd, struct err *e);
