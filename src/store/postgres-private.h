/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Inside the PostgreSQL store: libpq on the loop, no thread.
 *
 * Requests wait in one lane for each kind of work. A connection that is free takes what waits in
 * its lane as one batch, sends it as one pipeline with one sync at its end, and hands the batch
 * back when the sync is answered: between two syncs the server makes one transaction, so what
 * arrives together shares a commit. Where a statement fails, all of its batch is rolled back and
 * repeated request by request, so that only what fails by itself is told so.
 *
 * A verb is one statement, or two where the row must be locked first so that the second sees it as
 * it is. What a task came to is decided by the server alone; "again" requests, whose first try may
 * have been committed on a connection that was lost, recognise their own work and count it.
 */

#include "base/buf.h"
#include "loop/backoff.h"
#include "store/postgres_days.h"
#include "store/store-private.h"

#include <libpq-fe.h>
#include <netdb.h>

/* ---- where the server is (postgres_target.c) ---- */

enum { PG_TARGETS_MAX = 16, PG_TEXT_MAX = 256 };

/* One address to try. host is empty where the URL gave an address only. */
struct pg_target {
	char host[PG_TEXT_MAX];
	char addr[64]; /* empty: a socket's folder is in host */
	char port[8];
};

struct pg_url {
	PQconninfoOption *options; /* of the URL, with the environment's and libpq's defaults */
	char shown[PG_TEXT_MAX];   /* "host:port/database", for messages: never the password */
};

int pg_url_parse(const char *url, struct pg_url *ret_url, struct err *e);
void pg_url_fini(struct pg_url *u);
const char *pg_url_get(const struct pg_url *u, const char *keyword); /* NULL where not given */

/* The hosts of the URL, each with its port, not resolved yet. Gives how many. */
int pg_url_hosts(const struct pg_url *u, struct pg_target hosts[static PG_TARGETS_MAX],
		 struct err *e);

/* Adds the addresses of one host. */
void pg_targets_add(struct pg_target *targets, size_t *n, const struct pg_target *host,
		    const struct addrinfo *found);

/* True where the name needs no resolver: it is an address or a folder. */
bool pg_target_is_numeric(const struct pg_target *host);

/* Starts to connect. NULL when memory is gone. */
PGconn *pg_connect_start(const struct pg_url *u, const struct pg_target *t);

/* The server's own words in one line, without the trailing newline. */
void pg_reason(const PGconn *pg, char *dst, size_t size);

/* ---- the schema (postgres_schema.c); blocking, for start-up ---- */

enum pg_setup { PG_CHECK, PG_MIGRATE };

/* PG_CHECK refuses a schema that is absent or does not fit; PG_MIGRATE is store_migrate. */
int pg_schema_setup(const struct pg_url *u, enum pg_setup what, int *ret_from, int *ret_to,
		    struct err *e);

/* ---- values (postgres_value.c) ---- */

#define PG_DAY_US INT64_C(86400000000)

enum { PG_PARAMS_MAX = 16, PG_ARRAYS_MAX = 4, PG_PACKED_MAX = 64 * 1024 * 1024 };

/* Parameters of one statement, in binary form. What is given by pointer must live until it is
 * sent. */
struct pg_params {
	int n;
	const char *values[PG_PARAMS_MAX];
	int lengths[PG_PARAMS_MAX];
	char numbers[PG_PARAMS_MAX][8];
	struct uuid ids[2];		/* for verbs that make some */
	struct buf head, whole, packed; /* for packing, kept between requests */
	struct buf arrays[PG_ARRAYS_MAX];
	int n_arrays;
};

void pg_params_init(struct pg_params *p);
void pg_params_fini(struct pg_params *p);
void pg_params_clear(struct pg_params *p); /* keeps what was packed */

void pg_add_i64(struct pg_params *p, int64_t value);
void pg_add_i32(struct pg_params *p, int32_t value);
void pg_add_i16(struct pg_params *p, int16_t value);
void pg_add_bool(struct pg_params *p, bool value);
void pg_add_text(struct pg_params *p, const char *text); /* NULL adds NULL */
void pg_add_bytes(struct pg_params *p, const void *bytes, size_t len);
void pg_add_null(struct pg_params *p);
void pg_add_id(struct pg_params *p, const struct uuid *id);
/* Arrays: begun with the number of elements, each appended, then added as a parameter; which gives
 * -ENOMEM where one of these had no memory. */
