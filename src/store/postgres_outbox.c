/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "store/outbox.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/* Verbs about what became queued, and whether the queue knows it. */

/* Four arrays side by side. */
static int add_rooms(struct pg_params *p, const struct store_room *rooms, size_t n)
{
	enum { INT8_OID = 20, INT2_OID = 21, TEXT_OID = 25 };
	static const Oid types[] = {TEXT_OID, TEXT_OID, INT2_OID, INT8_OID};
	struct buf *arrays[ARRAY_SIZE(types)];
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		arrays[i] = pg_array_begin(p, types[i], n);
	for (size_t i = 0; i < n; i++) {
		const struct store_room *r = &rooms[i];
		uint16_t class = htobe16((uint16_t)r->class);
		uint64_t room = htobe64(r->room);

		pg_array_append(arrays[0], r->tenant, strlen(r->tenant));
		pg_array_append(arrays[1], r->language, strlen(r->language));
		pg_array_append(arrays[2], &class, sizeof class);
		pg_array_append(arrays[3], &room, sizeof room);
	}
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (pg_add_array(p, arrays[i]) < 0)
			rc = -ENOMEM;
	return rc;
}

static int bind_outbox_take(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			    const char **ret_text)
{
	const struct store_outbox_take *r = container_of(req, struct store_outbox_take, req);

	(void)ret_text;
	pg_add_i64(p, r->before_us);
	pg_add_i64(p, r->now_us);
	pg_add_i64(p, (int64_t)r->limit);
	pg_add_i64(p, (int64_t)r->limit_each);
	*ret_sql = PG_SQL_OUTBOX_TAKE;
	return add_rooms(p, r->rooms, r->n_rooms);
}

static int read_outbox_take(struct store_req *req, const PGresult *res)
{
	struct store_outbox_take *r = container_of(req, struct store_outbox_take, req);

	return pg_tickets(res, &r->tickets, &r->n);
}

static void drop_tickets(struct store_ticket **tickets, size_t *n)
{
	free(*tickets);
	*tickets = NULL;
	*n = 0;
}

static void drop_outbox_take(struct store_req *req)
{
	struct store_outbox_take *r = container_of(req, struct store_outbox_take, req);

	drop_tickets(&r->tickets, &r->n);
}

const struct pg_verb pg_verb_outbox_take = {PG_UPKEEP, NULL, bind_outbox_take, read_outbox_take,
					    drop_outbox_take};

static int bind_outbox_done(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			    const char **ret_text)
{
	const struct store_outbox_done *r = container_of(req, struct store_outbox_done, req);

	(void)ret_text;
	*ret_sql = PG_SQL_OUTBOX_DONE;
	return pg_add_ids(p, r->ids, r->n);
}

static int read_outbox_done(struct store_req *req, const PGresult *res)
{
	(void)req;
	(void)res;
	return 0;
}

const struct pg_verb pg_verb_outbox_done = {PG_WRITE, NULL, bind_outbox_done, read_outbox_done,
					    NULL};

static int bind_outbox_put(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			   const char **ret_text)
{
	const struct store_outbox_put *r = container_of(req, struct store_outbox_put, req);
	int rc = pg_add_ids(p, r->ids, r->n);

	(void)ret_text;
	pg_add_i64(p, r->now_us);
	*ret_sql = PG_SQL_OUTBOX_PUT;
	return rc;
}

static int read_outbox_put(struct store_req *req, const PGresult *res)
{
	container_of(req, struct store_outbox_put, req)->n_put = (size_t)pg_number(res, 0, 0);
	return 0;
}

const struct pg_verb pg_verb_outbox_put = {PG_UPKEEP, NULL, bind_outbox_put, read_outbox_put, NULL};

static int bind_outbox_count(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			     const char **ret_text)
{
	const struct store_outbox_count *r = container_of(req, struct store_outbox_count, req);

	(void)ret_text;
	pg_add_i64(p, (int64_t)r->limit);
	*ret_sql = PG_SQL_OUTBOX_COUNT;
	return 0;
}

static int read_outbox_count(struct store_req *req, const PGresult *res)
{
	struct store_outbox_count *r = container_of(req, struct store_outbox_count, req);
	struct uuid oldest;

	r->n = (size_t)pg_number(res, 0, 0);
	pg_learn_clock(container_of(req->store, struct pg_store, base), pg_number(res, 0, 2));
	if (pg_null(res, 0, 1))
		return 0;
	if (pg_id(res, 0, 1, &oldest) < 0)
		return -EIO;
	r->oldest_us = uuid7_time_us(&oldest);
	return 0;
}

const struct pg_verb pg_verb_outbox_count = {PG_READ, NULL, bind_outbox_count, read_outbox_count,
					     NULL};

/* ---- what is not final ---- */

static int bind_live(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		     const char **ret_text)
{
	const struct store_live *r = container_of(req, struct store_live, req);

	(void)ret_text;
	*ret_sql = PG_SQL_LIVE;
	return pg_add_ids(p, r->ids, r->n);
}

static int read_live(struct store_req *req, const PGresult *res)
{
	struct store_live *r = container_of(req, struct store_live, req);

	return pg_tickets(res, &r->tickets, &r->n_live);
}

static void drop_live(struct store_req *req)
{
	struct store_live *r = container_of(req, struct store_live, req);

	drop_tickets(&r->tickets, &r->n_live);
}

const struct pg_verb pg_verb_live = {PG_READ, NULL, bind_live, read_live, drop_live};
