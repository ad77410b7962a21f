/* SPDX-License-Identifier: Apache-2.0 */

/* The store on PostgreSQL: the suite that every store has to pass, and what is its own. */

#include "postgres_server.h"

#include "base/clock.h"
#include "base/str.h"
#include "store/outbox.h"

#include <errno.h>
#include <libpq-fe.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

static void open_again_finds_the_schema(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);

	fixture_close(f);
	fixture_open(f);
	assert_state(f, &id, TASK_QUEUED, 0);
}

/* ---- what must not be opened, and what is said then ---- */

/* The base URL with one part replaced. */
static const char *url_but(const char *what, const char *by)
{
	static char changed[1200];
	const char *at = strstr(base_url, what);

	assert_non_null(at);
	(void)snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - base_url), base_url, by,
		       at + strlen(what));
	return changed;
}

static void assert_refused(struct fixture *f, const char *with_url, int code, const char *word,
			   const char *what_to_do)
{
	struct err e = {""};

	assert_int_equal(try_open(f, with_url, &e), code);
	if (!strstr(e.msg, word) || !strstr(e.msg, what_to_do))
		fail_msg("\"%s\" and \"%s\" are not in: %s", word, what_to_do, e.msg);
}

static void open_of_what_cannot_be_reached_says_why(void **state)
{
	struct fixture *f = *state;
	char here[128], there[128];
	PQconninfoOption *o = PQconninfoParse(base_url, NULL);
	const char *password = "", *port = "", *database = "";

	for (PQconninfoOption *i = o; i && i->keyword; i++) {
		password = str_eq(i->keyword, "password") && i->val ? i->val : password;
		port = str_eq(i->keyword, "port") && i->val ? i->val : port;
		database = str_eq(i->keyword, "dbname") && i->val ? i->val : database;
	}
	assert_true(*password && *port);
	(void)snprintf(here, sizeof here, ":%s/%s", port, database);
	(void)snprintf(there, sizeof there, ":%s/nowhere", port);
	assert_refused(f, url_but(password, "wrong"), -EAGAIN, "password authentication failed",
		       "check user and password");
	assert_refused(f, url_but(here, there), -EAGAIN, "\"nowhere\" does not exist",
		       "CREATE DATABASE");
	assert_refused(f, url_but(here, ":1/kiln"), -EAGAIN, "Connection refused",
		       "is the server running");
	assert_refused(f, "postgresql://u@no-such-host.invalid/kiln", -EAGAIN,
		       "could not resolve \"no-such-host.invalid\"", "check the host");
	assert_refused(f, "postgresql:///kiln", -EINVAL, "names no host", "HOST:PORT");
	assert_refused(f, "postgresql://u@127.0.0.1", -EINVAL, "names no database", "/DATABASE");
	assert_refused(f, "postgresql://u@[", -EINVAL, "no PostgreSQL URL", "");
	PQconninfoFree(o);
}

static void open_tries_several_hosts_in_turn(void **state)
{
	struct fixture *f = *state;
	char several[1300];
	const char *at = strchr(strstr(base_url, "//"), '@');

	assert_non_null(at);
	(void)snprintf(several, sizeof several, "%.*s127.0.0.1:1,%s%coptions=-csearch_path%%3D%s",
		       (int)(at + 1 - base_url), base_url, at + 1, strchr(at, '?') ? '&' : '?',
		       schema);
	fixture_close(f);
	f->url = several;
	fixture_open(f);
	(void)add_task(f);
	f->url = url;
}

static void schema_older_refused_until_migrated(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	struct err e = {""};
	int from = -1, to = -1;

	damaged = true;
	fixture_close(f);
	(void)run_sql("DROP TABLE outbox, tenant; DROP INDEX live_by_tenant;"
		      "ALTER TABLE live DROP queued, DROP traceparent;"
		      "UPDATE kiln_schema SET version = 1, usable_from = 1");
	assert_refused(f, url, -ESTALE, "schema version 1", "run `kiln migrate`");
	assert_int_equal(store_migrate(url, &from, &to, &e), 0);
	assert_int_equal(from, 1);
	assert_true(to > from);
	assert_int_equal(store_migrate(url, &from, NULL, &e), 0);
	assert_int_equal(from, to);
	fixture_open(f);
	assert_state(f, &id, TASK_QUEUED, 0);
}

