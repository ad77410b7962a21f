/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <string.h>

/*
 * One connection: connecting, one batch after the other, and connecting again when it was lost.
 * Addresses are tried one at a time, since libpq's asynchronous connect knows no time-out; names
 * are resolved anew for every round, since servers move.
 */

enum { TYPE_INT8 = 20 }; /* of pg_type */

enum {
	TRY_MS = 5000,	   /* for one address, until the session is made */
	ANSWER_MS = 15000, /* a server that says nothing for so long is taken for lost */
	BACKOFF_MIN_MS = 50,
	BACKOFF_MAX_MS = 1000,
	BATCH_MAX = 128,
	BATCH_BYTES_MAX = 4 * 1024 * 1024,
};

struct pg_watch {
	uv_poll_t poll;
	struct pg_conn *conn; /* NULL: no longer watched */
	int fd;
};

static void on_ready(uv_poll_t *poll, int status, int events);
static void on_timer(uv_timer_t *timer);
static void try_next(struct pg_conn *c);

/* ---- the socket ---- */

static void on_watch_closed(uv_handle_t *handle)
{
	free(container_of(handle, struct pg_watch, poll));
}

static void unwatch(struct pg_conn *c)
{
	struct pg_watch *w = c->watch;

	if (!w)
		return;
	c->watch = NULL;
	w->conn = NULL;
	uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

/* libpq may have changed the socket, even for one of the same number: a watch is never kept over a
 * step of connecting. */
static int watch(struct pg_conn *c, int events)
{
	struct pg_watch *w = c->watch;

	if (!w) {
		w = calloc(1, sizeof *w);
		if (!w)
			return -ENOMEM;
		w->fd = PQsocket(c->pg);
		w->conn = c;
		if (uv_poll_init(c->store->loop, &w->poll, w->fd) < 0) {
			free(w);
			return -EBADF;
		}
		c->watch = w;
	}
	return uv_poll_start(&w->poll, events, on_ready);
}

static void set_timer(struct pg_conn *c, uint64_t ms)
{
	(void)uv_timer_start(&c->timer, on_timer, ms, 0);
}

static void disconnect(struct pg_conn *c)
{
	unwatch(c);
	(void)uv_timer_stop(&c->timer);
	PQfinish(c->pg);
	c->pg = NULL;
	c->busy = c->greeting = c->answered = false;
}

/* ---- losing it ---- */

static void note_trouble(struct pg_conn *c, const char *reason)
{
	char text[ERR_MSG_MAX];

	if (!reason) {
		pg_reason(c->pg, text, sizeof text);
		reason = text;
	}
	(void)err_set(&c->store->trouble, -EAGAIN, "PostgreSQL at %s: %.300s", c->store->url.shown,
		      reason);
}

/* A try has failed: the next address, or a rest. */
static void give_up_try(struct pg_conn *c, const char *reason)
{
	note_trouble(c, reason);
	disconnect(c);
	try_next(c);
}

/* A session has ended. What was in flight may or may not have been done. */
static void lose(struct pg_conn *c, const char *reason)
{
	struct list batch;

	if (c->greeting) {
		give_up_try(c, reason);
		return;
	}
	note_trouble(c, reason);
	disconnect(c);
	/* The greeting's answers are counted by the same steps, and belong to no request. */
	c->current = NULL;
	c->step = 0;
	list_init(&batch);
	list_move_all(&batch, &c->batch);
	pg_conn_connect(c);
	pg_batch_done(c, &batch, -ENOTCONN);
}

/* ---- connecting ---- */

static void round_failed(struct pg_conn *c)
{
	c->state = PG_CONN_DOWN;
	c->failed = true;
	set_timer(c, backoff_next_ms(&c->backoff));
	pg_conn_changed(c);
}

static void step_connect(struct pg_conn *c, PostgresPollingStatusType status);

static void try_next(struct pg_conn *c)
{
	while (c->next_target < c->n_targets) {
		c->pg = pg_connect_start(&c->store->url, &c->targets[c->next_target++]);
		if (c->pg && PQstatus(c->pg) != CONNECTION_BAD) {
			c->state = PG_CONN_CONNECTING;
			set_timer(c, TRY_MS);
			step_connect(c, PGRES_POLLING_WRITING);
			return;
		}
		note_trouble(c, NULL);
		disconnect(c);
	}
	round_failed(c);
}

static void resolve_next(struct pg_conn *c);

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *found)
{
	struct pg_conn *c = container_of(resolve, struct pg_conn, resolve);

	c->resolving = false;
	if (c->state == PG_CONN_CLOSED) {
		uv_freeaddrinfo(found);
		pg_handle_closed(c->store);
		return;
	}
	if (status == 0)
		pg_targets_add(c->targets, &c->n_targets, &c->hosts[c->next_host], found);
	else
		(void)err_set(&c->store->trouble, -EAGAIN, "could not resolve \"%s\": %s",
			      c->hosts[c->next_host].host, uv_strerror(status));
	uv_freeaddrinfo(found);
	c->next_host++;
	resolve_next(c);
}

