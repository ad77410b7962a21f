/* SPDX-License-Identifier: Apache-2.0 */
#include "store/sqlite-private.h"

#include "observe/metrics.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/*
 * Two threads, each with a connection of its own. The writer takes everything that waits as one
 * transaction: that is the group commit. The reader never waits for a commit, and sees what was
 * committed before its request was made, since a write's done comes after its commit.
 */

/* Without requests for this long, a thread gives memory back, and the writer empties the log. */
enum { IDLE_MS = 1000 };

struct sqlite_store;

struct side {
	struct sqlite_store *store;
	struct worker *worker;
	struct sqlite_conn conn;
};

struct sqlite_store {
	struct store base;
	char *path;
	int64_t busy_ms;
	struct side writer, reader;
	int open_sides;
	atomic_uint commits; /* made by the writer, and not yet counted on the loop */
};

static const struct sqlite_verb verbs[_STORE_VERB_MAX] = {
	[STORE_VERB_INSERT] = {.run = sqlite_insert},
	[STORE_VERB_GET] = {.run = sqlite_get, .reads = true},
	[STORE_VERB_LIST] = {.run = sqlite_list, .reads = true},
	[STORE_VERB_CLAIM] = {.run = sqlite_claim},
	[STORE_VERB_RENEW] = {.run = sqlite_renew, .drop = sqlite_drop_renew},
	[STORE_VERB_FINISH] = {.run = sqlite_finish},
	[STORE_VERB_RELEASE] = {.run = sqlite_release},
	[STORE_VERB_CANCEL_TASK] = {.run = sqlite_cancel_task},
	[STORE_VERB_SWEEP] = {.run = sqlite_sweep, .drop = sqlite_drop_sweep},
	[STORE_VERB_SCAN] = {.run = sqlite_scan, .reads = true},
	[STORE_VERB_PRUNE] = {.run = sqlite_prune},
	[STORE_VERB_KEY_ADD] = {.run = sqlite_key_add},
	[STORE_VERB_KEY_REVOKE] = {.run = sqlite_key_revoke},
	[STORE_VERB_KEY_FORGET] = {.run = sqlite_key_forget},
	[STORE_VERB_KEY_LIST] = {.run = sqlite_key_list, .reads = true},
	[STORE_VERB_TENANT_SET] = {.run = sqlite_tenant_set},
	[STORE_VERB_TENANT_LIST] = {.run = sqlite_tenant_list, .reads = true},
	[STORE_VERB_COUNT_QUEUED] = {.run = sqlite_count_queued, .reads = true},
	[STORE_VERB_PROBE] = {.run = sqlite_probe},
};

static void run(struct sqlite_conn *c, struct store_req *req)
{
	const struct sqlite_verb *verb = &verbs[req->verb];

	if (atomic_load(&req->cancelled)) {
		req->code = -ECANCELED;
		return;
	}
	req->code = verb->run(c, req);
	if (req->code < 0 && verb->drop)
		verb->drop(req);
}

/* ---- the writer's thread ---- */

static int step_once(struct sqlite_conn *c, enum sql which)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, which);

	return st ? conn_step(c, st) : c->failed;
}

/* Nothing of the batch has happened: says so to all of it. */
static void fail_batch(struct list *batch, int code)
{
	struct store_req *req;

	LIST_FOREACH (req, batch, work.link) {
		if (req->code == -ECANCELED)
			continue;
		if (verbs[req->verb].drop)
			verbs[req->verb].drop(req);
		req->code = code;
	}
}

static void write_batch(void *ctx, struct list *batch)
{
	struct side *side = ctx;
	struct sqlite_conn *c = &side->conn;
	struct store_req *req;

	c->failed = 0;
	if (step_once(c, SQL_BEGIN) == 0) {
		LIST_FOREACH (req, batch, work.link) {
			run(c, req);
			if (c->failed)
				break;
		}
		if (!c->failed)
			(void)step_once(c, SQL_COMMIT);
	}
	if (!c->failed) {
		(void)atomic_fetch_add(&side->store->commits, 1);
		return;
	}
	/* Some failures have ended the transaction by themselves. */
	if (!sqlite3_get_autocommit(c->db))
		(void)step_once(c, SQL_ROLLBACK);
	fail_batch(batch, c->failed);
}

