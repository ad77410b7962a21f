/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The store on PostgreSQL while connections and the server fail under load: everything that was
 * acknowledged must be there, once. Some of these take as long as it takes to notice.
 */

#include "postgres_server.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* ---- a load that goes on while things fail ---- */

enum { CLIENTS = 16, KEPT_MAX = 50000 };

struct load;

struct client {
	struct load *load;
	uv_timer_t pause;
	struct task_spec spec;
	struct store_insert insert;
	struct store_claim claim;
	struct store_finish finish;
	bool unsure; /* the present request was told to try again once */
};

struct load {
	struct fixture *f;
	struct client clients[CLIENTS];
	bool stop;
	size_t running, finished, refused, unexpected;
	int unexpected_code;
	struct uuid *kept;
};

static void client_insert(struct client *c);

static void client_next(struct client *c)
{
	task_spec_fini(&c->spec);
	c->unsure = false;
	if (c->load->stop)
		c->load->running--;
	else
		client_insert(c);
}

/* True where the request is asked once more: told so, it may or may not have been done. */
static bool try_again(struct client *c, int code, uv_timer_cb again)
{
	if (code != -EAGAIN)
		return false;
	c->load->refused++;
	c->unsure = true;
	(void)uv_timer_start(&c->pause, again, 20, 0);
	return true;
}

static void unexpected(struct client *c, int code)
{
	/* A test that failed closes the store under its load. */
	if (code == -ESHUTDOWN)
		c->load->stop = true;
	c->load->unexpected++;
	c->load->unexpected_code = code;
}

static void client_do_finish(uv_timer_t *timer);

static void on_client_finished(struct store_req *req, int code)
{
	struct client *c = req->ctx;

	if (try_again(c, code, client_do_finish))
		return;
	if (code < 0 && !(code == -ESTALE && c->unsure))
		unexpected(c, code);
	if (code == 0 && c->load->finished < KEPT_MAX)
		c->load->kept[c->load->finished++] = c->spec.id;
	client_next(c);
}

static void client_do_finish(uv_timer_t *timer)
{
	struct client *c = timer->data;

	store_finish(c->load->f->store, &c->finish);
}

static void client_do_claim(uv_timer_t *timer);

static void on_client_claimed(struct store_req *req, int code)
{
	struct client *c = req->ctx;

	if (try_again(c, code, client_do_claim))
		return;
	if (code < 0) {
		if (!(code == -ESTALE && c->unsure))
			unexpected(c, code);
		client_next(c);
		return;
	}
	c->unsure = false;
	c->finish = (struct store_finish){.req = {.done = on_client_finished, .ctx = c},
					  .id = c->spec.id,
					  .attempt = c->claim.attempt,
					  .state = TASK_DONE,
					  .started_us = NOW_US,
					  .finished_us = NOW_US + 1};
	client_do_finish(&c->pause);
}

static void client_do_claim(uv_timer_t *timer)
{
	struct client *c = timer->data;

	store_claim(c->load->f->store, &c->claim);
}

static void client_do_insert(uv_timer_t *timer);

static void on_client_inserted(struct store_req *req, int code)
{
	struct client *c = req->ctx;

	if (try_again(c, code, client_do_insert))
		return;
	if (code < 0 && !(code == -EEXIST && c->unsure)) {
		unexpected(c, code);
		client_next(c);
		return;
	}
	c->unsure = false;
	c->claim = (struct store_claim){.req = {.done = on_client_claimed, .ctx = c},
					.id = c->spec.id,
					.owner = 7,
					.now_us = NOW_US,
					.lease_until_us = NOW_US + 1000};
	client_do_claim(&c->pause);
}

static void client_do_insert(uv_timer_t *timer)
{
	struct client *c = timer->data;

	store_insert(c->load->f->store, &c->insert);
}

static void client_insert(struct client *c)
{
	make_spec(&c->spec, &(struct spec_options){0});
	c->insert = (struct store_insert){.req = {.done = on_client_inserted, .ctx = c},
					  .spec = &c->spec};
	client_do_insert(&c->pause);
}

static struct load *load_start(struct fixture *f)
{
	struct load *l = calloc(1, sizeof *l);

	assert_non_null(l);
	l->f = f;
	l->kept = calloc(KEPT_MAX, sizeof *l->kept);
	assert_non_null(l->kept);
	l->running = CLIENTS;
	for (size_t i = 0; i < CLIENTS; i++) {
		struct client *c = &l->clients[i];

		c->load = l;
		(void)uv_timer_init(&f->loop, &c->pause);
		c->pause.data = c;
		client_insert(c);
	}
	return l;
}

/* Ends the load and looks at what is there: everything that was acknowledged, nothing twice, and
 * nothing in between. */
