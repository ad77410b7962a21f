/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

/*
 * The loop's side: it keeps the accounts that the verbs answer from, and never waits.
 *
 * How many messages wait in a lane is known from the broker's last count, plus what this process
 * saw enter and leave since that count was asked for. Both sides count the same events, the thread
 * when it sees them and the loop when it hears of them.
 */

static struct rabbit *rabbit_of(const struct queue *q)
{
	return container_of((struct queue *)(uintptr_t)q, struct rabbit, base);
}

void rabbit_order(struct rabbit *q, struct rabbit_item *item)
{
	bool first;

	(void)pthread_mutex_lock(&q->lock);
	first = list_empty(&q->shared.to_thread);
	list_push_back(&q->shared.to_thread, &item->link);
	(void)pthread_mutex_unlock(&q->lock);
	if (first)
		(void)eventfd_write(q->thread_fd, 1);
}

static struct rabbit_item *item_new(enum rabbit_kind kind, struct rabbit_lane *lane)
{
	struct rabbit_item *item = calloc(1, sizeof *item);

	if (!item)
		return NULL;
	list_init(&item->link);
	list_init(&item->flight_link);
	item->kind = kind;
	item->lane = lane;
	return item;
}

/* ---- lanes ---- */

static void on_deliver(struct deferred *d);

struct rabbit_lane *rabbit_lane_new(struct rabbit *q, const char *key)
{
	struct rabbit_lane *lane = calloc(1, sizeof *lane);

	if (!lane)
		return NULL;
	lane->owner = q;
	(void)str_copy(lane->key, sizeof lane->key, key);
	rabbit_name(&q->url, lane->key, lane->queue);
	list_init(&lane->link);
	list_init(&lane->waiting);
	list_init(&lane->deliver.link);
	lane->deliver.call = on_deliver;
	return lane;
}

static int make_key(const char *language, enum task_class class, char key[static RABBIT_NAME_MAX])
{
	int len = snprintf(key, RABBIT_NAME_MAX, "%s.%s", language, task_class_name(class));

	return len < RABBIT_NAME_MAX ? len : -EINVAL;
}

static struct rabbit_lane *find_lane(const struct rabbit *q, const char *language,
				     enum task_class class)
{
	char key[RABBIT_NAME_MAX];
	int len = make_key(language, class, key);

	return len > 0 ? map_get(&q->lanes, key, (size_t)len) : NULL;
}

static struct rabbit_lane *get_lane(struct rabbit *q, const char *language, enum task_class class)
{
	struct rabbit_lane *lane = find_lane(q, language, class);
	char key[RABBIT_NAME_MAX];

	if (lane)
		return lane;
	if (strlen(language) >= TASK_LANGUAGE_MAX || make_key(language, class, key) < 0)
		return NULL;
	lane = rabbit_lane_new(q, key);
	if (!lane)
		return NULL;
	(void)str_copy(lane->language, sizeof lane->language, language);
	lane->class = class;
	if (map_put(&q->lanes, lane->key, strlen(lane->key), lane) < 0) {
		free(lane);
		return NULL;
	}
	return lane;
}

static size_t ready_of(const struct rabbit_lane *lane)
{
	int64_t n = lane->ready_base + (int64_t)(lane->n_in - lane->n_out);

	return (n > 0 ? (size_t)n : 0) + lane->n_waiting + lane->n_handing;
}

/* ---- deliveries ---- */

static void give_back(struct rabbit *q, struct rabbit_item *item)
{
	item->kind = RABBIT_HAND_BACK;
	item->lane->n_handing++;
	rabbit_order(q, item);
}

static void on_deliver(struct deferred *d)
{
	struct rabbit_lane *lane = container_of(d, struct rabbit_lane, deliver);
	struct rabbit *q = lane->owner;
	struct rabbit_item *item;

	while (q->consumer && !q->closing && lane->n_unacked < lane->prefetch &&
	       (item = LIST_FIRST(&lane->waiting, struct rabbit_item, link))) {
		list_unlink(&item->link);
		list_push_back(&q->held, &item->link);
		lane->n_waiting--;
		lane->n_unacked++;
		q->consumer->delivered(q->consumer_ctx, &item->delivery);
	}
}

static void deliver_soon(struct rabbit_lane *lane)
{
	if (lane->n_waiting)
		defer_call(lane->owner->defer, &lane->deliver);
}

static void take_delivery(struct rabbit *q, struct rabbit_item *item)
{
	struct rabbit_lane *lane = item->lane;

	lane->n_out++;
	if (item->session != q->session || q->closing) {
		free(item);
		return;
	}
	lane->last_delivered_us = item->delivery.message.enqueued_us;
	/* What was still on its way when the prefetch became 0. */
	if (!lane->prefetch) {
		give_back(q, item);
		return;
	}
	list_push_back(&lane->waiting, &item->link);
	lane->n_waiting++;
	deliver_soon(lane);
}

