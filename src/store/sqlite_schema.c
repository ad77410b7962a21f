/* SPDX-License-Identifier: Apache-2.0 */
#include "store/sqlite-private.h"

#include <assert.h>
#include <errno.h>

/* "Kiln" as PRAGMA application_id: tells a store from any other SQLite file. */
enum { APPLICATION_ID = 0x4b696c6e };

/*
 * Number n brings a schema of version n - 1 to version n. What was once released is never changed;
 * a new number is added.
 *
 * Tasks are numbered by seq, so that the big and never changing parts are in tables of their own,
 * appended to in order and found by one integer; a change of state then touches the narrow row
 * alone. The state's number stands in the partial indexes, which hold only rows in that state and
 * stay small however many finished tasks there are.
 *
 * head is the packed Spec or Result without contents and outputs; it is NULL where the whole is
 * small enough to be read in its place.
 */
static const char *const migrations[] = {
	"CREATE TABLE task ("
	"  seq INTEGER PRIMARY KEY,"
	"  id BLOB NOT NULL UNIQUE,"
	"  tenant TEXT NOT NULL,"
	"  language TEXT NOT NULL,"
	"  class INTEGER NOT NULL,"
	"  state INTEGER NOT NULL,"
	"  attempt INTEGER NOT NULL,"
	"  owner INTEGER NOT NULL,"
	"  lease_until INTEGER NOT NULL,"
	"  cancelling INTEGER NOT NULL,"
	"  created INTEGER NOT NULL,"
	"  deadline INTEGER NOT NULL,"
	"  started INTEGER NOT NULL,"
	"  finished INTEGER NOT NULL,"
	"  outcome INTEGER NOT NULL"
	") STRICT;"
	"CREATE INDEX task_by_tenant ON task (tenant, id);"
	"CREATE INDEX task_queued ON task (id) WHERE state = 0;"
	"CREATE INDEX task_deadline ON task (deadline) WHERE state = 0 AND deadline > 0;"
	"CREATE INDEX task_lease ON task (lease_until) WHERE state = 1;"
	"CREATE INDEX task_unusual ON task (state, id) WHERE state > 2;"
	"CREATE INDEX task_finished ON task (finished) WHERE finished > 0;"
	"CREATE TABLE spec ("
	"  seq INTEGER PRIMARY KEY REFERENCES task ON DELETE CASCADE,"
	"  head BLOB,"
	"  whole BLOB NOT NULL"
	") STRICT;"
	"CREATE TABLE result ("
	"  seq INTEGER PRIMARY KEY REFERENCES task ON DELETE CASCADE,"
	"  head BLOB,"
	"  whole BLOB NOT NULL"
	") STRICT;"
	"CREATE TABLE idempotency ("
	"  tenant TEXT NOT NULL,"
	"  key TEXT NOT NULL,"
	"  hash BLOB NOT NULL,"
	"  task BLOB NOT NULL,"
	"  expires INTEGER NOT NULL,"
	"  PRIMARY KEY (tenant, key)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX idempotency_expires ON idempotency (expires);"
	"CREATE TABLE api_key ("
	"  name TEXT NOT NULL PRIMARY KEY,"
	"  tenant TEXT NOT NULL,"
	"  hash BLOB NOT NULL,"
	"  created INTEGER NOT NULL,"
	"  revoked INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;",
	/* What differs from the configuration; -1: nothing. */
	"CREATE TABLE tenant ("
	"  name TEXT NOT NULL PRIMARY KEY,"
	"  rate INTEGER NOT NULL,"
	"  burst INTEGER NOT NULL,"
	"  queued INTEGER NOT NULL,"
	"  running INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;",
};

static_assert(TASK_QUEUED == 0 && TASK_RUNNING == 1 && TASK_DONE == 2,
	      "the numbers of states are in the indexes");

static int query_int(struct sqlite_conn *c, const char *sql, int64_t *ret_value, struct err *e)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(c->db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*ret_value = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	if (rc == SQLITE_ROW)
		return 0;
	return err_set(e, sqlite_code(c->db, rc), "%s", sqlite3_errmsg(c->db));
}

int sqlite_schema_check(struct sqlite_conn *c, const char *path, struct err *e)
{
	int64_t application = 0, version = 0, objects = 0;
	int r;

	/* The first of these is what finds a file that is damaged or no database. */
	r = query_int(c, "PRAGMA application_id", &application, e);
	if (r >= 0)
		r = query_int(c, "PRAGMA user_version", &version, e);
	if (r >= 0)
		r = query_int(c, "SELECT count(*) FROM sqlite_schema", &objects, e);
	if (r < 0)
		return r == -EIO ? -EUCLEAN : r;
	if (application != APPLICATION_ID && (application || version || objects))
		return err_set(e, -EUCLEAN, "\"%s\" is a database of another program", path);
	if (version > (int64_t)ARRAY_SIZE(migrations))
		return err_set(e, -ENOTSUP,
			       "\"%s\" has schema version %lld, this program knows up to %zu", path,
			       (long long)version, ARRAY_SIZE(migrations));
	return 0;
}

static int migrate_from(struct sqlite_conn *c, int64_t version, struct err *e)
{
	char pragma[96];
	int r = 0;

	for (size_t i = (size_t)version; i < ARRAY_SIZE(migrations) && r >= 0; i++)
		r = sqlite_exec(c, migrations[i], e);
	if (r < 0)
		return r;
	(void)sqlite3_snprintf(sizeof pragma, pragma,
			       "PRAGMA application_id = %d; PRAGMA user_version = %d",
			       APPLICATION_ID, (int)ARRAY_SIZE(migrations));
	return sqlite_exec(c, pragma, e);
}

int sqlite_schema_upgrade(struct sqlite_conn *c, const char *path, struct err *e)
{
	int64_t version = 0;
	int r = query_int(c, "PRAGMA user_version", &version, e);

	if (r < 0 || version == (int64_t)ARRAY_SIZE(migrations))
		return r;
	/* Two programs may start at the same time: look again under the lock. */
	r = sqlite_exec(c, "BEGIN IMMEDIATE", e);
	if (r < 0)
		return r;
	r = sqlite_schema_check(c, path, e);
	if (r >= 0)
		r = query_int(c, "PRAGMA user_version", &version, e);
	if (r >= 0)
		r = migrate_from(c, version, e);
	if (r >= 0)
		r = sqlite_exec(c, "COMMIT", e);
	if (r < 0)
		(void)sqlite_exec(c, "ROLLBACK", NULL);
	return r;
}
