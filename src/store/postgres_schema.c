/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

/*
 * Number n brings a schema of version n - 1 to version n. What was once released is never changed;
 * a new number is added. usable_from is the oldest version of the schema that a program may have
 * been written for and still use this one: while servers are replaced one by one, those of the
 * older version go on with the newer schema.
 *
 * "task" and "result" are written once and never changed, in partitions by the day that is in the
 * id; what changes is in "live", which holds only what is not final and stays small. So neither
 * updates nor dead rows touch the big tables, and a day goes by dropping its partitions.
 */
static const struct migration {
	int usable_from;
	const char *text;
} migrations[] = {
	{1, "CREATE TABLE task ("
	    " id uuid NOT NULL PRIMARY KEY,"
	    " tenant text NOT NULL,"
	    " language text NOT NULL,"
	    " class smallint NOT NULL,"
	    " created bigint NOT NULL,"
	    " deadline bigint NOT NULL,"
	    " head bytea,"
	    " whole bytea NOT NULL"
	    ") PARTITION BY RANGE (id);"
	    /* What is worth compressing is compressed when it comes. */
	    "ALTER TABLE task ALTER whole SET STORAGE EXTERNAL;"
	    "CREATE INDEX task_by_tenant ON task (tenant, id);"
	    "CREATE TABLE result ("
	    " id uuid NOT NULL PRIMARY KEY,"
	    " state smallint NOT NULL,"
	    " attempt integer NOT NULL,"
	    " started bigint NOT NULL,"
	    " finished bigint NOT NULL,"
	    " outcome smallint NOT NULL,"
	    " head bytea,"
	    " whole bytea"
	    ") PARTITION BY RANGE (id);"
	    "ALTER TABLE result ALTER whole SET STORAGE EXTERNAL;"
	    "CREATE INDEX result_unusual ON result (state, id) WHERE state > 2;"
	    "CREATE INDEX result_finished ON result USING brin (finished)"
	    " WITH (pages_per_range = 32, autosummarize = on);"
	    "CREATE TABLE live ("
	    " id uuid NOT NULL PRIMARY KEY,"
	    " tenant text NOT NULL,"
	    " language text NOT NULL,"
	    " class smallint NOT NULL,"
	    " state smallint NOT NULL DEFAULT 0,"
	    " attempt integer NOT NULL DEFAULT 0,"
	    " owner bigint NOT NULL DEFAULT 0,"
	    " until bigint NOT NULL DEFAULT 0,"
	    " deadline bigint NOT NULL,"
	    " started bigint NOT NULL DEFAULT 0,"
	    " cancelling boolean NOT NULL DEFAULT false"
	    ") WITH (fillfactor = 70, autovacuum_vacuum_threshold = 1000,"
	    " autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);"
	    "CREATE INDEX live_deadline ON live (deadline) WHERE state = 0 AND deadline > 0;"
	    "CREATE INDEX live_owner ON live (owner) WHERE state = 1;"
	    "CREATE TABLE idempotency ("
	    " tenant text NOT NULL,"
	    " key text NOT NULL,"
	    " hash bytea NOT NULL,"
	    " task uuid NOT NULL,"
	    " expires bigint NOT NULL,"
	    " PRIMARY KEY (tenant, key)"
	    ");"
	    "CREATE INDEX idempotency_task ON idempotency (task);"
	    "CREATE INDEX idempotency_expires ON idempotency (expires);"
	    "CREATE TABLE api_key ("
	    " name text NOT NULL PRIMARY KEY,"
	    " tenant text NOT NULL,"
	    " hash bytea NOT NULL,"
	    " created bigint NOT NULL,"
	    " revoked bigint NOT NULL"
	    ");"
	    /* The smallest id of a day: its milliseconds since 1970 are the first 48 bits. */
	    "CREATE FUNCTION kiln_day_floor(d date) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$"
	    " SELECT (lpad(to_hex((d - DATE '1970-01-01')::bigint * 86400000), 12, '0')"
	    " || repeat('0', 20))::uuid $$;"
	    /* Attached, not made in place: that would lock readers and writers out. */
	    "CREATE FUNCTION kiln_make_days(first date, days integer) RETURNS integer"
	    " LANGUAGE plpgsql AS $$"
	    " DECLARE d date; parent text; child text; made integer := 0;"
	    " BEGIN"
	    "  FOR i IN 0 .. days - 1 LOOP"
	    "   d := first + i;"
	    "   FOREACH parent IN ARRAY ARRAY['task', 'result'] LOOP"
	    "    child := parent || to_char(d, '_YYYYMMDD');"
	    "    CONTINUE WHEN to_regclass(child) IS NOT NULL;"
	    "    IF made = 0 THEN"
	    "     PERFORM pg_advisory_xact_lock("
	    "      hashtextextended('kiln days ' || current_schema(), 0));"
	    "    END IF;"
	    "    CONTINUE WHEN to_regclass(child) IS NOT NULL;"
	    "    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);"
	    "    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',"
	    "     parent, child, kiln_day_floor(d), kiln_day_floor(d + 1));"
	    "    made := made + 1;"
	    "   END LOOP;"
	    "  END LOOP;"
	    "  RETURN made;"
	    " END $$;"
	    "CREATE FUNCTION kiln_drop_day(day text) RETURNS void LANGUAGE plpgsql AS $$"
	    " DECLARE d date := to_date(day, 'YYYYMMDD');"
	    " BEGIN"
	    "  EXECUTE format('DROP TABLE IF EXISTS %I, %I', 'result_' || day, 'task_' || day);"
	    "  DELETE FROM idempotency WHERE task >= kiln_day_floor(d)"
	    "   AND task < kiln_day_floor(d + 1);"
	    " END $$;"},
	/* What became queued and is not known to be in the broker yet. */
	{2, "CREATE TABLE outbox ("
	    " id uuid NOT NULL PRIMARY KEY,"
	    " tenant text NOT NULL,"
	    " language text NOT NULL,"
	    " class smallint NOT NULL,"
	    " since bigint NOT NULL"
	    ") WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,"
	    " autovacuum_vacuum_cost_delay = 0);"
	    "CREATE INDEX outbox_by_tenant ON outbox (tenant, language, id);"},
	/* What tenants may do where it differs from the configuration; -1: as configured. The
	 * tenant of a row never changes, so that the index costs updates of live nothing. */
	{2, "CREATE TABLE tenant ("
	    " name text NOT NULL PRIMARY KEY,"
	    " rate bigint NOT NULL,"
	    " burst bigint NOT NULL,"
	    " queued bigint NOT NULL,"
	    " running bigint NOT NULL"
	    ");"
	    "CREATE INDEX live_by_tenant ON live (tenant);"},
	/* Classes apart; and what is needed to queue a task again, as it was. */
	{2, "CREATE INDEX outbox_by_stream ON outbox (tenant, language, class, id);"
	    "DROP INDEX outbox_by_tenant;"
	    "ALTER TABLE outbox SET (fillfactor = 70);"
	    "ALTER TABLE live ADD COLUMN queued bigint NOT NULL DEFAULT 0,"
	    " ADD COLUMN traceparent text;"},
};

