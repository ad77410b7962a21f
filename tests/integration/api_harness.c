/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API alone, over SQLite and the in-memory parts, for tests that talk to it with raw sockets:
 *
 *	api-harness --data DIR --languages DIR [--listen ADDR:PORT] [--key TEXT] [--open]
 *		[--waiters N] [--connections N] [--body-max N] [--held-max N] [--queue-max N]
 *		[--echo] [--not-installed NAME]
 *
 * Nothing runs code here. With --echo each task is finished at once with its stdin as stdout, by
 * the same verbs that a scheduler uses; without, tasks stay queued. "ready ADDRESS" on standard
 * output tells that it listens; SIGTERM closes it, and a leak or an open handle makes it fail.
 */
#include "api/api.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "crypto/digest.h"
#include "wire/codec.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

struct harness {
	uv_loop_t loop;
	struct language_registry *languages;
	struct store *store;
	struct publisher *publisher;
	struct queue *queue;
	struct cache *cache;
	struct bus *bus;
	struct api *api;
	uv_signal_t term;
	struct store_key_add key;
	int key_code;
	size_t jobs;
	bool closing;
	bool done;
};

struct options {
	const char *data, *languages, *listen, *key, *missing;
	uint64_t waiters, connections, body_max, held_max, queue_max;
	bool echo, open;
};

static int fail(const char *what, const struct err *e)
{
	(void)fprintf(stderr, "api-harness: %s: %s\n", what, e->msg);
	return 1;
}

/* ---- finishing tasks ---- */

struct job {
	struct harness *h;
	struct queue_delivery *delivery;
	struct uuid id;
	struct store_claim claim;
	struct store_get get;
	struct store_finish finish;
	struct task_run_result run;
	struct task_result result;
};

static void close_queue(struct harness *h);

static void end(struct job *j)
{
	struct harness *h = j->h;

	queue_ack(h->queue, j->delivery);
	task_free(j->get.task);
	free(j);
	if (!--h->jobs && h->closing)
		close_queue(h);
}

static void on_finish(struct store_req *req, int code)
{
	struct job *j = req->ctx;
	const uint8_t state = TASK_DONE;

	if (code == 0)
		bus_publish(j->h->bus, BUS_FINISHED, &j->id, &state, sizeof state);
	end(j);
}

static void on_get(struct store_req *req, int code)
{
	struct job *j = req->ctx;
	struct task *t = j->get.task;

	if (code < 0) {
		end(j);
		return;
	}
	j->run = (struct task_run_result){.outcome = TASK_OUTCOME_OK};
	j->run.output[TASK_STDOUT] = t->spec.runs[0].stdin_data;
	j->result = (struct task_result){
		.outcome = TASK_OUTCOME_OK, .ran = true, .runs = &j->run, .n_runs = 1};
	j->finish = (struct store_finish){
		.req = {.done = on_finish, .ctx = j},
		.id = j->id,
		.attempt = j->claim.attempt,
		.state = TASK_DONE,
		.started_us = clock_wall_us(),
		.finished_us = clock_wall_us(),
		.result = &j->result,
	};
	store_finish(j->h->store, &j->finish);
}

static void on_claim(struct store_req *req, int code)
{
	struct job *j = req->ctx;

	if (code < 0) {
		end(j);
		return;
	}
	j->get = (struct store_get){
		.req = {.done = on_get, .ctx = j}, .id = j->id, .parts = STORE_CONTENTS};
	store_get(j->h->store, &j->get);
}

static void on_delivered(void *ctx, struct queue_delivery *d)
{
	struct job *j = calloc(1, sizeof *j);

	if (!j)
		abort();
	j->h = ctx;
	j->h->jobs++;
	j->delivery = d;
	j->id = d->message.id;
	j->claim = (struct store_claim){
		.req = {.done = on_claim, .ctx = j},
		.id = j->id,
		.owner = 1,
		.now_us = clock_wall_us(),
		.lease_until_us = clock_wall_us() + 60000000,
	};
	store_claim(j->h->store, &j->claim);
}