struct buf *pg_array_begin(struct pg_params *p, Oid type, size_t n);
void pg_array_append(struct buf *array, const void *bytes, size_t len);
int pg_add_array(struct pg_params *p, const struct buf *array);
int pg_add_ids(struct pg_params *p, const struct uuid *ids, size_t n);
int pg_add_i64s(struct pg_params *p, const uint64_t *numbers, size_t n);

/* Packs, compresses what is big, and adds two parameters: the head, NULL where the whole is small
 * enough to be read in its place, and the whole. A result may be NULL, and adds two NULLs. */
int pg_add_spec(struct pg_params *p, const struct task_spec *spec);
int pg_add_result(struct pg_params *p, const struct task_result *result);
/* One parameter: the whole of a result that has an error only. */
int pg_add_failure(struct pg_params *p, const char *code, const char *message);

/* Columns of a result in binary form; NULL and one of another size is -EIO, for pg_number 0. */
bool pg_null(const PGresult *res, int row, int col);
int64_t pg_number(const PGresult *res, int row, int col);
int pg_id(const PGresult *res, int row, int col, struct uuid *ret_id);
int pg_state(const PGresult *res, int row, int col, enum task_state *ret_state);
int pg_spec(const PGresult *res, int row, int col, bool contents, struct task_spec *ret_spec);
int pg_result(const PGresult *res, int row, int col, bool outputs, struct task_result **ret_result);
int pg_text(const PGresult *res, int row, int col, char *dst, size_t size);
/* All rows: id, class, language, tenant, state; then, where there are more columns, traceparent,
 * queued, and whether it is in the outbox. *ret_tickets stays NULL where there are none. */
int pg_ticket(const PGresult *res, int row, struct store_ticket *t);
int pg_tickets(const PGresult *res, struct store_ticket **ret_tickets, size_t *ret_n);

/* ---- statements (postgres_sql.c) and verbs ---- */

enum pg_lane { PG_WRITE, PG_READ, PG_UPKEEP, _PG_LANE_MAX };

enum pg_sql {
	PG_SQL_LOCK,
	PG_SQL_INSERT,
	PG_SQL_INSERT_KEYED,
	PG_SQL_CLAIM,
	PG_SQL_RENEW,
	PG_SQL_FINISH,
	PG_SQL_FINISH_CLAIM,
	PG_SQL_RELEASE,
	PG_SQL_CANCEL,
	PG_SQL_KEY_ADD,
	PG_SQL_KEY_REVOKE,
	PG_SQL_KEY_FORGET,
	PG_SQL_KEY_LIST,
	PG_SQL_TENANT_SET,
	PG_SQL_TENANT_LIST,
	PG_SQL_COUNT_QUEUED,
	PG_SQL_GET,
	PG_SQL_SCAN,
	PG_SQL_SWEEP,
	PG_SQL_PRUNE,
	PG_SQL_OUTBOX_TAKE,
	PG_SQL_OUTBOX_DONE,
	PG_SQL_OUTBOX_PUT,
	PG_SQL_OUTBOX_COUNT,
	PG_SQL_LIVE,
	_PG_SQL_MAX,
	PG_SQL_NONE = _PG_SQL_MAX
};

struct pg_statement {
	const char *name;
	const char *text;
	const Oid *types; /* ends with 0 */
	unsigned lanes;	  /* bit set of enum pg_lane: where it is prepared */
};

extern const struct pg_statement pg_statements[_PG_SQL_MAX];

/* Every move that a statement makes is one of the task's state machine; -EINVAL where not. */
int pg_check_moves(void);

struct pg_verb {
	enum pg_lane lane;
	/* The row that is to be locked first; NULL, or gives NULL: none. */
	const struct uuid *(*row)(struct store_req *req);
	/* Fills the parameters and chooses a prepared statement, or PG_SQL_NONE and *ret_text,
	 * which is the verb's to keep until it is sent. */
	int (*bind)(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		    const char **ret_text);
	/* Takes the answer. Gives the request's code. */
	int (*read)(struct store_req *req, const PGresult *res);
	/* Frees "out" pointers again, for a batch that was rolled back; may be NULL. */
	void (*drop)(struct store_req *req);
};

/* One of our own, behind those of the interface: a step of housekeeping. */
enum { PG_VERB_DAYS = _STORE_VERB_MAX, _PG_VERB_MAX };

extern const struct pg_verb *const pg_verbs[_PG_VERB_MAX];

