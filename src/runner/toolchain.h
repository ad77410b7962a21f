/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which toolchain a language is compiled with, as a digest for the keys of the compile cache: what
 * its version command said, and of the compiler and every file that the language's "toolchain"
 * names device, inode, size, and times of change of contents and inode. The patterns are looked up
 * when the identity is made; after that asking again costs one stat for each file, and a file that
 * was replaced, changed, taken away or added at a plain path makes a new identity.
 *
 * An identity that cannot be told is told as such, never as one that others could share.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "crypto/digest.h"
#include "task/language.h"

#include <stddef.h>
#include <stdint.h>

enum { TOOLCHAIN_FILES_MAX = 256 };

struct toolchain;

/* said: what the version command printed. The language must outlive it. NULL: no memory. */
struct toolchain *toolchain_new(const struct language *l, const void *said, size_t said_len);
void toolchain_free(struct toolchain *t);
DEFINE_CLEANUP(struct toolchain, toolchain_free);

/* 1 where it is another one than the last time (or the first), 0 where it is the same; the identity
 * in both cases. Negative where it cannot be told now: the compiler is not there, a file cannot be
 * looked at, there are too many, no memory. */
int toolchain_identity(struct toolchain *t, uint8_t ret_identity[static DIGEST_SIZE],
		       struct err *e);
