/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>

/*
 * Verbs that write. bind gives the statement and its parameters, read what it came to.
 *
 * A request is "again" where an earlier try of it was sent on a connection that was lost before
 * the answer: that try may have been committed.
 */

static bool use_outbox(const struct store_req *req)
{
	return req->store->outbox;
}

/* ---- insert ---- */

static int bind_insert(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		       const char **ret_text)
{
	const struct store_insert *r = container_of(req, struct store_insert, req);
	const struct task_spec *spec = r->spec;
	int rc;

	(void)ret_text;
	pg_add_id(p, &spec->id);
	pg_add_text(p, spec->tenant);
	pg_add_text(p, spec->program.language);
	pg_add_i16(p, (int16_t)spec->class);
	pg_add_i64(p, spec->created_us);
	pg_add_i64(p, spec->deadline_us);
	rc = pg_add_spec(p, spec);
	if (use_outbox(req))
		pg_add_i64(p, r->left ? 0 : spec->created_us);
	else
		pg_add_null(p);
	pg_add_text(p, spec->traceparent);
	*ret_sql = PG_SQL_INSERT;
	if (r->idempotency_key) {
		*ret_sql = PG_SQL_INSERT_KEYED;
		pg_add_text(p, r->idempotency_key);
		pg_add_bytes(p, r->body_hash, sizeof r->body_hash);
		pg_add_i64(p, r->idempotency_expires_us);
	}
	return rc;
}

static int read_insert(struct store_req *req, const PGresult *res)
{
	struct store_insert *r = container_of(req, struct store_insert, req);
	bool made = pg_number(res, 0, 0) > 0;
	struct uuid id;

	r->existing = false;
	if (made)
		return 0;
	/* Ids are drawn at random for one request: one that is there is of this one's first try. */
	if (!r->idempotency_key)
		return req->again ? 0 : -EEXIST;
	if (pg_id(res, 0, 1, &id) < 0 || PQgetlength(res, 0, 2) != STORE_HASH_SIZE)
		return -EIO;
	if (memcmp(PQgetvalue(res, 0, 2), r->body_hash, STORE_HASH_SIZE) != 0)
		return -EEXIST;
	if (req->again && uuid_eq(&id, &r->spec->id))
		return 0;
	r->existing = true;
	r->existing_id = id;
	return 0;
}

const struct pg_verb pg_verb_insert = {PG_WRITE, NULL, bind_insert, read_insert, NULL};

/* ---- claim and renew ---- */

/* The first of these columns that holds something. */
static int read_found(const PGresult *res, int from, int to, enum task_state *ret_state)
{
	for (int col = from; col <= to; col++)
		if (!pg_null(res, 0, col))
			return pg_state(res, 0, col, ret_state);
	return -ENOENT;
}

static const struct uuid *row_claim(struct store_req *req)
{
	return &container_of(req, struct store_claim, req)->id;
}

static int bind_claim(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		      const char **ret_text)
{
	const struct store_claim *r = container_of(req, struct store_claim, req);

	(void)ret_text;
	pg_add_id(p, &r->id);
	pg_add_i64(p, (int64_t)r->owner);
	pg_add_i64(p, r->now_us);
	pg_add_i64(p, r->lease_until_us);
	pg_add_bool(p, req->again);
	*ret_sql = PG_SQL_CLAIM;
	return 0;
}

static int read_claim(struct store_req *req, const PGresult *res)
{
	struct store_claim *r = container_of(req, struct store_claim, req);
	int col = !pg_null(res, 0, 0) ? 0 : !pg_null(res, 0, 4) ? 4 : -1;
	int rc;

	if (col >= 0) {
		r->attempt = (int)pg_number(res, 0, col);
		r->state = TASK_RUNNING;
		return 0;
	}
	rc = read_found(res, 1, 3, &r->state);
	return rc < 0 ? rc : -ESTALE;
}

const struct pg_verb pg_verb_claim = {PG_WRITE, row_claim, bind_claim, read_claim, NULL};

