/* SPDX-License-Identifier: Apache-2.0 */
#include "store/sqlite-private.h"

#include "base/str.h"
#include "wire/codec.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* A whole of up to this many bytes is kept without a head of its own. */
enum { HEADLESS_MAX = 2048 };

/* ---- rows, and the one way in which they move ---- */

struct row {
	int64_t seq;
	enum task_state state;
	int attempt;
	int64_t deadline_us;
	int64_t started_us;
	bool cancelling;
	uint64_t owner;
	struct store_ticket ticket;
};

static int read_row(sqlite3_stmt *st, struct row *ret_row)
{
	ret_row->seq = sqlite3_column_int64(st, 0);
	ret_row->attempt = sqlite3_column_int(st, 2);
	ret_row->deadline_us = sqlite3_column_int64(st, 3);
	ret_row->started_us = sqlite3_column_int64(st, 4);
	ret_row->cancelling = sqlite3_column_int(st, 5);
	ret_row->owner = (uint64_t)sqlite3_column_int64(st, 10);
	if (column_state(st, 1, &ret_row->state) < 0)
		return -EIO;
	return column_ticket(st, 6, &ret_row->ticket);
}

/* 0 with the row, or -ENOENT. */
static int find_row(struct sqlite_conn *c, const struct uuid *id, struct row *ret_row)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_ROW);
	int r;

	if (!st)
		return c->failed;
	bind_id(st, 1, id);
	r = conn_step(c, st);
	if (r == 0)
		return -ENOENT;
	return r < 0 ? r : read_row(st, ret_row);
}

/* What a move leaves in the row. Zero is right for what a state does not have. */
struct move {
	enum task_state to;
	int attempt;
	uint64_t owner;
	int64_t lease_until_us;
	int64_t started_us;
	int64_t finished_us;
	enum task_outcome outcome;
};

static int move_row(struct sqlite_conn *c, struct row *row, const struct move *m)
{
	AUTO_STMT sqlite3_stmt *st = NULL;
	int r;

	if (!task_state_may_move(row->state, m->to))
		return -ESTALE;
	st = conn_stmt(c, SQL_MOVE);
	if (!st)
		return c->failed;
	bind_int(st, 1, row->seq);
	bind_int(st, 2, m->to);
	bind_int(st, 3, m->attempt);
	bind_int(st, 4, (int64_t)m->owner);
	bind_int(st, 5, m->lease_until_us);
	bind_int(st, 6, m->started_us);
	bind_int(st, 7, m->finished_us);
	bind_int(st, 8, m->outcome);
	r = conn_step(c, st);
	if (r < 0)
		return r;
	row->state = m->to;
	row->ticket.state = m->to;
	return 0;
}

/* For what comes after the first change of a request: no failure may leave that change behind. */
static int all_or_nothing(struct sqlite_conn *c, int rc)
{
	if (rc < 0 && !c->failed)
		c->failed = rc;
	return rc;
}

/* ---- specs and results ---- */

/* The head stays empty, and is stored as NULL, where the whole is small. */
static int put_packed(struct sqlite_conn *c, enum sql which, int64_t seq)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, which);

	if (!st)
		return c->failed;
	bind_int(st, 1, seq);
	if (c->head.len)
		bind_bytes(st, 2, c->head.data, c->head.len);
	bind_bytes(st, 3, c->whole.data, c->whole.len);
	return conn_step(c, st);
}

static int pack_spec(struct sqlite_conn *c, const struct task_spec *spec)
{
	int r;

	buf_clear(&c->head);
	buf_clear(&c->whole);
	r = codec_pack_spec(spec, &c->whole);
	if (r == 0 && c->whole.len > HEADLESS_MAX)
		r = codec_pack_spec_head(spec, &c->head);
	return r;
}

static int pack_result(struct sqlite_conn *c, const struct task_result *result)
{
	int r;

	buf_clear(&c->head);
	buf_clear(&c->whole);
	r = codec_pack_result(result, &c->whole);
	if (r == 0 && c->whole.len > HEADLESS_MAX)
		r = codec_pack_result_head(result, &c->head);
	return r;
}

/* ---- insert ---- */

