/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the two files of listening runners share: the whole (remote.c) and each place
 * (remote_place.c). */

#include "base/list.h"
#include "loop/backoff.h"
#include "pods/pods-private.h"
#include "pods/remote_list.h"

#include <netdb.h>

enum { REMOTE_SECRET_MAX = 4096 };

enum place_state { PLACE_WAITING, PLACE_RESOLVING, PLACE_CONNECTING, PLACE_CONNECTED };

struct place {
	struct list link;
	struct remote *remote;
	struct remote_address address;
	struct tls_psk psk;
	enum place_state state;
	uv_getaddrinfo_t resolving;
	struct addrinfo *found, *next; /* what the name has come to; the one to be tried next */
	int fd;			       /* CONNECTING */
	uv_poll_t *poll;	       /* of fd; frees itself when it is closed */
	uv_timer_t timer;	       /* what the state waits for at most */
	struct backoff backoff;
	struct err tried; /* why the last address that was tried is none */
	struct err error; /* why it is not connected; "" at first */
	bool removed;	  /* not in the list any more: goes once nothing is under way */
};

struct remote {
	struct pods pods;
	uv_loop_t *loop;
	const struct pods_ops *ops;
	void *ctx;
	uint8_t secret[REMOTE_SECRET_MAX];
	size_t secret_len;
	struct list places;
	char *path;   /* of the file with the list; NULL: it was given */
	bool by_hand; /* the list is what remote_put and remote_drop make of it */
	uv_fs_poll_t look;
	uv_work_t work;	  /* reads the file */
	struct buf file;  /* what it read */
	struct err error; /* why it could not */
	bool reading, again;
	bool closing;
	size_t open_handles; /* and places, and what is under way */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* One handle, place or request less. The last frees. */
void remote_let_go(struct remote *r);

/* As of pods_reload. */
void remote_reload(struct pods *pods);

/* Begins to connect; a place of a remote, filled in, with a timer that is initialised. */
void place_start(struct place *p);

/* Not connected, or not any more, because of e: again after a while, or gone where it is not
 * wanted. */
void place_try_later(struct place *p, const struct err *e);

/* Not while it is being resolved. */
void place_free(struct place *p);
