/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a runner can send to a scheduler: frames against a task in each of its states, over a store
 * that does what it is asked. The bits of the first byte: 0 the runner has greeted, 1 it has been
 * assigned a task, 2 it has accepted it, 3 the claim is lost, 4 a release finds the task queued.
 * Then frames without their headers, each behind its length in two bytes, little-endian; sixteen
 * bytes "T" in one stand for the task's id.
 */

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "scheduler/scheduler.h"
#include "store/access.h"
#include "store/outbox.h"
#include "wire/codec.h"
#include "wire/conn.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	GREETED = 1 << 0,
	ASSIGNED = 1 << 1,
	ACCEPTED = 1 << 2,
	CLAIM_STALE = 1 << 3,
	PUT_BACK = 1 << 4,
	TURNS = 6,
	TURNS_MAX = 2000,
};

struct world {
	uv_loop_t loop;
	struct queue *queue;
	struct cache *cache;
	struct bus *bus;
	struct publisher *publisher;
	struct scheduler *scheduler;
	struct uuid id;
	struct queue_publish publish;
	int peer;
	int open;
};

static struct language_registry *languages;

/* ---- the store ---- */

static struct defer *defer; /* of the world at hand */
static uint8_t how;
static struct task_spec *spec; /* of its task */

static void on_answer(struct deferred *d)
{
	struct store_req *req = container_of(d, struct store_req, deferred);

	req->done(req, req->code);
}

static void answer(struct store_req *req, int code)
{
	req->code = code;
	req->deferred.call = on_answer;
	list_init(&req->deferred.link);
	defer_call(defer, &req->deferred);
}

void store_get(struct store *s, struct store_get *r)
{
	(void)s;
	answer(&r->req, -ENOENT); /* the spec is in the cache */
}

void store_claim(struct store *s, struct store_claim *r)
{
	(void)s;
	r->attempt = 1;
	r->state = TASK_CANCELLED;
	answer(&r->req, how & CLAIM_STALE ? -ESTALE : 0);
}

void store_finish(struct store *s, struct store_finish *r)
{
	struct buf b;

	(void)s;
	buf_init(&b, 64 << 20);
	if (r->result && codec_pack_result(r->result, &b) < 0)
		abort(); /* whatever a runner said can be stored */
	buf_fini(&b);
	r->attempt = 1;
	answer(&r->req, 0);
}

void store_release(struct store *s, struct store_release *r)
{
	(void)s;
	r->state = how & PUT_BACK ? TASK_QUEUED : TASK_FAILED;
	r->ticket = (struct store_ticket){.id = r->id, .state = r->state};
	(void)str_copy(r->ticket.language, sizeof r->ticket.language, "python");
	(void)str_copy(r->ticket.tenant, sizeof r->ticket.tenant, "default");
	answer(&r->req, 0);
}

void store_renew(struct store *s, struct store_renew *r)
{
	(void)s;
	r->n = 0;
	r->cancelling = NULL;
	answer(&r->req, 0);
}

void store_sweep(struct store *s, struct store_sweep *r)
{
	(void)s;
	r->n = 0;
	r->tickets = NULL;
	answer(&r->req, 0);
}

void store_scan(struct store *s, struct store_scan *r)
{
	(void)s;
	r->n = 0;
	r->tickets = NULL;
	answer(&r->req, 0);
}

void store_prune(struct store *s, struct store_prune *r)
{
	(void)s;
	r->n = 0;
	answer(&r->req, 0);
}

int64_t store_now_us(struct store *s)
{
	(void)s;
	return clock_wall_us();
}

int store_health(struct store *s, struct err *e)
{
	(void)s;
	(void)e;
	return 0;
}

void store_tenant_list(struct store *s, struct store_tenant_list *r)
{
	(void)s;
	r->tenants = NULL;
	r->n = 0;
	answer(&r->req, 0);
}

/* It has no outbox, and who asks for one all the same is wrong. */
bool store_has_outbox(const struct store *s)
{
	(void)s;
	return false;
}

