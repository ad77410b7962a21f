/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which languages are there: looks for the programs that a language names by absolute path, runs
 * its version command, all of them side by side, and writes what it found into the registry. The
 * commands are the operator's own toolchains and run without a sandbox, in a clean environment. One
 * that fails is not there; one that says nothing in time is, and its version is not known.
 *
 * Also tells one toolchain from another for the compile cache (toolchain.h), as it is at the moment
 * of asking: compilers may be upgraded while a runner lives.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "crypto/digest.h"
#include "task/language.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum { PROBE_TIMEOUT_MS = 5000, PROBE_TEXT_MAX = 4096 };

struct probe;

/* done is called from the loop, once. */
int probe_new(uv_loop_t *loop, struct language_registry *languages, void (*done)(void *ctx),
	      void *ctx, struct probe **ret_probe, struct err *e);
/* Stops at once; accepts NULL. */
void probe_free(struct probe *p);

/* Once done was called; l is one of the registry's. False where the toolchain cannot be told from
 * another: then nothing that it makes may be kept. Logged when it begins to be so. */
bool probe_identity(struct probe *p, const struct language *l,
		    uint8_t ret_identity[static DIGEST_SIZE]);
