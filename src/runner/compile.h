/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a compile step depends on, as a key of the cache; and whether it made what it promised.
 */

#include "base/buf.h"
#include "crypto/digest.h"
#include "runner/intake.h"
#include "sandbox/protocol.h"
#include "wire/conn.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	COMPILE_NOTE_MAX = 1024, /* what compile_check_products may append */
	/* What a compiler said travels in one frame, together with its verdict. */
	COMPILE_OUTPUT_MAX = WIRE_FRAME_MAX - 64 * 1024,
};

/* Tenant (unless builds are shared), language and its file's revision, toolchain, environment,
 * compile argv with its placeholders, entry, and every file with its name. Limits are not part of
 * it: only successes are kept, and those do not depend on them. */
int compile_key(const struct intake *in, const struct language *l,
		const uint8_t identity[static DIGEST_SIZE], bool share_tenants,
		const char *const *envp, uint8_t ret_key[static DIGEST_SIZE]);

/* Seals what was collected and looks for a file for each pattern. Where one is missing, or the
 * archive is not whole, -ENOENT or -EBADMSG, and a line in notes, meant for the author of the
 * program. *ret_size is the size of the archive. */
int compile_check_products(int archive_fd, char *const *produces,
			   const struct sandbox_event_exited *exited, size_t *ret_size,
			   struct buf *notes);