static void schema_newer_refused_unless_said_to_be_usable(void **state)
{
	struct fixture *f = *state;
	struct err e = {""};
	int from = -1, to = -1;

	damaged = true;
	fixture_close(f);
	(void)run_sql("UPDATE kiln_schema SET version = 99, usable_from = 99");
	assert_refused(f, url, -ENOTSUP, "schema version 99", "use a newer Kiln");
	(void)run_sql("UPDATE kiln_schema SET usable_from = 2");
	fixture_open(f);
	(void)add_task(f);
	/* An older program beside the newer ones finds nothing to do. */
	assert_int_equal(store_migrate(url, &from, &to, &e), 0);
	assert_int_equal(from, 99);
	assert_true(to < from);
	(void)run_sql("UPDATE kiln_schema SET usable_from = 99");
	assert_int_equal(store_migrate(url, NULL, NULL, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "99"));
	assert_non_null(strstr(e.msg, "use a newer Kiln"));
}

/* A mistyped name of a database must not become another store. */
static void schema_is_made_by_migrate_alone(void **state)
{
	struct fixture *f = *state;
	struct err e = {""};
	int from = -1, to = -1;

	fixture_close(f);
	make_empty_schema();
	assert_refused(f, url, -ESTALE, "no tables of Kiln", "run `kiln migrate`");
	assert_string_equal(run_sql("SELECT count(*) FROM pg_class WHERE relnamespace ="
				    " current_schema()::regnamespace"),
			    "0");
	assert_int_equal(store_migrate(url, &from, &to, &e), 0);
	assert_int_equal(from, 0);
	fixture_open(f);
	(void)add_task(f);
}

static void schema_of_another_program_refused(void **state)
{
	struct fixture *f = *state;

	fixture_close(f);
	make_empty_schema();
	(void)run_sql("CREATE TABLE task (mine int)");
	assert_refused(f, url, -EUCLEAN, "another program", "database of its own");
	assert_string_equal(run_sql("SELECT count(*) FROM task"), "0");
}

static void migrate_at_once_makes_one_schema(void **state)
{
	enum { MANY = 6 };
	struct fixture *f = *state;
	pid_t pids[MANY];
	int status;

	fixture_close(f);
	make_empty_schema();
	for (int i = 0; i < MANY; i++) {
		char *argv[] = {strdup("migrate"), strdup("--migrate"), strdup(url), NULL};

		assert_int_equal(posix_spawn(&pids[i], "/proc/self/exe", NULL, NULL, argv, environ),
				 0);
		for (size_t k = 0; argv[k]; k++)
			free(argv[k]);
	}
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	assert_string_equal(run_sql("SELECT count(*) FROM kiln_schema"), "1");
	fixture_open(f);
	(void)add_task(f);
}

/* ---- partitions ---- */