static void resolve_next(struct pg_conn *c)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};

	for (; c->next_host < c->n_hosts; c->next_host++) {
		const struct pg_target *host = &c->hosts[c->next_host];

		if (pg_target_is_numeric(host)) {
			pg_targets_add(c->targets, &c->n_targets, host, NULL);
			continue;
		}
		if (uv_getaddrinfo(c->store->loop, &c->resolve, on_resolved, host->host, NULL,
				   &hints) == 0) {
			c->resolving = true;
			return;
		}
	}
	c->next_target = 0;
	try_next(c);
}

void pg_conn_connect(struct pg_conn *c)
{
	c->state = PG_CONN_RESOLVING;
	c->next_host = 0;
	c->n_targets = 0;
	resolve_next(c);
}

/* What every session begins with. */
static bool send_greeting(struct pg_conn *c)
{
	static const char *const settings[] = {
		/* Less than ANSWER_MS: the server gives up first, and says so. The URL or the role
		 * may set another one. */
		("SELECT set_config('statement_timeout', '10000', false)"
		 " WHERE current_setting('statement_timeout') = '0'"),
		"SELECT set_config('idle_in_transaction_session_timeout', '20000', false)",
		"SELECT set_config('client_min_messages', 'error', false)",
		/* Planning costs more than any of these statements; and since a plan may be made
		 * while a table is empty, it must not rest on that. */
		"SELECT set_config('plan_cache_mode', 'force_generic_plan', false)",
		"SELECT set_config('enable_seqscan', 'off', false)",
		"SELECT set_config('jit', 'off', false)",
		("SELECT " PG_CLOCK), /* the only one that answers with a number */
	};
	bool ok = PQsetnonblocking(c->pg, 1) == 0 && PQenterPipelineMode(c->pg);

	for (size_t i = 0; i < ARRAY_SIZE(settings) && ok; i++)
		ok = PQsendQueryParams(c->pg, settings[i], 0, NULL, NULL, NULL, NULL, 1);
	for (int i = 0; i < _PG_SQL_MAX && ok; i++) {
		const struct pg_statement *st = &pg_statements[i];
		int n = 0;

		if (!(st->lanes & 1u << c->lane))
			continue;
		while (st->types[n])
			n++;
		ok = PQsendPrepare(c->pg, st->name, st->text, n, st->types);
	}
	return ok && PQpipelineSync(c->pg);
}

static void greet(struct pg_conn *c)
{
	c->busy = c->greeting = true;
	c->asked_us = clock_monotonic_us();
	c->error = 0;
	c->answered = false;
	if (!send_greeting(c) || PQflush(c->pg) < 0 || watch(c, UV_READABLE | UV_WRITABLE) < 0)
		give_up_try(c, NULL);
}

static void step_connect(struct pg_conn *c, PostgresPollingStatusType status)
{
	switch (status) {
	case PGRES_POLLING_READING:
		if (watch(c, UV_READABLE) < 0)
			give_up_try(c, "out of memory");
		return;
	case PGRES_POLLING_WRITING:
		if (watch(c, UV_WRITABLE) < 0)
			give_up_try(c, "out of memory");
		return;
	case PGRES_POLLING_OK:
		greet(c);
		return;
	default:
		give_up_try(c, NULL);
		return;
	}
}

