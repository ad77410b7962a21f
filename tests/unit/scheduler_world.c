/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler_world.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- the runner's side ---- */

static void on_frame(void *ctx, const Kiln__Frame *f)
{
	struct fake_runner *r = ctx;
	size_t len = kiln__frame__get_packed_size(f);
	uint8_t *copy = malloc(len + 1);

	assert_non_null(copy);
	assert_true(r->n < FRAMES_MAX);
	(void)kiln__frame__pack(f, copy);
	r->frames[r->n++] = kiln__frame__unpack(NULL, len, copy);
	free(copy);
}

static void on_closed(void *ctx, int code, const char *message)
{
	(void)code;
	(void)message;
	((struct fake_runner *)ctx)->closed = true;
}

const struct wire_conn_ops runner_ops = {.frame = on_frame, .closed = on_closed};

void on_lost(void *ctx, const char *pod, const char *reason)
{
	struct fake_runner *r = ctx;

	(void)reason;
	assert_string_equal(pod, r->name);
	r->lost = true;
}

void send_frame(struct fake_runner *r, Kiln__Frame__KindCase kind, void *message)
{
	Kiln__Frame f = KILN__FRAME__INIT;

	f.kind_case = kind;
	f.hello = message; /* a union of pointers */
	assert_true(wire_conn_send(r->conn, &f) >= 0);
}

void runner_join(struct world *w, struct fake_runner *r, const char *name, unsigned slots)
{
	Kiln__Hello hello;
	Kiln__Isolation isolation;
	Kiln__LanguageStatus python, *languages[] = {&python};
	int pair[2];

	kiln__hello__init(&hello);
	kiln__isolation__init(&isolation);
	kiln__language_status__init(&python);
	memset(r, 0, sizeof *r);
	(void)snprintf(r->name, sizeof r->name, "%s", name);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(
		wire_conn_open_consume(&w->loop, pair[1], NULL, &runner_ops, r, &r->conn, NULL), 0);
	scheduler_add_runner(w->scheduler, name, pair[0], NULL, on_lost, r);
	python.name = (char[]){"python"};
	python.version = (char[]){"3.11.2"};
	python.installed = true;
	isolation.level = (char[]){"sandbox"};
	isolation.limits = (char[]){"cgroup1"};
	hello.protocol = WIRE_PROTOCOL;
	hello.slots = slots;
	hello.languages = languages;
	hello.n_languages = 1;
	hello.isolation = &isolation;
	send_frame(r, KILN__FRAME__KIND_HELLO, &hello);
}

void runner_leave(struct fake_runner *r)
{
	wire_conn_close(r->conn);
	r->conn = NULL;
	for (size_t i = 0; i < r->n; i++)
		kiln__frame__free_unpacked(r->frames[i], NULL);
	r->n = r->read = 0;
}

void turn(struct world *w)
{
	const struct timespec pause = {.tv_nsec = 200000};

	(void)uv_run(&w->loop, UV_RUN_NOWAIT);
	(void)nanosleep(&pause, NULL);
}

/* The next frame of a kind that the runner got; fails the test where none comes. */
const Kiln__Frame *expect_frame(struct world *w, struct fake_runner *r, Kiln__Frame__KindCase kind)
{
	for (int i = 0; i < TURNS_MAX; i++) {
		while (r->read < r->n) {
			const Kiln__Frame *f = r->frames[r->read++];

			if (f->kind_case == kind)
				return f;
		}
		turn(w);
	}
	fail_msg("no frame of kind %d came", (int)kind);
	abort();
}

void accept_task(struct fake_runner *r, const struct uuid *id)
{
	Kiln__Accepted m = KILN__ACCEPTED__INIT;

	codec_put_id(id, &m.task);
	send_frame(r, KILN__FRAME__KIND_ACCEPTED, &m);
}

void send_output(struct fake_runner *r, const struct uuid *id, uint64_t sequence, const char *text)
{
	Kiln__Output m = KILN__OUTPUT__INIT;

	codec_put_id(id, &m.task);
	m.sequence = sequence;
	m.bytes.data = (uint8_t *)(uintptr_t)text;
	m.bytes.len = strlen(text);
	send_frame(r, KILN__FRAME__KIND_OUTPUT, &m);
}

void send_run_done(struct fake_runner *r, const struct uuid *id, enum task_outcome outcome)
{
	Kiln__RunDone m = KILN__RUN_DONE__INIT;
	Kiln__RunResult result = KILN__RUN_RESULT__INIT;

	codec_put_id(id, &m.task);
	result.outcome = outcome;
	m.result = &result;
	send_frame(r, KILN__FRAME__KIND_RUN_DONE, &m);
}

