/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The scheduler over a real store, queue, cache and bus, with a runner that is played by the test:
 * what it does when runners are busy, die, lie, or come too late.
 */

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/scheduler.h"
#include "wire/codec.h"
#include "wire/conn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { FRAMES_MAX = 64, TURNS_MAX = 5000 };

struct fake_runner {
	struct wire_conn *conn;
	Kiln__Frame *frames[FRAMES_MAX]; /* what the scheduler sent, in order */
	size_t n;
	size_t read; /* how many of them the test has looked at */
	bool closed;
	bool lost; /* the scheduler said so */
	char name[32];
};

struct world {
	uv_loop_t loop;
	char path[64];
	struct store *store;
	struct queue *queue;
	struct cache *cache;
	struct bus *bus;
	struct language_registry *languages;
	struct scheduler *scheduler;
	bool scheduler_closed;
	int finished_events;
};

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

static const struct wire_conn_ops runner_ops = {.frame = on_frame, .closed = on_closed};

static void on_lost(void *ctx, const char *pod)
{
	struct fake_runner *r = ctx;

	assert_string_equal(pod, r->name);
	r->lost = true;
}

static void send_frame(struct fake_runner *r, Kiln__Frame__KindCase kind, void *message)
{
	Kiln__Frame f = KILN__FRAME__INIT;

	f.kind_case = kind;
	f.hello = message; /* a union of pointers */
	assert_true(wire_conn_send(r->conn, &f) >= 0);
}

static void runner_join(struct world *w, struct fake_runner *r, const char *name, unsigned slots)
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
	scheduler_add_runner(w->scheduler, name, pair[0], on_lost, r);
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

static void runner_leave(struct fake_runner *r)
{
	wire_conn_close(r->conn);
	r->conn = NULL;
	for (size_t i = 0; i < r->n; i++)
		kiln__frame__free_unpacked(r->frames[i], NULL);
	r->n = r->read = 0;
}

static void turn(struct world *w)
{
	const struct timespec pause = {.tv_nsec = 200000};

	(void)uv_run(&w->loop, UV_RUN_NOWAIT);
	(void)nanosleep(&pause, NULL);
}

/* The next frame of a kind that the runner got; fails the test where none comes. */
static const Kiln__Frame *expect_frame(struct world *w, struct fake_runner *r,
				       Kiln__Frame__KindCase kind)
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
	return NULL;
}

static void accept_task(struct fake_runner *r, const struct uuid *id)
{
	Kiln__Accepted m = KILN__ACCEPTED__INIT;

	codec_put_id(id, &m.task);
	send_frame(r, KILN__FRAME__KIND_ACCEPTED, &m);
}

static void send_output(struct fake_runner *r, const struct uuid *id, uint64_t sequence,
			const char *text)
{
	Kiln__Output m = KILN__OUTPUT__INIT;

	codec_put_id(id, &m.task);
	m.sequence = sequence;
	m.bytes.data = (uint8_t *)(uintptr_t)text;
	m.bytes.len = strlen(text);
	send_frame(r, KILN__FRAME__KIND_OUTPUT, &m);
}

static void send_run_done(struct fake_runner *r, const struct uuid *id, enum task_outcome outcome)
{
	Kiln__RunDone m = KILN__RUN_DONE__INIT;
	Kiln__RunResult result = KILN__RUN_RESULT__INIT;

	codec_put_id(id, &m.task);
	result.outcome = outcome;
	m.result = &result;
	send_frame(r, KILN__FRAME__KIND_RUN_DONE, &m);
}

static void send_done(struct fake_runner *r, const struct uuid *id, bool cancelled,
		      const char *error)
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

