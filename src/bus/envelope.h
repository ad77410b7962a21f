/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A message as other processes read it: a version, the bus that sent it, the task, the payload.
 * The sender is there because it has heard its own message already. Another version is ignored.
 */

#include "base/uuid7.h"

#include <stddef.h>
#include <stdint.h>

enum { ENVELOPE_VERSION = 1 };

struct envelope {
	uint8_t version;
	uint8_t sender[8]; /* random */
	uint8_t id[16];
};
_Static_assert(sizeof(struct envelope) == 25, "no padding: it is what goes over the wire");

/* Takes bytes from a stranger apart; the payload stays where it is. 0 or -EBADMSG. */
int envelope_open(const void *bytes, size_t len, struct envelope *ret_envelope,
		  const void **ret_payload, size_t *ret_len);
