/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The schedulers of a runner: their connections, among which its slots are shared. Whoever asks
 * while there is a free slot gets it; who was told BUSY is told again as soon as one is free, those
 * first who had one least recently.
 *
 * A connection that came over the network counts for little until its peer has proved itself: it
 * has some seconds for that, and where too many try at one time, the oldest of them goes. One that
 * was good and falls silent is dropped too. Tasks of a connection that ends are killed, and one of
 * the schedulers that are left is told of them.
 */

#include "loop/defer.h"
#include "runner/connection.h"
#include "wire/tls.h"

enum { PEERS_MAX = 64, PEERS_GREETING_MAX = 32 };

struct peers;

struct peers_config {
	uv_loop_t *loop;
	struct connection_config connection; /* of each; hooks and ctx are left out */
	const struct tls_psk *psk;	     /* NULL: connections are plain, and trusted */
	bool (*take_slot)(void *ctx);	     /* as in connection_config */
	void (*give_slot)(void *ctx);
	void (*drain)(void *ctx); /* a scheduler asked for it */
	void (*count)(void *ctx, struct connection_counters *ret_counters);
	/* A connection has ended; left: how many there are. Never from within a call. */
	void (*ended)(void *ctx, size_t left, const char *message);
	void *ctx;
};

int peers_new(const struct peers_config *cfg, struct peers **ret_peers);
void peers_free(struct peers *p); /* kills what runs; accepts NULL */

/* Takes fd. -EUSERS where there are PEERS_MAX. */
int peers_add_consume(struct peers *p, int fd, struct err *e);

void peers_heartbeat(struct peers *p);

/* Drops those that were silent for too long. Call it now and then; not after standing still. */
void peers_drop_silent(struct peers *p);

/* As of a connection, for all. */
void peers_fail_tasks(struct peers *p, const char *code, const char *message);
bool peers_flushed(const struct peers *p);