enum {
	SERVER_MIN = 140000, /* DETACH PARTITION CONCURRENTLY */
	TRY_MS = 5000,
};

struct session {
	PGconn *pg;
	const struct pg_url *url;
};

/* ---- connecting, blocking ---- */

/* What a person can do about it, by what libpq or the server says. */
static const char *advice(const char *reason)
{
	static const struct {
		const char *part, *advice;
	} table[] = {
		{"password authentication failed", "check user and password in --store"},
		{"no password supplied", "give the password in --store or PGPASSWORD"},
		{"no pg_hba.conf entry", "allow this host and user in the server's pg_hba.conf"},
		{"role \"", "create the user, or correct it in --store"},
		{"database \"", "create it with CREATE DATABASE, or correct it in --store"},
		{"Connection refused", "is the server running, and is the port right?"},
		{"no answer", "is the server running, and does a firewall stand between?"},
		{"could not resolve", "check the host in --store"},
		{"too many clients", "raise max_connections; Kiln takes four for each process"},
		{"read-only", "name the primary too in --store: it takes several hosts"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strstr(reason, table[i].part))
			return table[i].advice;
	return "see the server's log";
}

static int wait_for(PGconn *pg, bool to_write, int64_t until_us)
{
	struct pollfd p = {.fd = PQsocket(pg), .events = to_write ? POLLOUT : POLLIN};
	int64_t left_ms = (until_us - clock_monotonic_us()) / 1000;

	return left_ms > 0 && poll(&p, 1, (int)left_ms) > 0 ? 0 : -ETIMEDOUT;
}

/* One address. NULL with the reason. */
static PGconn *try_target(const struct pg_url *u, const struct pg_target *t, char *reason,
			  size_t size)
{
	int64_t until_us = clock_monotonic_us() + TRY_MS * 1000;
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	PGconn *pg = pg_connect_start(u, t);

	while (pg && PQstatus(pg) != CONNECTION_BAD && status != PGRES_POLLING_OK &&
	       status != PGRES_POLLING_FAILED) {
		if (wait_for(pg, status == PGRES_POLLING_WRITING, until_us) < 0) {
			(void)snprintf(reason, size, "no answer from %.100s port %s within %d s",
				       t->host[0] ? t->host : t->addr, t->port, TRY_MS / 1000);
			PQfinish(pg);
			return NULL;
		}
		status = PQconnectPoll(pg);
	}
	if (status == PGRES_POLLING_OK)
		return pg;
	pg_reason(pg, reason, size);
	PQfinish(pg);
	return NULL;
}

static int session_open(struct session *s, struct err *e)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct pg_target hosts[PG_TARGETS_MAX], targets[PG_TARGETS_MAX];
	char reason[PG_TEXT_MAX] = "it names no host";
	size_t n = 0;
	int n_hosts = pg_url_hosts(s->url, hosts, e);

	for (int i = 0; i < n_hosts; i++) {
		struct addrinfo *found = NULL;

		if (!pg_target_is_numeric(&hosts[i]) &&
		    getaddrinfo(hosts[i].host, NULL, &hints, &found) != 0) {
			(void)snprintf(reason, sizeof reason, "could not resolve \"%.200s\"",
				       hosts[i].host);
			continue;
		}
		pg_targets_add(targets, &n, &hosts[i], found);
		if (found)
			freeaddrinfo(found);
	}
	for (size_t i = 0; i < n && !s->pg; i++)
		s->pg = try_target(s->url, &targets[i], reason, sizeof reason);
	if (n_hosts < 0 || s->pg)
		return n_hosts < 0 ? n_hosts : 0;
	return err_set(e, -EAGAIN, "could not connect to PostgreSQL at %s: %s: %s", s->url->shown,
		       reason, advice(reason));
}

