/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The scheduler over a real store, queue, cache and bus, with a runner that is played by the test:
 * what it does when runners are busy, die, lie, or come too late.
 */

#include "observe/metrics.h"
#include "scheduler_world.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
	wait_flag(w, &r.lost);
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
	wait_flag(w, &other.lost);
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
	wait_flag(w, &other.lost);
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
	wait_flag(w, &r.lost);
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
	wait_flag(w, &r.lost);
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
	wait_flag(w, &r.lost);
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
	assert_int_equal(t->attempt, 1);
	task_free(t);
	t = wait_state(w, &queued, TASK_DONE);
	assert_int_equal(t->attempt, 1);
	task_free(t);
	runner_leave(&r);
	wait_flag(w, &r.lost);
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
	scheduler_add_runner(w->scheduler, "old", pair[0], NULL, on_lost, &r);
	m.protocol = WIRE_PROTOCOL + 1;
	m.slots = 1;
	send_frame(&r, KILN__FRAME__KIND_HELLO, &m);
	expect_lost(w, &r);
	assert_false(scheduler_is_ready(w->scheduler, NULL));
	runner_leave(&r);
	wait_flag(w, &r.lost);
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
	wait_flag(w, &thief.lost);
}

static void send_orphaned(struct fake_runner *r, const struct uuid *id, uint64_t owner)
{
	Kiln__Orphaned m = KILN__ORPHANED__INIT;

	codec_put_id(id, &m.task);
	m.owner = owner;
	send_frame(r, KILN__FRAME__KIND_ORPHANED, &m);
}

static void task_of_a_scheduler_that_is_gone_runs_again(void **state)
{
	enum { OTHER = 4242 };
	struct world *w = *state;
	struct uuid id = store_task(w, "default");
	struct fake_runner r;
	struct task *t;

	claim_for(w, &id, OTHER);
	runner_join(w, &r, "shared", 1);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_HELLO);
	send_orphaned(&r, &id, OTHER + 1); /* whose the task is not */
	for (int i = 0; i < 50; i++)
		turn(w);
	t = read_task(w, &id);
	assert_int_equal(t->state, TASK_RUNNING);
	task_free(t);
	send_orphaned(&r, &id, OTHER);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
	accept_task(&r, &id);
	send_run_done(&r, &id, TASK_OUTCOME_OK);
	send_done(&r, &id, false, "");
	t = wait_state(w, &id, TASK_DONE);
	assert_int_equal(t->attempt, 2);
	task_free(t);
	runner_leave(&r);
	wait_flag(w, &r.lost);
}

/* Its scheduler stood still for longer than the lease: another put the task back, and the message
 * of that came here while the first attempt was still at its end. */
