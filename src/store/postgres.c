/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "base/clock.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <errno.h>
#include <string.h>

/*
 * Two connections write, so that one sends while the other waits for the disk; one reads, and never
 * waits for a write; one keeps house, whose statements may take long.
 */

enum {
	WAITING_MAX = 20000, /* requests; more are refused: the server does not keep up */
	SILENT_MS = 5000,    /* whoever owes an answer for so long cannot be counted on */
	AGAIN_MAX = 3,	     /* times that a request may lose its connection */
};

const struct pg_verb *const pg_verbs[_PG_VERB_MAX] = {
	[STORE_VERB_INSERT] = &pg_verb_insert,
	[STORE_VERB_GET] = &pg_verb_get,
	[STORE_VERB_LIST] = &pg_verb_list,
	[STORE_VERB_CLAIM] = &pg_verb_claim,
	[STORE_VERB_RENEW] = &pg_verb_renew,
	[STORE_VERB_FINISH] = &pg_verb_finish,
	[STORE_VERB_RELEASE] = &pg_verb_release,
	[STORE_VERB_CANCEL_TASK] = &pg_verb_cancel_task,
	[STORE_VERB_SWEEP] = &pg_verb_sweep,
	[STORE_VERB_SCAN] = &pg_verb_scan,
	[STORE_VERB_PRUNE] = &pg_verb_prune,
	[STORE_VERB_OUTBOX_TAKE] = &pg_verb_outbox_take,
	[STORE_VERB_OUTBOX_DONE] = &pg_verb_outbox_done,
	[STORE_VERB_OUTBOX_PUT] = &pg_verb_outbox_put,
	[STORE_VERB_OUTBOX_COUNT] = &pg_verb_outbox_count,
	[STORE_VERB_LIVE] = &pg_verb_live,
	[STORE_VERB_KEY_ADD] = &pg_verb_key_add,
	[STORE_VERB_KEY_REVOKE] = &pg_verb_key_revoke,
	[STORE_VERB_KEY_FORGET] = &pg_verb_key_forget,
	[STORE_VERB_KEY_LIST] = &pg_verb_key_list,
	[STORE_VERB_TENANT_SET] = &pg_verb_tenant_set,
	[STORE_VERB_TENANT_LIST] = &pg_verb_tenant_list,
	[STORE_VERB_COUNT_QUEUED] = &pg_verb_count_queued,
	[STORE_VERB_PROBE] = &pg_verb_probe,
	[PG_VERB_DAYS] = &pg_verb_days,
};

static struct pg_store *of(struct store *base)
{
	return container_of(base, struct pg_store, base);
}

/* ---- lanes ---- */

static enum pg_lane lane_of(const struct store_req *req)
{
	return pg_verbs[req->verb]->lane;
}

/* Nothing can be hoped for soon: none of its connections is there or in its first try. */
static bool lane_is_down(const struct pg_store *s, enum pg_lane lane)
{
	for (size_t i = 0; i < PG_CONNS; i++)
		if (s->conns[i].lane == lane && !s->conns[i].failed)
			return false;
	return true;
}

/* All that could be asked have been owing an answer for long. */
static bool lane_is_silent(const struct pg_store *s, enum pg_lane lane)
{
	int64_t since_us = clock_monotonic_us() - SILENT_MS * INT64_C(1000);

	for (size_t i = 0; i < PG_CONNS; i++) {
		const struct pg_conn *c = &s->conns[i];

		if (c->lane == lane && !c->failed && !(c->busy && c->asked_us < since_us))
			return false;
	}
	return true;
}

struct store_req *pg_take(struct pg_store *s, enum pg_lane lane, int n, bool *ret_alone)
{
	struct store_req *req = LIST_FIRST(&s->singly[lane], struct store_req, work.link);

	if (req && n > 0)
		return NULL;
	*ret_alone = req || lane == PG_UPKEEP;
	if (!req)
		req = LIST_FIRST(&s->waiting[lane], struct store_req, work.link);
	if (!req)
		return NULL;
	list_unlink(&req->work.link);
	return req;
}