static void greeted(struct pg_conn *c)
{
	c->greeting = false;
	if (c->error) {
		c->greeting = true; /* still a try */
		give_up_try(c, c->reason);
		return;
	}
	(void)uv_timer_stop(&c->timer);
	c->state = PG_CONN_READY;
	c->failed = false;
	backoff_reset(&c->backoff);
	pg_conn_changed(c);
}

/* ---- sending ---- */

/* One statement, from the parameters. */
static bool send_statement(struct pg_conn *c, enum pg_sql sql, const char *text)
{
	static const int binary[PG_PARAMS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
	const struct pg_params *p = &c->params;

	if (sql == PG_SQL_NONE)
		return PQsendQueryParams(c->pg, text, p->n, NULL, p->values, p->lengths, binary, 1);
	return PQsendQueryPrepared(c->pg, pg_statements[sql].name, p->n, p->values, p->lengths,
				   binary, 1);
}

static const struct uuid *locked_row(struct store_req *req)
{
	const struct pg_verb *verb = pg_verbs[req->verb];

	return verb->row ? verb->row(req) : NULL;
}

/* 1 when it was sent, 0 when it came to an end before, with its code set; -EPIPE. */
static int send_request(struct pg_conn *c, struct store_req *req, size_t *bytes)
{
	const struct uuid *row = locked_row(req);
	enum pg_sql sql = PG_SQL_NONE;
	const char *text = NULL;

	if (atomic_load(&req->cancelled) && !req->again) {
		req->code = -ECANCELED;
		return 0;
	}
	pg_params_clear(&c->params);
	req->code = pg_verbs[req->verb]->bind(req, &c->params, &sql, &text);
	if (req->code < 0)
		return 0;
	for (int i = 0; i < c->params.n; i++)
		*bytes += (size_t)c->params.lengths[i];
	if (row) {
		struct pg_params lock = {0};

		pg_add_id(&lock, row);
		if (!PQsendQueryPrepared(c->pg, pg_statements[PG_SQL_LOCK].name, 1, lock.values,
					 lock.lengths, (const int[]){1}, 1))
			return -EPIPE;
	}
	return send_statement(c, sql, text) ? 1 : -EPIPE;
}

/* Gives -EPIPE where the connection broke; what was taken is in the batch then. */
static int send_batch(struct pg_conn *c)
{
	bool alone = false;
	size_t bytes = 0;
	int n = 0, r = 0;

	while (n < BATCH_MAX && bytes < BATCH_BYTES_MAX && !alone && r >= 0) {
		struct store_req *req = pg_take(c->store, c->lane, n, &alone);

		if (!req)
			break;
		r = send_request(c, req, &bytes);
		if (r == 0) {
			pg_done(c->store, req);
			alone = false;
			continue;
		}
		list_push_back(&c->batch, &req->work.link);
		n++;
	}
	if (r >= 0 && n > 0 && (!PQpipelineSync(c->pg) || PQflush(c->pg) < 0))
		r = -EPIPE;
	return r < 0 ? r : n;
}

void pg_conn_work(struct pg_conn *c)
{
	int r;

	c->busy = true; /* nobody else may begin one from a callback in here */
	c->asked_us = clock_monotonic_us();
	c->error = c->step = 0;
	c->answered = false;
	r = send_batch(c);
	if (r == 0) {
		c->busy = false;
		return;
	}
	c->current = LIST_FIRST(&c->batch, struct store_req, work.link);
	if (r < 0 || watch(c, UV_READABLE | UV_WRITABLE) < 0)
		lose(c, NULL);
	else
		set_timer(c, ANSWER_MS);
}

bool pg_conn_is_free(const struct pg_conn *c)
{
	return c->state == PG_CONN_READY && !c->busy;
}

/* ---- answers ---- */

static void take_error(struct pg_conn *c, const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

	if (c->error)
		return;
	(void)str_copy(c->sqlstate, sizeof c->sqlstate, sqlstate ? sqlstate : "");
	c->error = pg_code(c->sqlstate);
	(void)str_copy(c->reason, sizeof c->reason, message ? message : PQresultErrorMessage(res));
}

static void take_answer(struct pg_conn *c, const PGresult *res)
{
	struct store_req *req = c->current;

	if (c->greeting && PQntuples(res) == 1 && PQgetlength(res, 0, 0) == sizeof(int64_t) &&
	    PQftype(res, 0) == TYPE_INT8)
		pg_learn_clock(c->store, pg_number(res, 0, 0));
	if (c->greeting || c->error || !req)
		return;
	if (c->step == 0 && locked_row(req))
		return; /* the lock's */
	req->code = pg_verbs[req->verb]->read(req, res);
}

static void next_statement(struct pg_conn *c)
{
	struct store_req *req = c->current;

	c->answered = false;
	if (!req)
		return;
	if (c->step == 0 && locked_row(req)) {
		c->step = 1;
		return;
	}
	c->step = 0;
	c->current = req->work.link.next == &c->batch
			     ? NULL
			     : container_of(req->work.link.next, struct store_req, work.link);
}

static void end_batch(struct pg_conn *c)
{
	struct list batch;

	c->busy = false;
	(void)uv_timer_stop(&c->timer);
	if (c->greeting) {
		greeted(c);
		return;
	}
	list_init(&batch);
	list_move_all(&batch, &c->batch);
	pg_batch_done(c, &batch, c->error);
}

/* Takes one result; false where there is nothing to take now. */
static bool take_result(struct pg_conn *c)
{
	PGresult *res;

	if (PQisBusy(c->pg))
		return false;
	res = PQgetResult(c->pg);
	if (!res) {
		if (!c->answered)
			return false;
		next_statement(c);
		return true;
	}
	switch (PQresultStatus(res)) {
	case PGRES_PIPELINE_SYNC:
		PQclear(res);
		end_batch(c);
		return c->busy;
	case PGRES_COMMAND_OK:
	case PGRES_TUPLES_OK:
		take_answer(c, res);
		break;
	case PGRES_PIPELINE_ABORTED:
		break;
	default:
		take_error(c, res);
		break;
	}
	c->answered = true;
	PQclear(res);
	return true;
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
	struct pg_watch *w = container_of(poll, struct pg_watch, poll);
	struct pg_conn *c = w->conn;
	int r;

	if (!c)
		return;
	if (c->state == PG_CONN_CONNECTING && !c->greeting) {
		unwatch(c);
		step_connect(c, PQconnectPoll(c->pg));
		return;
	}
	if (status < 0 || ((events & UV_READABLE) && !PQconsumeInput(c->pg))) {
		lose(c, NULL);
		return;
	}
	r = PQflush(c->pg);
	if (r < 0 || watch(c, r ? UV_READABLE | UV_WRITABLE : UV_READABLE) < 0) {
		lose(c, NULL);
		return;
	}
	while (c->watch == w && c->busy && take_result(c))
		;
	if (c->watch == w && PQstatus(c->pg) == CONNECTION_BAD)
		lose(c, NULL);
}

static void on_timer(uv_timer_t *timer)
{
	struct pg_conn *c = container_of(timer, struct pg_conn, timer);

	if (c->state == PG_CONN_DOWN) {
		pg_conn_connect(c);
	} else if (c->state == PG_CONN_READY) {
		c->failed = true; /* nobody is to wait for the next try of such a server */
		lose(c, "no answer within 15 s");
	} else {
		give_up_try(c, "no answer within 5 s");
	}
}

/* ---- life ---- */

int pg_conn_init(struct pg_conn *c, struct pg_store *s, enum pg_lane lane)
{
	c->store = s;
	c->lane = lane;
	list_init(&c->batch);
	pg_params_init(&c->params);
	backoff_init(&c->backoff, BACKOFF_MIN_MS, BACKOFF_MAX_MS);
	return uv_timer_init(s->loop, &c->timer);
}

static void on_timer_closed(uv_handle_t *handle)
{
	pg_handle_closed(container_of(handle, struct pg_conn, timer)->store);
}

void pg_conn_close(struct pg_conn *c)
{
	disconnect(c);
	c->state = PG_CONN_CLOSED;
	pg_params_fini(&c->params);
	if (c->resolving) {
		c->store->open_handles++;
		(void)uv_cancel((uv_req_t *)&c->resolve);
	}
	c->store->open_handles++;
	uv_close((uv_handle_t *)&c->timer, on_timer_closed);
}
