/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Replies out of bytes. The parser is hiredis'; around it are the bounds that it lacks: a peer that
 * is no Redis, or a broken one, may announce lengths and arrays that would take all memory.
 * Arrays are refused unless small and flat: nothing that Kiln asks is answered with another.
 *
 * Of hiredis only the parser is used. Its asynchronous contexts (0.14) assert() on replies that
 * nobody asked for, write without MSG_NOSIGNAL, and open sockets without CLOEXEC.
 */

#include "base/err.h"

#include <hiredis/hiredis.h>
#include <stddef.h>

struct redis_reader;

/* max_bytes: of one reply as it comes over the wire. NULL: out of memory. */
struct redis_reader *redis_reader_new(size_t max_bytes);
void redis_reader_free(struct redis_reader *r);

/* -EMSGSIZE, -ENOMEM, -EPROTO; the reader is then of no more use. All whole replies have to be
 * taken before the next bytes are given. */
int redis_reader_feed(struct redis_reader *r, const void *bytes, size_t len, struct err *e);

/* 1 with a reply for freeReplyObject, 0 where more bytes are needed, -EPROTO. */
int redis_reader_next(struct redis_reader *r, struct redisReply **ret_reply, struct err *e);
