/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * TLS 1.3 (RFC 8446) with a pre-shared key, for connections that leave the machine: no certificates
 * to issue, and nothing that a listener could replay, since every session has a fresh
 * Diffie-Hellman exchange beside the key (psk_dhe_ke). Each runner has a key of its own, derived
 * from the cluster's secret and the runner's name; the name is the identity on the wire.
 *
 * A struct tls is the state of one end, without a socket: ciphertext goes in with tls_feed, comes
 * out in the output buffer; plaintext goes in with tls_write and comes out with tls_read. OpenSSL
 * does the cryptography.
 */

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { TLS_KEY_SIZE = 32, TLS_IDENTITY_MAX = 64, TLS_SECRET_MIN = 16 };

struct tls_psk {
	bool server; /* the runner's end */
	char identity[TLS_IDENTITY_MAX];
	uint8_t key[TLS_KEY_SIZE];
};

/* The key of a runner: HMAC-SHA-256 of its name under the cluster's secret (at least
 * TLS_SECRET_MIN bytes). */
int tls_derive_key(const void *secret, size_t secret_len, const char *identity,
		   uint8_t ret_key[TLS_KEY_SIZE], struct err *e);

struct tls;

/* output collects what is to be sent; it is the caller's and must outlive the struct. The client's
 * first flight is in it on return. */
int tls_new(const struct tls_psk *psk, struct buf *output, struct tls **ret_tls, struct err *e);
void tls_free(struct tls *t);

/* Takes ciphertext from the peer. -EPROTO when it is no TLS, or the key does not fit. */
int tls_feed(struct tls *t, const void *bytes, size_t len, struct err *e);

/* Plaintext that has arrived: a number of bytes, 0 at an orderly end, -EAGAIN when there is no
 * more, -EPROTO. */
ssize_t tls_read(struct tls *t, void *dst, size_t size);

/* Encrypts. Before the end of the handshake plaintext is kept, and sent after it. 0, -ENOMEM,
 * -ENOBUFS where output or what is kept passes its maximum, -EPROTO. */
int tls_write(struct tls *t, const void *bytes, size_t len);

bool tls_established(const struct tls *t);