static void copy_that_comes_during_a_lost_attempt_is_not_forgotten(void **state)
{
	struct world *w = *state;
	struct uuid id = submit(w);
	struct fake_runner r;
	struct task *t;

	runner_join(w, &r, "runner", 1);
	(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
	accept_task(&r, &id);
	task_free(wait_state(w, &id, TASK_RUNNING));
	end_every_lease(w);
	publish_task(w, &id, "default");
	for (int i = 0; i < 50; i++)
		turn(w);
	send_run_done(&r, &id, TASK_OUTCOME_SIGNALLED);
	send_done(&r, &id, false, "");
	(void)expect_frame(w, &r, KILN__FRAME__KIND_ASSIGN);
	accept_task(&r, &id);
	send_run_done(&r, &id, TASK_OUTCOME_OK);
	send_done(&r, &id, false, "");
	t = wait_state(w, &id, TASK_DONE);
	assert_int_equal(t->attempt, 2);
	assert_int_equal(t->result->outcome, TASK_OUTCOME_OK);
	task_free(t);
	runner_leave(&r);
	wait_flag(w, &r.lost);
}

static void every_runner_knows_an_owner_of_its_own(void **state)
{
	struct world *w = *state;
	struct fake_runner r[2];
	uint64_t owner[2];

	for (int i = 0; i < 2; i++) {
		runner_join(w, &r[i], i ? "second" : "first", 1);
		owner[i] = expect_frame(w, &r[i], KILN__FRAME__KIND_HELLO)->hello->owner;
		assert_true(owner[i] != 0 && owner[i] <= INT64_MAX);
	}
	assert_true(owner[0] != owner[1]);
	for (int i = 0; i < 2; i++) {
		runner_leave(&r[i]);
		wait_flag(w, &r[i].lost);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

/* The id that the runner was assigned next. */
static struct uuid next_assigned(struct world *w, struct fake_runner *r)
{
	const Kiln__Assign *a = expect_frame(w, r, KILN__FRAME__KIND_ASSIGN)->assign;
	struct uuid id;

	assert_int_equal(a->task.len, sizeof id.bytes);
	memcpy(id.bytes, a->task.data, sizeof id.bytes);
	return id;
}

static void end_task(struct fake_runner *r, const struct uuid *id)
{
	accept_task(r, id);
	send_run_done(r, id, TASK_OUTCOME_OK);
	send_done(r, id, false, "");
}

/* However many one has queued, the next task of another starts after the one that runs. */
static void tenant_with_many_does_not_delay_another(void **state)
{
	enum { MANY = 500 };
	struct world *w = *state;
	struct fake_runner r;
	struct uuid id, few;

	for (int i = 0; i < MANY; i++)
		(void)submit_for(w, "many");
	runner_join(w, &r, "local-0", 1);
	id = next_assigned(w, &r);
	for (int round = 0; round < 3; round++) {
		int before = 0;

		few = submit_for(w, "few");
		do {
			end_task(&r, &id);
			id = next_assigned(w, &r);
		} while (!uuid_eq(&id, &few) && ++before < MANY);
		/* Its place is behind what had its turn when it came. */
		assert_in_range(before, 0, 1);
		assert_true(r.n < FRAMES_MAX);
	}
	runner_leave(&r);
	wait_flag(w, &r.lost);
}

static void tenant_runs_no_more_than_its_bound(void **state)
{
	struct world *w = *state;
	struct fake_runner r;
	struct scheduler_stats stats;
	struct uuid ids[2], few;

	close_scheduler(w);
	open_scheduler_of_at_most(w, 2);
	for (int i = 0; i < 20; i++)
		(void)submit_for(w, "many");
	runner_join(w, &r, "local-0", 4);
	ids[0] = next_assigned(w, &r);
	ids[1] = next_assigned(w, &r);
	few = submit_for(w, "few");
	ids[1] = next_assigned(w, &r);
	assert_true(uuid_eq(&ids[1], &few));
	for (int i = 0; i < 200; i++)
		turn(w);
	scheduler_get_stats(w->scheduler, &stats);
	assert_int_equal(stats.busy, 3);
	end_task(&r, &ids[0]);
	(void)next_assigned(w, &r);
	scheduler_get_stats(w->scheduler, &stats);
	assert_int_equal(stats.busy, 3);
	runner_leave(&r);
	wait_flag(w, &r.lost);
}

/* ---- with others ---- */

/* What another scheduler would say. */
static void other_says(struct world *w, const struct uuid *id, const char *name, uint32_t tasks)
{
	Kiln__LanguageWaiting line, *lines[] = {&line};
	Kiln__WaitingReport report = KILN__WAITING_REPORT__INIT;
	uint8_t payload[BUS_PAYLOAD_MAX];

	kiln__language_waiting__init(&line);
	line.language = (char *)(uintptr_t)name;
	line.tasks = tasks;
	report.languages = lines;
	report.n_languages = tasks > 0;
	bus_publish(w->bus, BUS_WAITING, id, payload, kiln__waiting_report__pack(&report, payload));
	for (int i = 0; i < 5; i++)
		turn(w);
}

static uint64_t waiting(const struct world *w, const char *language)
{
	uint64_t n = 0;

	assert_true(scheduler_count_waiting(w->scheduler, language, &n));
	return n;
}

static void tasks_that_wait_with_others_are_counted(void **state)
{
	const struct uuid a = {{1}}, b = {{2}};
	struct world *w = *state;
	int64_t begun_us;

	for (int i = 0; i < 50; i++)
		turn(w);
	assert_int_equal(waiting(w, "python"), 0);
	other_says(w, &a, "python", 3);
	other_says(w, &b, "python", 4);
	other_says(w, &b, "no such language", 9);
	other_says(w, &a, "bash", 2);
	assert_int_equal(waiting(w, "python"), 0);
	assert_int_equal(waiting(w, "bash"), 2);
	other_says(w, &b, "python", 5);
	assert_int_equal(waiting(w, "python"), 5);
	other_says(w, &b, "", 0);
	assert_int_equal(waiting(w, "python"), 0);
	bus_publish(w->bus, BUS_WAITING, &b, "\xff\xff", 2);
	/* One that is gone says nothing any more. */
	begun_us = clock_monotonic_us();
	while (waiting(w, "bash") && clock_monotonic_us() - begun_us < 10 * 1000000)
		turn(w);
	assert_int_equal(waiting(w, "bash"), 0);
	assert_true(clock_monotonic_us() - begun_us > 1000000);
}

struct heard {
	uint32_t tasks;
	size_t languages, n;
};

static void on_heard(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		     size_t len)
{
	Kiln__WaitingReport *report = kiln__waiting_report__unpack(NULL, len, payload);
	struct heard *h = ctx;

	(void)topic;
	(void)id;
	assert_non_null(report);
	h->languages = report->n_languages;
	h->tasks = report->n_languages ? report->languages[0]->tasks : 0;
	if (report->n_languages)
		assert_string_equal(report->languages[0]->language, "python");
	h->n++;
	kiln__waiting_report__free_unpacked(report, NULL);
}

static void tasks_that_wait_are_told_to_others(void **state)
{
	struct world *w = *state;
	struct fake_runner r;
	struct heard heard = {0};

	assert_int_equal(bus_subscribe(w->bus, BUS_WAITING, on_heard, &heard), 0);
	runner_join(w, &r, "local-0", 1);
	(void)submit(w);
	(void)submit(w);
	(void)submit(w);
	for (int i = 0; i < TURNS_MAX && heard.tasks != 2; i++)
		turn(w);
	assert_int_equal(heard.tasks, 2);
	for (int i = 0; i < 3; i++) {
		struct uuid id = next_assigned(w, &r);

		end_task(&r, &id);
	}
	for (int i = 0; i < TURNS_MAX && heard.languages; i++)
		turn(w);
	assert_int_equal(heard.languages, 0);
	assert_true(heard.n >= 2);
	bus_unsubscribe(w->bus, BUS_WAITING, on_heard, &heard);
	runner_leave(&r);
	wait_flag(w, &r.lost);
}

/* Turns until the metrics have the line. */
static void expect_metric(struct world *w, const char *line)
{
	struct buf text;
	bool has = false;

	buf_init(&text, 1 << 20);
	for (int i = 0; i < TURNS_MAX * 2 && !has; i++) {
		turn(w);
		if (i % 50 == 0) {
			buf_clear(&text);
			assert_int_equal(metrics_write(&text), 0);
			has = strstr(text.data, line) != NULL;
		}
	}
	if (!has)
		fail_msg("no \"%s\" in:\n%s", line, text.data);
	buf_fini(&text);
}

static Kiln__Standbys standbys_of(char *language, bool measured, unsigned ready, uint64_t bytes)
{
	Kiln__Standbys m;

	kiln__standbys__init(&m);
	m.language = language;
	m.measured = measured;
	m.ready = ready;
	m.memory_bytes = bytes;
	return m;
}

static void send_standbys(struct fake_runner *r, Kiln__Standbys **waiting, size_t n)
{
	Kiln__Heartbeat m = KILN__HEARTBEAT__INIT;

	m.slots = 1;
	m.waiting = waiting;
	m.n_waiting = n;
	m.standby_used_bytes = 100 * n;
	m.standby_budget_bytes = 1000;
	send_frame(r, KILN__FRAME__KIND_HEARTBEAT, &m);
}

static void standbys_of_all_runners_are_added_up(void **state)
{
	struct world *w = *state;
	char python[] = "python", other[] = "klingon";
	Kiln__Standbys a = standbys_of(python, true, 2, 300), b = standbys_of(other, true, 9, 9),
		       c = standbys_of(python, false, 1, 50);
	struct fake_runner r1, r2;

	runner_join(w, &r1, "local-0", 1);
	runner_join(w, &r2, "local-1", 1);
	send_standbys(&r1, (Kiln__Standbys *[]){&a, &b}, 2);
	send_standbys(&r2, (Kiln__Standbys *[]){&c}, 1);
	expect_metric(w, "kiln_standbys{language=\"python\",step=\"run\"} 3\n");
	expect_metric(w, "kiln_standby_memory_bytes{language=\"python\",step=\"run\","
			 "source=\"cgroup\"} 300\n");
	expect_metric(w, "kiln_standby_memory_bytes{language=\"python\",step=\"run\","
			 "source=\"declared\"} 50\n");
	expect_metric(w, "kiln_standby_budget_bytes{state=\"used\"} 300\n");
	expect_metric(w, "kiln_standby_budget_bytes{state=\"free\"} 1700\n");
	/* What one says last counts, and nothing of one that is gone. */
	send_standbys(&r1, NULL, 0);
	expect_metric(w, "kiln_standbys{language=\"python\",step=\"run\"} 1\n");
	runner_leave(&r2);
	wait_flag(w, &r2.lost);
	expect_metric(w, "kiln_standbys{language=\"python\",step=\"run\"} 0\n");
	expect_metric(w, "kiln_standby_budget_bytes{state=\"free\"} 1000\n");
	runner_leave(&r1);
	wait_flag(w, &r1.lost);
	metrics_reset();
}

static void runner_with_absurdly_many_kinds_of_standbys_is_dropped(void **state)
{
	enum { MANY = 257 };
	struct world *w = *state;
	char python[] = "python";
	Kiln__Standbys one = standbys_of(python, true, 1, 1), *many[MANY];
	struct fake_runner r;

	for (size_t i = 0; i < MANY; i++)
		many[i] = &one;
	runner_join(w, &r, "local-0", 1);
	send_standbys(&r, many, MANY);
	expect_lost(w, &r);
	runner_leave(&r);
}

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
		TEST(task_of_a_scheduler_that_is_gone_runs_again),
		TEST(copy_that_comes_during_a_lost_attempt_is_not_forgotten),
		TEST(every_runner_knows_an_owner_of_its_own),
		TEST(tenant_with_many_does_not_delay_another),
		TEST(tenant_runs_no_more_than_its_bound),
		TEST(tasks_that_wait_with_others_are_counted),
		TEST(tasks_that_wait_are_told_to_others),
		TEST(standbys_of_all_runners_are_added_up),
		TEST(runner_with_absurdly_many_kinds_of_standbys_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
