/* SPDX-License-Identifier: Apache-2.0 */
#include "store/sqlite-private.h"

#include "base/fs.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define TICKET_COLUMNS                                                                             \
	"seq, state, attempt, deadline, started, cancelling, id, class, language, tenant, owner"

/* INDEXED BY makes a statement fail rather than read every row when its index cannot be used. */
static const char *const sql_texts[_SQL_MAX] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_INSERT_TASK] =
		"INSERT INTO task (id, tenant, language, class, created, deadline, state,"
		" attempt, owner, lease_until, cancelling, started, finished, outcome)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, 0, 0, 0, 0, 0, 0)",
	[SQL_INSERT_SPEC] = "INSERT INTO spec (seq, head, whole) VALUES (?1, ?2, ?3)",
	[SQL_INSERT_RESULT] = "INSERT INTO result (seq, head, whole) VALUES (?1, ?2, ?3)",
	[SQL_FIND_KEYED] = "SELECT hash, task FROM idempotency AS i"
			   " WHERE tenant = ?1 AND key = ?2 AND expires > ?3"
			   " AND EXISTS (SELECT 1 FROM task WHERE id = i.task)",
	[SQL_PUT_KEYED] = "REPLACE INTO idempotency (tenant, key, hash, task, expires)"
			  " VALUES (?1, ?2, ?3, ?4, ?5)",
	[SQL_ROW] = "SELECT " TICKET_COLUMNS " FROM task WHERE id = ?1",
	[SQL_MOVE] = "UPDATE task SET state = ?2, attempt = ?3, owner = ?4, lease_until = ?5,"
		     " started = ?6, finished = ?7, outcome = ?8, cancelling = 0 WHERE seq = ?1",
	[SQL_MARK_CANCELLING] = "UPDATE task SET cancelling = 1 WHERE seq = ?1",
	[SQL_RENEW] = "UPDATE task INDEXED BY task_lease SET lease_until = ?2"
		      " WHERE state = 1 AND owner = ?1",
	[SQL_CANCELLING] = "SELECT id FROM task INDEXED BY task_lease"
			   " WHERE state = 1 AND owner = ?1 AND cancelling = 1",
	[SQL_NEXT_EXPIRED] = "SELECT " TICKET_COLUMNS " FROM task INDEXED BY task_deadline"
			     " WHERE state = 0 AND deadline > 0 AND deadline < ?1"
			     " ORDER BY deadline LIMIT 1",
	[SQL_NEXT_LEASE] = "SELECT " TICKET_COLUMNS " FROM task INDEXED BY task_lease"
			   " WHERE state = 1 AND lease_until < ?1 ORDER BY lease_until LIMIT 1",
	[SQL_PRUNE_TASKS] = "DELETE FROM task WHERE seq IN (SELECT seq FROM task"
			    " INDEXED BY task_finished WHERE finished > 0 AND finished < ?1"
			    " ORDER BY finished LIMIT ?2)",
	[SQL_PRUNE_KEYED] = "DELETE FROM idempotency WHERE (tenant, key) IN (SELECT tenant, key"
			    " FROM idempotency INDEXED BY idempotency_expires"
			    " WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
	[SQL_GET] = "SELECT t.state, t.attempt, t.cancelling, t.started, t.finished,"
		    " CASE WHEN ?2 THEN s.whole ELSE coalesce(s.head, s.whole) END,"
		    " CASE WHEN ?3 THEN r.whole ELSE coalesce(r.head, r.whole) END"
		    " FROM task AS t JOIN spec AS s ON s.seq = t.seq"
		    " LEFT JOIN result AS r ON r.seq = t.seq"
		    " WHERE t.id = ?1 AND (?4 IS NULL OR t.tenant = ?4)",
	[SQL_SCAN] = "SELECT " TICKET_COLUMNS " FROM task INDEXED BY task_queued"
		     " WHERE state = 0 AND id > ?1 ORDER BY id LIMIT ?2",
	[SQL_KEY_ADD] = "INSERT INTO api_key (name, tenant, hash, created, revoked)"
			" VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO UPDATE"
			" SET tenant = ?2, hash = ?3, created = ?4, revoked = ?5"
			" WHERE revoked <> 0",
	[SQL_KEY_REVOKE] =
		"UPDATE api_key SET revoked = CASE revoked WHEN 0 THEN ?2 ELSE revoked END"
		" WHERE name = ?1",
	[SQL_KEY_IN_FORCE] = "SELECT 1 FROM api_key WHERE revoked = 0 LIMIT 1",
	[SQL_KEY_FORGET] = "DELETE FROM api_key",
	[SQL_TENANT_SET] = "REPLACE INTO tenant (name, rate, burst, queued, running)"
			   " VALUES (?1, ?2, ?3, ?4, ?5)",
	[SQL_TENANT_UNSET] = "DELETE FROM tenant WHERE name = ?1",
	[SQL_TENANT_LIST] = "SELECT name, rate, burst, queued, running FROM tenant ORDER BY name",
	/* Those that wait are bounded, and few beside those that are through. */
	[SQL_COUNT_QUEUED] = "SELECT count(*) FROM (SELECT 1 FROM task INDEXED BY task_queued"
			     " WHERE state = 0 AND tenant = ?1 LIMIT ?2)",
	[SQL_KEY_LIST] = "SELECT name, tenant, hash, created, revoked FROM api_key ORDER BY name",
	/* Of no tenant and expired: found by nobody, replaced by the next, and pruned. */
	[SQL_PROBE] = "REPLACE INTO idempotency (tenant, key, hash, task, expires)"
		      " VALUES ('', '', zeroblob(?1), x'', 0)",
};