/* 1 where the key stands for an earlier task, 0 where it is free. */
static int find_keyed(struct sqlite_conn *c, struct store_insert *r)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_FIND_KEYED);
	const void *hash;
	int rc;

	if (!st)
		return c->failed;
	bind_text(st, 1, r->spec->tenant);
	bind_text(st, 2, r->idempotency_key);
	bind_int(st, 3, r->spec->created_us);
	rc = conn_step(c, st);
	if (rc <= 0)
		return rc;
	hash = sqlite3_column_blob(st, 0);
	if (!hash || sqlite3_column_bytes(st, 0) != STORE_HASH_SIZE)
		return -EIO;
	if (memcmp(hash, r->body_hash, STORE_HASH_SIZE) != 0)
		return -EEXIST;
	rc = column_id(st, 1, &r->existing_id);
	return rc < 0 ? rc : 1;
}

static int put_keyed(struct sqlite_conn *c, const struct store_insert *r)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_PUT_KEYED);

	if (!st)
		return c->failed;
	bind_text(st, 1, r->spec->tenant);
	bind_text(st, 2, r->idempotency_key);
	bind_bytes(st, 3, r->body_hash, sizeof r->body_hash);
	bind_id(st, 4, &r->spec->id);
	bind_int(st, 5, r->idempotency_expires_us);
	return conn_step(c, st);
}

static int put_task(struct sqlite_conn *c, const struct task_spec *spec)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_INSERT_TASK);

	if (!st)
		return c->failed;
	bind_id(st, 1, &spec->id);
	bind_text(st, 2, spec->tenant);
	bind_text(st, 3, spec->program.language);
	bind_int(st, 4, spec->class);
	bind_int(st, 5, spec->created_us);
	bind_int(st, 6, spec->deadline_us);
	return conn_step(c, st);
}

int sqlite_insert(struct sqlite_conn *c, struct store_req *req)
{
	struct store_insert *r = container_of(req, struct store_insert, req);
	int rc;

	if (r->idempotency_key) {
		rc = find_keyed(c, r);
		if (rc < 0)
			return rc;
		r->existing = rc > 0;
		if (r->existing)
			return 0;
	}
	rc = pack_spec(c, r->spec);
	if (rc < 0)
		return rc;
	/* The first change, and the only one that a constraint may refuse. */
	rc = put_task(c, r->spec);
	if (rc < 0)
		return rc;
	rc = put_packed(c, SQL_INSERT_SPEC, sqlite3_last_insert_rowid(c->db));
	if (rc == 0 && r->idempotency_key)
		rc = put_keyed(c, r);
	return all_or_nothing(c, rc);
}

/* ---- claim and renew ---- */

/* Finds a row that may be claimed at this time. One whose deadline has passed is expired here.
 * ret_state holds for -ESTALE. */
static int find_claimable(struct sqlite_conn *c, const struct uuid *id, int64_t now_us,
			  struct row *ret_row, enum task_state *ret_state)
{
	int rc = find_row(c, id, ret_row);

	if (rc < 0)
		return rc;
	*ret_state = ret_row->state;
	if (ret_row->state != TASK_QUEUED)
		return -ESTALE;
	if (!ret_row->deadline_us || ret_row->deadline_us >= now_us)
		return 0;
	rc = move_row(c, ret_row,
		      &(struct move){.to = TASK_EXPIRED,
				     .attempt = ret_row->attempt,
				     .finished_us = now_us});
	*ret_state = ret_row->state;
	return rc < 0 ? rc : -ESTALE;
}

int sqlite_claim(struct sqlite_conn *c, struct store_req *req)
{
	struct store_claim *r = container_of(req, struct store_claim, req);
	struct row row;
	int rc = find_claimable(c, &r->id, r->now_us, &row, &r->state);

	if (rc < 0)
		return rc;
	rc = move_row(c, &row,
		      &(struct move){.to = TASK_RUNNING,
				     .attempt = row.attempt + 1,
				     .owner = r->owner,
				     .lease_until_us = r->lease_until_us,
				     .started_us = r->now_us});
	if (rc < 0)
		return rc;
	r->attempt = row.attempt + 1;
	r->state = TASK_RUNNING;
	return 0;
}

static int renew_owner(struct sqlite_conn *c, struct store_renew *r, uint64_t owner)
{
	AUTO_STMT sqlite3_stmt *renew = conn_stmt(c, SQL_RENEW);
	AUTO_STMT sqlite3_stmt *cancelling = conn_stmt(c, SQL_CANCELLING);
	int rc;

	if (!renew || !cancelling)
		return c->failed;
	bind_int(cancelling, 1, (int64_t)owner);
	while ((rc = conn_step(c, cancelling)) > 0) {
		struct uuid *id = array_place((void **)&r->cancelling, r->n, sizeof *id);

		if (!id)
			return -ENOMEM;
		rc = column_id(cancelling, 0, id);
		if (rc < 0)
			return rc;
		r->n++;
	}
	if (rc < 0)
		return rc;
	bind_int(renew, 1, (int64_t)owner);
	bind_int(renew, 2, r->lease_until_us);
	return conn_step(c, renew);
}