void rabbit_free_items(struct list *items)
{
	struct rabbit_item *item;

	while ((item = LIST_FIRST(items, struct rabbit_item, link))) {
		list_unlink(&item->link);
		free(item);
	}
}

/* The deliveries of a session that is over: they are in the broker's queues again. */
static void drop_deliveries(struct rabbit *q)
{
	struct rabbit_lane *lane;
	size_t cursor;

	rabbit_free_items(&q->held);
	MAP_FOREACH (lane, cursor, &q->lanes) {
		lane->ready_base += (int64_t)(lane->n_unacked + lane->n_waiting);
		rabbit_free_items(&lane->waiting);
		lane->n_waiting = lane->n_unacked = 0;
		lane->heard_us = 0;
	}
}

/* ---- what the thread says ---- */

static void tell_away(struct rabbit *q)
{
	struct err e = {""};

	if (q->told_away || !q->consumer || !q->consumer->state)
		return;
	(void)queue_check(&q->base, &e);
	q->told_away = true;
	q->consumer->state(q->consumer_ctx, -ENOTCONN, e.msg);
}

static void tell_back(struct rabbit *q)
{
	if (!q->told_away)
		return;
	q->told_away = false;
	if (q->consumer && q->consumer->state)
		q->consumer->state(q->consumer_ctx, 0, NULL);
}

static void take_counts(struct rabbit *q)
{
	struct rabbit_lane *lane;
	size_t cursor, before, after;

	(void)pthread_mutex_lock(&q->lock);
	if (q->dead && q->dead->fresh) {
		q->dead->fresh = false;
		q->dead->ready_base = (int64_t)q->dead->count;
	}
	MAP_FOREACH (lane, cursor, &q->lanes) {
		if (!lane->fresh)
			continue;
		before = ready_of(lane);
		lane->fresh = false;
		lane->heard_us = clock_monotonic_us();
		lane->ready_base =
			(int64_t)lane->count - (int64_t)(lane->count_in - lane->count_out);
		after = ready_of(lane);
		/* What others took; what they published in the meantime hides some of it. */
		if (after < before)
			queue_rate_count(&q->rate, before - after);
		if (!after)
			lane->last_delivered_us = lane->first_published_us = 0;
	}
	(void)pthread_mutex_unlock(&q->lock);
}

static void take_published(struct rabbit *q, struct rabbit_item *item)
{
	struct queue_publish *r = item->request;
	struct rabbit_lane *lane = item->lane;
	int code = item->code;

	q->n_publishing--;
	if (code == 0) {
		if (!ready_of(lane))
			lane->first_published_us = r->message.enqueued_us;
		lane->n_in++;
	}
	free(item);
	r->done(r, code);
}

static void take_item(struct rabbit *q, struct rabbit_item *item)
{
	switch (item->kind) {
	case RABBIT_PUBLISH:
		take_published(q, item);
		return;
	case RABBIT_DELIVERY:
		take_delivery(q, item);
		return;
	case RABBIT_HAND_BACK:
		item->lane->n_handing--;
		if (item->code == 0)
			item->lane->n_in++;
		else
			item->lane->ready_base++;
		free(item);
		return;
	case RABBIT_ACK:
	case RABBIT_REJECT:
	case RABBIT_DISCARD:
	case RABBIT_CONSUME:
	case RABBIT_FOLLOW:
	case RABBIT_CLOSE:
		break;
	}
}

/* The state first: it says which deliveries are of the present session. */
static void take_state(struct rabbit *q, bool up, uint64_t session)
{
	if (q->up && (!up || session != q->session)) {
		q->up = false;
		if (!q->closing)
			tell_away(q);
		drop_deliveries(q);
	}
	q->session = session;
	if (up && !q->up) {
		q->up = true;
		if (!q->closing)
			tell_back(q);
	}
}

void rabbit_on_wake(uv_poll_t *wake, int status, int events)
{
	struct rabbit *q = wake->data;
	struct rabbit_item *item;
	bool up, fresh, ended;
	struct list items;
	uint64_t session;
	eventfd_t count;

	(void)status;
	(void)events;
	(void)eventfd_read(q->loop_fd, &count);
	list_init(&items);
	(void)pthread_mutex_lock(&q->lock);
	list_move_all(&items, &q->shared.to_loop);
	up = q->shared.up;
	q->blocked = q->shared.blocked;
	session = q->shared.session;
	fresh = q->shared.fresh;
	q->shared.fresh = false;
	ended = q->shared.ended;
	(void)pthread_mutex_unlock(&q->lock);
	take_state(q, up, session);
	while ((item = LIST_FIRST(&items, struct rabbit_item, link))) {
		list_unlink(&item->link);
		take_item(q, item);
	}
	if (fresh)
		take_counts(q);
	if (ended && q->closing && !uv_is_closing((uv_handle_t *)wake))
		uv_close((uv_handle_t *)wake, rabbit_on_closed);
}

