/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A server on the test's own loop that greets as Redis does and then answers as the test wants:
 * slowly, wrongly, or not at all. Settings may be changed at any time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct fake_answer {
	const char *command;
	const char *bytes;
	size_t len;
};

struct fake_redis {
	uv_tcp_t listener;
	char url[64];
	bool silent;		       /* reads, and answers nothing */
	bool hangs_up;		       /* at the first byte */
	uint64_t delay_ms;	       /* before each answer */
	struct fake_answer special[4]; /* instead of what Redis would say; NULL ends */
	size_t accepted;	       /* connections so far */
	size_t received;	       /* commands */
	size_t bytes;
	struct fake_peer *peers;
};

void fake_redis_start(struct fake_redis *f, uv_loop_t *loop);

/* Sends to all who are connected. */
void fake_redis_push(struct fake_redis *f, const void *bytes, size_t len);

/* Cuts all connections. */
void fake_redis_cut(struct fake_redis *f);

/* Cuts, and does not listen any more. */
void fake_redis_stop(struct fake_redis *f);
