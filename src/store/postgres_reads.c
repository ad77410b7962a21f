/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "base/str.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* ---- one task, from the columns that get and list have in common ---- */

static int read_task(const PGresult *res, int row, unsigned parts, struct task **ret_task)
{
	AUTO(task_free) struct task *t = calloc(1, sizeof *t);
	int r;

	if (!t)
		return -ENOMEM;
	r = pg_spec(res, row, 5, parts & STORE_CONTENTS, &t->spec);
	if (r == 0)
		r = pg_result(res, row, 6, parts & STORE_RESULT, &t->result);
	if (r == 0)
		r = pg_state(res, row, 0, &t->state);
	if (r < 0)
		return r;
	t->attempt = (int)pg_number(res, row, 1);
	t->cancelling = pg_number(res, row, 2);
	t->started_us = pg_number(res, row, 3);
	t->finished_us = pg_number(res, row, 4);
	*ret_task = TAKE_PTR(t);
	return 0;
}

static int bind_get(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		    const char **ret_text)
{
	const struct store_get *r = container_of(req, struct store_get, req);

	(void)ret_text;
	pg_add_id(p, &r->id);
	pg_add_bool(p, r->parts & STORE_CONTENTS);
	pg_add_bool(p, r->parts & STORE_RESULT);
	pg_add_text(p, r->tenant);
	*ret_sql = PG_SQL_GET;
	return 0;
}

static int read_get(struct store_req *req, const PGresult *res)
{
	struct store_get *r = container_of(req, struct store_get, req);

	return PQntuples(res) ? read_task(res, 0, r->parts, &r->task) : -ENOENT;
}

static void drop_get(struct store_req *req)
{
	struct store_get *r = container_of(req, struct store_get, req);

	task_free(r->task);
	r->task = NULL;
}

const struct pg_verb pg_verb_get = {PG_READ, NULL, bind_get, read_get, drop_get};

/* ---- list ---- */

/* Where to begin: what is not final is little, and so is every final state but "done". */
#define LIST_COLUMNS " coalesce(t.head, t.whole), coalesce(r.head, r.whole) FROM "
#define LIST_ALL                                                                                   \
	"SELECT coalesce(l.state, r.state), coalesce(l.attempt, r.attempt),"                       \
	" coalesce(l.cancelling, false), coalesce(l.started, r.started), r.finished," LIST_COLUMNS \
	"task AS t LEFT JOIN live AS l ON l.id = t.id LEFT JOIN result AS r ON r.id = t.id"        \
	" WHERE coalesce(l.state, r.state) IS NOT NULL"
#define LIST_LIVE                                                                                  \
	"SELECT l.state, l.attempt, l.cancelling, l.started, 0::bigint,"                           \
	" coalesce(t.head, t.whole), NULL::bytea"                                                  \
	" FROM live AS l JOIN task AS t ON t.id = l.id WHERE l.state = $5"
#define LIST_FINAL                                                                                 \
	"SELECT r.state, r.attempt, false, r.started, r.finished," LIST_COLUMNS                    \
	"result AS r JOIN task AS t ON t.id = r.id WHERE r.state = $5"

#define LIST_REST                                                                                  \
	" AND ($1::text IS NULL OR t.tenant = $1) AND ($2::text IS NULL OR t.language = $2)"       \
	" AND ($3::uuid IS NULL OR t.id < $3) ORDER BY t.id DESC LIMIT $4::bigint"

static const char *list_text(int state)
{
	if (state < 0)
		return LIST_ALL " AND $5::smallint IS NULL" LIST_REST;
	return task_state_is_final((enum task_state)state) ? LIST_FINAL LIST_REST
							   : LIST_LIVE LIST_REST;
}

/* Never prepared: the plan depends on what is asked for. */
static int bind_list(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		     const char **ret_text)
{
	const struct store_list *r = container_of(req, struct store_list, req);

	pg_add_text(p, r->tenant);
	pg_add_text(p, r->language);
	if (r->has_before)
		pg_add_id(p, &r->before);
	else
		pg_add_null(p);
	pg_add_i64(p, (int64_t)r->limit);
	if (r->state >= 0)
		pg_add_i16(p, (int16_t)r->state);
	else
		pg_add_null(p);
	*ret_sql = PG_SQL_NONE;
	*ret_text = list_text(r->state);
	return 0;
}

static void drop_list(struct store_req *req)
{
	struct store_list *r = container_of(req, struct store_list, req);

	for (size_t i = 0; i < r->n; i++)
		task_free(r->tasks[i]);
	free(r->tasks);
	r->tasks = NULL;
	r->n = 0;
}

static int read_list(struct store_req *req, const PGresult *res)
{
	struct store_list *r = container_of(req, struct store_list, req);
	int n = PQntuples(res), rc = 0;

	if (n == 0)
		return 0;
	r->tasks = calloc((size_t)n, sizeof(struct task *));
	if (!r->tasks)
		return -ENOMEM;
	for (int i = 0; i < n && rc == 0; i++) {
		rc = read_task(res, i, STORE_META, &r->tasks[r->n]);
		if (rc == 0)
			r->n++;
	}
	if (rc < 0)
		drop_list(req);
	return rc;
}

const struct pg_verb pg_verb_list = {PG_READ, NULL, bind_list, read_list, drop_list};

/* ---- scan ---- */

