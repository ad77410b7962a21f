/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/*
 * The statements. States stand in them as numbers, in the order of enum task_state:
 *	0 queued, 1 running, 2 done, 3 cancelled, 4 expired, 5 failed
 *
 * A task that is not final has a row in "live", and that row is the lock of its life: whoever
 * deletes it in a transaction adds the one row of "result". So no two can ever end a task.
 */

static_assert(TASK_QUEUED == 0 && TASK_RUNNING == 1 && TASK_DONE == 2 && TASK_CANCELLED == 3 &&
		      TASK_EXPIRED == 4 && TASK_FAILED == 5,
	      "the numbers of states are in the statements");

/* pg_type.dat: these never change. */
enum {
	BOOL = 16,
	BYTEA = 17,
	INT8 = 20,
	INT2 = 21,
	INT4 = 23,
	TEXT = 25,
	UUID = 2950,
	UUIDS = 2951,
	INT2S = 1005,
	TEXTS = 1009,
	INT8S = 1016
};

#define TYPES(...) ((const Oid[]){__VA_ARGS__, 0})
#define IN(lane)   (1u << (lane))

/* An id of a task that is there already brings no row from t, and nothing else either. */
#define INSERT_TASK(from)                                                                          \
	"t AS (INSERT INTO task (id, tenant, language, class, created, deadline, head, whole)"     \
	" SELECT $1, $2, $3, $4, $5, $6, $7, $8 " from " ON CONFLICT DO NOTHING RETURNING id),"    \
	" l AS (INSERT INTO live (id, tenant, language, class, deadline, traceparent)"             \
	" SELECT id, $2, $3, $4, $6, $10 FROM t),"                                                 \
	" o AS (INSERT INTO outbox (id, tenant, language, class, since)"                           \
	" SELECT id, $2, $3, $4, $9 FROM t WHERE $9 IS NOT NULL)"

/* The streams that have something in the outbox: a walk over the index from one to the next, since
 * DISTINCT would read all rows of each. */
#define STREAMS                                                                                    \
	"WITH RECURSIVE g AS ((SELECT tenant, language, class FROM outbox"                         \
	" ORDER BY tenant, language, class LIMIT 1) UNION ALL"                                     \
	" SELECT n.tenant, n.language, n.class FROM g CROSS JOIN LATERAL"                          \
	" (SELECT o.tenant, o.language, o.class FROM outbox AS o"                                  \
	" WHERE (o.tenant, o.language, o.class) > (g.tenant, g.language, g.class)"                 \
	" ORDER BY o.tenant, o.language, o.class LIMIT 1) AS n)"

#define TICKET "id, class, language, tenant, state, traceparent, queued"

#define IN_TIME(now) "(deadline = 0 OR deadline >= " now ")"
#define LATE(now)    "deadline > 0 AND deadline < " now

#define RESULT_COLUMNS "(id, state, attempt, started, finished, outcome, head, whole)"

/* The state that a task is found in, whatever it is. */
#define FOUND "(SELECT state FROM live WHERE id = $1), (SELECT state FROM result WHERE id = $1)"

/* The result that a finish would have written, where it was written by its first try. */
#define MINE                                                                                       \
	"(SELECT attempt FROM result WHERE $9 AND id = $1 AND state = $3 AND started = $4"         \
	" AND finished = $5)"

