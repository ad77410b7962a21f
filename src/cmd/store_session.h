/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * For commands that ask the store of a configuration one thing and end: a loop and a store, from
 * open to close.
 */

#include "config/config.h"
#include "store/access.h"

struct store_session {
	uv_loop_t loop;
	struct store *store;
	int code; /* of the last request */
};

int store_session_open(struct store_session *s, const struct config *c, struct err *e);
void store_session_close(struct store_session *s);

/* The callback of every request; its ctx is the session. */
void store_session_done(struct store_req *req, int code);

/* Waits for the request that was just made. Gives its code. */
int store_session_wait(struct store_session *s);

/* Names of keys are those of tenants, and stand in URLs and logs. */
int store_session_check_name(const char *name, struct err *e);