/* ---- statements ---- */

static int failed(struct session *s, const PGresult *res, struct err *e)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	char reason[ERR_MSG_MAX / 2];
	int code = sqlstate ? pg_code(sqlstate) : -EAGAIN;

	pg_reason(s->pg, reason, sizeof reason);
	if (sqlstate && (str_eq(sqlstate, "42501") || str_eq(sqlstate, "3F000")))
		return err_set(
			e, -EACCES,
			"the user may not make tables in PostgreSQL at %s: %s:"
			" GRANT CREATE ON SCHEMA ... TO it, or run `kiln migrate` as its owner",
			s->url->shown, reason);
	return err_set(e, code, "PostgreSQL at %s: %s", s->url->shown, reason);
}

static int exec(struct session *s, const char *sql, struct err *e)
{
	PGresult *res = PQexec(s->pg, sql);
	ExecStatusType status = PQresultStatus(res);
	int r = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? 0 : failed(s, res, e);

	PQclear(res);
	return r;
}

/* One number; *ret_number stays where there is no row or NULL. */
static int query(struct session *s, const char *sql, int64_t *ret_number, struct err *e)
{
	PGresult *res = PQexec(s->pg, sql);
	int r = PQresultStatus(res) == PGRES_TUPLES_OK ? 0 : failed(s, res, e);

	if (r == 0 && PQntuples(res) == 1 && !PQgetisnull(res, 0, 0) &&
	    str_to_i64(PQgetvalue(res, 0, 0), INT64_MIN, INT64_MAX, ret_number) < 0)
		r = err_set(e, -EIO, "PostgreSQL at %s: \"%s\" is no number", s->url->shown,
			    PQgetvalue(res, 0, 0));
	PQclear(res);
	return r;
}

/* ---- versions ---- */

/* 0: there is nothing of ours. */
static int read_version(struct session *s, int64_t *ret_version, int64_t *ret_usable_from,
			struct err *e)
{
	int64_t ours = 0, foreign = 0;
	int r = query(s, "SELECT (to_regclass('kiln_schema') IS NOT NULL)::int", &ours, e);