int sqlite_code(sqlite3 *db, int rc)
{
	int os_error = sqlite3_system_errno(db);

	switch (rc & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EAGAIN;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_READONLY:
		return os_error == EMFILE || os_error == ENFILE ? -EAGAIN : -EACCES;
	case SQLITE_IOERR:
		if (rc == SQLITE_IOERR_NOMEM)
			return -ENOMEM;
		/* The index of the log is grown by hand: there a full disk is an I/O error. */
		return os_error == ENOSPC || os_error == EDQUOT ? -ENOSPC : -EIO;
	default:
		return -EIO;
	}
}

int sqlite_exec(struct sqlite_conn *c, const char *sql, struct err *e)
{
	int rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);

	if (rc == SQLITE_OK)
		return 0;
	return err_set(e, sqlite_code(c->db, rc), "%s", sqlite3_errmsg(c->db));
}

static int fail(struct sqlite_conn *c, int rc)
{
	int code = sqlite_code(c->db, rc);

	/* What only makes sense at start is, later on, a store that refuses. */
	if (code == -EACCES)
		code = -EIO;
	if (!c->failed)
		c->failed = code;
	return code;
}

sqlite3_stmt *conn_stmt(struct sqlite_conn *c, enum sql which)
{
	int rc;

	if (c->stmts[which])
		return c->stmts[which];
	rc = sqlite3_prepare_v3(c->db, sql_texts[which], -1, SQLITE_PREPARE_PERSISTENT,
				&c->stmts[which], NULL);
	if (rc != SQLITE_OK)
		(void)fail(c, rc);
	return c->stmts[which];
}

int conn_step(struct sqlite_conn *c, sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 1;
	if (rc == SQLITE_DONE)
		return 0;
	if ((rc & 0xff) == SQLITE_CONSTRAINT)
		return -EEXIST;
	return fail(c, rc);
}

/* ---- columns ---- */

int column_id(sqlite3_stmt *st, int i, struct uuid *ret_id)
{
	const void *bytes = sqlite3_column_blob(st, i);

	if (!bytes || sqlite3_column_bytes(st, i) != (int)sizeof ret_id->bytes)
		return -EIO;
	memcpy(ret_id->bytes, bytes, sizeof ret_id->bytes);
	return 0;
}

int column_state(sqlite3_stmt *st, int i, enum task_state *ret_state)
{
	int value = sqlite3_column_int(st, i);

	if (value < 0 || value >= _TASK_STATE_MAX)
		return -EIO;
	*ret_state = (enum task_state)value;
	return 0;
}

static void column_text(sqlite3_stmt *st, int i, char *dst, size_t size)
{
	const char *text = (const char *)sqlite3_column_text(st, i);

	(void)str_copy(dst, size, text ? text : "");
}

/* id, class, language, tenant, from column "first" on. The state is the caller's to set. */
int column_ticket(sqlite3_stmt *st, int first, struct store_ticket *t)
{
	int class = sqlite3_column_int(st, first + 1);

	if (column_id(st, first, &t->id) < 0 || class < 0 || class >= _TASK_CLASS_MAX)
		return -EIO;
	t->class = (enum task_class) class;
	column_text(st, first + 2, t->language, sizeof t->language);
	column_text(st, first + 3, t->tenant, sizeof t->tenant);
	return 0;
}