#define NO_OUTBOX(verb)                                                                            \
	void store_##verb(struct store *s, struct store_##verb *r)                                 \
	{                                                                                          \
		(void)s;                                                                           \
		(void)r;                                                                           \
		abort();                                                                           \
	}

NO_OUTBOX(outbox_take)
NO_OUTBOX(outbox_done)
NO_OUTBOX(outbox_put)
NO_OUTBOX(outbox_count)
NO_OUTBOX(live)

/* ---- the world ---- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct err e;

	(void)argc;
	(void)argv;
	log_set_level(LOG_ERROR);
	if (language_registry_load(KILN_SOURCE_ROOT "/languages", &languages, &e) < 0)
		abort();
	return 0;
}

static void send_bytes(struct world *w, const void *bytes, size_t len)
{
	uint32_t header = htonl((uint32_t)len);

	(void)send(w->peer, &header, sizeof header, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)send(w->peer, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_message(struct world *w, Kiln__Frame__KindCase kind, void *message)
{
	Kiln__Frame frame = KILN__FRAME__INIT;
	uint8_t bytes[4096];

	frame.kind_case = kind;
	frame.hello = message;
	if (kiln__frame__get_packed_size(&frame) > sizeof bytes)
		abort();
	send_bytes(w, bytes, kiln__frame__pack(&frame, bytes));
}

static void greet(struct world *w)
{
	static char name[] = "python", level[] = "sandbox";
	Kiln__Hello m;
	Kiln__Isolation isolation;
	Kiln__LanguageStatus python, *all[] = {&python};

	kiln__hello__init(&m);
	kiln__isolation__init(&isolation);
	kiln__language_status__init(&python);
	python.name = name;
	python.installed = true;
	isolation.level = isolation.limits = level;
	m.protocol = WIRE_PROTOCOL;
	m.slots = 2;
	m.languages = all;
	m.n_languages = 1;
	m.isolation = &isolation;
	send_message(w, KILN__FRAME__KIND_HELLO, &m);
}

/* Turns until nothing is there to be read but what was asked for. True: an ASSIGN came. */
static bool turn(struct world *w)
{
	char bytes[8192];
	ssize_t n;
	bool assigned = false;

	for (int i = 0; i < TURNS; i++)
		(void)uv_run(&w->loop, UV_RUN_NOWAIT);
	while ((n = recv(w->peer, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
		assigned = assigned || memmem(bytes, (size_t)n, w->id.bytes, sizeof w->id.bytes);
	return assigned;
}

static void on_published(struct queue_publish *r, int code)
{
	(void)r;
	if (code < 0)
		abort();
}

static void assign(struct world *w)
{
	struct buf b;

	buf_init(&b, 4096);
	if (codec_pack_spec(spec, &b) < 0)
		abort();
	cache_put(w->cache, CACHE_SPEC, &w->id, b.data, b.len);
	buf_fini(&b);
	w->publish.message.id = w->id;
	w->publish.message.class = TASK_CLASS_NORMAL;
	w->publish.message.enqueued_us = clock_wall_us();
	(void)str_copy(w->publish.message.language, TASK_LANGUAGE_MAX, "python");
	(void)str_copy(w->publish.message.tenant, TASK_TENANT_MAX, "default");
	w->publish.done = on_published;
	list_init(&w->publish.deferred.link);
	queue_publish(w->queue, &w->publish);
	for (int i = 0; i < TURNS_MAX; i++)
		if (turn(w))
			return;
	abort(); /* a runner that has greeted gets the task */
}

static void accept_task(struct world *w)
{
	Kiln__Accepted m = KILN__ACCEPTED__INIT;

	codec_put_id(&w->id, &m.task);
	send_message(w, KILN__FRAME__KIND_ACCEPTED, &m);
}

static void make_spec(struct world *w)
{
	uuid7_new(&w->id);
	spec = calloc(1, sizeof *spec);
	spec->id = w->id;
	spec->tenant = strdup("default");
	spec->created_us = clock_wall_us();
	spec->program.language = strdup("python");
	spec->program.entry = strdup("main.py");
	spec->program.files = calloc(1, sizeof *spec->program.files);
	spec->program.n_files = 1;
	spec->program.files[0].name = strdup("main.py");
	(void)bytes_set(&spec->program.files[0].content, "1", 1);
	spec->runs = calloc(1, sizeof *spec->runs);
	spec->n_runs = 1;
	spec->runs[0].limits.output_bytes = 4096;
}

static void world_open(struct world *w)
{
	const struct queue_config qc = {.url = "memory:", .max_tasks = 16};
	const struct cache_config cc = {.url = "memory:", .max_bytes = 1 << 20};
	struct scheduler_config sc = {
		.languages = languages,
		.lease_ms = 10000,
		.weights = {1, 1, 1},
		.sole_owner = true,
		.credit_bytes = 1 << 16,
	};
	struct publisher_config pc = {.admit_max = 16, .queue_max = 16};
	struct err e;
	int pair[2];

	make_spec(w);
	if (uv_loop_init(&w->loop) < 0 || defer_new(&w->loop, &defer) < 0 ||
	    queue_open(&w->loop, &qc, &w->queue, &e) < 0 ||
	    cache_open(&w->loop, &cc, &w->cache, &e) < 0 ||
	    bus_open(&w->loop, "memory:", &w->bus, &e) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	pc.queue = sc.queue = w->queue;
	sc.cache = w->cache;
	pc.bus = sc.bus = w->bus;
	if (publisher_open(&w->loop, &pc, &w->publisher, &e) < 0)
		abort();
	sc.publisher = w->publisher;
	if (scheduler_new(&w->loop, &sc, &w->scheduler, &e) < 0)
		abort();
	scheduler_start(w->scheduler);
	w->peer = pair[1];
	scheduler_add_runner(w->scheduler, "fuzz", pair[0], NULL, NULL, NULL);
}

static void on_closed(void *ctx)
{
	struct world *w = ctx;

	w->open--;
}

static void wait_closed(struct world *w)
{
	w->open++;
	while (w->open)
		(void)uv_run(&w->loop, UV_RUN_ONCE);
}

static void world_close(struct world *w)
{
	(void)close(w->peer);
	for (int i = 0; i < TURNS; i++)
		(void)uv_run(&w->loop, UV_RUN_NOWAIT);
	scheduler_close(w->scheduler, 0, on_closed, w);
	wait_closed(w);
	publisher_close(w->publisher, on_closed, w);
	wait_closed(w);
	queue_close(w->queue, on_closed, w);
	wait_closed(w);
	cache_close(w->cache, on_closed, w);
	wait_closed(w);
	bus_close(w->bus, on_closed, w);
	wait_closed(w);
	defer_close(defer);
	(void)uv_run(&w->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&w->loop) < 0)
		abort();
	task_spec_free(spec);
}

/* A frame of the input, with the task's id in its place. */
static void send_patched(struct world *w, const uint8_t *data, size_t len)
{
	static const char place[] = "TTTTTTTTTTTTTTTT";
	uint8_t bytes[65536];
	uint8_t *at = bytes;

	memcpy(bytes, data, len);
	while ((at = memmem(at, len - (size_t)(at - bytes), place, sizeof w->id.bytes)))
		memcpy(at, w->id.bytes, sizeof w->id.bytes);
	send_bytes(w, bytes, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = {.peer = -1};

	if (size < 1)
		return 0;
	how = data[0];
	world_open(&w);
	if (how & GREETED) {
		greet(&w);
		(void)turn(&w);
		if (how & ASSIGNED)
			assign(&w);
		if ((how & ASSIGNED) && (how & ACCEPTED))
			accept_task(&w);
		(void)turn(&w);
	}
	for (size_t at = 1; at + 2 <= size;) {
		size_t len = (size_t)data[at] | (size_t)data[at + 1] << 8;

		at += 2;
		if (len > size - at)
			len = size - at;
		send_patched(&w, data + at, len);
		(void)turn(&w);
		at += len;
	}
	world_close(&w);
	return 0;
}
