/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>

enum { BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 2000, POLL_MAX_MS = 500 };

int64_t rabbit_now_us(void)
{
	return clock_monotonic_us();
}

/* ---- to the loop ---- */

static void wake_loop(struct rabbit *q)
{
	(void)eventfd_write(q->loop_fd, 1);
}

void rabbit_post(struct rabbit_thread *t, struct rabbit_item *item)
{
	struct rabbit *q = t->q;
	bool first;

	(void)pthread_mutex_lock(&q->lock);
	first = list_empty(&q->shared.to_loop);
	list_push_back(&q->shared.to_loop, &item->link);
	(void)pthread_mutex_unlock(&q->lock);
	if (first)
		wake_loop(q);
}

void rabbit_tell_reason(struct rabbit_thread *t, const struct err *e)
{
	struct rabbit *q = t->q;

	(void)pthread_mutex_lock(&q->lock);
	q->shared.has_reason = e != NULL;
	if (e)
		q->shared.reason = *e;
	(void)pthread_mutex_unlock(&q->lock);
}

void rabbit_tell_blocked(struct rabbit_thread *t)
{
	struct rabbit *q = t->q;

	(void)pthread_mutex_lock(&q->lock);
	q->shared.blocked = t->blocked || t->stalled;
	(void)pthread_mutex_unlock(&q->lock);
	wake_loop(q);
}

static void tell_up(struct rabbit_thread *t)
{
	struct rabbit *q = t->q;

	(void)pthread_mutex_lock(&q->lock);
	q->shared.up = t->up;
	q->shared.session = t->session;
	q->shared.blocked = false;
	if (t->up)
		q->shared.has_reason = false;
	(void)pthread_mutex_unlock(&q->lock);
	wake_loop(q);
}

/* ---- sessions ---- */

static void forget_lane(struct rabbit_lane *lane)
{
	lane->declared = lane->open = false;
	lane->consuming = 0;
	lane->counted_us = lane->broken_until_us = lane->stalled_until_us = 0;
	lane->content.kind = CONTENT_NONE;
}

int rabbit_lose(struct rabbit_thread *t, struct err *e)
{
	struct rabbit_lane *lane;

	if (!t->up)
		return -ENOTCONN;
	(void)err_wrap(e, -ENOTCONN, "lost RabbitMQ at %s", t->in.peer);
	rabbit_disconnect(&t->in, false);
	rabbit_disconnect(&t->out, false);
	t->up = t->blocked = t->stalled = false;
	t->asked = NULL;
	t->retry_at_us = 0;
	LIST_FOREACH (lane, &t->lanes, link)
		forget_lane(lane);
	rabbit_tell_reason(t, e);
	tell_up(t);
	rabbit_fail_publishes(t, true);
	rabbit_drop_deliveries(t);
	return -ENOTCONN;
}

static int open_session(struct rabbit_thread *t, size_t host, struct err *e)
{
	const struct rabbit_url *url = &t->q->url;
	int r = rabbit_connect(url, host, "kiln: deliveries", &t->in, e);

	if (r < 0)
		return r;
	r = rabbit_connect(url, host, "kiln: publishes", &t->out, e);
	if (r == 0)
		r = rabbit_open_channel(&t->in, CHANNEL_TOPOLOGY, e);
	if (r == 0)
		r = rabbit_open_channel(&t->in, CHANNEL_SAMPLES, e);
	if (r == 0)
		r = rabbit_declare_exchanges(&t->in, url, e);
	if (r == 0)
		r = rabbit_declare_dead_once(t, e);
	if (r == 0)
		r = rabbit_open_channel(&t->out, CHANNEL_PUBLISH, e);
	if (r == 0) {
		(void)amqp_confirm_select(t->out.c, CHANNEL_PUBLISH);
		r = rabbit_reply(&t->out, CHANNEL_PUBLISH, e);
	}
	if (r < 0) {
		rabbit_disconnect(&t->in, false);
		rabbit_disconnect(&t->out, false);
		return r;
	}
	t->next_tag = 1;
	t->returned.kind = CONTENT_NONE;
	t->session++;
	return 0;
}

bool rabbit_may_pass(int r)
{
	return r == -ENOTCONN || r == -ENOMEM || r == -EBUSY;
}

