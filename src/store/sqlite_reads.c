/* SPDX-License-Identifier: Apache-2.0 */
#include "store/sqlite-private.h"

#include "wire/codec.h"

#include <errno.h>

/* ---- one task, from the columns that SQL_GET and list have in common ---- */

static int unpack_spec(sqlite3_stmt *st, int i, bool contents, struct task_spec *ret_spec)
{
	const void *bytes = sqlite3_column_blob(st, i);

	return store_unpack_spec(bytes, (size_t)sqlite3_column_bytes(st, i), contents, ret_spec);
}

static int unpack_result(sqlite3_stmt *st, int i, bool outputs, struct task_result **ret_result)
{
	const void *bytes = sqlite3_column_blob(st, i);
	int r;

	if (sqlite3_column_type(st, i) == SQLITE_NULL)
		return 0;
	r = codec_unpack_result(bytes, (size_t)sqlite3_column_bytes(st, i), ret_result, NULL);
	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	if (!outputs)
		store_strip_result(*ret_result);
	return 0;
}

static int read_task(sqlite3_stmt *st, unsigned parts, struct task **ret_task)
{
	AUTO(task_free) struct task *t = calloc(1, sizeof *t);
	int r;

	if (!t)
		return -ENOMEM;
	r = unpack_spec(st, 5, parts & STORE_CONTENTS, &t->spec);
	if (r == 0)
		r = unpack_result(st, 6, parts & STORE_RESULT, &t->result);
	if (r == 0)
		r = column_state(st, 0, &t->state);
	if (r < 0)
		return r;
	t->attempt = sqlite3_column_int(st, 1);
	t->cancelling = sqlite3_column_int(st, 2);
	t->started_us = sqlite3_column_int64(st, 3);
	t->finished_us = sqlite3_column_int64(st, 4);
	*ret_task = TAKE_PTR(t);
	return 0;
}

int sqlite_get(struct sqlite_conn *c, struct store_req *req)
{
	struct store_get *r = container_of(req, struct store_get, req);
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_GET);
	int rc;

	if (!st)
		return c->failed;
	bind_id(st, 1, &r->id);
	bind_int(st, 2, !!(r->parts & STORE_CONTENTS));
	bind_int(st, 3, !!(r->parts & STORE_RESULT));
	bind_text(st, 4, r->tenant);
	rc = conn_step(c, st);
	if (rc <= 0)
		return rc < 0 ? rc : -ENOENT;
	return read_task(st, r->parts, &r->task);
}

/* ---- list ---- */

/* There are few tasks in any state but DONE: the index of that state is the one to go through. The
 * state stands in the text as a number, which a partial index asks for; such a statement is not
 * worth keeping. */
static const char *const state_indexes[_TASK_STATE_MAX] = {
	[TASK_QUEUED] = "INDEXED BY task_queued",     [TASK_RUNNING] = "INDEXED BY task_lease",
	[TASK_CANCELLED] = "INDEXED BY task_unusual", [TASK_EXPIRED] = "INDEXED BY task_unusual",
	[TASK_FAILED] = "INDEXED BY task_unusual",
};

static sqlite3_stmt *prepare_list(struct sqlite_conn *c, const struct store_list *r)
{
	const char *index = r->state >= 0 ? state_indexes[r->state] : NULL;
	sqlite3_stmt *st = NULL;
	struct buf text;
	int rc;

	buf_init(&text, 2048);
	(void)buf_printf(&text,
			 "SELECT t.state, t.attempt, t.cancelling, t.started, t.finished,"
			 " coalesce(s.head, s.whole), coalesce(r.head, r.whole)"
			 " FROM task AS t %s JOIN spec AS s ON s.seq = t.seq"
			 " LEFT JOIN result AS r ON r.seq = t.seq WHERE 1",
			 index ? index : "");
	if (r->tenant)
		(void)buf_append_str(&text, " AND t.tenant = ?1");
	if (r->language)
		(void)buf_append_str(&text, " AND t.language = ?2");
	if (r->has_before)
		(void)buf_append_str(&text, " AND t.id < ?3");
	if (r->state >= 0)
		(void)buf_printf(&text, " AND t.state = %d", r->state);
	if (r->state > TASK_DONE)
		(void)buf_append_str(&text, " AND t.state > 2");
	(void)buf_append_str(&text, " ORDER BY t.id DESC LIMIT ?4");
	rc = buf_error(&text) ? SQLITE_NOMEM : sqlite3_prepare_v2(c->db, text.data, -1, &st, NULL);
	buf_fini(&text);
	if (rc != SQLITE_OK)
		c->failed = sqlite_code(c->db, rc);
	return st;
}

static int read_list(struct sqlite_conn *c, sqlite3_stmt *st, struct store_list *r)
{
	int rc;

	while ((rc = conn_step(c, st)) > 0) {
		struct task **place = array_place((void **)&r->tasks, r->n, sizeof *place);

		if (!place)
			return -ENOMEM;
		rc = read_task(st, STORE_META, place);
		if (rc < 0)
			return rc;
		r->n++;
	}
	return rc;
}

int sqlite_list(struct sqlite_conn *c, struct store_req *req)
{
	struct store_list *r = container_of(req, struct store_list, req);
	sqlite3_stmt *st = prepare_list(c, r);
	int rc;

	if (!st)
		return c->failed;
	if (r->tenant)
		bind_text(st, 1, r->tenant);
	if (r->language)
		bind_text(st, 2, r->language);
	if (r->has_before)
		bind_id(st, 3, &r->before);
	bind_int(st, 4, (int64_t)r->limit);
	rc = read_list(c, st, r);
	(void)sqlite3_finalize(st);
	if (rc == 0)
		return 0;
	for (size_t i = 0; i < r->n; i++)
		task_free(r->tasks[i]);
	free(r->tasks);
	r->tasks = NULL;
	r->n = 0;
	return rc;
}

/* ---- scan ---- */

static int read_scan(struct sqlite_conn *c, sqlite3_stmt *st, struct store_scan *r)
{
	int rc;

	while ((rc = conn_step(c, st)) > 0) {
		struct store_ticket *t = array_place((void **)&r->tickets, r->n, sizeof *t);

		if (!t)
			return -ENOMEM;
		t->state = TASK_QUEUED;
		rc = column_ticket(st, 6, t);
		if (rc < 0)
			return rc;
		r->n++;
	}
	return rc;
}

int sqlite_scan(struct sqlite_conn *c, struct store_req *req)
{
	struct store_scan *r = container_of(req, struct store_scan, req);
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_SCAN);
	int rc;

	if (!st)
		return c->failed;
	bind_id(st, 1, &r->after);
	bind_int(st, 2, (int64_t)r->limit);
	rc = read_scan(c, st, r);
	if (rc == 0)
		return 0;
	free(r->tickets);
	r->tickets = NULL;
	r->n = 0;
	return rc;
}