static void open_scheduler(struct world *w)
{
	const struct scheduler_config cfg = {
		.store = w->store,
		.queue = w->queue,
		.cache = w->cache,
		.bus = w->bus,
		.languages = w->languages,
		.lease_ms = 10000,
		.weights = {8, 4, 1},
		.sole_owner = true,
		.credit_bytes = 4096,
	};

	assert_int_equal(scheduler_new(&w->loop, &cfg, &w->scheduler, NULL), 0);
	scheduler_start(w->scheduler);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	struct store_config store = {.busy_timeout_ms = 1000};
	const struct queue_config queue = {.url = "memory:", .max_tasks = 100};
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

static void wait_flag(struct world *w, const bool *flag)
{
	for (int i = 0; i < TURNS_MAX && !*flag; i++)
		turn(w);
	assert_true(*flag);
}

static void close_scheduler(struct world *w)
{
	bool closed = false;

	scheduler_close(w->scheduler, 0, on_flag, &closed);
	wait_flag(w, &closed);
}

static int teardown(void **state)
{
	struct world *w = *state;
	bool closed[4] = {false};
	char side[80];

	close_scheduler(w);
	bus_unsubscribe(w->bus, BUS_FINISHED, on_finished, w);
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

static void make_spec(struct task_spec *s)
{
	memset(s, 0, sizeof *s);
	uuid7_new(&s->id);
	s->tenant = strdup("default");
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

static struct uuid submit(struct world *w)
{
	struct wait stored = {0}, published = {0};
	struct task_spec spec;
	struct store_insert insert = {.req = {.done = on_stored, .ctx = &stored}, .spec = &spec};
	struct queue_publish publish = {.done = on_published, .ctx = &published};
	struct uuid id;

	make_spec(&spec);
	id = spec.id;
	store_insert(w->store, &insert);
	wait_flag(w, &stored.done);
	assert_int_equal(stored.code, 0);
	publish.message.id = id;
	publish.message.class = spec.class;
	publish.message.enqueued_us = clock_wall_us();
	(void)snprintf(publish.message.language, TASK_LANGUAGE_MAX, "python");
	(void)snprintf(publish.message.tenant, TASK_TENANT_MAX, "default");
	list_init(&publish.deferred.link);
	queue_publish(w->queue, &publish);
	wait_flag(w, &published.done);
	assert_int_equal(published.code, 0);
	task_spec_fini(&spec);
	return id;
}

/* The row; the caller frees it. */
static struct task *read_task(struct world *w, const struct uuid *id)
{
	struct wait wait = {0};
	struct store_get get = {
		.req = {.done = on_stored, .ctx = &wait}, .id = *id, .parts = STORE_RESULT};

	store_get(w->store, &get);
	wait_flag(w, &wait.done);
	assert_int_equal(wait.code, 0);
	return get.task;
}

static struct task *wait_state(struct world *w, const struct uuid *id, enum task_state state)
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

static enum task_state cancel_task(struct world *w, const struct uuid *id)
{
	struct wait wait = {0};
	struct store_cancel_task cancel = {
		.req = {.done = on_stored, .ctx = &wait}, .id = *id, .now_us = clock_wall_us()};

	store_cancel_task(w->store, &cancel);
	wait_flag(w, &wait.done);
	bus_publish(w->bus, BUS_CANCEL, id, NULL, 0);
	return cancel.state;
}

static void expect_lost(struct world *w, struct fake_runner *r)
{
	wait_flag(w, &r->lost);
	wait_flag(w, &r->closed);
}

/* ---- tests ---- */

static void task_that_runs_ends_done_with_its_output(void **state)
{
	struct world *w = *state;
	struct fake_runner r;
	struct uuid id;
	struct task *t;

	runner_join(w, &r, "local-0", 1);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_HELLO);
	id = submit(w);
	assert_string_equal(expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN)->assign->program->entry,
			    "main.py");
	accept_task(&r, &id);
	send_output(&r, &id, 0, "hello ");
	send_output(&r, &id, 1, "world\n");
	send_run_done(&r, &id, TASK_OUTCOME_OK);
	send_done(&r, &id, false, "");
	t = wait_state(w, &id, TASK_DONE);
	assert_int_equal(t->attempt, 1);
	assert_int_equal(t->result->outcome, TASK_OUTCOME_OK);
	assert_string_equal(t->result->runs[0].output[TASK_STDOUT].data, "hello world\n");
	assert_string_equal(t->result->pod, "local-0");
	assert_int_equal(w->finished_events, 1);
	task_free(t);
	runner_leave(&r);
}

static void busy_runner_costs_no_attempt(void **state)
{
	struct world *w = *state;
	struct fake_runner r, other;
	Kiln__Busy busy = KILN__BUSY__INIT;
	struct uuid id;
	struct task *t;

	runner_join(w, &r, "full", 4);
	id = submit(w);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
	codec_put_id(&id, &busy.task);
	send_frame(&r, KILN__FRAME__KIND_BUSY, &busy);
	runner_join(w, &other, "free", 1);
	(void)expect_frame(w, &other, KILN__FRAME__KIND_ASSIGN);
	accept_task(&other, &id);
	send_run_done(&other, &id, TASK_OUTCOME_OK);
	send_done(&other, &id, false, "");
	t = wait_state(w, &id, TASK_DONE);
	assert_int_equal(t->attempt, 1);
	assert_string_equal(t->result->pod, "free");
	task_free(t);
	runner_leave(&r);
	runner_leave(&other);
}

static void lost_runner_gives_the_task_to_another_as_attempt_two(void **state)
{
	struct world *w = *state;
	struct fake_runner r, other;
	struct uuid id;
	struct task *t;

	runner_join(w, &r, "dies", 1);
	id = submit(w);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
	accept_task(&r, &id);
	send_output(&r, &id, 0, "half");
	for (int i = 0; i < 20; i++)
		turn(w);
	runner_leave(&r);
	wait_flag(w, &r.lost);
	runner_join(w, &other, "lives", 1);
	(void)expect_frame(w, &other, KILN__FRAME__KIND_ASSIGN);
	accept_task(&other, &id);
	send_output(&other, &id, 0, "whole");
	send_run_done(&other, &id, TASK_OUTCOME_OK);
	send_done(&other, &id, false, "");
	t = wait_state(w, &id, TASK_DONE);
	assert_int_equal(t->attempt, 2);
	assert_string_equal(t->result->runs[0].output[TASK_STDOUT].data, "whole");
	assert_int_equal(w->finished_events, 1);
	task_free(t);
	runner_leave(&other);
}

static void task_that_no_runner_can_run_fails_after_three_attempts(void **state)
{
	struct world *w = *state;
	struct fake_runner r;
	struct uuid id;
	struct task *t;

	runner_join(w, &r, "broken", 1);
	id = submit(w);
	for (int i = 0; i < TASK_ATTEMPTS_MAX; i++) {
		(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
		accept_task(&r, &id);
		send_done(&r, &id, false, "sandbox_failed");
	}
	t = wait_state(w, &id, TASK_FAILED);
	assert_int_equal(t->attempt, TASK_ATTEMPTS_MAX);
	assert_string_equal(t->result->error_code, "sandbox_failed");
	assert_int_equal(w->finished_events, 1);
	task_free(t);
	runner_leave(&r);
}

static void cancelled_queued_task_is_never_run(void **state)
{
	struct world *w = *state;
	struct fake_runner r;
	struct uuid id = submit(w);
	struct task *t;

	assert_int_equal(cancel_task(w, &id), TASK_CANCELLED);
	runner_join(w, &r, "local-0", 1);
	/* It may be assigned before the claim is known to be lost; then it is called back. */
	for (int i = 0; i < 200; i++)
		turn(w);
	if (r.n > 1) {
		(void)expect_frame(w, &r, KILN__FRAME__KIND_CANCEL);
		send_done(&r, &id, true, "");
	}
	t = wait_state(w, &id, TASK_CANCELLED);
	assert_int_equal(t->attempt, 0);
	task_free(t);
	runner_leave(&r);
}

static void cancelled_running_task_keeps_its_output(void **state)
{
	struct world *w = *state;
	struct fake_runner r;
	struct uuid id;
	struct task *t;

	runner_join(w, &r, "local-0", 1);
	id = submit(w);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
	accept_task(&r, &id);
	send_output(&r, &id, 0, "so far");
	task_free(wait_state(w, &id, TASK_RUNNING));
	assert_int_equal(cancel_task(w, &id), TASK_RUNNING);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_CANCEL);
	send_done(&r, &id, true, "");
	t = wait_state(w, &id, TASK_CANCELLED);
	assert_string_equal(t->result->runs[0].output[TASK_STDOUT].data, "so far");
	task_free(t);
	runner_leave(&r);
}

static void restarted_scheduler_runs_what_was_queued_and_running(void **state)
{
	struct world *w = *state;
	struct fake_runner r;
	struct uuid running, queued;
	struct task *t;

	runner_join(w, &r, "first", 1);
	running = submit(w);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
	accept_task(&r, &running);
	task_free(wait_state(w, &running, TASK_RUNNING));
	queued = submit(w);
	close_scheduler(w);
	runner_leave(&r);
	open_scheduler(w);
	runner_join(w, &r, "second", 2);
	for (int i = 0; i < 2; i++) {
		const Kiln__Assign *a = expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN)->assign;
		struct uuid id;

		assert_int_equal(codec_get_id(&a->task, &id), 0);
		accept_task(&r, &id);
		send_run_done(&r, &id, TASK_OUTCOME_OK);
		send_done(&r, &id, false, "");
	}
	t = wait_state(w, &running, TASK_DONE);
	assert_int_equal(t->attempt, 2);
	task_free(t);
	t = wait_state(w, &queued, TASK_DONE);
	assert_int_equal(t->attempt, 1);
	task_free(t);
	runner_leave(&r);
}