void pg_done(struct pg_store *s, struct store_req *req)
{
	s->n_unfinished--;
	store_done(&s->base, req);
}

static void fail_lane(struct pg_store *s, enum pg_lane lane)
{
	struct list failed;
	struct store_req *req;

	list_init(&failed);
	list_move_all(&failed, &s->singly[lane]);
	list_move_all(&failed, &s->waiting[lane]);
	while ((req = LIST_FIRST(&failed, struct store_req, work.link))) {
		list_unlink(&req->work.link);
		req->code = atomic_load(&req->cancelled) && !req->again ? -ECANCELED : -EAGAIN;
		pg_done(s, req);
	}
}

static void end_if_finished(struct pg_store *s);

/* Gives what waits to whoever is free. */
static void work(struct pg_store *s)
{
	for (size_t i = 0; i < PG_CONNS; i++) {
		struct pg_conn *c = &s->conns[i];

		if (!pg_conn_is_free(c))
			continue;
		if (!list_empty(&s->singly[c->lane]) || !list_empty(&s->waiting[c->lane]))
			pg_conn_work(c);
	}
	for (enum pg_lane lane = 0; lane < _PG_LANE_MAX; lane++)
		if (lane_is_down(s, lane))
			fail_lane(s, lane);
	end_if_finished(s);
}

static void on_flush(struct deferred *d)
{
	work(container_of(d, struct pg_store, flush));
}

static void on_full(struct deferred *d)
{
	struct store_req *req = container_of(d, struct store_req, deferred);

	store_done(req->store, req);
}

void pg_submit(struct store *base, struct store_req *req)
{
	struct pg_store *s = of(base);

	if (s->n_unfinished >= WAITING_MAX) {
		req->code = -EAGAIN;
		req->deferred.call = on_full;
		defer_call(base->defer, &req->deferred);
		return;
	}
	s->n_unfinished++;
	list_push_back(&s->waiting[lane_of(req)], &req->work.link);
	defer_call(base->defer, &s->flush);
}

/* ---- what connections tell ---- */

/* Before anything is repeated, and in front of what came later. */
static void repeat(struct pg_store *s, enum pg_lane lane, struct list *batch)
{
	list_move_all(batch, &s->singly[lane]);
	list_move_all(&s->singly[lane], batch);
}

static void drop(struct store_req *req)
{
	if (pg_verbs[req->verb]->drop)
		pg_verbs[req->verb]->drop(req);
}

static void batch_unknown(struct pg_store *s, enum pg_lane lane, struct list *batch)
{
	struct store_req *req, *next;

	LIST_FOREACH_SAFE (req, next, batch, work.link) {
		drop(req);
		if (++req->again <= AGAIN_MAX)
			continue;
		list_unlink(&req->work.link);
		req->code = -EAGAIN;
		pg_done(s, req);
	}
	repeat(s, lane, batch);
}

void pg_batch_done(struct pg_conn *c, struct list *batch, int error)
{
	struct pg_store *s = c->store;
	bool single = !list_empty(batch) && batch->next->next == batch;
	struct store_req *req;

	if (error == -ENOTCONN) {
		batch_unknown(s, c->lane, batch);
	} else if (error && !single) {
		LIST_FOREACH (req, batch, work.link)
			drop(req);
		repeat(s, c->lane, batch);
	}
	if (error == 0 && c->lane == PG_WRITE && !list_empty(batch))
		metric_add(METRIC_STORE_COMMITS, 1);
	if (str_eq(c->sqlstate, "23514"))
		pg_days_make(&s->days);
	c->sqlstate[0] = '\0';
	while ((req = LIST_FIRST(batch, struct store_req, work.link))) {
		list_unlink(&req->work.link);
		if (error) {
			drop(req);
			req->code = error;
		}
		pg_done(s, req);
	}
	work(s);
}

void pg_conn_changed(struct pg_conn *c)
{
	work(c->store);
}

/* ---- life ---- */

static void free_store(struct pg_store *s)
{
	pg_url_fini(&s->url);
	free(s);
}