void *array_place(void **array, size_t n, size_t size)
{
	/* Full at 0 and at each power of two from 16 on. */
	if (n == 0 || (n >= 16 && (n & (n - 1)) == 0)) {
		void *bigger = reallocarray(*array, n ? n * 2 : 16, size);

		if (!bigger)
			return NULL;
		*array = bigger;
	}
	return (char *)*array + n * size;
}

/* ---- opening ---- */

/* The file is made here, for its mode; the log and its index, which hold the same secrets, take
 * theirs from it. */
static int make_file(const char *path, struct err *e)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	AUTO_FD int fd = -EBADF;
	int r;

	if (slash && slash != path) {
		if ((size_t)(slash - path) >= sizeof folder)
			return err_set(e, -ENAMETOOLONG, "the path of the store is too long");
		memcpy(folder, path, (size_t)(slash - path));
		folder[slash - path] = '\0';
		r = fs_make_dirs(folder, 0700, e);
		if (r < 0)
			return r;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
	if (fd < 0)
		return err_errno(e, -errno, "could not open \"%s\"", path);
	return 0;
}

static int open_db(struct sqlite_conn *c, const char *path, int flags, int64_t busy_ms,
		   struct err *e)
{
	int rc;

	buf_init(&c->head, PACKED_MAX);
	buf_init(&c->whole, PACKED_MAX);
	rc = sqlite3_open_v2(path, &c->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
			     NULL);
	if (rc != SQLITE_OK)
		return err_set(e, c->db ? sqlite_code(c->db, rc) : -ENOMEM, "%s",
			       c->db ? sqlite3_errmsg(c->db) : "out of memory");
	(void)sqlite3_busy_timeout(c->db, (int)busy_ms);
	return 0;
}

static int set_wal(struct sqlite_conn *c, struct err *e)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(c->db, "PRAGMA journal_mode = WAL", -1, &st, NULL);
	bool wal = false;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		wal = str_eq((const char *)sqlite3_column_text(st, 0), "wal");
	(void)sqlite3_finalize(st);
	if (rc != SQLITE_ROW)
		return err_set(e, sqlite_code(c->db, rc), "%s", sqlite3_errmsg(c->db));
	return wal ? 0 : err_set(e, -ENOTSUP, "its file system cannot keep a write-ahead log");
}

int sqlite_open_writer(struct sqlite_conn *c, const char *path, int64_t busy_ms, struct err *e)
{
	int r = make_file(path, e);

	if (r >= 0)
		r = open_db(c, path, SQLITE_OPEN_READWRITE, busy_ms, e);
	/* Before anything is changed in it. */
	if (r >= 0)
		r = sqlite_schema_check(c, path, e);
	if (r >= 0)
		r = set_wal(c, e);
	if (r >= 0)
		r = sqlite_exec(c,
				"PRAGMA synchronous = FULL;"
				"PRAGMA foreign_keys = ON;"
				"PRAGMA mmap_size = 0;"
				"PRAGMA cache_size = -4096;"
				"PRAGMA temp_store = MEMORY;"
				"PRAGMA secure_delete = FAST;"
				"PRAGMA wal_autocheckpoint = 1000;"
				"PRAGMA journal_size_limit = 33554432",
				e);
	if (r >= 0)
		r = sqlite_schema_upgrade(c, path, e);
	return r < 0 ? err_wrap(e, r, "could not open the store \"%s\"", path) : 0;
}

int sqlite_open_reader(struct sqlite_conn *c, const char *path, int64_t busy_ms, struct err *e)
{
	int r = open_db(c, path, SQLITE_OPEN_READONLY, busy_ms, e);

	if (r >= 0)
		r = sqlite_exec(c, "PRAGMA mmap_size = 0; PRAGMA cache_size = -2048", e);
	return r < 0 ? err_wrap(e, r, "could not open the store \"%s\"", path) : 0;
}

void sqlite_conn_shrink(struct sqlite_conn *c)
{
	buf_fini(&c->head);
	buf_fini(&c->whole);
	(void)sqlite3_db_release_memory(c->db);
}

void sqlite_conn_close(struct sqlite_conn *c)
{
	for (int i = 0; i < _SQL_MAX; i++)
		(void)sqlite3_finalize(c->stmts[i]);
	(void)sqlite3_close(c->db);
	buf_fini(&c->head);
	buf_fini(&c->whole);
	*c = (struct sqlite_conn){0};
}
