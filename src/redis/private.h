/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Between redis.c, the commands of a connection that is up, and connect.c, which gets it there. */

#include "base/buf.h"
#include "base/list.h"
#include "loop/backoff.h"
#include "loop/defer.h"
#include "redis/address.h"
#include "redis/reader.h"
#include "redis/redis.h"

enum redis_state {
	REDIS_WAITING,	  /* until the next attempt */
	REDIS_RESOLVING,  /* the host's name */
	REDIS_CONNECTING, /* the socket */
	REDIS_GREETING,	  /* credentials, database, role, channels: all sent, not all answered */
	REDIS_UP,
	REDIS_ENDED, /* closed: only its handles are left */
};

enum {
	REDIS_CHANNELS_MAX = 8,
	REDIS_CHUNK = 64 * 1024,
	REDIS_CALLS_MAX = 65536, /* without an answer */
	REDIS_MISSES_MAX = 3,	 /* answers that did not come in time, in a row */
	REDIS_TICK_MS = 250,
	REDIS_STALL_MS = 1000,
	REDIS_CLOSE_MS = 100,
	REDIS_CONNECT_MS = 1000,
	REDIS_WAIT_MIN_MS = 50,
	REDIS_WAIT_MAX_MS = 1000,
};

enum redis_step { STEP_AUTH, STEP_SELECT, STEP_ROLE, STEP_SUBSCRIBE, STEP_PING };

/* A poll handle is for one descriptor, and closes only later: one for each attempt. */
struct redis_socket {
	uv_poll_t poll;
	struct redis *redis;
	int fd;
};

struct redis_call {
	struct list link;     /* in calls: in the order in which they are answered */
	struct list patience; /* in patient while somebody waits */
	redis_done done;
	void *ctx;
	int64_t since_us;
	bool late; /* who waited has been told that there is no answer */
};

struct redis {
	uv_loop_t *loop;
	struct redis_config cfg;
	struct redis_address address;
	struct defer *defer;
	enum redis_state state;

	size_t host;	   /* of address, in use or next */
	size_t attempts;   /* of all hosts */
	char peer[280];	   /* HOST:PORT */
	struct err why;	   /* what redis_text says */
	int why_code;	   /* 0 while up, negative after a failure */
	int reported_code; /* as last told to changed; 1: nothing yet */
	struct backoff backoff;
	uv_timer_t pace;     /* next attempt, end of an attempt, tick while up, end of close */
	uv_timer_t patience; /* the first of patient */
	struct resolve *resolve;
	struct redis_socket *socket;
	struct redis_reader *reader;
	enum redis_step steps[4 + REDIS_CHANNELS_MAX];
	size_t n_steps, answered;

	struct buf out;
	bool blocked; /* the socket took no more: waits until it is writable */
	struct deferred flushing;
	struct list calls, patient;
	size_t n_calls;
	unsigned misses;
	int64_t heard_us, up_us;
	int doom; /* a reply was such that the connection has to end; why tells */

	bool closing;
	struct deferred ending;
	void (*closed)(void *ctx);
	void *closed_ctx;
	int open_handles;
	char chunk[REDIS_CHUNK];
};

/* connect.c */

void redis_attempt(struct redis *c);
/* A reply while greeting; sets doom where it is not the right one. */
void redis_greeted(struct redis *c, const struct redisReply *reply);
/* Ends the connection or attempt with what is in why; all calls end without an answer. */
void redis_fail(struct redis *c, int code);
void redis_leave_socket(struct redis *c);
/* -errno as a reason in why: "FMT PEER: reason". */
int redis_blame(struct redis *c, int code, const char *what);

/* redis.c */

/* Takes what has come; may end the connection. */
void redis_receive(struct redis *c);
void redis_flush(struct redis *c);
void redis_end_calls(struct redis *c);
void redis_on_poll(uv_poll_t *poll, int status, int events);
void redis_on_pace(uv_timer_t *timer);
void redis_on_handle_closed(struct redis *c);
/* Appends a command as an array of bulk strings. */
int redis_append(struct buf *b, const struct redis_arg *args, size_t n);
bool redis_reply_is(const struct redisReply *reply, const char *word);
