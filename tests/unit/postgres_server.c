/* SPDX-License-Identifier: Apache-2.0 */
#include "postgres_server.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"

#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

const char *base_url;
char url[1024], schema[64];
bool damaged;

static PGconn *admin;
static unsigned schemas;

/* ---- the server, as its administrator ---- */

void admin_connect(void)
{
	PQfinish(admin);
	admin = PQconnectdb(base_url);
	if (PQstatus(admin) != CONNECTION_OK)
		fail_msg("%s", PQerrorMessage(admin));
	PQclear(PQexec(admin, "SET client_min_messages = error"));
	if (schema[0])
		(void)run_sql("SET search_path = %s", schema);
}

static bool is_deadlock(const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	return sqlstate && strcmp(sqlstate, "40P01") == 0;
}

/* Sessions that were closed may live on at the server for a moment, with locks on all that they
 * were preparing: whoever takes tables from under them may be the one that has to try again. */
static PGresult *exec_over_deadlocks(const char *text)
{
	enum { TRIES = 5 };
	PGresult *res = PQexec(admin, text);

	for (int i = 1; i < TRIES && is_deadlock(res); i++) {
		PQclear(res);
		res = PQexec(admin, text);
	}
	return res;
}

/* Gives the first value, "" where there is none; valid until the next call. */
const char *run_sql(const char *fmt, ...)
{
	static char value[256];
	struct buf text;
	PGresult *res;
	va_list ap;

	buf_init(&text, 1 << 20);
	va_start(ap, fmt);
	assert_int_equal(buf_vprintf(&text, fmt, ap), 0);
	va_end(ap);
	res = exec_over_deadlocks(text.data);
	if (PQresultStatus(res) != PGRES_TUPLES_OK && PQresultStatus(res) != PGRES_COMMAND_OK)
		fail_msg("%s: %s", text.data, PQerrorMessage(admin));
	(void)str_copy(value, sizeof value,
		       PQntuples(res) && PQnfields(res) ? PQgetvalue(res, 0, 0) : "");
	PQclear(res);
	buf_fini(&text);
	return value;
}

void url_with(char *dst, size_t size, const char *more)
{
	(void)snprintf(dst, size, "%s%coptions=-csearch_path%%3D%s%s", base_url,
		       strchr(base_url, '?') ? '&' : '?', schema, more);
}

static void drop_schema(void)
{
	if (schema[0])
		(void)run_sql("DROP SCHEMA IF EXISTS %s CASCADE", schema);
	schema[0] = '\0';
}

void make_empty_schema(void)
{
	damaged = true;
	drop_schema();
	(void)snprintf(schema, sizeof schema, "kiln_test_%d_%u", getpid(), schemas++);
	(void)run_sql("CREATE SCHEMA %s", schema);
	(void)run_sql("SET search_path = %s", schema);
	url_with(url, sizeof url, "");
}

const char *fresh(void)
{
	struct err e = {""};

	if (schema[0] && !damaged) {
		(void)run_sql("DELETE FROM task; DELETE FROM result; DELETE FROM live;"
			      " DELETE FROM outbox; DELETE FROM idempotency; DELETE FROM api_key");
		return url;
	}
	make_empty_schema();
	if (store_migrate(url, NULL, NULL, &e) < 0)
		fail_msg("%s", e.msg);
	damaged = false;
	return url;
}

void run_for(struct fixture *f, int64_t ms)
{
	int64_t end_us = clock_monotonic_us() + ms * 1000;

	while (clock_monotonic_us() < end_us) {
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
		(void)poll(NULL, 0, 1);
	}
}

int try_open(struct fixture *f, const char *with_url, struct err *e)
{
	struct store_config cfg = {.url = with_url};
	struct store *s = NULL;
	int r = store_open(&f->loop, &cfg, &s, e);

	if (r == 0) {
		f->store = s;
		fixture_close(f);
	}
	return r;
}

void stack(const char *verb)
{
	char *argv[] = {strdup(KILN_SOURCE_ROOT "/tools/stack.sh"), strdup(verb),
			strdup("postgres"), NULL};
	posix_spawn_file_actions_t actions;
	int status = -1;
	pid_t pid;

	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(
		posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0),
		0);
	assert_int_equal(posix_spawn(&pid, argv[0], &actions, NULL, argv, environ), 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	for (size_t i = 0; argv[i]; i++)
		free(argv[i]);
}

static const struct store_backend backend = {fresh};

int postgres_main(const char *name, const struct CMUnitTest *tests, size_t n)
{
	int failed;

	base_url = getenv("KILN_TEST_POSTGRES_URL");
	if (!base_url || !*base_url) {
		(void)printf("1..0 # SKIP KILN_TEST_POSTGRES_URL is not set: `make test-stack` "
			     "starts a server and sets it\n");
		return 0;
	}
	admin_connect();
	store_backend = &backend;
	failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
	drop_schema();
	PQfinish(admin);
	admin = NULL;
	return failed;
}
