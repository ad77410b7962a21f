/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include "base/log.h"

#include <errno.h>

/*
 * A queue that does not answer, while its broker does: a quorum queue whose leader is lost, since
 * most of its nodes are down, or since it did not come up again with its broker. What is asked of
 * it hangs, and so would every session that begins with asking it. It is left out of sessions, and
 * tried on a connection of its own, with growing pauses, until it answers; its tasks wait in the
 * store meanwhile.
 */

enum { HUNG_MIN_MS = 1000, HUNG_MAX_MS = 60 * 1000, HUNG_FACTOR = 4, TRY_MS = 1000 };

int rabbit_lose_by_lane(struct rabbit_thread *t, struct rabbit_lane *l, int64_t at, struct err *e)
{
	int64_t now_us = rabbit_now_us();

	if (now_us - at >= RABBIT_RPC_MS * INT64_C(1000)) {
		l->hung_ms = HUNG_MIN_MS;
		l->hung_until_us = now_us + HUNG_MIN_MS * 1000;
		log_warn("queue", "a queue does not answer; it is left out until it does",
			 LOG_STR("queue", l->queue));
	}
	return rabbit_lose(t, e);
}

int rabbit_declare_dead_once(struct rabbit_thread *t, struct err *e)
{
	int64_t asked_us = rabbit_now_us();
	int r;

	if (asked_us < t->dead_hung_until_us)
		return 0;
	r = rabbit_declare_dead(&t->in, &t->q->url, e);
	if (r == -ENOTCONN && rabbit_now_us() - asked_us >= RABBIT_RPC_MS * INT64_C(1000)) {
		t->dead_hung_until_us = rabbit_now_us() + HUNG_MAX_MS * INT64_C(1000);
		log_warn("queue", "the queue of dead letters does not answer; going on without it");
	}
	return r;
}

static int try_consumer(struct rabbit_conn *c, const struct rabbit_lane *lane, struct err *e)
{
	(void)amqp_basic_qos(c->c, CHANNEL_TOPOLOGY, 0, 1, 0);
	if (rabbit_reply(c, CHANNEL_TOPOLOGY, e) < 0)
		return -ENOTCONN;
	(void)amqp_basic_consume(c->c, CHANNEL_TOPOLOGY, amqp_cstring_bytes(lane->queue),
				 amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
	return rabbit_reply(c, CHANNEL_TOPOLOGY, e);
}

/* What is delivered to it goes back with the end of the connection. */
static int try_alone(const struct rabbit_thread *t, const struct rabbit_lane *lane)
{
	const struct timeval time = {.tv_sec = TRY_MS / 1000};
	const struct rabbit_url *url = &t->q->url;
	struct rabbit_conn c;
	struct err e = {""};
	int r = rabbit_connect(url, t->host, "kiln: tries a queue", &c, &e);

	if (r < 0)
		return r;
	r = amqp_set_rpc_timeout(c.c, &time) < 0 ? -ENOTCONN : 0;
	if (r == 0)
		r = rabbit_open_channel(&c, CHANNEL_TOPOLOGY, &e);
	if (r == 0)
		r = lane->is_dead ? rabbit_declare_dead(&c, url, &e)
				  : rabbit_declare_queue(&c, url, lane->queue, lane->key, &e);
	if (r == 0 && lane->wanted)
		r = try_consumer(&c, lane, &e);
	rabbit_disconnect(&c, false);
	return r;
}

void rabbit_try_hung(struct rabbit_thread *t)
{
	int64_t now_us = rabbit_now_us();
	struct rabbit_lane *lane;

	LIST_FOREACH (lane, &t->lanes, link) {
		if (!lane->hung_ms || now_us < lane->hung_until_us)
			continue;
		/* Whatever a broken declaration is told by, it is no hanging one. */
		if (try_alone(t, lane) != -ENOTCONN) {
			lane->hung_ms = 0;
			log_info("queue", "the queue answers again", LOG_STR("queue", lane->queue));
			return;
		}
		if (lane->hung_ms < HUNG_MAX_MS / HUNG_FACTOR)
			lane->hung_ms *= HUNG_FACTOR;
		else
			lane->hung_ms = HUNG_MAX_MS;
		lane->hung_until_us = rabbit_now_us() + lane->hung_ms * INT64_C(1000);
		return; /* one in each round: others are served between */
	}
}