/* ---- verbs ---- */

static int rabbit_check(const struct queue *base, struct err *e)
{
	struct rabbit *q = rabbit_of(base);
	int r = q->up && !q->blocked ? 0 : -ENOTCONN;
	struct err reason;
	bool has_reason;

	(void)pthread_mutex_lock(&q->lock);
	reason = q->shared.reason;
	has_reason = q->shared.has_reason;
	(void)pthread_mutex_unlock(&q->lock);
	if (has_reason)
		return err_set(e, r < 0 ? r : -EAGAIN, "%s", reason.msg);
	return r < 0 ? err_set(e, r, "RabbitMQ does not confirm what is published") : 0;
}

static size_t taken(const struct rabbit *q)
{
	size_t n = q->base.outside + q->n_reserved + q->n_publishing, cursor;
	const struct rabbit_lane *lane;

	MAP_FOREACH (lane, cursor, &q->lanes)
		n += ready_of(lane) + lane->n_unacked;
	return n;
}

static int rabbit_reserve(struct queue *base, const char *language, enum task_class class)
{
	struct rabbit *q = rabbit_of(base);

	(void)language;
	(void)class;
	if (!q->up || q->blocked)
		return -ENOTCONN;
	if (taken(q) >= q->max_tasks)
		return -EAGAIN;
	q->n_reserved++;
	return 0;
}

static void rabbit_unreserve(struct queue *base, const char *language, enum task_class class)
{
	struct rabbit *q = rabbit_of(base);

	(void)language;
	(void)class;
	if (q->n_reserved)
		q->n_reserved--;
}

static int rabbit_retry_after(const struct queue *base)
{
	struct rabbit *q = rabbit_of(base);

	return queue_rate_retry_after(&q->rate, taken(q), q->max_tasks);
}

static void on_refused(struct deferred *d)
{
	struct queue_publish *r = container_of(d, struct queue_publish, deferred);

	r->done(r, r->code);
}

static int start_publish(struct rabbit *q, struct queue_publish *r)
{
	struct rabbit_lane *lane;
	struct rabbit_item *item;

	if (!q->up || q->blocked)
		return -EAGAIN;
	lane = get_lane(q, r->message.language, r->message.class);
	item = lane ? item_new(RABBIT_PUBLISH, lane) : NULL;
	if (!item)
		return -ENOMEM;
	item->request = r;
	q->n_publishing++;
	rabbit_order(q, item);
	return 0;
}

static void rabbit_publish(struct queue *base, struct queue_publish *r)
{
	struct rabbit *q = rabbit_of(base);

	if (r->reserved)
		rabbit_unreserve(base, r->message.language, r->message.class);
	r->code = start_publish(q, r);
	if (r->code == 0)
		return;
	r->deferred.call = on_refused;
	defer_call(q->defer, &r->deferred);
}

static void rabbit_ack(struct queue *base, struct queue_delivery *d)
{
	struct rabbit_item *item = container_of(d, struct rabbit_item, delivery);
	struct rabbit *q = rabbit_of(base);

	queue_rate_count(&q->rate, 1);
	item->lane->n_unacked--;
	deliver_soon(item->lane);
	list_unlink(&item->link);
	item->kind = RABBIT_ACK;
	rabbit_order(q, item);
}

static void rabbit_hand_back(struct queue *base, struct queue_delivery *d)
{
	struct rabbit_item *item = container_of(d, struct rabbit_item, delivery);

	item->lane->n_unacked--;
	deliver_soon(item->lane);
	list_unlink(&item->link);
	give_back(rabbit_of(base), item);
}

static void rabbit_get_depth(const struct queue *base, const char *language, enum task_class class,
			     struct queue_depth *ret_depth)
{
	const struct rabbit_lane *lane = find_lane(rabbit_of(base), language, class);

	*ret_depth = (struct queue_depth){0};
	if (!lane)
		return;
	ret_depth->ready = ready_of(lane);
	ret_depth->unacked = lane->n_unacked;
	if (!ret_depth->ready)
		return;
	/* What waits was queued no earlier than what was delivered before it. */
	ret_depth->oldest_us = lane->last_delivered_us > lane->first_published_us
				       ? lane->last_delivered_us
				       : lane->first_published_us;
}

