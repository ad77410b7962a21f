/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What languages make before anybody asks ("setup" in their files): a precompiled header, an
 * archive of loaded classes. The commands are the operator's and run as the version commands do:
 * without a sandbox, never on anything that a user sent; one language after the other, at the
 * lowest priority, while tasks run already. Until a language's files are there its tasks do
 * without.
 *
 * They are kept in a folder that outlives the runner, which other runners may share, and which
 * every box shows read-only as SETUP_TARGET. A language's files are in a folder of their own there,
 * LANGUAGE-ID, where the id is of the toolchain (toolchain.h) and of the language file: with
 * another compiler they are not found, and made anew. A folder appears under its name when it is
 * complete and on disk.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "crypto/digest.h"
#include "runner/probe.h"
#include "task/language.h"

#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#define SETUP_TARGET "/setup"

struct setup;

/* Makes the folder where it is missing, and makes it the working directory of this process, so that
 * a folder above may be closed to the user that the process becomes. Root gives it to uid and gid;
 * so it must lie where only root could put something else. -EPERM where it is another user's, or
 * others may write there. *ret_path is the caller's. */
int setup_enter(const char *dir, uid_t uid, gid_t gid, char **ret_path, struct err *e);

/* After setup_enter. The others outlive it. */
int setup_new(uv_loop_t *loop, struct language_registry *languages, struct probe *probe,
	      struct setup **ret_setup, struct err *e);
/* Stops at once; accepts NULL. */
void setup_free(struct setup *s);

/* Once the languages are probed: looks for what is there, and begins to make the rest. */
void setup_begin(struct setup *s);

/* The language whose files are being made now; NULL: none, and none waits to be. */
const char *setup_making(const struct setup *s);

/* The folder inside a box with what l has made, for this identity of its toolchain; NULL where
 * there is none (yet). Good until the next call. */
const char *setup_path(struct setup *s, const struct language *l,
		       const uint8_t identity[static DIGEST_SIZE]);