/* ---- runners that break the protocol ---- */

static void lie_wrong_sequence(struct fake_runner *r, const struct uuid *id)
{
	send_output(r, id, 1, "out of order");
}

static void lie_too_much_output(struct fake_runner *r, const struct uuid *id)
{
	static char text[200];

	memset(text, 'x', sizeof text - 1);
	send_output(r, id, 0, text);
}

static void lie_unknown_run(struct fake_runner *r, const struct uuid *id)
{
	Kiln__Output m = KILN__OUTPUT__INIT;

	codec_put_id(id, &m.task);
	m.run = 1;
	send_frame(r, KILN__FRAME__KIND_OUTPUT, &m);
}

static void lie_two_verdicts(struct fake_runner *r, const struct uuid *id)
{
	send_run_done(r, id, TASK_OUTCOME_OK);
	send_run_done(r, id, TASK_OUTCOME_OK);
}

static void lie_no_verdict(struct fake_runner *r, const struct uuid *id)
{
	send_done(r, id, false, "");
}

static void lie_compile_error_of_a_run(struct fake_runner *r, const struct uuid *id)
{
	send_run_done(r, id, TASK_OUTCOME_COMPILE_ERROR);
}

static void lie_second_hello(struct fake_runner *r, const struct uuid *id)
{
	Kiln__Hello m;

	(void)id;
	kiln__hello__init(&m);
	m.protocol = WIRE_PROTOCOL;
	m.slots = 1;
	send_frame(r, KILN__FRAME__KIND_HELLO, &m);
}