static size_t load_end(struct load *l)
{
	struct fixture *f = l->f;
	size_t finished;

	l->stop = true;
	while (l->running)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	if (l->unexpected)
		fail_msg("%zu requests ended unexpectedly, the last with %s", l->unexpected,
			 err_text(l->unexpected_code));
	for (size_t i = 0; i < l->finished; i += 1 + l->finished / 500)
		assert_state(f, &l->kept[i], TASK_DONE, 1);
	admin_connect();
	assert_string_equal(run_sql("SELECT count(*) FROM live JOIN result USING (id)"), "0");
	assert_string_equal(run_sql("SELECT count(*) FROM task WHERE NOT EXISTS (SELECT 1 FROM live"
				    " WHERE live.id = task.id) AND NOT EXISTS (SELECT 1 FROM result"
				    " WHERE result.id = task.id)"),
			    "0");
	assert_true(str_eq(
		run_sql("SELECT count(*) >= %zu FROM result WHERE state = 2", l->finished), "t"));
	for (size_t i = 0; i < CLIENTS; i++)
		uv_close((uv_handle_t *)&l->clients[i].pause, NULL);
	(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	finished = l->finished;
	free(l->kept);
	free(l);
	return finished;
}

/* Runs until so many more cycles are done, for at most 60 s. */
static void load_go_on(struct load *l, size_t more)
{
	int64_t end_us = clock_monotonic_us() + 60000000;
	size_t want = l->finished + more;

	while (l->finished < want) {
		(void)uv_run(&l->f->loop, UV_RUN_ONCE);
		if (clock_monotonic_us() > end_us)
			fail_msg("the load stands still");
	}
}

static void connections_ended_in_load_lose_nothing(void **state)
{
	struct fixture *f = *state;
	struct load *l = load_start(f);

	for (int i = 0; i < 10; i++) {
		load_go_on(l, 100);
		/* Connections that are lost while they are being made are another matter: then
		 * there is none for a moment. */
		run_for(f, 200);
		/* Of this test's store, not of others. */
		(void)run_sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
			      " WHERE application_name = 'kiln' AND pid <> pg_backend_pid()");
	}
	load_go_on(l, 100);
	/* A new connection was there at once: nobody was refused. */
	assert_int_equal(l->refused, 0);
	assert_true(load_end(l) >= 1100);
}

static void server_killed_in_load_loses_nothing(void **state)
{
	struct fixture *f = *state;
	struct err e = {""};
	int64_t back_us;
	struct load *l;

	if (!getenv("KILN_STACK_DIR")) {
		print_message("# KILN_STACK_DIR is not set: the server is not ours to kill\n");
		skip();
	}
	l = load_start(f);
	for (int i = 0; i < 2; i++) {
		load_go_on(l, 200);
		stack("kill");
		run_for(f, 300);
		assert_int_equal(store_health(f->store, &e), -EAGAIN);
		assert_non_null(strstr(e.msg, "Connection refused"));
		assert_true(l->refused > 0);
		stack("up");
		back_us = clock_monotonic_us();
		load_go_on(l, 100);
		assert_true(clock_monotonic_us() - back_us < 5000000);
		assert_int_equal(store_health(f->store, &e), 0);
	}
	assert_true(load_end(l) >= 600);
}

/* The pids of our sessions, as the server knows them. */
static size_t sessions(pid_t *pids, size_t max)
{
	size_t n = 0;

	for (; n < max; n++) {
		uint64_t pid = 0;
		const char *text = run_sql("SELECT pid FROM pg_stat_activity WHERE application_name"
					   " = 'kiln' ORDER BY pid OFFSET %zu LIMIT 1",
					   n);

		if (str_to_u64(text, 1, INT32_MAX, &pid) < 0)
			break;
		pids[n] = (pid_t)pid;
	}
	return n;
}

/* What is in flight is repeated on new connections while the old ones stand still; when they go on
 * they may still do it, and it must count once. */
static void sessions_that_stand_still_are_replaced(void **state)
{
	struct fixture *f = *state;
	struct load *l;
	pid_t pids[8];
	size_t n;

	if (!getenv("KILN_STACK_DIR")) {
		print_message("# KILN_STACK_DIR is not set: the server is not ours to stop\n");
		skip();
	}
	l = load_start(f);
	load_go_on(l, 100);
	n = sessions(pids, ARRAY_SIZE(pids));
	assert_true(n > 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(kill(pids[i], SIGSTOP), 0);
	/* Locks that they hold stand in the way of few; others go on after 15 s. */
	run_for(f, 16000);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(kill(pids[i], SIGCONT), 0);
	load_go_on(l, 200);
	assert_true(load_end(l) >= 300);
}

/* ---- main ---- */

static const struct CMUnitTest tests[] = {
	CASE(connections_ended_in_load_lose_nothing),
	CASE(server_killed_in_load_loses_nothing),
	CASE(sessions_that_stand_still_are_replaced),
};

int main(void)
{
	return postgres_main("store on PostgreSQL, failing", tests, ARRAY_SIZE(tests));
}