/* What an old count did not see, and what went into a full queue just before others. */
static int64_t rabbit_horizon(const struct queue *base, const char *language, enum task_class class,
			      int64_t now_us)
{
	enum { COUNT_OLD_MS = 7000, EMPTY_MARGIN_MS = 10000, ORDER_MARGIN_MS = 30000 };
	const struct rabbit *q = rabbit_of(base);
	const struct rabbit_lane *lane = find_lane(q, language, class);

	if (!lane || !q->up || !lane->prefetch || !lane->heard_us ||
	    clock_monotonic_us() - lane->heard_us > COUNT_OLD_MS * INT64_C(1000))
		return 0;
	if (!ready_of(lane))
		return now_us - EMPTY_MARGIN_MS * INT64_C(1000);
	if (!lane->last_delivered_us)
		return 0;
	return lane->last_delivered_us - ORDER_MARGIN_MS * INT64_C(1000);
}

static size_t rabbit_dead_count(const struct queue *base)
{
	const struct rabbit *q = rabbit_of(base);

	return q->up && q->dead ? (size_t)q->dead->ready_base : 0;
}

/* ---- consumers ---- */

void rabbit_on_tell(struct deferred *d)
{
	struct rabbit *q = container_of(d, struct rabbit, tell);
	struct rabbit_lane *lane;
	size_t cursor;

	if (q->closing)
		return;
	if (!q->up)
		tell_away(q);
	MAP_FOREACH (lane, cursor, &q->lanes)
		deliver_soon(lane);
}

/* Known to the thread, which counts it; without memory there is no count. */
static void count_dead(struct rabbit *q)
{
	struct rabbit_item *item;

	q->dead = rabbit_lane_new(q, "dead");
	item = q->dead ? item_new(RABBIT_CONSUME, q->dead) : NULL;
	if (!item) {
		free(q->dead);
		q->dead = NULL;
		return;
	}
	q->dead->is_dead = true;
	rabbit_order(q, item);
}

static void rabbit_set_consumer(struct queue *base, const struct queue_consumer_ops *ops, void *ctx)
{
	struct rabbit *q = rabbit_of(base);

	if (!q->dead && ops)
		count_dead(q);

	q->consumer = ops;
	q->consumer_ctx = ctx;
	q->told_away = false;
	defer_call(q->defer, &q->tell);
}

static int consume_lane(struct rabbit *q, const char *language, enum task_class class,
			size_t prefetch)
{
	struct rabbit_lane *lane = get_lane(q, language, class);
	struct rabbit_item *item = lane ? item_new(RABBIT_CONSUME, lane) : NULL;

	if (!item)
		return -ENOMEM;
	item->prefetch = lane->prefetch = prefetch;
	rabbit_order(q, item);
	while (!prefetch && (item = LIST_FIRST(&lane->waiting, struct rabbit_item, link))) {
		list_unlink(&item->link);
		lane->n_waiting--;
		give_back(q, item);
	}
	deliver_soon(lane);
	return 0;
}

static int rabbit_consume(struct queue *base, const char *language, size_t prefetch, struct err *e)
{
	struct rabbit *q = rabbit_of(base);

	for (int c = 0; c < _TASK_CLASS_MAX; c++)
		if (consume_lane(q, language, (enum task_class)c, prefetch) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

static int rabbit_follow(struct queue *base, const char *language, bool follow)
{
	struct rabbit *q = rabbit_of(base);

	for (int c = 0; c < _TASK_CLASS_MAX; c++) {
		struct rabbit_lane *lane = get_lane(q, language, (enum task_class)c);
		struct rabbit_item *item = lane ? item_new(RABBIT_FOLLOW, lane) : NULL;

		if (!item)
			return -ENOMEM;
		item->prefetch = follow;
		rabbit_order(q, item);
	}
	return 0;
}

const struct queue_ops queue_rabbitmq_ops = {
	.scheme = "amqp",
	.durable = true,
	.open = rabbit_open,
	.close = rabbit_close,
	.check = rabbit_check,
	.reserve = rabbit_reserve,
	.unreserve = rabbit_unreserve,
	.publish = rabbit_publish,
	.set_consumer = rabbit_set_consumer,
	.consume = rabbit_consume,
	.ack = rabbit_ack,
	.hand_back = rabbit_hand_back,
	.get_depth = rabbit_get_depth,
	.follow = rabbit_follow,
	.horizon = rabbit_horizon,
	.dead_count = rabbit_dead_count,
	.retry_after = rabbit_retry_after,
};