static int start_writer(void *ctx, struct err *e)
{
	struct side *side = ctx;

	return sqlite_open_writer(&side->conn, side->store->path, side->store->busy_ms, e);
}

/* In a quiet moment the log is written back into the database, so that this seldom has to be done
 * while somebody waits. */
static void writer_idle(void *ctx)
{
	struct side *side = ctx;

	(void)sqlite3_wal_checkpoint_v2(side->conn.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	sqlite_conn_shrink(&side->conn);
}

/* ---- the reader's thread ---- */

static void read_batch(void *ctx, struct list *batch)
{
	struct side *side = ctx;
	struct store_req *req;

	LIST_FOREACH (req, batch, work.link) {
		side->conn.failed = 0;
		run(&side->conn, req);
	}
}

static int start_reader(void *ctx, struct err *e)
{
	struct side *side = ctx;

	return sqlite_open_reader(&side->conn, side->store->path, side->store->busy_ms, e);
}

static void reader_idle(void *ctx)
{
	struct side *side = ctx;

	sqlite_conn_shrink(&side->conn);
}

/* ---- both ---- */

static void stop_side(void *ctx)
{
	struct side *side = ctx;

	sqlite_conn_close(&side->conn);
}

static void on_done(void *ctx, struct work *w)
{
	struct side *side = ctx;
	unsigned commits = atomic_exchange(&side->store->commits, 0);

	if (commits)
		metric_add(METRIC_STORE_COMMITS, commits);
	store_done(&side->store->base, container_of(w, struct store_req, work));
}

static const struct worker_ops writer_ops = {
	.start = start_writer,
	.batch = write_batch,
	.stop = stop_side,
	.done = on_done,
	.idle = writer_idle,
	.idle_ms = IDLE_MS,
};

static const struct worker_ops reader_ops = {
	.start = start_reader,
	.batch = read_batch,
	.stop = stop_side,
	.done = on_done,
	.idle = reader_idle,
	.idle_ms = IDLE_MS,
};

static void free_store(struct sqlite_store *s)
{
	free(s->path);
	free(s);
}

/* SQLite gives a meaning to some names (":memory:", "file:..."); a path is always a path here. */
static char *make_path(const char *rest)
{
	char *path = NULL;

	return asprintf(&path, "%s%s", *rest == '/' ? "" : "./", rest) < 0 ? NULL : path;
}

static int sqlite_open(uv_loop_t *loop, const struct store_config *cfg, const char *rest,
		       struct store **ret_store, struct err *e)
{
	struct sqlite_store *s;
	int r;

	if (!*rest)
		return err_set(e, -EINVAL, "\"%s\" names no file", cfg->url);
	s = calloc(1, sizeof *s);
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->path = make_path(rest);
	s->busy_ms = cfg->busy_timeout_ms;
	s->writer.store = s->reader.store = s;
	r = s->path ? 0 : err_set(e, -ENOMEM, "out of memory");
	if (r >= 0)
		r = worker_new(loop, "store-writer", &writer_ops, &s->writer, &s->writer.worker, e);
	if (r < 0) {
		free_store(s);
		return r;
	}
	/* Second: it reads what the writer has made. */
	r = worker_new(loop, "store-reader", &reader_ops, &s->reader, &s->reader.worker, e);
	if (r < 0) {
		worker_close(s->writer.worker, NULL);
		free_store(s);
		return r;
	}
	s->open_sides = 2;
	*ret_store = &s->base;
	return 0;
}

static void sqlite_submit(struct store *base, struct store_req *req)
{
	struct sqlite_store *s = container_of(base, struct sqlite_store, base);
	struct side *side = verbs[req->verb].reads ? &s->reader : &s->writer;

	worker_submit(side->worker, &req->work);
}

static void on_side_freed(void *ctx)
{
	struct side *side = ctx;
	struct sqlite_store *s = side->store;

	if (--s->open_sides)
		return;
	free(s->path);
	store_closed(&s->base);
}

static void sqlite_close(struct store *base)
{
	struct sqlite_store *s = container_of(base, struct sqlite_store, base);

	/* The reader first: who closes the database last writes the log back, and must be allowed
	 * to write. */
	worker_close(s->reader.worker, on_side_freed);
	worker_close(s->writer.worker, on_side_freed);
}

const struct store_ops store_sqlite_ops = {
	.scheme = "sqlite",
	.open = sqlite_open,
	.submit = sqlite_submit,
	.close = sqlite_close,
};