/* Tries each host once, from where the last session was. 0, or what the last one said; what a
 * person has to settle ends it at once. */
static int try_hosts(struct rabbit_thread *t, struct err *e)
{
	size_t n = t->q->url.n_hosts;
	int r = -ENOTCONN;

	for (size_t i = 0; i < n; i++) {
		r = open_session(t, (t->host + i) % n, e);
		if (r == 0) {
			t->host = (t->host + i) % n;
			return 0;
		}
		if (!rabbit_may_pass(r))
			return r;
	}
	return r;
}

static int bring_up(struct rabbit_thread *t, struct err *e)
{
	int r = try_hosts(t, e);

	if (r < 0) {
		t->retry_at_us = rabbit_now_us() + (int64_t)backoff_next_ms(&t->backoff) * 1000;
		rabbit_tell_reason(t, e);
		return r;
	}
	backoff_reset(&t->backoff);
	t->up = true;
	return 0;
}

/* What was known before is made again: queues and consumers, then the loop may come. */
static void reconnect(struct rabbit_thread *t)
{
	struct rabbit_lane *lane, *tmp;
	struct err e = {""};

	if (rabbit_now_us() < t->retry_at_us || bring_up(t, &e) < 0)
		return;
	tell_up(t);
	LIST_FOREACH_SAFE (lane, tmp, &t->lanes, link)
		if (rabbit_declare_lane(t, lane) == -ENOTCONN)
			return; /* hung ones are left out the next time */
}

/* ---- orders ---- */

static void take_lane(struct rabbit_thread *t, struct rabbit_lane *lane)
{
	if (list_empty(&lane->link))
		list_push_back(&t->lanes, &lane->link);
}

static void take_publish(struct rabbit_thread *t, struct rabbit_item *item)
{
	item->deadline_us = rabbit_now_us() + RABBIT_CONFIRM_MS * 1000;
	if (t->up && !t->blocked && !t->stalled) {
		list_push_back(&t->to_send, &item->link);
		return;
	}
	item->code = -EAGAIN;
	rabbit_post(t, item);
}

static void take_order(struct rabbit_thread *t, struct rabbit_item *item)
{
	switch (item->kind) {
	case RABBIT_PUBLISH:
		take_lane(t, item->lane);
		take_publish(t, item);
		return;
	case RABBIT_HAND_BACK:
		item->handing = true;
		item->due_us = rabbit_now_us() + RABBIT_HOLD_OFF_MS * 1000;
		list_push_back(&t->handed, &item->link);
		return;
	case RABBIT_ACK:
		list_push_back(&t->to_settle, &item->link);
		return;
	case RABBIT_CONSUME:
		take_lane(t, item->lane);
		item->lane->wanted = item->prefetch;
		free(item);
		return;
	case RABBIT_FOLLOW:
		take_lane(t, item->lane);
		item->lane->followed = item->prefetch > 0;
		free(item);
		return;
	case RABBIT_CLOSE:
		t->closing = true;
		t->close_by_us = rabbit_now_us() + RABBIT_DRAIN_MS * 1000;
		return;
	case RABBIT_DELIVERY:
	case RABBIT_REJECT:
	case RABBIT_DISCARD:
		break;
	}
}

static void take_orders(struct rabbit_thread *t)
{
	struct rabbit *q = t->q;
	struct rabbit_item *item;
	struct list orders;
	eventfd_t count;

	(void)eventfd_read(q->thread_fd, &count);
	list_init(&orders);
	(void)pthread_mutex_lock(&q->lock);
	list_move_all(&orders, &q->shared.to_thread);
	(void)pthread_mutex_unlock(&q->lock);
	while ((item = LIST_FIRST(&orders, struct rabbit_item, link))) {
		list_unlink(&item->link);
		take_order(t, item);
	}
}

/* ---- the thread ---- */

static bool is_drained(const struct rabbit_thread *t)
{
	return list_empty(&t->to_send) && list_empty(&t->to_settle) && list_empty(&t->handed) &&
	       !map_count(&t->by_tag);
}