static void old_day_dropped_as_a_whole(void **state)
{
	struct fixture *f = *state;
	struct store_prune prune = {.limit = 10};
	struct store_get get = {0};
	struct uuid today = add_task(f);
	struct task_spec spec;
	struct store_insert insert = {.spec = &spec};
	int64_t day_us = INT64_C(86400000000), then_us = clock_wall_us() - 5 * day_us;

	damaged = true;
	(void)run_sql("SELECT kiln_make_days((now() AT TIME ZONE 'UTC')::date - 6, 3)");
	make_spec(&spec, &(struct spec_options){0});
	uuid7_floor(then_us, &spec.id);
	spec.id.bytes[15] = 1;
	get.id = spec.id;
	assert_int_equal(RUN(insert, f, &insert), 0);
	task_spec_fini(&spec);
	prune.before_us = prune.now_us = clock_wall_us() - 3 * day_us;
	/* It lives: its day stays. */
	assert_int_equal(RUN(prune, f, &prune), 0);
	run_for(f, 300);
	assert_state(f, &get.id, TASK_QUEUED, 0);
	(void)run_sql("WITH l AS (DELETE FROM live WHERE id < kiln_day_floor((now() AT TIME ZONE"
		      " 'UTC')::date - 1) RETURNING id) INSERT INTO result SELECT id, 3, 0, 0,"
		      " %lld, 0, NULL, NULL FROM l",
		      (long long)then_us);
	assert_string_equal(run_sql("SELECT count(*) FROM pg_inherits WHERE inhparent ="
				    " 'task'::regclass"),
			    "10");
	for (int i = 0; i < 100; i++) {
		assert_int_equal(RUN(prune, f, &prune), 0);
		run_for(f, 50);
		if (str_eq(run_sql("SELECT count(*) FROM pg_inherits WHERE inhparent ="
				   " 'task'::regclass"),
			   "9"))
			break;
	}
	assert_string_equal(
		run_sql("SELECT count(*) FROM pg_class WHERE relname ~ '^(task|result)_2'"
			" AND relkind = 'r' AND relnamespace = current_schema()"
			"::regnamespace"),
		"18");
	assert_int_equal(RUN(get, f, &get), -ENOENT);
	assert_state(f, &today, TASK_QUEUED, 0);
}

static void id_of_a_day_without_partition_says_try_again(void **state)
{
	struct fixture *f = *state;
	struct task_spec specs[3];
	struct store_insert r[3] = {0};
	struct waiter w = {0};

	/* One bad task does not take those with it that came along. */
	for (size_t i = 0; i < 3; i++) {
		make_spec(&specs[i], &(struct spec_options){0});
		if (i == 1)
			specs[i].id.bytes[0] ^= 0x40;
		r[i].spec = &specs[i];
		BEGIN(insert, f, &w, &r[i]);
	}
	(void)wait_all(f, &w);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(r[i].req.code, i == 1 ? -EAGAIN : 0);
		task_spec_fini(&specs[i]);
	}
}

/* ---- statements ---- */

static void statement_that_takes_too_long_says_try_again(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	struct store_claim r = {.id = id, .owner = 7, .now_us = NOW_US, .lease_until_us = NOW_US};
	char hasty[1200];

	fixture_close(f);
	url_with(hasty, sizeof hasty, "%20-cstatement_timeout%3D300");
	f->url = hasty;
	fixture_open(f);
	f->url = url;
	(void)run_sql("BEGIN");
	(void)run_sql("LOCK TABLE live IN ACCESS EXCLUSIVE MODE");
	assert_int_equal(RUN(claim, f, &r), -EAGAIN);
	(void)run_sql("ROLLBACK");
	/* Sessions that could not be made meanwhile are made after a rest. */
	for (int i = 0; i < 50 && RUN(claim, f, &r) == -EAGAIN; i++)
		run_for(f, 100);
	assert_int_equal(r.req.code, 0);
	assert_int_equal(r.attempt, 1);
}

static void big_contents_are_compressed(void **state)
{
	enum { BIG = 1 << 20 };
	struct fixture *f = *state;
	char *code = malloc(BIG);
	struct task *t;
	struct uuid id;

	assert_non_null(code);
	for (size_t i = 0; i < BIG; i++)
		code[i] = "int main(void) { return 0; }\n"[i % 29];
	id = add_task_with(f, &(struct spec_options){.code = code, .code_len = BIG});
	t = get_task(f, &id, STORE_CONTENTS);
	assert_int_equal(t->spec.program.files[0].content.len, BIG);
	assert_memory_equal(t->spec.program.files[0].content.data, code, BIG);
	task_free(t);
	assert_string_equal(run_sql("SELECT max(length(whole)) < 10000 FROM task"), "t");
	free(code);
}

static void stored_bytes_that_are_damaged_are_an_error(void **state)
{
	static const char *const bad[] = {"''", "'\\x07'", "'\\x01ffffffffff'", "'\\x0128b52ffd'",
					  "'\\x00ff'"};
	struct fixture *f = *state;
	struct store_get get = {.id = add_task(f)};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		(void)run_sql("UPDATE task SET whole = %s", bad[i]);
		assert_int_equal(RUN(get, f, &get), -EIO);
		assert_null(get.task);
	}
}

