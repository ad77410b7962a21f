/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A connection that carries frames: a 4-byte big-endian length, then a protobuf Frame. The peer is
 * not trusted: a length over WIRE_FRAME_MAX, bytes that are no Frame, or a Frame without a kind end
 * the connection with an error. Nothing is sent or received twice; frames keep their order.
 *
 * A connection that leaves the machine is given a key and speaks TLS (tls.h) underneath; frames may
 * be sent at once and wait for the handshake.
 *
 * The connection never closes itself: after "closed" was called, or at any time before, the owner
 * calls wire_conn_close. No callback comes after wire_conn_close.
 */

#include "base/err.h"
#include "kiln.pb-c.h"
#include "wire/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum {
	WIRE_PROTOCOL = 1,
	WIRE_FRAME_MAX = 1024 * 1024,
	WIRE_CHUNK_MAX = 256 * 1024, /* contents and outputs are cut into pieces of this size */
	WIRE_SEND_QUEUE_MAX = 64 * 1024 * 1024,
};

struct wire_conn;

struct wire_conn_ops {
	/* The frame is valid only during the call. */
	void (*frame)(void *ctx, const Kiln__Frame *frame);
	/* code is 0 at an orderly end, else a negative errno; message is for the log. */
	void (*closed)(void *ctx, int code, const char *message);
	/* The send queue has become empty after a send returned 1; may be NULL. */
	void (*drained)(void *ctx);
};

/* Takes fd (a connected stream socket) on success and on failure alike. psk NULL: plain, for
 * sockets that never leave the machine. */
int wire_conn_open_consume(uv_loop_t *loop, int fd, const struct tls_psk *psk,
			   const struct wire_conn_ops *ops, void *ctx, struct wire_conn **ret_conn,
			   struct err *e);

/* Sends a frame: 0 written at once, 1 queued (hold back what can wait until "drained"), -EMSGSIZE,
 * -ENOBUFS where the peer does not read, -EPIPE after the end, -ENOMEM. */
int wire_conn_send(struct wire_conn *c, const Kiln__Frame *frame);

/* Stops or goes on taking frames: back-pressure towards the peer. */
void wire_conn_pause(struct wire_conn *c);
void wire_conn_resume(struct wire_conn *c);

size_t wire_conn_queued(const struct wire_conn *c);

/* Frees the connection; accepts NULL. What is queued is dropped. */
void wire_conn_close(struct wire_conn *c);
