/* SPDX-License-Identifier: Apache-2.0 */
#include "outbox/private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <errno.h>
#include <stdlib.h>

enum {
	TICK_MS = 50,
	TAKE_EVERY_MS = 1000, /* without a reason */
	TAKE_MAX = 1000,
	/* What was noted so long ago and not confirmed since is published by whoever finds it. */
	STALE_MS = 2000,
	UPKEEP_MS = 1000,
	CHECK_MAX = 1000,
	CHECK_AFTER_MS = 10000,	    /* the store is asked about what the bus said nothing of */
	CHECK_AFTER_DOWN_MS = 1000, /* while the bus says nothing at all */
};

static void take(struct publisher *p);

/* ---- taking ---- */

/* A note of what a broker had: the old one, whose removal is on its way, or a new one, since the
 * task was put back or its message lost. */
static void send_again(struct publication *pub)
{
	if (pub->removed)
		publication_send(pub);
	else
		publisher_done(pub->publisher, &pub->request.message.id);
}

static void send_ticket(struct publisher *p, const struct store_ticket *t)
{
	struct queue_message m = {.id = t->id, .class = t->class, .enqueued_us = p->take.now_us};
	struct publication *pub = map_get(&p->known, &t->id, sizeof t->id);
	struct stream *s;

	if (pub && pub->state == PUB_CONFIRMED)
		send_again(pub);
	if (pub && pub->state != PUB_LEFT)
		return;
	(void)str_copy(m.language, sizeof m.language, t->language);
	(void)str_copy(m.tenant, sizeof m.tenant, t->tenant);
	(void)str_copy(m.traceparent, sizeof m.traceparent, t->traceparent);
	s = stream_get(p, &m);
	if (!s)
		return;
	if (pub) {
		s->left = NULL;
		publication_free(pub);
	}
	s->taken++;
	pub = publication_new(p, &m);
	if (pub && publication_count_in(pub, s) == 0)
		publication_send(pub);
	else
		free(pub);
}

/* A stream that gave less than it had room for has no more, unless one was left since. */
static void settle_streams(struct publisher *p, bool all)
{
	struct stream *s, **idle;
	size_t cursor, n = 0;

	idle = calloc(map_count(&p->streams) + 1, sizeof(struct stream *));
	MAP_FOREACH (s, cursor, &p->streams) {
		if (s->room && s->taken >= s->room)
			s->backlog = true;
		else if (all && idle && s->room && s->backlog && s->left_us < p->asked_us)
			idle[n++] = s;
		s->taken = 0;
	}
	for (size_t i = 0; i < n; i++)
		stream_clear_backlog(p, idle[i]);
	free(idle);
}

static void on_taken(struct store_req *req, int code)
{
	struct publisher *p = req->ctx;
	size_t n = p->take.n;

	p->taking = false;
	p->n_requests--;
	free(p->rooms);
	p->rooms = NULL;
	for (size_t i = 0; code == 0 && !p->closing && i < n; i++)
		send_ticket(p, &p->take.tickets[i]);
	if (code == 0) {
		free(p->take.tickets);
		metric_add(METRIC_OUTBOX_SWEPT, (double)n);
		settle_streams(p, n < TAKE_MAX);
	}
	if (code == 0 && n == TAKE_MAX)
		take(p);
	publisher_check_closed(p);
}

/* Gives each stream's room where it is not that of one that has nothing in the broker. */
static int fill_rooms(struct publisher *p, size_t *ret_n)
{
	size_t cursor, n = 0;
	struct stream *s;

	p->rooms = calloc(map_count(&p->streams) + 1, sizeof *p->rooms);
	if (!p->rooms)
		return -ENOMEM;
	MAP_FOREACH (s, cursor, &p->streams) {
		s->room = s->n < p->cfg.admit_max ? p->cfg.admit_max - s->n : 0;
		s->taken = 0;
		if (s->n && n < STORE_SWEEP_MAX)
			p->rooms[n++] =
				(struct store_room){s->tenant, s->language, s->class, s->room};
	}
	*ret_n = n;
	return 0;
}

static void take(struct publisher *p)
{
	int64_t now_us = store_now_us(p->cfg.store);
	size_t n_rooms;

	if (!p->sweeping || p->taking || queue_check(p->cfg.queue, NULL) == -ENOTCONN)
		return;
	p->asked_us = clock_monotonic_us();
	p->take_at_us = p->asked_us + TAKE_EVERY_MS * INT64_C(1000);
	if (fill_rooms(p, &n_rooms) < 0)
		return;
	p->nudged = p->room_freed = false;
	p->taking = true;
	p->n_requests++;
	p->take = (struct store_outbox_take){
		.req = {.done = on_taken, .ctx = p},
		.before_us = now_us - STALE_MS * 1000,
		.now_us = now_us,
		.limit = TAKE_MAX,
		.limit_each = p->cfg.admit_max,
		.rooms = p->rooms,
		.n_rooms = n_rooms,
	};
	store_outbox_take(p->cfg.store, &p->take);
}

