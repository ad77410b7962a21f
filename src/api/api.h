/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Kiln's HTTP API: what openapi.yaml says, on top of a store, a publisher, a cache and a bus that
 * the caller opened and closes after the API. It keeps nothing of its own but the requests under
 * way, so any number of API processes may share those four.
 *
 * A task's id is given out only after its row is stored. Whoever waits for a result is registered
 * first and reads second, so that no wake-up falls between; since a bus may lose one, waiters look
 * again now and then by themselves.
 *
 * Web pages must not reach a server on loopback: bodies must be application/json, the Host must be
 * one of the server's own names, and an Origin must be the server's. Elsewhere keys are needed,
 * or "open" says that anybody may run code.
 */

#include "base/buf.h"
#include "base/err.h"
#include "bus/bus.h"
#include "cache/cache.h"
#include "outbox/publisher.h"
#include "queue/queue.h"
#include "rate/rate.h"
#include "store/access.h"
#include "task/language.h"
#include "task/task.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct api;

struct api_config {
	const char *listen;	  /* "127.0.0.1:8080"; port 0: any */
	const char *const *hosts; /* further names that a server on loopback answers to, to NULL */
	bool keys; /* there is a key, or was: needed from the start; else from the first */
	bool open; /* none are needed, though the address is not loopback */

	struct store *store;
	struct queue *queue; /* for its health only */
	struct publisher *publisher;
	struct cache *cache;
	struct bus *bus;
	struct rate *rate; /* NULL: no rate is limited */
	const struct language_registry *languages;

	/* Defaults are for what neither the client nor the language says, and are cut to the
	 * ceilings; a client that asks for more than a ceiling is refused. All fields are set. */
	struct task_limits run_defaults, run_ceilings;
	struct task_limits compile_defaults, compile_ceilings;

	size_t body_max_bytes;
	size_t held_max_bytes;		  /* requests in memory at one time, and replies */
	unsigned connections_per_address; /* 0: as many as in all */
	unsigned connections_max;	  /* the limit of open files must be higher */
	size_t waiters_max;		  /* requests that wait for a result at one time */
	int64_t idempotency_ttl_ms;
	int64_t tenant_limits[_TENANT_LIMIT_MAX]; /* of tenants without own ones; 0: none */
	int64_t retention_ms; /* the cache is not asked for tasks that finished before; 0: kept */

	/* Whether tasks can be run, for /readyz; appends what is missing to why. NULL: always. */
	bool (*ready)(void *ctx, struct buf *why);
	/* Whether runners have told which languages are installed; until then all are taken for
	 * it. NULL: always. */
	bool (*languages_known)(void *ctx);
	void *ctx;
};

/* Fills in the sizes and limits of a server on its own; pointers stay NULL. */
void api_config_init(struct api_config *cfg);

/* Listens and serves. Pointers in cfg must live until the API is closed. */
int api_new(uv_loop_t *loop, const struct api_config *cfg, struct api **ret_api, struct err *e);

/* "127.0.0.1:8080", with the port that was found. */
const char *api_address(const struct api *a);

/* Stops to listen, answers those who wait with the present state, finishes what is under way, then
 * calls closed from the loop; nothing of the API is left then. */
void api_close(struct api *a, void (*closed)(void *ctx), void *ctx);