/* One round over a session. 0, 1 where there is more to do at once, or -ENOTCONN. */
static int serve(struct rabbit_thread *t)
{
	int more_in, more_out, r;

	rabbit_try_hung(t);
	rabbit_release_handed(t);
	r = rabbit_retry_broken(t);
	if (r == 0)
		r = rabbit_consume_lanes(t);
	if (r == 0)
		r = rabbit_send_publishes(t);
	if (r == 0)
		r = rabbit_settle(t);
	if (r == 0)
		r = rabbit_ask_counts(t);
	if (r < 0)
		return r;
	more_out = rabbit_pump(t, &t->out);
	more_in = more_out < 0 ? more_out : rabbit_pump(t, &t->in);
	if (more_in < 0)
		return more_in;
	r = rabbit_expire_publishes(t);
	if (r < 0)
		return r;
	/* Channels that only make requests have no other place for this. */
	amqp_maybe_release_buffers_on_channel(t->in.c, CHANNEL_TOPOLOGY);
	return more_in || more_out;
}

static bool can_send(const struct rabbit_thread *t)
{
	return !list_empty(&t->to_send) && map_count(&t->by_tag) < RABBIT_WINDOW && !t->blocked;
}

/* The library keeps heartbeats while the pump runs: twice in each half of one is enough. */
static int poll_ms(const struct rabbit_thread *t)
{
	const struct rabbit_item *handed = LIST_FIRST(&t->handed, const struct rabbit_item, link);
	int64_t wait_ms = POLL_MAX_MS, now_us = rabbit_now_us();

	if (t->up && t->q->url.heartbeat_s * 250 < wait_ms)
		wait_ms = t->q->url.heartbeat_s * 250;
	if (!t->up && (t->retry_at_us - now_us) / 1000 + 1 < wait_ms)
		wait_ms = (t->retry_at_us - now_us) / 1000 + 1;
	if (handed && (handed->due_us - now_us) / 1000 + 1 < wait_ms)
		wait_ms = (handed->due_us - now_us) / 1000 + 1;
	return wait_ms > 0 ? (int)wait_ms : 0;
}

static void wait_for_more(const struct rabbit_thread *t)
{
	struct pollfd p[] = {
		{.fd = t->q->thread_fd, .events = POLLIN},
		{.fd = t->up ? t->in.fd : -1, .events = POLLIN},
		{.fd = t->up ? t->out.fd : -1, .events = POLLIN},
	};

	if (!list_empty(&t->to_settle))
		p[1].events |= POLLOUT;
	if (can_send(t))
		p[2].events |= POLLOUT;
	(void)poll(p, ARRAY_SIZE(p), poll_ms(t));
}

static void run(struct rabbit_thread *t)
{
	for (;;) {
		int more = 0;

		take_orders(t);
		if (t->closing && (!t->up || is_drained(t) || rabbit_now_us() > t->close_by_us))
			return;
		if (t->up)
			more = serve(t);
		else
			reconnect(t);
		if (more == 0)
			wait_for_more(t);
	}
}

/* Whether the thread goes on: what a person has to settle ends it, where somebody waits to tell. */
static bool started(struct rabbit_thread *t, int code, const struct err *e)
{
	struct rabbit *q = t->q;
	bool goes_on;

	(void)pthread_mutex_lock(&q->lock);
	goes_on = code == 0 || rabbit_may_pass(code) || q->shared.waiting_no_more;
	q->shared.started = true;
	q->shared.start_code = code;
	if (code < 0) {
		q->shared.reason = *e;
		q->shared.has_reason = true;
	}
	(void)pthread_mutex_unlock(&q->lock);
	wake_loop(q);
	return goes_on;
}

static void end(struct rabbit_thread *t)
{
	struct rabbit *q = t->q;

	rabbit_fail_publishes(t, true);
	rabbit_drop_deliveries(t);
	rabbit_disconnect(&t->in, true);
	rabbit_disconnect(&t->out, true);
	(void)pthread_mutex_lock(&q->lock);
	q->shared.ended = true;
	(void)pthread_mutex_unlock(&q->lock);
	wake_loop(q);
}

void *rabbit_thread_main(void *arg)
{
	struct rabbit_thread *t = arg;
	struct err e = {""};
	int r;

	backoff_init(&t->backoff, BACKOFF_MIN_MS, BACKOFF_MAX_MS);
	r = bring_up(t, &e);
	if (r == 0)
		tell_up(t);
	if (started(t, r, &e))
		run(t);
	end(t);
	return NULL;
}