const struct pg_statement pg_statements[_PG_SQL_MAX] = {
	[PG_SQL_LOCK] = {"lock", "SELECT 1 FROM live WHERE id = $1 FOR UPDATE", TYPES(UUID),
			 IN(PG_WRITE)},
	[PG_SQL_INSERT] = {"insert", "WITH " INSERT_TASK("") " SELECT count(*) FROM t",
			   TYPES(UUID, TEXT, TEXT, INT2, INT8, INT8, BYTEA, BYTEA, INT8, TEXT),
			   IN(PG_WRITE)},
	/* DO UPDATE in any case, for its RETURNING gives the row as it is now: a SELECT would not
	 * see the row of somebody who was waited for. */
	[PG_SQL_INSERT_KEYED] =
		{"insert_keyed",
		 "WITH k AS (INSERT INTO idempotency AS i (tenant, key, hash, task, expires)"
		 " VALUES ($2, $11, $12, $1, $13) ON CONFLICT (tenant, key) DO UPDATE SET"
		 " hash = CASE WHEN i.expires <= $5 THEN $12 ELSE i.hash END,"
		 " task = CASE WHEN i.expires <= $5 THEN $1 ELSE i.task END,"
		 " expires = CASE WHEN i.expires <= $5 THEN $13 ELSE i.expires END"
		 " RETURNING task, hash), " INSERT_TASK(
			 "FROM k WHERE k.task = $1") " SELECT (SELECT count(*) FROM t), k.task, "
						     "k.hash FROM k",
		 TYPES(UUID, TEXT, TEXT, INT2, INT8, INT8, BYTEA, BYTEA, INT8, TEXT, TEXT, BYTEA,
		       INT8),
		 IN(PG_WRITE)},
	[PG_SQL_CLAIM] =
		{"claim",
		 "WITH claimed AS (UPDATE live SET state = 1, attempt = attempt + 1, owner = $2,"
		 " until = $4, started = $3 WHERE id = $1 AND state = 0 AND " IN_TIME(
			 "$3") " RETURNING attempt),"
			       " late AS (DELETE FROM live WHERE id = $1 AND state = 0 AND " LATE(
				       "$3") " RETURNING id, attempt),"
					     " ended AS (INSERT INTO result " RESULT_COLUMNS
					     " SELECT id, 4, attempt, 0, $3, 0, NULL, NULL FROM "
					     "late RETURNING state)"
					     " SELECT (SELECT attempt FROM claimed), (SELECT state "
					     "FROM ended), " FOUND ","
					     " (SELECT attempt FROM live WHERE $5 AND id = $1 AND "
					     "state = 1 AND owner = $2"
					     " AND until = $4 AND started = $3)",
		 TYPES(UUID, INT8, INT8, INT8, BOOL), IN(PG_WRITE)},
	[PG_SQL_RENEW] =
		{"renew",
		 "WITH r AS (UPDATE live SET until = $1 WHERE state = 1 AND owner = ANY ($2)"
		 " RETURNING id, cancelling) SELECT id FROM r WHERE cancelling",
		 TYPES(INT8, INT8S), IN(PG_WRITE)},
	[PG_SQL_FINISH] = {"finish",
			   "WITH gone AS (DELETE FROM live WHERE id = $1 AND state = 1"
			   " AND attempt = $2 RETURNING id, attempt),"
			   " ended AS (INSERT INTO result " RESULT_COLUMNS
			   " SELECT id, $3, attempt, $4, $5, $6, $7, $8 FROM gone"
			   " RETURNING attempt)"
			   " SELECT (SELECT attempt FROM ended), " MINE,
			   TYPES(UUID, INT4, INT2, INT8, INT8, INT2, BYTEA, BYTEA, BOOL),
			   IN(PG_WRITE)},
	/* $2, the attempt, is not known yet and not used; it keeps the numbers of the others. */
	[PG_SQL_FINISH_CLAIM] =
		{"finish_claim",
		 "WITH gone AS (DELETE FROM live WHERE id = $1 AND state = 0 AND " IN_TIME(
			 "$4") " AND $2 IS NOT NULL RETURNING id, attempt + 1 AS attempt),"
			       " late AS (DELETE FROM live WHERE id = $1 AND state = 0 AND " LATE(
				       "$4") " RETURNING id, attempt),"
					     " ended AS (INSERT INTO result " RESULT_COLUMNS
					     " SELECT id, $3, attempt, $4, $5, $6, $7, $8 FROM "
					     "gone UNION ALL"
					     " SELECT id, 4, attempt, 0, $4, 0, NULL, NULL FROM "
					     "late RETURNING attempt, id)"
					     " SELECT (SELECT attempt FROM gone), " MINE ","
					     " (SELECT 4::smallint FROM late), " FOUND,
		 TYPES(UUID, INT4, INT2, INT8, INT8, INT2, BYTEA, BYTEA, BOOL), IN(PG_WRITE)},
	[PG_SQL_RELEASE] =
		{"release",
		 "WITH r AS (SELECT id, class, language, tenant, attempt, started, CASE WHEN "
		 "cancelling THEN 3"
		 " WHEN $3 AND attempt >= $5 THEN 5 ELSE 0 END::smallint AS state FROM live"
		 " WHERE id = $1 AND state = 1"
		 " AND CASE WHEN $8 = 0 THEN attempt = $2 ELSE owner = $8 END),"
		 " back AS (UPDATE live AS l SET state = 0, owner = 0, until = 0, started = 0,"
		 " queued = $4, attempt = l.attempt - CASE WHEN $3 THEN 0 ELSE 1 END"
		 " FROM r WHERE l.id = r.id AND r.state = 0"
		 " RETURNING l.id, l.tenant, l.language, l.class),"
		 " boxed AS (INSERT INTO outbox (id, tenant, language, class, since)"
		 " SELECT id, tenant, language, class, $4 FROM back WHERE $7"
		 " ON CONFLICT DO NOTHING),"
		 " gone AS (DELETE FROM live AS l USING r WHERE l.id = r.id AND r.state <> 0),"
		 " ended AS (INSERT INTO result " RESULT_COLUMNS
		 " SELECT id, state, attempt - CASE WHEN $3 THEN 0 ELSE 1 END,"
		 " CASE WHEN $3 THEN started ELSE 0 END, $4, 0, NULL,"
		 " CASE WHEN state = 5 THEN $6 END FROM r WHERE state <> 0)"
		 " SELECT id, class, language, tenant, state FROM r",
		 TYPES(UUID, INT4, BOOL, INT8, INT4, BYTEA, BOOL, INT8), IN(PG_WRITE)},
	[PG_SQL_CANCEL] =
		{"cancel",
		 "WITH gone AS (DELETE FROM live WHERE id = $1 AND state = 0"
		 " AND ($2 IS NULL OR tenant = $2) RETURNING id, attempt),"
		 " ended AS (INSERT INTO result " RESULT_COLUMNS
		 " SELECT id, 3, attempt, 0, $3, 0, NULL, NULL FROM gone RETURNING state),"
		 " marked AS (UPDATE live SET cancelling = true WHERE id = $1 AND state = 1"
		 " AND ($2 IS NULL OR tenant = $2) RETURNING state)"
		 " SELECT (SELECT state FROM ended), (SELECT state FROM marked), r.state,"
		 " $4 AND r.state = 3 AND r.finished = $3"
		 " FROM (SELECT 1) AS one LEFT JOIN (SELECT result.state, result.finished FROM "
		 "result"
		 " JOIN task ON task.id = $1 WHERE result.id = $1"
		 " AND ($2 IS NULL OR task.tenant = $2)) AS r ON true",
		 TYPES(UUID, TEXT, INT8, BOOL), IN(PG_WRITE)},
	[PG_SQL_KEY_ADD] = {"key_add",
			    "WITH k AS (INSERT INTO api_key (name, tenant, hash, created, revoked)"
			    " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE"
			    " SET tenant = $2, hash = $3, created = $4, revoked = $5"
			    " WHERE api_key.revoked <> 0 RETURNING name)"
			    " SELECT (SELECT count(*) FROM k) + (SELECT count(*) FROM api_key"
			    " WHERE $6 AND name = $1 AND hash = $3)",
			    TYPES(TEXT, TEXT, BYTEA, INT8, INT8, BOOL), IN(PG_WRITE)},
	[PG_SQL_KEY_REVOKE] = {"key_revoke",
			       "UPDATE api_key SET revoked = CASE revoked WHEN 0 THEN $2"
			       " ELSE revoked END WHERE name = $1 RETURNING 1",
			       TYPES(TEXT, INT8), IN(PG_WRITE)},
	[PG_SQL_KEY_FORGET] = {"key_forget",
			       "WITH used AS (SELECT 1 FROM api_key WHERE revoked = 0),"
			       " gone AS (DELETE FROM api_key WHERE NOT EXISTS (SELECT FROM used))"
			       " SELECT count(*) FROM used",
			       TYPES(0), IN(PG_WRITE)},
	[PG_SQL_KEY_LIST] = {"key_list",
			     "SELECT name, tenant, hash, created, revoked FROM api_key"
			     " ORDER BY name COLLATE \"C\"",
			     TYPES(0), IN(PG_READ)},
	[PG_SQL_TENANT_SET] =
		{"tenant_set",
		 "WITH gone AS (DELETE FROM tenant WHERE name = $1"
		 " AND greatest($2, $3, $4, $5) = -1)"
		 " INSERT INTO tenant (name, rate, burst, queued, running)"
		 " SELECT $1, $2, $3, $4, $5 WHERE greatest($2, $3, $4, $5) > -1"
		 " ON CONFLICT (name) DO UPDATE SET rate = $2, burst = $3, queued = $4,"
		 " running = $5",
		 TYPES(TEXT, INT8, INT8, INT8, INT8), IN(PG_WRITE)},
	[PG_SQL_TENANT_LIST] = {"tenant_list",
				"SELECT name, rate, burst, queued, running FROM tenant"
				" ORDER BY name COLLATE \"C\"",
				TYPES(0), IN(PG_READ)},
	[PG_SQL_COUNT_QUEUED] = {"count_queued",
				 "SELECT count(*) FROM (SELECT 1 FROM live WHERE tenant = $1"
				 " AND state = 0 LIMIT $2) AS t",
				 TYPES(TEXT, INT8), IN(PG_READ)},
	[PG_SQL_GET] =
		{"get",
		 "SELECT coalesce(l.state, r.state), coalesce(l.attempt, r.attempt),"
		 " coalesce(l.cancelling, false), coalesce(l.started, r.started), r.finished,"
		 " CASE WHEN $2 THEN t.whole ELSE coalesce(t.head, t.whole) END,"
		 " CASE WHEN $3 THEN r.whole ELSE coalesce(r.head, r.whole) END"
		 " FROM task AS t LEFT JOIN live AS l ON l.id = t.id"
		 " LEFT JOIN result AS r ON r.id = t.id"
		 " WHERE t.id = $1 AND ($4 IS NULL OR t.tenant = $4)",
		 TYPES(UUID, BOOL, BOOL, TEXT), IN(PG_READ)},
	[PG_SQL_SCAN] = {"scan",
			 "SELECT " TICKET ", EXISTS (SELECT 1 FROM outbox AS o WHERE o.id = l.id)"
			 " FROM live AS l WHERE state = 0 AND id > $1 ORDER BY id LIMIT $2",
			 TYPES(UUID, INT8), IN(PG_READ)},
	/* Two sweepers pass each other by, and neither waits for a claim. */
	[PG_SQL_SWEEP] =
		{"sweep",
		 "WITH late AS (SELECT id FROM live WHERE state = 0 AND " LATE(
			 "$1") " ORDER BY deadline LIMIT $3 FOR UPDATE SKIP LOCKED),"
			       " lost AS (SELECT id FROM live WHERE state = 1 AND ($2 OR until < "
			       "$1)"
			       " ORDER BY until LIMIT $3 - (SELECT count(*) FROM late) FOR UPDATE "
			       "SKIP LOCKED),"
			       " expired AS (DELETE FROM live AS l USING late WHERE l.id = late.id "
			       "RETURNING l.id,"
			       " l.class, l.language, l.tenant, 4::smallint AS state, l.attempt,"
			       " 0::bigint AS started),"
			       " back AS (UPDATE live AS l SET state = 0, owner = 0, until = 0, "
			       "started = 0, queued = $1"
			       " FROM lost WHERE l.id = lost.id AND NOT l.cancelling AND l.attempt "
			       "< $4"
			       " RETURNING l.id, l.class, l.language, l.tenant, l.state, "
			       "l.attempt, l.started),"
			       " boxed AS (INSERT INTO outbox (id, tenant, language, class, since)"
			       " SELECT id, tenant, language, class, 0 FROM back WHERE $6"
			       " ON CONFLICT DO NOTHING),"
			       " gone AS (DELETE FROM live AS l USING lost WHERE l.id = lost.id"
			       " AND (l.cancelling OR l.attempt >= $4) RETURNING l.id, l.class, "
			       "l.language,"
			       " l.tenant, CASE WHEN l.cancelling THEN 3 ELSE 5 END::smallint AS "
			       "state,"
			       " l.attempt, l.started),"
			       " ended AS (INSERT INTO result " RESULT_COLUMNS
			       " SELECT id, state, attempt, started, $1, 0, NULL,"
			       " CASE WHEN state = 5 THEN $5 END"
			       " FROM (SELECT * FROM expired UNION ALL SELECT * FROM gone) AS e)"
			       " SELECT id, class, language, tenant, state FROM (SELECT * FROM "
			       "expired"
			       " UNION ALL SELECT * FROM back UNION ALL SELECT * FROM gone) AS "
			       "moved",
		 TYPES(INT8, BOOL, INT8, INT4, BYTEA, BOOL), IN(PG_UPKEEP)},
	/* Those of the day from $4 to $5 are left to be dropped with their partition. */
	[PG_SQL_PRUNE] =
		{"prune",
		 "WITH old AS (DELETE FROM result WHERE id IN (SELECT id FROM result"
		 " WHERE finished < $1 AND NOT (id >= $4 AND id < $5) LIMIT $2) RETURNING id),"
		 " t AS (DELETE FROM task USING old WHERE task.id = old.id),"
		 " k AS (DELETE FROM idempotency AS i USING old WHERE i.task = old.id),"
		 " x AS (DELETE FROM idempotency WHERE ctid = ANY (ARRAY(SELECT ctid"
		 " FROM idempotency WHERE expires <= $3 LIMIT $2)))"
		 " SELECT count(*) FROM old",
		 TYPES(INT8, INT8, INT8, UUID, UUID), IN(PG_UPKEEP)},
	/* A tenant with many does not stand before another with few. Only rows that nobody else
	 * holds are locked, of both tables, so that this waits for no one. What is running was
	 * published, and is looked at again; what is final needs no publishing. */
	[PG_SQL_OUTBOX_TAKE] =
		{"outbox_take",
		 STREAMS ", picked AS (SELECT p.id FROM g LEFT JOIN unnest($5, $6, $7, $8)"
			 " AS r (tenant, language, class, room) USING (tenant, language, class)"
			 " CROSS JOIN LATERAL (SELECT o.id FROM outbox AS o WHERE o.tenant = "
			 "g.tenant"
			 " AND o.language = g.language AND o.class = g.class AND o.since < $1"
			 " ORDER BY o.id LIMIT coalesce(r.room, $4)) AS p ORDER BY p.id LIMIT $3),"
			 " free AS (SELECT id FROM outbox WHERE id = ANY (ARRAY(SELECT id FROM "
			 "picked))"
			 " AND since < $1 FOR UPDATE SKIP LOCKED),"
			 " ready AS (SELECT id FROM live WHERE id = ANY (ARRAY(SELECT id FROM "
			 "free))"
			 " AND state = 0 FOR UPDATE SKIP LOCKED),"
			 " gone AS (DELETE FROM outbox WHERE id = ANY (ARRAY(SELECT id FROM free))"
			 " AND NOT EXISTS (SELECT 1 FROM live WHERE live.id = outbox.id)),"
			 " held AS (UPDATE outbox SET since = $2 WHERE id = ANY (ARRAY(SELECT id "
			 "FROM free))"
			 " AND EXISTS (SELECT 1 FROM live WHERE live.id = outbox.id)),"
			 " taken AS (UPDATE live SET queued = $2 WHERE id = ANY (ARRAY(SELECT id "
			 "FROM ready))"
			 " RETURNING " TICKET ") SELECT " TICKET " FROM taken ORDER BY id",
		 TYPES(INT8, INT8, INT8, INT8, TEXTS, TEXTS, INT2S, INT8S), IN(PG_UPKEEP)},
	[PG_SQL_OUTBOX_PUT] =
		{"outbox_put",
		 "WITH back AS (UPDATE live SET queued = $2 WHERE id IN (SELECT id FROM live"
		 " WHERE id = ANY ($1) AND state = 0 ORDER BY id FOR UPDATE SKIP LOCKED)"
		 " RETURNING id, tenant, language, class),"
		 " boxed AS (INSERT INTO outbox (id, tenant, language, class, since)"
		 " SELECT id, tenant, language, class, 0 FROM back ON CONFLICT DO NOTHING)"
		 " SELECT count(*) FROM back",
		 TYPES(UUIDS, INT8), IN(PG_UPKEEP)},
	[PG_SQL_OUTBOX_COUNT] = {"outbox_count",
				 "SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT $1) AS "
				 "o), (SELECT id FROM outbox ORDER BY id LIMIT 1), " PG_CLOCK,
				 TYPES(INT8), IN(PG_READ)},
	[PG_SQL_LIVE] = {"live", "SELECT " TICKET " FROM live WHERE id = ANY ($1)", TYPES(UUIDS),
			 IN(PG_READ)},
	[PG_SQL_OUTBOX_DONE] = {"outbox_done", "DELETE FROM outbox WHERE id = ANY ($1)",
				TYPES(UUIDS), IN(PG_WRITE)},
};

