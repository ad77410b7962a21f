/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/queue-private.h"

#include "base/map.h"
#include "base/str.h"
#include "queue/rate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * One lane per language and class, in which tenants take turns: each has a share of its own, with a
 * prefetch of its own, so that one with many messages neither stands before another nor fills what
 * the consumer takes. A message is in its share's list while it waits, and counted by it while a
 * consumer holds it. Deliveries are made from a deferred call per lane, so that they never come
 * from inside a verb.
 *
 * Who hands a message back has no use for it now. It is delivered again after HOLD_OFF_MS, or when
 * an acknowledgement or a new prefetch shows that something has changed: otherwise the two would
 * throw it back and forth without end, in one turn of the loop.
 */

enum { HOLD_OFF_MS = 5 };

struct message {
	struct queue_delivery delivery; /* first: what the consumer holds */
	struct list link;
	struct share *share;
};

/* Of one tenant in a lane; exists while it has messages. */
struct share {
	char tenant[TASK_TENANT_MAX];
	struct lane *lane;
	struct list ready;
	struct list turn; /* in lane->turns while one may be delivered */
	size_t n_ready;
	size_t n_unacked;
};

struct lane {
	struct language *language;
	struct map shares;
	struct list turns; /* the share whose turn it is first */
	size_t n_ready;
	size_t n_unacked;
	bool held_off;
	struct deferred deliver;
};

struct language {
	char name[TASK_LANGUAGE_MAX];
	struct memory *queue;
	size_t prefetch;
	struct lane lanes[_TASK_CLASS_MAX];
};

struct memory {
	struct queue base;
	struct defer *defer;
	size_t max_tasks;
	size_t n_reserved; /* promised, and not yet published */
	size_t n_messages; /* waiting or unacknowledged */
	struct map languages;
	struct list held; /* messages that a consumer holds */
	const struct queue_consumer_ops *consumer;
	void *consumer_ctx;
	struct queue_rate rate;
	uv_timer_t hold_off;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static struct memory *memory_of(const struct queue *q)
{
	return container_of((struct queue *)(uintptr_t)q, struct memory, base);
}

/* ---- shares ---- */

static struct share *get_share(struct lane *lane, const char *tenant)
{
	struct share *s = map_get(&lane->shares, tenant, strlen(tenant));

	if (s)
		return s;
	s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->lane = lane;
	list_init(&s->ready);
	list_init(&s->turn);
	if (!str_copy(s->tenant, sizeof s->tenant, tenant) ||
	    map_put(&lane->shares, s->tenant, strlen(s->tenant), s) < 0) {
		free(s);
		return NULL;
	}
	return s;
}

static void drop_share_if_empty(struct share *s)
{
	if (s->n_ready || s->n_unacked)
		return;
	(void)map_remove(&s->lane->shares, s->tenant, strlen(s->tenant));
	list_unlink(&s->turn);
	free(s);
}

/* Puts it in or out of the turns, as its counts and the prefetch want it. */
static void update_turn(struct share *s)
{
	bool may_deliver = s->n_ready && s->n_unacked < s->lane->language->prefetch;

	if (!may_deliver)
		list_unlink(&s->turn);
	else if (list_empty(&s->turn))
		list_push_back(&s->lane->turns, &s->turn);
}

/* Counts a message in (1) or out (-1) of those that wait. */
static void count_ready(struct share *s, int n)
{
	s->n_ready += (size_t)n;
	s->lane->n_ready += (size_t)n;
}

static void count_unacked(struct share *s, int n)
{
	s->n_unacked += (size_t)n;
	s->lane->n_unacked += (size_t)n;
}

/* ---- lanes ---- */

static void on_deliver(struct deferred *d)
{
	struct lane *lane = container_of(d, struct lane, deliver);
	struct memory *q = lane->language->queue;
	struct share *s;

	while (q->consumer && !lane->held_off &&
	       (s = LIST_FIRST(&lane->turns, struct share, turn))) {
		struct message *m = container_of(s->ready.next, struct message, link);

		list_unlink(&m->link);
		list_push_back(&q->held, &m->link);
		count_ready(s, -1);
		count_unacked(s, 1);
		list_unlink(&s->turn);
		update_turn(s);
		/* Which may end the share. */
		q->consumer->delivered(q->consumer_ctx, &m->delivery);
	}
}

static void deliver_soon(struct lane *lane)
{
	if (!list_empty(&lane->turns) && !lane->held_off)
		defer_call(lane->language->queue->defer, &lane->deliver);
}

static void let_deliver(struct lane *lane)
{
	lane->held_off = false;
	deliver_soon(lane);
}

static void let_all_deliver(struct memory *q)
{
	struct language *l;
	size_t cursor;

	MAP_FOREACH (l, cursor, &q->languages)
		for (int i = 0; i < _TASK_CLASS_MAX; i++)
			let_deliver(&l->lanes[i]);
}

static void on_hold_off_over(uv_timer_t *timer)
{
	let_all_deliver(container_of(timer, struct memory, hold_off));
}

static struct language *find_language(const struct memory *q, const char *name)
{
	return map_get(&q->languages, name, strlen(name));
}

static struct language *get_language(struct memory *q, const char *name)
{
	struct language *l = find_language(q, name);

