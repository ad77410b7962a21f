/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which languages are there: looks for the programs that a language names by absolute path, runs
 * its version command, all of them side by side, and writes what it found into the registry. The
 * commands are the operator's own toolchains and run without a sandbox, in a clean environment.
 *
 * Also tells one toolchain from another for the compile cache: version text and the file of the
 * compiler itself (device, inode, size, time of change).
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "crypto/digest.h"
#include "task/language.h"

#include <stdint.h>
#include <uv.h>

enum { PROBE_TIMEOUT_MS = 5000, PROBE_TEXT_MAX = 4096 };

struct probe;

/* done is called from the loop, once. */
int probe_new(uv_loop_t *loop, struct language_registry *languages, void (*done)(void *ctx),
	      void *ctx, struct probe **ret_probe, struct err *e);
/* Stops at once; accepts NULL. */
void probe_free(struct probe *p);

/* Valid once done was called; l is one of the registry's. */
const uint8_t *probe_identity(const struct probe *p, const struct language *l);