/* ---- the moves that these statements make ---- */

int pg_check_moves(void)
{
	static const struct {
		enum task_state from, to;
	} moves[] = {
		{TASK_QUEUED, TASK_RUNNING},	/* claim */
		{TASK_QUEUED, TASK_EXPIRED},	/* claim, finish_claim, sweep */
		{TASK_QUEUED, TASK_CANCELLED},	/* cancel */
		{TASK_RUNNING, TASK_DONE},	/* finish; finish_claim passes through running */
		{TASK_RUNNING, TASK_CANCELLED}, /* finish, release, sweep */
		{TASK_RUNNING, TASK_FAILED},	/* finish, release, sweep */
		{TASK_RUNNING, TASK_QUEUED},	/* release, sweep */
	};

	for (size_t i = 0; i < ARRAY_SIZE(moves); i++)
		if (!task_state_may_move(moves[i].from, moves[i].to))
			return -EINVAL;
	return 0;
}

/* ---- what the server's codes mean ---- */

int pg_code(const char *sqlstate)
{
	/* A whole code, or its class of two letters. */
	static const struct {
		const char *prefix;
		int code;
	} codes[] = {
		{"53100", -ENOSPC}, /* disk_full */
		{"53200", -ENOMEM}, /* out_of_memory */
		{"53", -EAGAIN},    /* too many connections and the like */
		{"08", -EAGAIN},    /* connection */
		{"40", -EAGAIN},    /* serialization, deadlock */
		{"55P03", -EAGAIN}, /* lock_not_available */
		{"57", -EAGAIN},    /* shut down, starting, statement time-out */
		{"25006", -EAGAIN}, /* read-only: no longer the primary */
		{"25P03", -EAGAIN}, /* idle in transaction time-out */
		{"23514", -EAGAIN}, /* no partition for the id: it is being made */
		{"23505", -EEXIST}, /* unique_violation */
	};

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (strncmp(sqlstate, codes[i].prefix, strlen(codes[i].prefix)) == 0)
			return codes[i].code;
	return -EIO;
}