void send_done(struct fake_runner *r, const struct uuid *id, bool cancelled, const char *error)
{
	Kiln__Done m;

	kiln__done__init(&m);
	codec_put_id(id, &m.task);
	m.cancelled = cancelled;
	m.error_code = (char *)(uintptr_t)error;
	send_frame(r, KILN__FRAME__KIND_DONE, &m);
}

/* ---- the world around ---- */

static void on_finished(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
			size_t len)
{
	(void)topic;
	(void)id;
	(void)payload;
	(void)len;
	((struct world *)ctx)->finished_events++;
}

void open_scheduler_of_at_most(struct world *w, size_t tenant_running_max)
{
	const struct scheduler_config cfg = {
		.store = w->store,
		.queue = w->queue,
		.publisher = w->publisher,
		.cache = w->cache,
		.bus = w->bus,
		.languages = w->languages,
		.lease_ms = 10000,
		.weights = {8, 4, 1},
		.tenant_running_max = tenant_running_max,
		.sole_owner = true,
		.credit_bytes = 4096,
	};

	assert_int_equal(scheduler_new(&w->loop, &cfg, &w->scheduler, NULL), 0);
	scheduler_start(w->scheduler);
}

void open_scheduler(struct world *w)
{
	open_scheduler_of_at_most(w, 0);
}

static void open_publisher(struct world *w)
{
	const struct publisher_config cfg = {.store = w->store,
					     .queue = w->queue,
					     .bus = w->bus,
					     .admit_max = 10,
					     .queue_max = 1000};

	assert_int_equal(publisher_open(&w->loop, &cfg, &w->publisher, NULL), 0);
}

int world_setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	struct store_config store = {.busy_timeout_ms = 1000};
	const struct queue_config queue = {.url = "memory:", .max_tasks = 1000};
	const struct cache_config cache = {.url = "memory:", .max_bytes = 1 << 20};
	char url[80];

	assert_non_null(w);
	log_set_level(LOG_ERROR);
	(void)snprintf(w->path, sizeof w->path, "/tmp/kiln-scheduler-%d.db", (int)getpid());
	(void)snprintf(url, sizeof url, "sqlite:%s", w->path);
	store.url = url;
	assert_int_equal(uv_loop_init(&w->loop), 0);
	assert_int_equal(store_open(&w->loop, &store, &w->store, NULL), 0);
	assert_int_equal(queue_open(&w->loop, &queue, &w->queue, NULL), 0);
	assert_int_equal(cache_open(&w->loop, &cache, &w->cache, NULL), 0);
	assert_int_equal(bus_open(&w->loop, "memory:", &w->bus, NULL), 0);
	open_publisher(w);
	assert_int_equal(language_registry_load(KILN_SOURCE_ROOT "/languages", &w->languages, NULL),
			 0);
	assert_int_equal(bus_subscribe(w->bus, BUS_FINISHED, on_finished, w), 0);
	open_scheduler(w);
	*state = w;
	return 0;
}

static void on_flag(void *ctx)
{
	*(bool *)ctx = true;
}

void wait_flag(struct world *w, const bool *flag)
{
	for (int i = 0; i < TURNS_MAX && !*flag; i++)
		turn(w);
	assert_true(*flag);
}

void close_scheduler(struct world *w)
{
	bool closed = false;

	scheduler_close(w->scheduler, 0, on_flag, &closed);
	wait_flag(w, &closed);
}