	if (l)
		return l;
	l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->queue = q;
	for (int i = 0; i < _TASK_CLASS_MAX; i++) {
		l->lanes[i].language = l;
		l->lanes[i].deliver.call = on_deliver;
		list_init(&l->lanes[i].deliver.link);
		list_init(&l->lanes[i].turns);
		map_init(&l->lanes[i].shares);
	}
	if (!str_copy(l->name, sizeof l->name, name) ||
	    map_put(&q->languages, l->name, strlen(l->name), l) < 0) {
		free(l);
		return NULL;
	}
	return l;
}

/* ---- room ---- */

static int memory_reserve(struct queue *base, const char *language, enum task_class class)
{
	struct memory *q = memory_of(base);

	(void)language;
	(void)class;
	if (q->base.outside + q->n_reserved + q->n_messages >= q->max_tasks)
		return -EAGAIN;
	q->n_reserved++;
	return 0;
}

static void memory_unreserve(struct queue *base, const char *language, enum task_class class)
{
	struct memory *q = memory_of(base);

	(void)language;
	(void)class;
	if (q->n_reserved)
		q->n_reserved--;
}

static int memory_retry_after(const struct queue *base)
{
	struct memory *q = memory_of(base);

	return queue_rate_retry_after(&q->rate, q->base.outside + q->n_reserved + q->n_messages,
				      q->max_tasks);
}

/* ---- messages ---- */

static void on_published(struct deferred *d)
{
	struct queue_publish *r = container_of(d, struct queue_publish, deferred);

	r->done(r, r->code);
}

static int add_message(struct memory *q, const struct queue_message *message)
{
	struct language *l = get_language(q, message->language);
	struct share *s = l ? get_share(&l->lanes[message->class], message->tenant) : NULL;
	struct message *m = s ? malloc(sizeof *m) : NULL;

	if (!m) {
		if (s)
			drop_share_if_empty(s);
		return -ENOMEM;
	}
	m->delivery.message = *message;
	m->share = s;
	list_push_back(&s->ready, &m->link);
	count_ready(s, 1);
	q->n_messages++;
	update_turn(s);
	deliver_soon(s->lane);
	return 0;
}

static void memory_publish(struct queue *base, struct queue_publish *r)
{
	struct memory *q = memory_of(base);

	if (r->reserved)
		memory_unreserve(base, r->message.language, r->message.class);
	/* The answer goes before the delivery, for those who keep accounts. */
	r->deferred.call = on_published;
	defer_call(q->defer, &r->deferred);
	r->code = add_message(q, &r->message);
}

static void memory_ack(struct queue *base, struct queue_delivery *d)
{
	struct memory *q = memory_of(base);
	struct message *m = container_of(d, struct message, delivery);
	struct share *s = m->share;
	struct lane *lane = s->lane;

	queue_rate_count(&q->rate, 1);
	q->n_messages--;
	count_unacked(s, -1);
	update_turn(s);
	drop_share_if_empty(s);
	let_deliver(lane);
	list_unlink(&m->link);
	free(m);
}

static void memory_hand_back(struct queue *base, struct queue_delivery *d)
{
	struct memory *q = memory_of(base);
	struct message *m = container_of(d, struct message, delivery);
	struct share *s = m->share;

	list_unlink(&m->link);
	list_push_front(&s->ready, &m->link);
	count_ready(s, 1);
	count_unacked(s, -1);
	update_turn(s);
	s->lane->held_off = true;
	if (!uv_is_active((uv_handle_t *)&q->hold_off))
		(void)uv_timer_start(&q->hold_off, on_hold_off_over, HOLD_OFF_MS, 0);
}

static void memory_get_depth(const struct queue *base, const char *language, enum task_class class,
			     struct queue_depth *ret_depth)
{
	const struct language *l = find_language(memory_of(base), language);
	const struct lane *lane = l ? &l->lanes[class] : NULL;
	const struct share *s;
	size_t cursor;