static int bind_scan(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		     const char **ret_text)
{
	const struct store_scan *r = container_of(req, struct store_scan, req);

	(void)ret_text;
	pg_add_id(p, &r->after);
	pg_add_i64(p, (int64_t)r->limit);
	*ret_sql = PG_SQL_SCAN;
	return 0;
}

static int read_scan(struct store_req *req, const PGresult *res)
{
	struct store_scan *r = container_of(req, struct store_scan, req);

	return pg_tickets(res, &r->tickets, &r->n);
}

static void drop_scan(struct store_req *req)
{
	struct store_scan *r = container_of(req, struct store_scan, req);

	free(r->tickets);
	r->tickets = NULL;
	r->n = 0;
}

const struct pg_verb pg_verb_scan = {PG_READ, NULL, bind_scan, read_scan, drop_scan};

/* ---- keys ---- */

static int bind_key_add(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			const char **ret_text)
{
	const struct store_key_add *r = container_of(req, struct store_key_add, req);

	(void)ret_text;
	pg_add_text(p, r->key.name);
	pg_add_text(p, r->key.tenant);
	pg_add_bytes(p, r->key.hash, sizeof r->key.hash);
	pg_add_i64(p, r->key.created_us);
	pg_add_i64(p, r->key.revoked_us);
	pg_add_bool(p, req->again);
	*ret_sql = PG_SQL_KEY_ADD;
	return 0;
}

static int read_key_add(struct store_req *req, const PGresult *res)
{
	(void)req;
	return pg_number(res, 0, 0) ? 0 : -EEXIST;
}

const struct pg_verb pg_verb_key_add = {PG_WRITE, NULL, bind_key_add, read_key_add, NULL};

static int bind_key_revoke(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			   const char **ret_text)
{
	const struct store_key_revoke *r = container_of(req, struct store_key_revoke, req);

	(void)ret_text;
	pg_add_text(p, r->name);
	pg_add_i64(p, r->now_us);
	*ret_sql = PG_SQL_KEY_REVOKE;
	return 0;
}

static int read_key_revoke(struct store_req *req, const PGresult *res)
{
	(void)req;
	return PQntuples(res) ? 0 : -ENOENT;
}

const struct pg_verb pg_verb_key_revoke = {PG_WRITE, NULL, bind_key_revoke, read_key_revoke, NULL};

static int bind_key_forget(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			   const char **ret_text)
{
	(void)req;
	(void)p;
	(void)ret_text;
	*ret_sql = PG_SQL_KEY_FORGET;
	return 0;
}

static int read_key_forget(struct store_req *req, const PGresult *res)
{
	(void)req;
	return pg_number(res, 0, 0) ? -EBUSY : 0;
}

const struct pg_verb pg_verb_key_forget = {PG_WRITE, NULL, bind_key_forget, read_key_forget, NULL};

static int bind_key_list(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			 const char **ret_text)
{
	(void)req;
	(void)p;
	(void)ret_text;
	*ret_sql = PG_SQL_KEY_LIST;
	return 0;
}

static int read_key(const PGresult *res, int row, struct store_key *k)
{
	if (pg_text(res, row, 0, k->name, sizeof k->name) < 0 ||
	    pg_text(res, row, 1, k->tenant, sizeof k->tenant) < 0 ||
	    PQgetlength(res, row, 2) != STORE_HASH_SIZE)
		return -EIO;
	memcpy(k->hash, PQgetvalue(res, row, 2), STORE_HASH_SIZE);
	k->created_us = pg_number(res, row, 3);
	k->revoked_us = pg_number(res, row, 4);
	return 0;
}

static int read_key_list(struct store_req *req, const PGresult *res)
{
	struct store_key_list *r = container_of(req, struct store_key_list, req);
	int n = PQntuples(res);
	AUTO_FREE struct store_key *keys = NULL;

	if (n == 0)
		return 0;
	keys = calloc((size_t)n, sizeof *keys);
	if (!keys)
		return -ENOMEM;
	for (int i = 0; i < n; i++)
		if (read_key(res, i, &keys[i]) < 0)
			return -EIO;
	r->keys = TAKE_PTR(keys);
	r->n = (size_t)n;
	return 0;
}

static void drop_key_list(struct store_req *req)
{
	struct store_key_list *r = container_of(req, struct store_key_list, req);

	free(r->keys);
	r->keys = NULL;
	r->n = 0;
}

const struct pg_verb pg_verb_key_list = {PG_READ, NULL, bind_key_list, read_key_list,
					 drop_key_list};

/* ---- a probe ---- */

/* Of no tenant and expired: found by nobody, replaced by the next, and pruned. Hashes, because they
 * cannot be compressed. */
static int bind_probe(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		      const char **ret_text)
{
	static_assert(STORE_PROBE_BYTES == 8192 * 32, "the statement makes as much");

	(void)req;
	(void)p;
	*ret_sql = PG_SQL_NONE;
	*ret_text = "INSERT INTO idempotency (tenant, key, hash, task, expires)"
		    " SELECT '', '', string_agg(sha256(i::text::bytea), ''::bytea),"
		    " '00000000-0000-0000-0000-000000000000', 0 FROM generate_series(1, 8192) AS i"
		    " ON CONFLICT (tenant, key) DO UPDATE SET hash = excluded.hash";
	return 0;
}

static int read_probe(struct store_req *req, const PGresult *res)
{
	(void)req;
	(void)res;
	return 0;
}

const struct pg_verb pg_verb_probe = {PG_WRITE, NULL, bind_probe, read_probe, NULL};
