/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whether a server that starts asks for keys: it does once there was one, also when all are
 * revoked, since to revoke the last one is not to let everybody in.
 */

#include "base/err.h"
#include "store/store.h"

#include <uv.h>

enum key_state {
	KEYS_NONE,    /* there never was one: everybody is let in */
	KEYS_NEEDED,  /* one is in force */
	KEYS_REVOKED, /* all are revoked: nobody is let in */
	_KEY_STATE_MAX
};

/* Runs the loop until the store has answered. */
int key_state_read(uv_loop_t *loop, struct store *store, enum key_state *ret_state, struct err *e);