	*ret_depth = (struct queue_depth){0};
	if (!lane)
		return;
	ret_depth->ready = lane->n_ready;
	ret_depth->unacked = lane->n_unacked;
	/* What was handed back stands in front, and is older than what stands behind it. */
	MAP_FOREACH (s, cursor, &lane->shares) {
		const struct message *m = LIST_FIRST(&s->ready, const struct message, link);

		if (m && (!ret_depth->oldest_us ||
			  m->delivery.message.enqueued_us < ret_depth->oldest_us))
			ret_depth->oldest_us = m->delivery.message.enqueued_us;
	}
}

/* ---- consumers, life cycle ---- */

static void memory_set_consumer(struct queue *base, const struct queue_consumer_ops *ops, void *ctx)
{
	struct memory *q = memory_of(base);

	q->consumer = ops;
	q->consumer_ctx = ctx;
	let_all_deliver(q);
}

static int memory_consume(struct queue *base, const char *language, size_t prefetch, struct err *e)
{
	struct memory *q = memory_of(base);
	struct language *l = get_language(q, language);

	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->prefetch = prefetch;
	for (int i = 0; i < _TASK_CLASS_MAX; i++) {
		struct share *s;
		size_t cursor;

		MAP_FOREACH (s, cursor, &l->lanes[i].shares)
			update_turn(s);
		let_deliver(&l->lanes[i]);
	}
	return 0;
}

static int memory_open(uv_loop_t *loop, const struct queue_config *cfg, const char *rest,
		       struct queue **ret_queue, struct err *e)
{
	struct memory *q;
	int r;

	if (*rest)
		return err_set(e, -EINVAL, "nothing may follow \"memory:\" as the queue");
	if (!cfg->max_tasks)
		return err_set(e, -EINVAL, "a queue must have room for at least one task");
	q = calloc(1, sizeof *q);
	if (!q)
		return err_set(e, -ENOMEM, "out of memory");
	r = defer_new(loop, &q->defer);
	if (r < 0) {
		free(q);
		return err_errno(e, r, "could not open the queue");
	}
	q->max_tasks = cfg->max_tasks;
	map_init(&q->languages);
	list_init(&q->held);
	(void)uv_timer_init(loop, &q->hold_off);
	*ret_queue = &q->base;
	return 0;
}

static void free_messages(struct list *messages)
{
	struct message *m;

	while ((m = LIST_FIRST(messages, struct message, link))) {
		list_unlink(&m->link);
		free(m);
	}
}

static void free_shares(struct lane *lane)
{
	struct share *s;
	size_t cursor;

	MAP_FOREACH (s, cursor, &lane->shares) {
		free_messages(&s->ready);
		free(s);
	}
	map_fini(&lane->shares);
}

/* Only here: a close may come from inside a delivery. */
static void on_closed(uv_handle_t *handle)
{
	struct memory *q = container_of((uv_timer_t *)handle, struct memory, hold_off);
	void (*closed)(void *) = q->closed;
	void *ctx = q->closed_ctx;
	struct language *l;
	size_t cursor;

	MAP_FOREACH (l, cursor, &q->languages) {
		for (int i = 0; i < _TASK_CLASS_MAX; i++)
			free_shares(&l->lanes[i]);
		free(l);
	}
	free_messages(&q->held);
	map_fini(&q->languages);
	free(q);
	if (closed)
		closed(ctx);
}

/* A publish whose done is still to come has it called from here. */
static void memory_close(struct queue *base, void (*closed)(void *ctx), void *ctx)
{
	struct memory *q = memory_of(base);

	q->consumer = NULL;
	q->closed = closed;
	q->closed_ctx = ctx;
	defer_close(q->defer);
	uv_close((uv_handle_t *)&q->hold_off, on_closed);
}

const struct queue_ops queue_memory_ops = {
	.scheme = "memory",
	.durable = false,
	.open = memory_open,
	.close = memory_close,
	.reserve = memory_reserve,
	.unreserve = memory_unreserve,
	.publish = memory_publish,
	.set_consumer = memory_set_consumer,
	.consume = memory_consume,
	.ack = memory_ack,
	.hand_back = memory_hand_back,
	.get_depth = memory_get_depth,
	.retry_after = memory_retry_after,
};