static int bind_renew(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		      const char **ret_text)
{
	const struct store_renew *r = container_of(req, struct store_renew, req);

	(void)ret_text;
	*ret_sql = PG_SQL_RENEW;
	pg_add_i64(p, r->lease_until_us);
	return pg_add_i64s(p, r->owners, r->n_owners);
}

static int read_renew(struct store_req *req, const PGresult *res)
{
	struct store_renew *r = container_of(req, struct store_renew, req);
	int n = PQntuples(res);

	if (n == 0)
		return 0;
	r->cancelling = calloc((size_t)n, sizeof *r->cancelling);
	if (!r->cancelling)
		return -ENOMEM;
	for (int i = 0; i < n; i++)
		if (pg_id(res, i, 0, &r->cancelling[i]) < 0)
			return -EIO;
	r->n = (size_t)n;
	return 0;
}

static void drop_renew(struct store_req *req)
{
	struct store_renew *r = container_of(req, struct store_renew, req);

	free(r->cancelling);
	r->cancelling = NULL;
	r->n = 0;
}

const struct pg_verb pg_verb_renew = {PG_WRITE, NULL, bind_renew, read_renew, drop_renew};

/* ---- the ends of a run ---- */

/* Both kinds of finish. The lock is needed by the one that claims only, and cheap. */
static const struct uuid *row_finish(struct store_req *req)
{
	const struct store_finish *r = container_of(req, struct store_finish, req);

	return r->claim_owner ? &r->id : NULL;
}

static int bind_finish(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		       const char **ret_text)
{
	const struct store_finish *r = container_of(req, struct store_finish, req);
	int rc;

	(void)ret_text;
	pg_add_id(p, &r->id);
	pg_add_i32(p, r->attempt);
	pg_add_i16(p, (int16_t)r->state);
	pg_add_i64(p, r->started_us);
	pg_add_i64(p, r->finished_us);
	pg_add_i16(p, (int16_t)(r->result ? r->result->outcome : TASK_OUTCOME_NONE));
	rc = pg_add_result(p, r->result);
	pg_add_bool(p, req->again);
	*ret_sql = r->claim_owner ? PG_SQL_FINISH_CLAIM : PG_SQL_FINISH;
	return rc;
}

static int read_finish(struct store_req *req, const PGresult *res)
{
	struct store_finish *r = container_of(req, struct store_finish, req);
	int col = !pg_null(res, 0, 0) ? 0 : !pg_null(res, 0, 1) ? 1 : -1;
	int rc = -ESTALE;

	if (col >= 0 && (r->claim_owner || pg_number(res, 0, col) == r->attempt)) {
		r->attempt = (int)pg_number(res, 0, col);
		return 0;
	}
	if (r->claim_owner)
		rc = read_found(res, 2, 4, &r->found);
	return rc < 0 && rc != -ENOENT ? rc : -ESTALE;
}

const struct pg_verb pg_verb_finish = {PG_WRITE, row_finish, bind_finish, read_finish, NULL};

static const struct uuid *row_release(struct store_req *req)
{
	return &container_of(req, struct store_release, req)->id;
}

static int bind_release(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			const char **ret_text)
{
	const struct store_release *r = container_of(req, struct store_release, req);
	int rc;

	(void)ret_text;
	pg_add_id(p, &r->id);
	pg_add_i32(p, r->attempt);
	pg_add_bool(p, r->counts);
	pg_add_i64(p, r->now_us);
	pg_add_i32(p, TASK_ATTEMPTS_MAX);
	rc = pg_add_failure(p, r->counts ? r->error_code : NULL, r->error_message);
	pg_add_bool(p, use_outbox(req));
	pg_add_i64(p, (int64_t)r->owner);
	*ret_sql = PG_SQL_RELEASE;
	return rc;
}

static int read_release(struct store_req *req, const PGresult *res)
{
	struct store_release *r = container_of(req, struct store_release, req);

	int rc = PQntuples(res) ? pg_ticket(res, 0, &r->ticket) : -ESTALE;

	if (rc == 0)
		r->state = r->ticket.state;
	return rc;
}

