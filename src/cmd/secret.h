/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The secret of a cluster, which the keys of its runners are derived from. */

#include "base/buf.h"
#include "base/err.h"

enum { SECRET_FILE_MAX = 4096 };

/* Reads the file, which nobody but its owner may read, without blanks at its end, into a buffer of
 * SECRET_FILE_MAX. */
int secret_read(const char *path, struct buf *ret_secret, struct err *e);

/* Wipes and releases. */
void secret_fini(struct buf *secret);