int sqlite_renew(struct sqlite_conn *c, struct store_req *req)
{
	struct store_renew *r = container_of(req, struct store_renew, req);
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < r->n_owners; i++)
		rc = renew_owner(c, r, r->owners[i]);
	return rc;
}

void sqlite_drop_renew(struct store_req *req)
{
	struct store_renew *r = container_of(req, struct store_renew, req);

	free(r->cancelling);
	r->cancelling = NULL;
	r->n = 0;
}

/* ---- the ends of a run ---- */

/* The fence: the row is running, and in this attempt. */
static int find_running(struct sqlite_conn *c, const struct uuid *id, int attempt,
			struct row *ret_row)
{
	int rc = find_row(c, id, ret_row);

	if (rc < 0)
		return rc == -ENOENT ? -ESTALE : rc;
	return ret_row->state == TASK_RUNNING && ret_row->attempt == attempt ? 0 : -ESTALE;
}

/* The claim is made on the row in memory only; the one write that follows has both. */
static int claim_in_passing(struct sqlite_conn *c, struct store_finish *r, struct row *ret_row)
{
	int rc = find_claimable(c, &r->id, r->started_us, ret_row, &r->found);

	if (rc < 0)
		return rc == -ENOENT ? -ESTALE : rc;
	assert(task_state_may_move(ret_row->state, TASK_RUNNING));
	ret_row->state = TASK_RUNNING;
	ret_row->attempt++;
	return 0;
}

int sqlite_finish(struct sqlite_conn *c, struct store_req *req)
{
	struct store_finish *r = container_of(req, struct store_finish, req);
	struct row row;
	int rc;

	rc = r->claim_owner ? claim_in_passing(c, r, &row)
			    : find_running(c, &r->id, r->attempt, &row);
	if (rc == 0 && r->result)
		rc = pack_result(c, r->result);
	if (rc == 0)
		rc = move_row(c, &row,
			      &(struct move){.to = r->state,
					     .attempt = row.attempt,
					     .started_us = r->started_us,
					     .finished_us = r->finished_us,
					     .outcome = r->result ? r->result->outcome
								  : TASK_OUTCOME_NONE});
	if (rc == 0 && r->result)
		rc = all_or_nothing(c, put_packed(c, SQL_INSERT_RESULT, row.seq));
	if (rc == 0)
		r->attempt = row.attempt;
	return rc;
}

static int put_failure(struct sqlite_conn *c, int64_t seq, const char *code, const char *message)
{
	struct task_result failure = {0};
	int rc = -ENOMEM;

	failure.error_code = strdup(code);
	failure.error_message = strdup(message);
	if (failure.error_code && failure.error_message)
		rc = pack_result(c, &failure);
	task_result_fini(&failure);
	if (rc == 0)
		rc = put_packed(c, SQL_INSERT_RESULT, seq);
	return all_or_nothing(c, rc);
}

/* What becomes of a running task whose owner lets go of it, or is gone. */
static int let_go(struct sqlite_conn *c, struct row *row, bool counts, int64_t now_us,
		  const char *error_code, const char *error_message)
{
	struct move m = {.to = TASK_QUEUED, .attempt = row->attempt - !counts};
	int rc;

	if (row->cancelling)
		m.to = TASK_CANCELLED;
	else if (counts && row->attempt >= TASK_ATTEMPTS_MAX)
		m.to = TASK_FAILED;
	if (m.to != TASK_QUEUED) {
		m.finished_us = now_us;
		m.started_us = counts ? row->started_us : 0;
	}
	rc = move_row(c, row, &m);
	if (rc == 0 && m.to == TASK_FAILED)
		rc = put_failure(c, row->seq, error_code, error_message);
	return rc;
}

/* The other fence: the row is running, and for this owner. */
static int find_owned(struct sqlite_conn *c, const struct uuid *id, uint64_t owner,
		      struct row *ret_row)
{
	int rc = find_row(c, id, ret_row);

	if (rc < 0)
		return rc == -ENOENT ? -ESTALE : rc;
	return ret_row->state == TASK_RUNNING && ret_row->owner == owner ? 0 : -ESTALE;
}