extern const struct pg_verb pg_verb_insert, pg_verb_claim, pg_verb_renew, pg_verb_finish,
	pg_verb_release, pg_verb_cancel_task, pg_verb_sweep, pg_verb_prune;
extern const struct pg_verb pg_verb_get, pg_verb_list, pg_verb_scan, pg_verb_key_add,
	pg_verb_key_revoke, pg_verb_key_forget, pg_verb_key_list, pg_verb_probe;
extern const struct pg_verb pg_verb_tenant_set, pg_verb_tenant_list, pg_verb_count_queued;
extern const struct pg_verb pg_verb_outbox_take, pg_verb_outbox_done, pg_verb_outbox_put,
	pg_verb_outbox_count, pg_verb_live, pg_verb_days;

/* What an SQLSTATE means to callers. */
int pg_code(const char *sqlstate);

/* ---- one connection (postgres_conn.c) ---- */

enum pg_conn_state {
	PG_CONN_RESOLVING, /* these two: since it was lost or is new, no try has failed */
	PG_CONN_CONNECTING,
	PG_CONN_READY, /* and free, or with a batch in flight */
	PG_CONN_DOWN,  /* all addresses were tried in vain */
	PG_CONN_CLOSED
};

struct pg_store;
struct pg_watch;

struct pg_conn {
	struct pg_store *store;
	enum pg_lane lane;
	enum pg_conn_state state;
	bool failed; /* a round of tries has failed since it was last ready */
	PGconn *pg;
	struct pg_watch *watch;
	uv_timer_t timer; /* a try, the answer to a batch, or the wait before the next round */
	uv_getaddrinfo_t resolve;
	bool resolving;
	struct backoff backoff;
	struct pg_target hosts[PG_TARGETS_MAX], targets[PG_TARGETS_MAX];
	size_t n_hosts, next_host, n_targets, next_target;
	/* The batch in flight: answers come in this order, step by step of the current request's
	 * statements, and the sync's at the end. */
	struct list batch;
	struct store_req *current;
	int step;
	bool busy;	  /* until the sync is answered */
	int64_t asked_us; /* monotonic: when that began */
	bool greeting;	  /* what is in flight makes a session; the batch is empty */
	bool answered;	  /* the current statement's answer came, its end not yet */
	int error;	  /* of the batch */
	char sqlstate[6];
	char reason[PG_TEXT_MAX];
	struct pg_params params;
};

int pg_conn_init(struct pg_conn *c, struct pg_store *s, enum pg_lane lane);
void pg_conn_connect(struct pg_conn *c);
bool pg_conn_is_free(const struct pg_conn *c);

/* Takes what waits in its lane, as much as makes a batch, and sends it. c is free. */
void pg_conn_work(struct pg_conn *c);

/* Ends the connection and its handles; the store hears of each by pg_handle_closed. */
void pg_conn_close(struct pg_conn *c);

/* ---- the store (postgres.c) ---- */

enum { PG_WRITERS = 2, PG_CONNS = PG_WRITERS + 2 };

struct pg_store {
	struct store base;
	uv_loop_t *loop;
	struct pg_url url;
	struct deferred flush;
	struct list waiting[_PG_LANE_MAX];
	struct list singly[_PG_LANE_MAX]; /* of a batch that failed: to be repeated one by one */
	size_t n_unfinished;		  /* waiting or in flight */
	struct pg_conn conns[PG_CONNS];
	struct pg_days days;
	struct err trouble; /* why the last try to connect failed */
	int64_t clock_us;   /* the database's at the monotonic time 0; 0: not known yet */
	size_t open_handles;
	bool ending, ended;
};

/* The next request for a lane, for a batch of n so far; NULL where none waits. alone: nothing may
 * be sent with it. */
struct store_req *pg_take(struct pg_store *s, enum pg_lane lane, int n, bool *ret_alone);

/* A request that was taken came to its end with the code in it. */
void pg_done(struct pg_store *s, struct store_req *req);

/* How a batch ended: all of it with the codes in it (0); rolled back, by the error of a statement
 * (its code); or nobody knows (-ENOTCONN). */
void pg_batch_done(struct pg_conn *c, struct list *batch, int error);

void pg_learn_clock(struct pg_store *s, int64_t now_us); /* the database's, just now */
#define PG_CLOCK "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

void pg_conn_changed(struct pg_conn *c);
void pg_handle_closed(struct pg_store *s);
void pg_submit(struct store *base, struct store_req *req);
