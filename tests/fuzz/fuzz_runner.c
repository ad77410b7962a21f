/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a scheduler can send to a runner: frames against its connection, its tasks and its compile
 * cache, over a spawner that makes no sandboxes but answers. The first byte says how it answers;
 * then frames without their headers, each behind its length in two bytes, little-endian.
 */

#include "base/log.h"
#include "runner/connection.h"
#include "wire/conn.h"

#include "../unit/fake_spawner.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SLOTS = 3, TURNS = 6 };

static struct language_registry *languages;
static struct probe *probe;
static uv_loop_t probe_loop;

struct world {
	uv_loop_t loop;
	struct sandbox_client *spawner;
	struct box_pool *boxes;
	struct cache *cache;
	struct defer *defer;
	struct connection *connection;
	struct execution_env env;
	int peer;
	unsigned busy;
};

static void on_probed(void *ctx)
{
	(void)ctx;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct err e;

	(void)argc;
	(void)argv;
	log_set_level(LOG_ERROR);
	if (uv_loop_init(&probe_loop) < 0 ||
	    language_registry_load(KILN_SOURCE_ROOT "/languages", &languages, &e) < 0 ||
	    probe_new(&probe_loop, languages, on_probed, NULL, &probe, &e) < 0)
		abort();
	(void)uv_run(&probe_loop, UV_RUN_DEFAULT);
	/* Whether it is there does not matter here: nothing is executed. */
	for (size_t i = 0; i < language_count(languages); i++)
		(void)language_set_status(language_at(languages, i), true, "1");
	return 0;
}

static bool take_slot(void *ctx)
{
	struct world *w = ctx;

	if (w->busy == SLOTS)
		return false;
	w->busy++;
	return true;
}

static void give_slot(void *ctx)
{
	struct world *w = ctx;

	if (w->busy-- == 0)
		abort();
}

static void on_drain(void *ctx)
{
	(void)ctx;
}

static void on_orphaned(void *ctx, const struct uuid *task, uint64_t owner)
{
	(void)ctx;
	(void)task;
	(void)owner;
}

static void on_ended(void *ctx, struct connection *c, const char *message)
{
	struct world *w = ctx;

	(void)message;
	connection_free(c);
	w->connection = NULL;
	if (w->busy != 0)
		abort();
}

static void on_lost(void *ctx, const char *message)
{
	struct world *w = ctx;

	if (w->connection)
		connection_fail_tasks(w->connection, "sandbox_lost", message);
}

static void behave(struct sandbox_client *c, uint8_t how)
{
	static const struct sandbox_event_exited ends[] = {
		{.outcome = SANDBOX_EXITED},
		{.outcome = SANDBOX_EXITED, .code = 1},
		{.outcome = SANDBOX_LIMITED, .limit = SANDBOX_LIMIT_CPU},
		{.outcome = SANDBOX_FAILED, .step = SANDBOX_STEP_EXEC, .error = 5},
	};

	c->end = ends[how & 3];
	c->quiet = how & 4;
	c->refuse_start = how & 8;
	c->prepare_fails = (how & 0x30) == 0x30;
}

static void world_open(struct world *w, uint8_t how)
{
	static const struct task_isolation isolation = {.namespaces = true};
	const struct box_pool_config pool = {.boxes = 8, .standbys = 2, .lost = on_lost, .ctx = w};
	struct connection_config cfg = {
		.env = &w->env,
		.name = "fuzz",
		.slots = SLOTS,
		.lease_ms = 15000,
		.isolation = &isolation,
		.take_slot = take_slot,
		.give_slot = give_slot,
		.opened = on_drain,
		.drain = on_drain,
		.orphaned = on_orphaned,
		.ended = on_ended,
		.ctx = w,
	};
	struct err e;
	int pair[2];

	w->spawner = fake_spawner_new();
	behave(w->spawner, how);
	w->cache = cache_new(1 << 20, 4);
	if (uv_loop_init(&w->loop) < 0 || defer_new(&w->loop, &w->defer) < 0 || !w->cache ||
	    box_pool_new(&w->loop, w->spawner, &pool, &w->boxes, &e) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	w->env = (struct execution_env){.loop = &w->loop,
					.boxes = w->boxes,
					.cache = w->cache,
					.languages = languages,
					.probe = probe};
	cfg.defer = w->defer;
	w->peer = pair[1];
	if (connection_open_consume(&w->loop, pair[0], &cfg, &w->connection, &e) < 0)
		abort();
}

static void turn(struct world *w)
{
	char waste[4096];

	for (int i = 0; i < TURNS; i++)
		(void)uv_run(&w->loop, UV_RUN_NOWAIT);
	while (read(w->peer, waste, sizeof(waste)) > 0)
		;
}

static void send_frame(struct world *w, const uint8_t *bytes, size_t len)
{
	uint32_t header = htonl((uint32_t)len);

	(void)send(w->peer, &header, sizeof(header), MSG_NOSIGNAL);
	(void)send(w->peer, bytes, len, MSG_NOSIGNAL);
}

static void world_close(struct world *w)
{
	(void)close(w->peer);
	turn(w);
	connection_free(w->connection);
	box_pool_free(w->boxes);
	defer_close(w->defer);
	(void)uv_run(&w->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&w->loop) < 0 || w->busy != 0)
		abort();
	cache_free(w->cache);
	fake_spawner_free(w->spawner);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = {.peer = -1};

	if (size < 1)
		return 0;
	world_open(&w, data[0]);
	for (size_t at = 1; at + 2 <= size;) {
		size_t len = (size_t)data[at] | (size_t)data[at + 1] << 8;

		at += 2;
		if (len > size - at)
			len = size - at;
		send_frame(&w, data + at, len);
		turn(&w);
		at += len;
	}
	if (data[0] & 0x40)
		fake_lost(w.spawner);
	turn(&w);
	world_close(&w);
	return 0;
}