const struct pg_verb pg_verb_release = {PG_WRITE, row_release, bind_release, read_release, NULL};

static const struct uuid *row_cancel(struct store_req *req)
{
	return &container_of(req, struct store_cancel_task, req)->id;
}

static int bind_cancel(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		       const char **ret_text)
{
	const struct store_cancel_task *r = container_of(req, struct store_cancel_task, req);

	(void)ret_text;
	pg_add_id(p, &r->id);
	pg_add_text(p, r->tenant);
	pg_add_i64(p, r->now_us);
	pg_add_bool(p, req->again);
	*ret_sql = PG_SQL_CANCEL;
	return 0;
}

static int read_cancel(struct store_req *req, const PGresult *res)
{
	struct store_cancel_task *r = container_of(req, struct store_cancel_task, req);
	int rc;

	if (!pg_null(res, 0, 0) || !pg_null(res, 0, 1))
		return read_found(res, 0, 1, &r->state);
	rc = read_found(res, 2, 2, &r->state);
	if (rc < 0 || pg_number(res, 0, 3)) /* the cancel of the first try */
		return rc;
	return -EALREADY;
}

const struct pg_verb pg_verb_cancel_task = {PG_WRITE, row_cancel, bind_cancel, read_cancel, NULL};

/* ---- sweep and prune ---- */

static int bind_sweep(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		      const char **ret_text)
{
	const struct store_sweep *r = container_of(req, struct store_sweep, req);
	int rc;

	(void)ret_text;
	pg_add_i64(p, r->now_us);
	pg_add_bool(p, r->every_lease);
	pg_add_i64(p, (int64_t)r->limit);
	pg_add_i32(p, TASK_ATTEMPTS_MAX);
	rc = pg_add_failure(p, r->error_code, r->error_message);
	pg_add_bool(p, use_outbox(req));
	*ret_sql = PG_SQL_SWEEP;
	return rc;
}

static int read_sweep(struct store_req *req, const PGresult *res)
{
	struct store_sweep *r = container_of(req, struct store_sweep, req);

	return pg_tickets(res, &r->tickets, &r->n);
}

static void drop_sweep(struct store_req *req)
{
	struct store_sweep *r = container_of(req, struct store_sweep, req);

	free(r->tickets);
	r->tickets = NULL;
	r->n = 0;
}

const struct pg_verb pg_verb_sweep = {PG_UPKEEP, NULL, bind_sweep, read_sweep, drop_sweep};

/* The day that the bound lies in is dropped as a whole when the bound has passed it; only a day
 * that still gets tasks is not waited for. */
static void bind_day_left_alone(struct pg_params *p, int64_t before_us, int64_t now_us)
{
	struct uuid *from = &p->ids[0], *to = &p->ids[1];
	int64_t start_us = before_us - before_us % PG_DAY_US;

	uuid7_floor(start_us, from);
	*to = *from;
	if (start_us + PG_DAY_US <= now_us)
		uuid7_floor(start_us + PG_DAY_US, to);
	pg_add_id(p, from);
	pg_add_id(p, to);
}

static int bind_prune(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		      const char **ret_text)
{
	const struct store_prune *r = container_of(req, struct store_prune, req);

	(void)ret_text;
	pg_add_i64(p, r->before_us);
	pg_add_i64(p, (int64_t)r->limit);
	pg_add_i64(p, r->now_us);
	bind_day_left_alone(p, r->before_us, r->now_us);
	*ret_sql = PG_SQL_PRUNE;
	return 0;
}

static int read_prune(struct store_req *req, const PGresult *res)
{
	struct store_prune *r = container_of(req, struct store_prune, req);

	r->n = (size_t)pg_number(res, 0, 0);
	pg_days_drop_before(&container_of(req->store, struct pg_store, base)->days, r->before_us);
	return 0;
}

const struct pg_verb pg_verb_prune = {PG_UPKEEP, NULL, bind_prune, read_prune, NULL};