static int start_echo(struct harness *h, struct err *e)
{
	static const struct queue_consumer_ops ops = {.delivered = on_delivered};
	int r = 0;

	queue_set_consumer(h->queue, &ops, h);
	for (size_t i = 0; i < language_count(h->languages) && !r; i++)
		r = queue_consume(h->queue, language_at(h->languages, i)->name, 64, e);
	return r;
}

/* ---- the end ---- */

static void on_store_closed(void *ctx)
{
	struct harness *h = ctx;

	h->done = true;
}

static void on_bus_closed(void *ctx)
{
	struct harness *h = ctx;

	store_close(h->store, on_store_closed, h);
}

static void on_cache_closed(void *ctx)
{
	struct harness *h = ctx;

	bus_close(h->bus, on_bus_closed, h);
}

static void on_queue_closed(void *ctx)
{
	struct harness *h = ctx;

	cache_close(h->cache, on_cache_closed, h);
}

static void on_publisher_closed(void *ctx)
{
	struct harness *h = ctx;

	queue_close(h->queue, on_queue_closed, h);
}

static void close_queue(struct harness *h)
{
	publisher_close(h->publisher, on_publisher_closed, h);
}

static void on_api_closed(void *ctx)
{
	struct harness *h = ctx;

	h->closing = true;
	if (!h->jobs)
		close_queue(h);
}

static void on_term(uv_signal_t *s, int signo)
{
	struct harness *h = s->data;

	(void)signo;
	uv_close((uv_handle_t *)s, NULL);
	api_close(h->api, on_api_closed, h);
}

/* ---- the beginning ---- */

static void on_key_added(struct store_req *req, int code)
{
	struct harness *h = req->ctx;

	h->key_code = code;
	h->done = true;
}

static int add_key(struct harness *h, const char *text, const char *name)
{
	h->done = false;
	h->key.req = (struct store_req){.done = on_key_added, .ctx = h};
	(void)str_copy(h->key.key.name, sizeof h->key.key.name, name);
	(void)str_copy(h->key.key.tenant, sizeof h->key.key.tenant, name);
	h->key.key.created_us = clock_wall_us();
	if (digest_bytes(text, strlen(text), h->key.key.hash) < 0)
		return -EIO;
	store_key_add(h->store, &h->key);
	while (!h->done)
		(void)uv_run(&h->loop, UV_RUN_ONCE);
	h->done = false;
	return h->key_code;
}

static int open_publisher(struct harness *h, const struct options *o, struct err *e)
{
	const struct publisher_config cfg = {.store = h->store,
					     .queue = h->queue,
					     .bus = h->bus,
					     .admit_max = o->queue_max,
					     .queue_max = o->queue_max};

	return publisher_open(&h->loop, &cfg, &h->publisher, e);
}

static int open_parts(struct harness *h, const struct options *o, struct err *e)
{
	char url[512];
	const struct store_config store = {.url = url, .busy_timeout_ms = 1000};
	const struct queue_config queue = {.url = "memory:", .max_tasks = o->queue_max};
	const struct cache_config cache = {.url = "memory:", .max_bytes = 64 << 20};
	int r;

	(void)snprintf(url, sizeof url, "sqlite:%s/harness.db", o->data);
	r = store_open(&h->loop, &store, &h->store, e);
	if (!r)
		r = queue_open(&h->loop, &queue, &h->queue, e);
	if (!r)
		r = cache_open(&h->loop, &cache, &h->cache, e);
	if (!r)
		r = bus_open(&h->loop, "memory:", &h->bus, e);
	if (!r)
		r = open_publisher(h, o, e);
	if (!r)
		r = language_registry_load(o->languages, &h->languages, e);
	for (size_t i = 0; !r && i < language_count(h->languages); i++) {
		struct language *l = language_at(h->languages, i);

		(void)language_set_status(l, !o->missing || !str_eq(l->name, o->missing), "1.0");
	}
	return r;
}

