/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The two kinds of address that options take: "SCHEME:REST" choosing an implementation of an
 * interface ("sqlite:PATH", "memory:", "postgresql://..."), and "ADDR:PORT" to listen on.
 */

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* True where url starts with "scheme:"; *ret_rest then points behind the colon. */
bool url_scheme_is(const char *url, const char *scheme, const char **ret_rest);

/* len bytes of text with %XX decoded, as a C string. -EINVAL where a % is not followed by two
 * hexadecimal digits, a NUL would come out, or dst is too small; dst is undefined then. */
int url_decode(const char *text, size_t len, char *dst, size_t size);

enum { URL_SHOWN_MAX = 256 };

/*
 * What may be told of an address that somebody wrote, in messages and logs. It may hold a password,
 * also where none is meant to be: scheme, hosts, ports and path are told only where all of it has
 * the form of a URL, and user, password and options never. Three asterisks stand for what is not
 * told: all of what follows the scheme, or all of it, where it has another form. "memory:",
 * "local:" and "sqlite:PATH" are told as they are.
 *
 * Gives false where it has no such form, or does not fit; dst is a text in each case.
 */
bool url_show(const char *url, char *dst, size_t size);

/* Numeric IPv4 or [IPv6] address and port; "localhost" is taken as 127.0.0.1. Never resolves. */
int url_parse_listen(const char *text, struct sockaddr_storage *ret_addr, socklen_t *ret_len,
		     struct err *e);

bool url_is_loopback(const struct sockaddr_storage *addr);

/* "127.0.0.1:8080" or "[::1]:8080". */
void url_format_addr(const struct sockaddr_storage *addr, char *dst, size_t size);

uint16_t url_addr_port(const struct sockaddr_storage *addr);