static void lie_frame_of_a_scheduler(struct fake_runner *r, const struct uuid *id)
{
	Kiln__Cancel m = KILN__CANCEL__INIT;

	codec_put_id(id, &m.task);
	send_frame(r, KILN__FRAME__KIND_CANCEL, &m);
}

static void runner_that_breaks_the_protocol_is_dropped_and_its_task_runs_again(void **state)
{
	static void (*const lies[])(struct fake_runner *, const struct uuid *) = {
		lie_wrong_sequence, lie_too_much_output,      lie_unknown_run,
		lie_two_verdicts,   lie_no_verdict,	      lie_compile_error_of_a_run,
		lie_second_hello,   lie_frame_of_a_scheduler,
	};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct fake_runner liar, honest;
		struct uuid id;
		struct task *t;

		runner_join(w, &liar, "liar", 1);
		id = submit(w);
		(void)expect_frame(w, &liar, KILN__FRAME__KIND_ASSIGN);
		accept_task(&liar, &id);
		lies[i](&liar, &id);
		expect_lost(w, &liar);
		runner_leave(&liar);
		runner_join(w, &honest, "honest", 1);
		(void)expect_frame(w, &honest, KILN__FRAME__KIND_ASSIGN);
		accept_task(&honest, &id);
		send_run_done(&honest, &id, TASK_OUTCOME_RUNTIME_ERROR);
		send_done(&honest, &id, false, "");
		t = wait_state(w, &id, TASK_DONE);
		assert_int_equal(t->attempt, 2);
		assert_int_equal(t->result->outcome, TASK_OUTCOME_RUNTIME_ERROR);
		task_free(t);
		runner_leave(&honest);
		wait_flag(w, &honest.lost);
	}
}

static void runner_of_another_protocol_is_refused(void **state)
{
	struct world *w = *state;
	struct fake_runner r = {.name = "old"};
	Kiln__Hello m;
	int pair[2];

	kiln__hello__init(&m);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(
		wire_conn_open_consume(&w->loop, pair[1], NULL, &runner_ops, &r, &r.conn, NULL), 0);
	scheduler_add_runner(w->scheduler, "old", pair[0], on_lost, &r);
	m.protocol = WIRE_PROTOCOL + 1;
	m.slots = 1;
	send_frame(&r, KILN__FRAME__KIND_HELLO, &m);
	expect_lost(w, &r);
	assert_false(scheduler_is_ready(w->scheduler, NULL));
	runner_leave(&r);
}

static void runner_may_not_speak_of_another_runners_task(void **state)
{
	struct world *w = *state;
	struct fake_runner r, thief;
	struct uuid id;
	struct task *t;

	runner_join(w, &r, "owner", 1);
	id = submit(w);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
	accept_task(&r, &id);
	runner_join(w, &thief, "thief", 1);
	send_output(&thief, &id, 0, "forged");
	send_run_done(&thief, &id, TASK_OUTCOME_OK);
	send_done(&thief, &id, false, "");
	for (int i = 0; i < 50; i++)
		turn(w);
	send_run_done(&r, &id, TASK_OUTCOME_SIGNALLED);
	send_done(&r, &id, false, "");
	t = wait_state(w, &id, TASK_DONE);
	assert_int_equal(t->result->outcome, TASK_OUTCOME_SIGNALLED);
	assert_int_equal(t->result->runs[0].output[TASK_STDOUT].len, 0);
	task_free(t);
	runner_leave(&r);
	runner_leave(&thief);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(task_that_runs_ends_done_with_its_output),
		TEST(busy_runner_costs_no_attempt),
		TEST(lost_runner_gives_the_task_to_another_as_attempt_two),
		TEST(task_that_no_runner_can_run_fails_after_three_attempts),
		TEST(cancelled_queued_task_is_never_run),
		TEST(cancelled_running_task_keeps_its_output),
		TEST(restarted_scheduler_runs_what_was_queued_and_running),
		TEST(runner_that_breaks_the_protocol_is_dropped_and_its_task_runs_again),
		TEST(runner_of_another_protocol_is_refused),
		TEST(runner_may_not_speak_of_another_runners_task),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