static int open_api(struct harness *h, const struct options *o, struct err *e)
{
	struct api_config cfg;

	api_config_init(&cfg);
	cfg.listen = o->listen;
	cfg.keys = o->key != NULL;
	cfg.open = o->open;
	cfg.store = h->store;
	cfg.queue = h->queue;
	cfg.publisher = h->publisher;
	cfg.cache = h->cache;
	cfg.bus = h->bus;
	cfg.languages = h->languages;
	cfg.waiters_max = o->waiters;
	cfg.connections_max = (unsigned)o->connections;
	cfg.body_max_bytes = o->body_max;
	cfg.held_max_bytes = o->held_max;
	return api_new(&h->loop, &cfg, &h->api, e);
}

static int read_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"data", 1, NULL, 'd'},	     {"languages", 1, NULL, 'l'},
		{"listen", 1, NULL, 'a'},    {"key", 1, NULL, 'k'},
		{"waiters", 1, NULL, 'w'},   {"connections", 1, NULL, 'c'},
		{"body-max", 1, NULL, 'b'},  {"held-max", 1, NULL, 'h'},
		{"queue-max", 1, NULL, 'q'}, {"not-installed", 1, NULL, 'n'},
		{"echo", 0, NULL, 'e'},	     {"open", 0, NULL, 'o'},
		{NULL, 0, NULL, 0},
	};
	uint64_t *numbers[128] = {['w'] = &o->waiters,
				  ['c'] = &o->connections,
				  ['b'] = &o->body_max,
				  ['h'] = &o->held_max,
				  ['q'] = &o->queue_max};
	const char **texts[128] = {['d'] = &o->data,
				   ['l'] = &o->languages,
				   ['a'] = &o->listen,
				   ['k'] = &o->key,
				   ['n'] = &o->missing};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) > 0) {
		if (c == '?')
			return -EINVAL;
		if (numbers[c] && str_to_u64(optarg, 0, INT64_MAX, numbers[c]) < 0)
			return -EINVAL;
		if (texts[c])
			*texts[c] = optarg;
		o->echo = o->echo || c == 'e';
		o->open = o->open || c == 'o';
	}
	return o->data && o->languages ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	struct options o = {.listen = "127.0.0.1:0",
			    .waiters = 4096,
			    .connections = 8192,
			    .body_max = 8 << 20,
			    .held_max = 256 << 20,
			    .queue_max = 1000000};
	struct rlimit files;
	struct harness h = {0};
	struct err e = {""};

	if (read_options(argc, argv, &o) < 0) {
		(void)fprintf(stderr, "usage: see the top of api_harness.c\n");
		return 2;
	}
	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)uv_loop_init(&h.loop);
	if (open_parts(&h, &o, &e) < 0)
		return fail("could not open", &e);
	if (o.key && (add_key(&h, o.key, "first") < 0 || add_key(&h, "kiln_second", "second") < 0))
		return fail("could not add a key", &e);
	if (open_api(&h, &o, &e) < 0 || (o.echo && start_echo(&h, &e) < 0))
		return fail("could not start", &e);
	(void)uv_signal_init(&h.loop, &h.term);
	h.term.data = &h;
	(void)uv_signal_start(&h.term, on_term, SIGTERM);
	(void)printf("ready %s\n", api_address(h.api));
	(void)fflush(stdout);
	while (!h.done)
		(void)uv_run(&h.loop, UV_RUN_ONCE);
	(void)uv_run(&h.loop, UV_RUN_NOWAIT);
	language_registry_free(h.languages);
	if (uv_loop_close(&h.loop) < 0) {
		(void)fprintf(stderr, "api-harness: handles are open at the end\n");
		return 1;
	}
	return 0;
}