static const enum pg_lane lanes[PG_CONNS] = {PG_WRITE, PG_WRITE, PG_READ, PG_UPKEEP};

static int pg_open(uv_loop_t *loop, const struct store_config *cfg, const char *rest,
		   struct store **ret_store, struct err *e)
{
	struct pg_store *s;
	int r, n_hosts = 0;

	(void)rest;
	if (pg_check_moves() < 0)
		return err_set(e, -EINVAL, "the store makes moves that tasks do not make");
	s = calloc(1, sizeof *s);
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	r = pg_url_parse(cfg->url, &s->url, e);
	if (r >= 0)
		r = n_hosts = pg_url_hosts(&s->url, s->conns[0].hosts, e);
	if (r >= 0)
		r = pg_schema_setup(&s->url, PG_CHECK, NULL, NULL, e);
	if (r < 0) {
		free_store(s);
		return r;
	}
	s->loop = loop;
	for (enum pg_lane lane = 0; lane < _PG_LANE_MAX; lane++) {
		list_init(&s->waiting[lane]);
		list_init(&s->singly[lane]);
	}
	list_init(&s->flush.link);
	s->flush.call = on_flush;
	for (size_t i = 0; i < PG_CONNS; i++) {
		struct pg_conn *c = &s->conns[i];

		memcpy(c->hosts, s->conns[0].hosts, sizeof c->hosts);
		c->n_hosts = (size_t)n_hosts;
		(void)pg_conn_init(c, s, lanes[i]);
	}
	pg_days_init(&s->days, s);
	for (size_t i = 0; i < PG_CONNS; i++)
		pg_conn_connect(&s->conns[i]);
	*ret_store = &s->base;
	return 0;
}

static int pg_health(struct store *base, struct err *e)
{
	const struct pg_store *s = of(base);

	for (enum pg_lane lane = 0; lane < _PG_LANE_MAX; lane++)
		if (lane_is_down(s, lane))
			return err_set(e, -EAGAIN, "%s", s->trouble.msg);
	/* Upkeep has statements that take long, and nobody waits for it. */
	for (enum pg_lane lane = 0; lane < PG_UPKEEP; lane++)
		if (lane_is_silent(s, lane))
			return err_set(e, -EAGAIN, "PostgreSQL at %s: no answer for %d s and more",
				       s->url.shown, SILENT_MS / 1000);
	return 0;
}

/* In between, this host's time is good enough: it is asked for every second. */
void pg_learn_clock(struct pg_store *s, int64_t now_us)
{
	s->clock_us = now_us - clock_monotonic_us();
}

static int64_t pg_now_us(struct store *base)
{
	const struct pg_store *s = of(base);

	return s->clock_us ? s->clock_us + clock_monotonic_us() : clock_wall_us();
}

static int pg_migrate(const char *url, int *ret_from, int *ret_to, struct err *e)
{
	struct pg_url u;
	int r = pg_url_parse(url, &u, e);

	if (r < 0)
		return r;
	r = pg_schema_setup(&u, PG_MIGRATE, ret_from, ret_to, e);
	pg_url_fini(&u);
	return r;
}

void pg_handle_closed(struct pg_store *s)
{
	if (--s->open_handles)
		return;
	pg_url_fini(&s->url);
	store_closed(&s->base);
}

static void end_if_finished(struct pg_store *s)
{
	if (!s->ending || s->n_unfinished || s->ended)
		return;
	s->ended = true;
	defer_cancel(&s->flush);
	for (size_t i = 0; i < PG_CONNS; i++)
		pg_conn_close(&s->conns[i]);
	pg_days_close(&s->days);
}

static void pg_close(struct store *base)
{
	struct pg_store *s = of(base);

	s->ending = true;
	/* Not from in here: callbacks may come. */
	defer_call(base->defer, &s->flush);
}

const struct store_ops store_postgres_ops = {
	.scheme = "postgresql",
	.has_outbox = true,
	.open = pg_open,
	.submit = pg_submit,
	.close = pg_close,
	.health = pg_health,
	.now_us = pg_now_us,
	.migrate = pg_migrate,
};
