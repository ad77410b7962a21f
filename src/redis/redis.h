/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One connection to a Redis on an event loop, for what may fail: caches and wake-ups. It connects
 * by itself, greets (AUTH, SELECT, its channels), comes back with growing waits when it was lost,
 * and never blocks the loop. Names are resolved anew for each attempt, on a thread of libuv's.
 *
 * It is a circuit breaker as well: while it is not up, commands are refused at once, so that nobody
 * waits for a Redis that does not answer. Three commands in a row without an answer in call_ms, or
 * none to anything for a second, end the connection; the greeting of the next one, which must be
 * answered within call_ms too, is the probe that costs no caller.
 */

#include "base/err.h"

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct redis;
struct redis_call;

struct redis_config {
	const char *use;   /* for metrics: "cache"; static */
	unsigned call_ms;  /* the longest that somebody waits for an answer */
	size_t unsent_max; /* bytes of commands that the socket has not yet taken */
	size_t reply_max;  /* bytes of one reply */

	/* NULL-terminated, or NULL. With channels it is a subscriber, to which Redis allows few
	 * commands. They must live as long as the connection; so must what they point at. */
	const char *const *channels;
	void (*message)(void *ctx, size_t channel, const void *bytes, size_t len);

	/* It is up, or not any more, or for another reason; text as of redis_text. May be NULL. */
	void (*changed)(void *ctx, bool up, const char *text);
	void *ctx;
};

/* -EINVAL: the URL is none. Whether there is a Redis shows later. */
int redis_open(uv_loop_t *loop, const char *url, const struct redis_config *cfg,
	       struct redis **ret_redis, struct err *e);

/* What was sent may still be answered for a moment; what is not gets NULL. Nothing comes after
 * closed, which comes from the loop. */
void redis_close(struct redis *c, void (*closed)(void *ctx), void *ctx);

struct redis_arg {
	const void *bytes;
	size_t len;
};
#define REDIS_WORD(literal)                                                                        \
	{                                                                                          \
		(literal), sizeof(literal) - 1                                                     \
	}

/* reply is valid during the call; NULL: there is no answer, or none in time. An error is a reply.
 */
typedef void (*redis_done)(void *ctx, const struct redisReply *reply);

/* 0, or a negative errno where the command was not taken: -ENOTCONN, -ENOBUFS, -ENOMEM. Then done
 * never comes; otherwise once, not from in here. done may be NULL. *ret_call, where asked for, is
 * good for redis_cancel until done has come. */
int redis_command(struct redis *c, const struct redis_arg *args, size_t n, redis_done done,
		  void *ctx, struct redis_call **ret_call);
void redis_cancel(struct redis_call *call);

bool redis_is_up(const struct redis *c);

unsigned redis_db(const struct redis *c);

/* "connected to HOST:PORT", "could not connect to HOST:PORT: connection refused". */
const char *redis_text(const struct redis *c);
