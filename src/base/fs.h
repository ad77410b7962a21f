/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Small file helpers: whole reads and writes with a bound, full writes to a descriptor, memfds.
 */

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

/* Reads the whole file into b, which bounds it. dir_fd may be AT_FDCWD. */
int fs_read_file(int dir_fd, const char *path, struct buf *b, struct err *e);

/* The same for a secret: -EACCES where group or others may read the file, -EINVAL where it is empty
 * or no regular file. */
int fs_read_secret(const char *path, struct buf *b, struct err *e);

/* Reads fd to its end into b. -ENOBUFS where b's maximum is passed. */
int fs_read_fd(int fd, struct buf *b);

/* Writes all bytes, going on after interrupts and short writes. 0 or negative errno. */
int fs_write_all(int fd, const void *bytes, size_t len);

/* mkdir -p with the mode for what is made. */
int fs_make_dirs(const char *path, unsigned mode, struct err *e);

/* Path of the running executable's folder, without a slash at its end. Caller frees. */
char *fs_self_dir(void);