/* ---- the outbox ---- */

static size_t take(struct fixture *f, int64_t before_us, size_t limit, size_t each)
{
	struct store_outbox_take r = {
		.before_us = before_us, .now_us = NOW_US + 10, .limit = limit, .limit_each = each};

	assert_int_equal(RUN(outbox_take, f, &r), 0);
	for (size_t i = 1; i < r.n; i++)
		assert_true(memcmp(&r.tickets[i - 1].id, &r.tickets[i].id, 16) < 0);
	free(r.tickets);
	return r.n;
}

static void open_with_outbox(struct fixture *f)
{
	struct store_config cfg = {.url = url, .outbox = true};

	fixture_close(f);
	assert_int_equal(store_open(&f->loop, &cfg, &f->store, NULL), 0);
}

static void outbox_gives_each_stream_its_share(void **state)
{
	struct fixture *f = *state;
	struct store_release release = {.attempt = 1, .now_us = NOW_US};
	struct store_outbox_done done = {.n = 1};
	struct uuid id;

	assert_int_equal(RUN(outbox_done, f, &done), -ENOTSUP);
	open_with_outbox(f);
	for (int i = 0; i < 20; i++)
		(void)add_task(f);
	id = add_task_with(f, &(struct spec_options){.tenant = "other"});
	assert_int_equal(take(f, NOW_US, 100, 100), 0); /* all are younger */
	assert_int_equal(take(f, NOW_US + 1, 100, 5), 6);
	assert_int_equal(take(f, NOW_US + 1, 7, 100), 7);
	assert_int_equal(take(f, NOW_US + 1, 100, 100), 8);
	assert_int_equal(take(f, NOW_US + 1, 100, 100), 0);
	assert_int_equal(take(f, NOW_US + 11, 100, 100), 21); /* nobody said done */
	done.ids = &id;
	assert_int_equal(RUN(outbox_done, f, &done), 0);
	assert_int_equal(take(f, NOW_US + 11, 100, 100), 20);
	/* Back in the queue is back in the outbox. */
	(void)claim(f, &id);
	release.id = id;
	assert_int_equal(RUN(release, f, &release), 0);
	assert_string_equal(run_sql("SELECT count(*) FROM outbox"), "21");
}

/* Rooms of streams replace the common one; what takes no part keeps its place. */
static void outbox_takes_by_room(void **state)
{
	static const struct store_room rooms[] = {
		{"acme", "python", TASK_CLASS_NORMAL, 0},
		{"acme", "python", TASK_CLASS_HIGH, 2},
		{"nobody", "python", TASK_CLASS_HIGH, 9},
	};
	struct store_outbox_take r = {.before_us = NOW_US + 1,
				      .now_us = NOW_US + 10,
				      .limit = 100,
				      .limit_each = 4,
				      .rooms = rooms,
				      .n_rooms = ARRAY_SIZE(rooms)};
	struct fixture *f = *state;
	int got[_TASK_CLASS_MAX] = {0};

	open_with_outbox(f);
	for (int i = 0; i < 30; i++)
		(void)add_task_with(f, &(struct spec_options){.class = (enum task_class)(i % 3)});
	assert_int_equal(RUN(outbox_take, f, &r), 0);
	for (size_t i = 0; i < r.n; i++)
		got[r.tickets[i].class]++;
	free(r.tickets);
	assert_int_equal(got[TASK_CLASS_NORMAL], 0);
	assert_int_equal(got[TASK_CLASS_HIGH], 2);
	assert_int_equal(got[TASK_CLASS_LOW], 4);
}

