/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Inside the SQLite store. One connection belongs to one thread: the writer's, which puts all that
 * waits into one transaction, and the reader's, whose reads never wait for a sync.
 *
 * A verb is a function that runs on such a thread inside its transaction. It returns 0 or the code
 * of an answer (-ENOENT, -ESTALE, ...), having changed nothing in the latter case. Where a
 * statement fails, conn->failed is set: the transaction is then rolled back, and every request in
 * it fails with that code.
 */

#include "base/buf.h"
#include "store/store-private.h"

#include <sqlite3.h>

/* The statements; their text is in sqlite_conn.c. */
enum sql {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_INSERT_TASK,
	SQL_INSERT_SPEC,
	SQL_INSERT_RESULT,
	SQL_FIND_KEYED,
	SQL_PUT_KEYED,
	SQL_ROW,
	SQL_MOVE,
	SQL_MARK_CANCELLING,
	SQL_RENEW,
	SQL_CANCELLING,
	SQL_NEXT_EXPIRED,
	SQL_NEXT_LEASE,
	SQL_PRUNE_TASKS,
	SQL_PRUNE_KEYED,
	SQL_GET,
	SQL_SCAN,
	SQL_KEY_ADD,
	SQL_KEY_REVOKE,
	SQL_KEY_IN_FORCE,
	SQL_KEY_FORGET,
	SQL_KEY_LIST,
	SQL_TENANT_SET,
	SQL_TENANT_UNSET,
	SQL_TENANT_LIST,
	SQL_COUNT_QUEUED,
	SQL_PROBE,
	_SQL_MAX
};

struct sqlite_conn {
	sqlite3 *db;
	sqlite3_stmt *stmts[_SQL_MAX]; /* made at their first use */
	struct buf head, whole;	       /* for packing, kept between requests */
	int failed;		       /* negative errno of the statement that failed, else 0 */
};

enum { PACKED_MAX = 64 * 1024 * 1024 };

/* Opens one connection. The writer's makes or upgrades the schema. */
int sqlite_open_writer(struct sqlite_conn *c, const char *path, int64_t busy_ms, struct err *e);
int sqlite_open_reader(struct sqlite_conn *c, const char *path, int64_t busy_ms, struct err *e);
void sqlite_conn_close(struct sqlite_conn *c);

/* Gives memory back that is only needed under load. */
void sqlite_conn_shrink(struct sqlite_conn *c);

/* The schema, in sqlite_schema.c. */
int sqlite_schema_check(struct sqlite_conn *c, const char *path, struct err *e);
int sqlite_schema_upgrade(struct sqlite_conn *c, const char *path, struct err *e);

/* Runs statements that bring no rows. 0 or negative errno with SQLite's reason. */
int sqlite_exec(struct sqlite_conn *c, const char *sql, struct err *e);

/* What a result code of SQLite means to callers. */
int sqlite_code(sqlite3 *db, int rc);

/* A statement that is ready to be bound, or NULL with failed set. Resets at the end of its scope:
 * AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_ROW); */
sqlite3_stmt *conn_stmt(struct sqlite_conn *c, enum sql which);

static inline void stmt_reset(sqlite3_stmt **st)
{
	if (*st) {
		(void)sqlite3_reset(*st);
		(void)sqlite3_clear_bindings(*st);
	}
}

#define AUTO_STMT CLEANUP(stmt_reset)

/* 1: a row is there; 0: done; -EEXIST: a constraint held it back; else failed, which is set. */
int conn_step(struct sqlite_conn *c, sqlite3_stmt *st);

/* Binding never copies: what is bound must live until the statement is reset. */
static inline void bind_int(sqlite3_stmt *st, int i, int64_t value)
{
	(void)sqlite3_bind_int64(st, i, value);
}

static inline void bind_text(sqlite3_stmt *st, int i, const char *text)
{
	(void)sqlite3_bind_text(st, i, text, -1, SQLITE_STATIC); /* NULL binds NULL */
}

static inline void bind_bytes(sqlite3_stmt *st, int i, const void *bytes, size_t len)
{
	(void)sqlite3_bind_blob64(st, i, bytes, len, SQLITE_STATIC);
}

static inline void bind_id(sqlite3_stmt *st, int i, const struct uuid *id)
{
	bind_bytes(st, i, id->bytes, sizeof id->bytes);
}

/* Column values; one of another size or range than it was written with is -EIO. */
int column_id(sqlite3_stmt *st, int i, struct uuid *ret_id);
int column_state(sqlite3_stmt *st, int i, enum task_state *ret_state);
int column_ticket(sqlite3_stmt *st, int first, struct store_ticket *ret_ticket);

/* A growing array, for what comes row by row. Returns the place for element n, NULL when memory is
 * gone; *array stays valid in any case. */
void *array_place(void **array, size_t n, size_t size);

struct sqlite_verb {
	int (*run)(struct sqlite_conn *c, struct store_req *req);
	bool reads; /* on the reader's connection */
	/* Frees "out" pointers again, for a write whose commit failed; may be NULL. */
	void (*drop)(struct store_req *req);
};

int sqlite_insert(struct sqlite_conn *c, struct store_req *req);
int sqlite_claim(struct sqlite_conn *c, struct store_req *req);
int sqlite_renew(struct sqlite_conn *c, struct store_req *req);
int sqlite_finish(struct sqlite_conn *c, struct store_req *req);
int sqlite_release(struct sqlite_conn *c, struct store_req *req);
int sqlite_cancel_task(struct sqlite_conn *c, struct store_req *req);
int sqlite_sweep(struct sqlite_conn *c, struct store_req *req);
int sqlite_prune(struct sqlite_conn *c, struct store_req *req);
void sqlite_drop_renew(struct store_req *req);
void sqlite_drop_sweep(struct store_req *req);

int sqlite_get(struct sqlite_conn *c, struct store_req *req);
int sqlite_list(struct sqlite_conn *c, struct store_req *req);
int sqlite_scan(struct sqlite_conn *c, struct store_req *req);

int sqlite_key_add(struct sqlite_conn *c, struct store_req *req);
int sqlite_key_revoke(struct sqlite_conn *c, struct store_req *req);
int sqlite_key_forget(struct sqlite_conn *c, struct store_req *req);
int sqlite_key_list(struct sqlite_conn *c, struct store_req *req);

/* sqlite_tenants.c */
int sqlite_tenant_set(struct sqlite_conn *c, struct store_req *req);
int sqlite_tenant_list(struct sqlite_conn *c, struct store_req *req);
int sqlite_count_queued(struct sqlite_conn *c, struct store_req *req);
int sqlite_probe(struct sqlite_conn *c, struct store_req *req);