	*ret_version = *ret_usable_from = 0;
	if (r == 0 && !ours) {
		r = query(s,
			  "SELECT (to_regclass('task') IS NOT NULL"
			  " OR to_regclass('result') IS NOT NULL)::int",
			  &foreign, e);
		if (r == 0 && foreign)
			r = err_set(e, -EUCLEAN,
				    "PostgreSQL at %s holds tables of another program:"
				    " give Kiln a database of its own",
				    s->url->shown);
		return r;
	}
	if (r == 0)
		r = query(s, "SELECT version FROM kiln_schema", ret_version, e);
	if (r == 0)
		r = query(s, "SELECT usable_from FROM kiln_schema", ret_usable_from, e);
	return r;
}

static int too_new(const struct session *s, int64_t version, struct err *e)
{
	return err_set(e, -ENOTSUP,
		       "PostgreSQL at %s has schema version %lld, this program knows up to %zu:"
		       " use a newer Kiln",
		       s->url->shown, (long long)version, ARRAY_SIZE(migrations));
}

/* What a server asks for at its start. It makes no schema itself: where the name of a database is
 * mistyped, that would be a second store, and keys added there would let nobody in here. */
static int check_version(const struct session *s, int64_t version, int64_t usable_from,
			 struct err *e)
{
	int64_t known = (int64_t)ARRAY_SIZE(migrations);

	if (usable_from > known)
		return too_new(s, version, e);
	if (version == 0)
		return err_set(
			e, -ESTALE,
			"PostgreSQL at %s has no tables of Kiln: run `kiln migrate`, if this is"
			" the right database",
			s->url->shown);
	if (version < known)
		return err_set(e, -ESTALE,
			       "PostgreSQL at %s has schema version %lld, this program needs %lld:"
			       " run `kiln migrate`",
			       s->url->shown, (long long)version, (long long)known);
	return 0;
}

static int migrate_from(struct session *s, int64_t version, struct err *e)
{
	int64_t known = (int64_t)ARRAY_SIZE(migrations);
	char text[256];
	int r = 0;

	for (int64_t i = version; i < known && r == 0; i++) {
		r = exec(s, migrations[i].text, e);
		if (r < 0)
			return err_wrap(e, r, "migration %lld", (long long)i + 1);
	}
	if (version == 0)
		r = exec(s,
			 "CREATE TABLE kiln_schema (version integer NOT NULL,"
			 " usable_from integer NOT NULL)",
			 e);
	(void)snprintf(text, sizeof text,
		       "DELETE FROM kiln_schema; INSERT INTO kiln_schema VALUES (%lld, %d)",
		       (long long)known, migrations[known - 1].usable_from);
	return r == 0 ? exec(s, text, e) : r;
}

/* In a transaction under a lock: several may start at once, and the second finds it done. */
static int migrate(struct session *s, enum pg_setup what, int64_t *ret_from, struct err *e)
{
	int64_t version, usable_from;
	int r = exec(s,
		     "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended("
		     "'kiln migrate ' || coalesce(current_schema(), ''), 0))",
		     e);

	if (r == 0)
		r = read_version(s, &version, &usable_from, e);
	if (r == 0 && (what == PG_CHECK || version > (int64_t)ARRAY_SIZE(migrations)))
		r = check_version(s, version, usable_from, e);
	else if (r == 0 && version < (int64_t)ARRAY_SIZE(migrations))
		r = migrate_from(s, version, e);
	if (r == 0)
		r = exec(s,
			 "SELECT kiln_make_days((now() AT TIME ZONE 'UTC')::date - 1, 9); COMMIT",
			 e);
	if (r < 0)
		(void)exec(s, "ROLLBACK", NULL);
	else
		*ret_from = version;
	return r;
}

int pg_schema_setup(const struct pg_url *u, enum pg_setup what, int *ret_from, int *ret_to,
		    struct err *e)
{
	struct session s = {.url = u};
	int64_t from = 0;
	int r = session_open(&s, e);

	if (r < 0)
		return r;
	if (PQserverVersion(s.pg) < SERVER_MIN)
		r = err_set(e, -ENOTSUP,
			    "PostgreSQL at %s is of version %d, Kiln needs %d or later", u->shown,
			    PQserverVersion(s.pg) / 10000, SERVER_MIN / 10000);
	if (r == 0)
		r = exec(&s, "SET client_min_messages = error; SET statement_timeout = '60s'", e);
	if (r == 0)
		r = migrate(&s, what, &from, e);
	PQfinish(s.pg);
	if (r == 0 && ret_from)
		*ret_from = (int)from;
	if (r == 0 && ret_to)
		*ret_to = (int)ARRAY_SIZE(migrations);
	return r;
}
