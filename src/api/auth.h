/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * API keys: "Authorization: Bearer KEY". The store keeps a SHA-256 of each; the list is kept here
 * for up to AUTH_FRESH_MS, so a key that is revoked counts no longer than that. While requests
 * come, the list is read again in the background before it is too old; only the first requests
 * after a pause wait for it.
 *
 * A key that is not in the list may be new: the list is read again before it is refused, where that
 * was not done within AUTH_AGAIN_MS. Only a request with a large body is refused at once, for what
 * comes from somebody unknown is not to be kept: its next try finds the key.
 *
 * While there never was a key, everybody is let in and the list is looked at in the background: the
 * first key locks the server within AUTH_FRESH_MS. It is never unlocked while it runs, whatever
 * becomes of the keys: nobody who relies on them shall find it open.
 */

#include "api/http.h"
#include "store/access.h"

enum { AUTH_FRESH_MS = 5000, AUTH_AGAIN_MS = 250 };

struct api;
struct auth;

int auth_new(struct api *a, bool needed, struct auth **ret_auth);
/* Begins to look for the first key; an operation of the API until it is stopped. */
void auth_start(struct auth *auth);
void auth_stop(struct auth *auth);
void auth_free(struct auth *auth);

/* The hooks of http.h; ctx is the struct api. */
int auth_recognise(struct http_request *r, void *ctx);
void auth_admit(struct http_request *r, void *ctx);