static void on_sweep_soon(struct deferred *d)
{
	take(container_of(d, struct publisher, sweep_soon));
}

/* At once where much room is free, so that a backlog never starves the runners; else with the next
 * tick, so that not every single task costs a take. */
void sweep_room_freed(struct publisher *p, const struct stream *s)
{
	if (!s->backlog || !p->sweeping)
		return;
	p->room_freed = true;
	if (s->n * 4 <= p->cfg.admit_max * 3)
		defer_call(p->defer, &p->sweep_soon);
}

void on_outbox_nudged(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		      size_t len)
{
	struct publisher *p = ctx;

	(void)topic;
	(void)id;
	(void)payload;
	(void)len;
	p->nudged = true;
	if (p->sweeping && !p->taking)
		defer_call(p->defer, &p->sweep_soon);
}

/* ---- what is known of the outbox ---- */

static void on_counted(struct store_req *req, int code)
{
	struct publisher *p = req->ctx;
	double age_us = 0;

	p->counting = false;
	p->n_requests--;
	if (code == 0) {
		p->counted = p->count.n;
		p->left_counted = p->left_asked;
		publisher_set_outside(p);
		if (p->count.oldest_us)
			age_us = (double)(store_now_us(p->cfg.store) - p->count.oldest_us);
		metric_set(METRIC_OUTBOX_TASKS, (double)p->count.n);
		metric_set(METRIC_OUTBOX_OLDEST_SECONDS, age_us > 0 ? age_us / 1e6 : 0);
	}
	publisher_check_closed(p);
}

static void ask_count(struct publisher *p)
{
	if (p->counting)
		return;
	p->counting = true;
	p->n_requests++;
	p->left_asked = p->n_left;
	p->count = (struct store_outbox_count){.req = {.done = on_counted, .ctx = p},
					       .limit = p->cfg.queue_max + 1};
	store_outbox_count(p->cfg.store, &p->count);
}

/* ---- what the bus may have lost ---- */

static bool is_live(const struct store_live *r, const struct uuid *id)
{
	for (size_t i = 0; i < r->n_live; i++)
		if (uuid_eq(&r->tickets[i].id, id))
			return true;
	return false;
}

static void on_checked(struct store_req *req, int code)
{
	struct publisher *p = req->ctx;

	p->checking = false;
	p->n_requests--;
	for (size_t i = 0; code == 0 && i < p->check.n; i++) {
		const struct uuid *id = &p->check_ids[i];

		if (!is_live(&p->check, id))
			on_task_finished(p, BUS_FINISHED, id, NULL, 0);
	}
	if (code == 0)
		free(p->check.tickets);
	free(p->check_ids);
	p->check_ids = NULL;
	publisher_check_closed(p);
}

static void ask_check(struct publisher *p)
{
	int64_t now_us = clock_monotonic_us();
	int after_ms = bus_is_up(p->cfg.bus, NULL) ? CHECK_AFTER_MS : CHECK_AFTER_DOWN_MS;
	struct publication *pub, *tmp;
	struct list checked;
	size_t n = 0;

	if (p->checking || list_empty(&p->checks))
		return;
	p->check_ids = calloc(CHECK_MAX, sizeof *p->check_ids);
	if (!p->check_ids)
		return;
	list_init(&checked);
	LIST_FOREACH_SAFE (pub, tmp, &p->checks, link) {
		if (n == CHECK_MAX || now_us - pub->checked_us < after_ms * INT64_C(1000))
			break;
		/* What is not stored yet is not final either. */
		if (pub->state != PUB_ADMITTED)
			p->check_ids[n++] = pub->request.message.id;
		pub->checked_us = now_us;
		list_unlink(&pub->link);
		list_push_back(&checked, &pub->link);
	}
	list_move_all(&p->checks, &checked);
	if (!n) {
		free(p->check_ids);
		p->check_ids = NULL;
		return;
	}
	p->checking = true;
	p->n_requests++;
	p->check = (struct store_live){
		.req = {.done = on_checked, .ctx = p}, .ids = p->check_ids, .n = n};
	store_live(p->cfg.store, &p->check);
}

/* ---- the clock ---- */

static void on_tick(uv_timer_t *timer)
{
	struct publisher *p = timer->data;
	int64_t now_us = clock_monotonic_us();

	if (p->nudged || p->room_freed || now_us >= p->take_at_us)
		take(p);
	if (now_us < p->upkeep_at_us)
		return;
	p->upkeep_at_us = now_us + UPKEEP_MS * INT64_C(1000);
	ask_count(p);
	ask_check(p);
}

void sweep_init(struct publisher *p)
{
	list_init(&p->sweep_soon.link);
	p->sweep_soon.call = on_sweep_soon;
}

void sweep_start(struct publisher *p)
{
	(void)uv_timer_start(&p->tick_timer, on_tick, TICK_MS, TICK_MS);
}

void publisher_sweep(struct publisher *p, bool on)
{
	p->sweeping = on && p->has_outbox;
	p->take_at_us = 0;
}
