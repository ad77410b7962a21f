/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * Partitions: one a day of "task" and "result". Days are made a week ahead, at start and then every
 * hour; a day is dropped as a whole when retention has passed it and nothing of it lives.
 *
 * DETACH ... CONCURRENTLY lets readers and writers go on, must stand alone in its transaction, and
 * leaves a partition "pending" where it was interrupted: each step looks at what is there, so that
 * the next round finishes what an earlier one, perhaps of another process, began.
 */

enum { EVERY_MS = 60 * 60 * 1000, RETRY_MS = 10 * 1000 };

static const char make_text[] = "SELECT kiln_make_days((now() AT TIME ZONE 'UTC')::date - 1, 9)";

/* The oldest day that may go, and how its partitions hang on their tables. */
static const char find_text[] =
	"WITH parts AS (SELECT right(c.relname, 8) AS day, split_part(c.relname, '_', 1) AS parent,"
	" CASE WHEN i.inhrelid IS NULL THEN 'none' WHEN i.inhdetachpending THEN 'pending'"
	" ELSE 'whole' END AS how FROM pg_class AS c LEFT JOIN pg_inherits AS i"
	" ON i.inhrelid = c.oid WHERE c.relnamespace = current_schema()::regnamespace"
	" AND c.relkind = 'r' AND c.relname ~ '^(task|result)_[0-9]{8}$'),"
	" days AS (SELECT day, to_date(day, 'YYYYMMDD') AS d,"
	" coalesce(max(how) FILTER (WHERE parent = 'task'), 'gone') AS task_how,"
	" coalesce(max(how) FILTER (WHERE parent = 'result'), 'gone') AS result_how"
	" FROM parts GROUP BY day)"
	" SELECT day, task_how, result_how FROM days"
	" WHERE d < (now() AT TIME ZONE 'UTC')::date - 1"
	" AND (d + 1 - DATE '1970-01-01')::bigint * 86400000000 <= $1::bigint"
	" AND NOT EXISTS (SELECT 1 FROM live WHERE id >= kiln_day_floor(d)"
	" AND id < kiln_day_floor(d + 1))"
	" AND NOT EXISTS (SELECT 1 FROM result WHERE id >= kiln_day_floor(d)"
	" AND id < kiln_day_floor(d + 1) AND finished >= $1::bigint)"
	" ORDER BY day LIMIT 1";

static void next_step(struct pg_days *d);

static void submit(struct pg_days *d, enum pg_days_step step)
{
	d->step = step;
	d->req.store = &d->store->base;
	d->req.verb = PG_VERB_DAYS;
	d->req.code = 0;
	d->req.again = 0;
	pg_submit(&d->store->base, &d->req);
}

/* ---- the statement of a step ---- */

static const char *detach_text(struct pg_days *d, const char *parent, const char *how)
{
	/* A step that has nothing to do still goes through the server, which keeps the order. */
	if (str_eq(how, "whole") || str_eq(how, "pending"))
		(void)snprintf(d->text, sizeof d->text, "ALTER TABLE %s DETACH PARTITION %s_%s %s",
			       parent, parent, d->day,
			       str_eq(how, "whole") ? "CONCURRENTLY" : "FINALIZE");
	else
		(void)snprintf(d->text, sizeof d->text, "SELECT 1");
	return d->text;
}

static int bind_days(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
		     const char **ret_text)
{
	struct pg_days *d = container_of(req, struct pg_days, req);

	*ret_sql = PG_SQL_NONE;
	switch (d->step) {
	case PG_DAYS_MAKE:
		*ret_text = make_text;
		break;
	case PG_DAYS_FIND:
		pg_add_i64(p, d->now_before_us);
		*ret_text = find_text;
		break;
	case PG_DAYS_DETACH_RESULT:
		*ret_text = detach_text(d, "result", d->result_how);
		break;
	case PG_DAYS_DETACH_TASK:
		*ret_text = detach_text(d, "task", d->task_how);
		break;
	default:
		(void)snprintf(d->text, sizeof d->text, "SELECT kiln_drop_day('%s')", d->day);
		*ret_text = d->text;
		break;
	}
	return 0;
}

static int read_days(struct store_req *req, const PGresult *res)
{
	struct pg_days *d = container_of(req, struct pg_days, req);

	if (d->step != PG_DAYS_FIND)
		return 0;
	if (PQntuples(res) == 0)
		return -ENOENT;
	/* Digits only, by the query. */
	if (pg_text(res, 0, 0, d->day, sizeof d->day) < 0 ||
	    pg_text(res, 0, 1, d->task_how, sizeof d->task_how) < 0 ||
	    pg_text(res, 0, 2, d->result_how, sizeof d->result_how) < 0)
		return -EIO;
	return 0;
}

const struct pg_verb pg_verb_days = {PG_UPKEEP, NULL, bind_days, read_days, NULL};

/* ---- the order of steps ---- */

static void on_timer(uv_timer_t *timer)
{
	struct pg_days *d = container_of(timer, struct pg_days, timer);

	pg_days_make(d);
}

static void on_done(struct store_req *req, int code)
{
	struct pg_days *d = container_of(req, struct pg_days, req);
	enum pg_days_step step = d->step;

	d->step = PG_DAYS_IDLE;
	if (d->store->ending)
		return;
	if (step == PG_DAYS_MAKE)
		(void)uv_timer_start(&d->timer, on_timer, code < 0 ? RETRY_MS : EVERY_MS, 0);
	/* A failure to drop is for the next prune to try again. */
	if (code == 0 && step >= PG_DAYS_FIND && step < PG_DAYS_DROP)
		submit(d, step + 1);
	else if (code == 0 && step == PG_DAYS_DROP)
		submit(d, PG_DAYS_FIND);
	else
		next_step(d);
}

static void next_step(struct pg_days *d)
{
	if (d->step != PG_DAYS_IDLE || d->store->ending)
		return;
	if (d->make) {
		d->make = false;
		submit(d, PG_DAYS_MAKE);
	} else if (d->before_us) {
		d->now_before_us = d->before_us;
		d->before_us = 0;
		submit(d, PG_DAYS_FIND);
	}
}

void pg_days_make(struct pg_days *d)
{
	d->make = true;
	next_step(d);
}

void pg_days_drop_before(struct pg_days *d, int64_t before_us)
{
	d->before_us = before_us;
	next_step(d);
}

/* ---- life ---- */

void pg_days_init(struct pg_days *d, struct pg_store *s)
{
	d->store = s;
	d->req.done = on_done;
	atomic_init(&d->req.cancelled, false);
	list_init(&d->req.work.link);
	list_init(&d->req.deferred.link);
	(void)uv_timer_init(s->loop, &d->timer);
	(void)uv_timer_start(&d->timer, on_timer, EVERY_MS, 0);
}

static void on_closed(uv_handle_t *handle)
{
	pg_handle_closed(container_of(handle, struct pg_days, timer)->store);
}

void pg_days_close(struct pg_days *d)
{
	d->store->open_handles++;
	uv_close((uv_handle_t *)&d->timer, on_closed);
}