int sqlite_release(struct sqlite_conn *c, struct store_req *req)
{
	struct store_release *r = container_of(req, struct store_release, req);
	struct row row;
	int rc = r->owner ? find_owned(c, &r->id, r->owner, &row)
			  : find_running(c, &r->id, r->attempt, &row);

	if (rc == 0)
		rc = let_go(c, &row, r->counts, r->now_us, r->error_code, r->error_message);
	if (rc == 0) {
		r->state = row.state;
		r->ticket = row.ticket;
	}
	return rc;
}

static int mark_cancelling(struct sqlite_conn *c, const struct row *row)
{
	AUTO_STMT sqlite3_stmt *st = NULL;

	if (row->cancelling)
		return 0;
	st = conn_stmt(c, SQL_MARK_CANCELLING);
	if (!st)
		return c->failed;
	bind_int(st, 1, row->seq);
	return conn_step(c, st);
}

int sqlite_cancel_task(struct sqlite_conn *c, struct store_req *req)
{
	struct store_cancel_task *r = container_of(req, struct store_cancel_task, req);
	struct row row;
	int rc = find_row(c, &r->id, &row);

	if (rc < 0)
		return rc;
	if (r->tenant && !str_eq(r->tenant, row.ticket.tenant))
		return -ENOENT;
	r->state = row.state;
	if (task_state_is_final(row.state))
		return -EALREADY;
	if (row.state == TASK_RUNNING)
		return mark_cancelling(c, &row);
	rc = move_row(c, &row,
		      &(struct move){.to = TASK_CANCELLED,
				     .attempt = row.attempt,
				     .finished_us = r->now_us});
	r->state = row.state;
	return rc;
}

/* ---- sweep and prune ---- */

/* The next row that a sweep has to move: each step takes the first one of an index, and the move
 * takes it out of there. 1 with a row, 0 when there is none. */
static int next_row(struct sqlite_conn *c, enum sql which, int64_t bound_us, struct row *ret_row)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, which);
	int rc;

	if (!st)
		return c->failed;
	bind_int(st, 1, bound_us);
	rc = conn_step(c, st);
	if (rc <= 0)
		return rc;
	rc = read_row(st, ret_row);
	return rc < 0 ? rc : 1;
}

static int sweep_one(struct sqlite_conn *c, struct store_sweep *r, enum sql which, struct row *row)
{
	if (which == SQL_NEXT_LEASE)
		return let_go(c, row, true, r->now_us, r->error_code, r->error_message);
	return move_row(c, row,
			&(struct move){.to = TASK_EXPIRED,
				       .attempt = row->attempt,
				       .finished_us = r->now_us});
}

static int sweep_index(struct sqlite_conn *c, struct store_sweep *r, enum sql which,
		       int64_t bound_us)
{
	while (r->n < r->limit) {
		struct store_ticket *ticket;
		struct row row;
		int rc;

		ticket = array_place((void **)&r->tickets, r->n, sizeof *ticket);
		if (!ticket)
			rc = -ENOMEM;
		else
			rc = next_row(c, which, bound_us, &row);
		if (rc > 0)
			rc = sweep_one(c, r, which, &row);
		else if (rc == 0)
			return 0;
		if (rc < 0)
			return all_or_nothing(c, rc);
		*ticket = row.ticket;
		r->n++;
	}
	return 0;
}

int sqlite_sweep(struct sqlite_conn *c, struct store_req *req)
{
	struct store_sweep *r = container_of(req, struct store_sweep, req);
	int rc = sweep_index(c, r, SQL_NEXT_EXPIRED, r->now_us);

	if (rc == 0)
		rc = sweep_index(c, r, SQL_NEXT_LEASE, r->every_lease ? INT64_MAX : r->now_us);
	return rc;
}

void sqlite_drop_sweep(struct store_req *req)
{
	struct store_sweep *r = container_of(req, struct store_sweep, req);

	free(r->tickets);
	r->tickets = NULL;
	r->n = 0;
}

static int prune(struct sqlite_conn *c, enum sql which, int64_t bound_us, size_t limit)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, which);

	if (!st)
		return c->failed;
	bind_int(st, 1, bound_us);
	bind_int(st, 2, (int64_t)limit);
	return conn_step(c, st);
}

int sqlite_prune(struct sqlite_conn *c, struct store_req *req)
{
	struct store_prune *r = container_of(req, struct store_prune, req);
	int rc = prune(c, SQL_PRUNE_TASKS, r->before_us, r->limit);

	if (rc < 0)
		return rc;
	/* The rows of other tables that go with a task are not counted. */
	r->n = (size_t)sqlite3_changes64(c->db);
	return prune(c, SQL_PRUNE_KEYED, r->now_us, r->limit);
}