int world_teardown(void **state)
{
	struct world *w = *state;
	bool closed[5] = {false};
	char side[80];

	close_scheduler(w);
	bus_unsubscribe(w->bus, BUS_FINISHED, on_finished, w);
	publisher_close(w->publisher, on_flag, &closed[4]);
	wait_flag(w, &closed[4]);
	queue_close(w->queue, on_flag, &closed[0]);
	wait_flag(w, &closed[0]);
	cache_close(w->cache, on_flag, &closed[1]);
	wait_flag(w, &closed[1]);
	bus_close(w->bus, on_flag, &closed[2]);
	wait_flag(w, &closed[2]);
	store_close(w->store, on_flag, &closed[3]);
	wait_flag(w, &closed[3]);
	(void)uv_run(&w->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	language_registry_free(w->languages);
	(void)unlink(w->path);
	(void)snprintf(side, sizeof side, "%s-wal", w->path);
	(void)unlink(side);
	(void)snprintf(side, sizeof side, "%s-shm", w->path);
	(void)unlink(side);
	free(w);
	return 0;
}

/* ---- the client's side ---- */

struct wait {
	bool done;
	int code;
};

static void on_stored(struct store_req *req, int code)
{
	struct wait *wait = req->ctx;

	wait->done = true;
	wait->code = code;
}

static void on_published(struct queue_publish *r, int code)
{
	struct wait *wait = r->ctx;

	wait->done = true;
	wait->code = code;
}

static void make_spec(struct task_spec *s, const char *tenant)
{
	memset(s, 0, sizeof *s);
	uuid7_new(&s->id);
	s->tenant = strdup(tenant);
	s->class = TASK_CLASS_NORMAL;
	s->created_us = clock_wall_us();
	s->program.language = strdup("python");
	s->program.entry = strdup("main.py");
	s->program.files = calloc(1, sizeof *s->program.files);
	s->program.n_files = 1;
	s->program.files[0].name = strdup("main.py");
	assert_int_equal(bytes_set(&s->program.files[0].content, "print(1)", 8), 0);
	task_limits_unset(&s->program.compile_limits);
	s->runs = calloc(1, sizeof *s->runs);
	s->n_runs = 1;
	task_limits_unset(&s->runs[0].limits);
	s->runs[0].limits.output_bytes = 100;
}

struct uuid store_task(struct world *w, const char *tenant)
{
	struct wait stored = {0};
	struct task_spec spec;
	struct store_insert insert = {.req = {.done = on_stored, .ctx = &stored}, .spec = &spec};
	struct uuid id;

	make_spec(&spec, tenant);
	id = spec.id;
	store_insert(w->store, &insert);
	wait_flag(w, &stored.done);
	assert_int_equal(stored.code, 0);
	task_spec_fini(&spec);
	return id;
}

void publish_task(struct world *w, const struct uuid *id, const char *tenant)
{
	struct wait published = {0};
	struct queue_publish publish = {.done = on_published, .ctx = &published};

	publish.message.id = *id;
	publish.message.class = TASK_CLASS_NORMAL;
	publish.message.enqueued_us = clock_wall_us();
	(void)snprintf(publish.message.language, TASK_LANGUAGE_MAX, "python");
	(void)snprintf(publish.message.tenant, TASK_TENANT_MAX, "%s", tenant);
	list_init(&publish.deferred.link);
	queue_publish(w->queue, &publish);
	wait_flag(w, &published.done);
	assert_int_equal(published.code, 0);
}

struct uuid submit_for(struct world *w, const char *tenant)
{
	struct uuid id = store_task(w, tenant);

	publish_task(w, &id, tenant);
	return id;
}

struct uuid submit(struct world *w)
{
	return submit_for(w, "default");
}

/* The row; the caller frees it. */
struct task *read_task(struct world *w, const struct uuid *id)
{
	struct wait wait = {0};
	struct store_get get = {
		.req = {.done = on_stored, .ctx = &wait}, .id = *id, .parts = STORE_RESULT};

	store_get(w->store, &get);
	wait_flag(w, &wait.done);
	assert_int_equal(wait.code, 0);
	return get.task;
}

void claim_for(struct world *w, const struct uuid *id, uint64_t owner)
{
	struct wait wait = {0};
	struct store_claim claim = {
		.req = {.done = on_stored, .ctx = &wait},
		.id = *id,
		.owner = owner,
		.now_us = clock_wall_us(),
		.lease_until_us = clock_wall_us() + INT64_C(3600000000),
	};

	store_claim(w->store, &claim);
	wait_flag(w, &wait.done);
	assert_int_equal(wait.code, 0);
}

void end_every_lease(struct world *w)
{
	struct wait wait = {0};
	struct store_sweep sweep = {
		.req = {.done = on_stored, .ctx = &wait},
		.now_us = clock_wall_us(),
		.every_lease = true,
		.error_code = "scheduler_lost",
		.error_message = "ended by a test",
		.limit = 10,
	};

	store_sweep(w->store, &sweep);
	wait_flag(w, &wait.done);
	assert_int_equal(wait.code, 0);
	free(sweep.tickets);
}

struct task *wait_state(struct world *w, const struct uuid *id, enum task_state state)
{
	for (int i = 0; i < 500; i++) {
		struct task *t = read_task(w, id);

		if (t->state == state)
			return t;
		task_free(t);
	}
	fail_msg("the task did not become %s", task_state_name(state));
	return NULL;
}

enum task_state cancel_task(struct world *w, const struct uuid *id)
{
	struct wait wait = {0};
	struct store_cancel_task cancel = {
		.req = {.done = on_stored, .ctx = &wait}, .id = *id, .now_us = clock_wall_us()};

	store_cancel_task(w->store, &cancel);
	wait_flag(w, &wait.done);
	bus_publish(w->bus, BUS_CANCEL, id, NULL, 0);
	return cancel.state;
}

void expect_lost(struct world *w, struct fake_runner *r)
{
	wait_flag(w, &r->lost);
	wait_flag(w, &r->closed);
}