static void outbox_forgets_what_is_final_and_passes_over_what_runs(void **state)
{
	struct fixture *f = *state;
	struct uuid ids[3];
	struct store_cancel_task cancel = {.now_us = NOW_US};

	open_with_outbox(f);
	for (int i = 0; i < 3; i++)
		ids[i] = add_task(f);
	cancel.id = ids[0];
	assert_int_equal(RUN(cancel_task, f, &cancel), 0);
	(void)claim(f, &ids[1]);
	assert_int_equal(take(f, NOW_US + 1, 100, 100), 1);
	assert_string_equal(run_sql("SELECT count(*) FROM outbox"), "2");
	assert_string_equal(
		run_sql("SELECT count(*) FROM outbox WHERE since = %lld", (long long)NOW_US + 10),
		"2");
}

static void outbox_put_notes_what_is_queued(void **state)
{
	struct fixture *f = *state;
	struct store_outbox_count count = {.limit = 10};
	struct store_scan scan = {.limit = 10};
	struct store_live live = {.n = 3};
	struct store_outbox_put put = {.n = 3, .now_us = NOW_US + 5};
	struct uuid ids[3];

	for (int i = 0; i < 2; i++)
		ids[i] = add_task(f);
	uuid7_new(&ids[2]);
	open_with_outbox(f);
	assert_int_equal(RUN(outbox_count, f, &count), 0);
	assert_int_equal(count.n, 0);
	assert_int_equal(count.oldest_us, 0);
	(void)claim(f, &ids[1]);
	put.ids = live.ids = ids;
	assert_int_equal(RUN(outbox_put, f, &put), 0);
	assert_int_equal(put.n_put, 1);
	assert_int_equal(RUN(outbox_put, f, &put), 0);
	assert_int_equal(RUN(outbox_count, f, &count), 0);
	assert_int_equal(count.n, 1);
	assert_int_equal(count.oldest_us, uuid7_time_us(&ids[0]));
	assert_int_equal(RUN(scan, f, &scan), 0);
	assert_int_equal(scan.n, 1);
	assert_true(scan.tickets[0].boxed);
	assert_int_equal(scan.tickets[0].queued_us, NOW_US + 5);
	assert_non_null(strstr(scan.tickets[0].traceparent, "0af765"));
	free(scan.tickets);
	assert_int_equal(RUN(live, f, &live), 0);
	assert_int_equal(live.n_live, 2);
	for (size_t i = 0; i < live.n_live; i++)
		assert_int_equal(live.tickets[i].state, uuid_eq(&live.tickets[i].id, &ids[0])
								? TASK_QUEUED
								: TASK_RUNNING);
	free(live.tickets);
	/* What is left to a sweeper is taken at once. */
	assert_int_equal(take(f, 1, 100, 100), 1);
}

/* ---- main ---- */

static const struct CMUnitTest own[] = {
	CASE(open_again_finds_the_schema),
	CASE(open_of_what_cannot_be_reached_says_why),
	CASE(open_tries_several_hosts_in_turn),
	CASE(schema_older_refused_until_migrated),
	CASE(schema_newer_refused_unless_said_to_be_usable),
	CASE(schema_is_made_by_migrate_alone),
	CASE(schema_of_another_program_refused),
	CASE(migrate_at_once_makes_one_schema),
	CASE(old_day_dropped_as_a_whole),
	CASE(id_of_a_day_without_partition_says_try_again),
	CASE(statement_that_takes_too_long_says_try_again),
	CASE(outbox_gives_each_stream_its_share),
	CASE(outbox_takes_by_room),
	CASE(outbox_forgets_what_is_final_and_passes_over_what_runs),
	CASE(outbox_put_notes_what_is_queued),
	CASE(big_contents_are_compressed),
	CASE(stored_bytes_that_are_damaged_are_an_error),
};

int main(int argc, char **argv)
{
	struct CMUnitTest tests[128];
	size_t n = 0;

	if (argc == 3 && str_eq(argv[1], "--migrate"))
		return store_migrate(argv[2], NULL, NULL, NULL) < 0;
	for (size_t i = 0; i < store_suite_tasks_count; i++)
		tests[n++] = store_suite_tasks[i];
	for (size_t i = 0; i < store_suite_moves_count; i++)
		tests[n++] = store_suite_moves[i];
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		tests[n++] = own[i];
	return postgres_main("store on PostgreSQL", tests, n);
}
