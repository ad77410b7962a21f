/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * One channel for each lane that is consumed, with one consumer: prefetch is per consumer, and what
 * goes wrong with one queue stays there. A new prefetch is a new consumer; what the old one brought
 * stays valid on the channel, so for a while more than the prefetch may be here, which the loop
 * keeps from its consumer.
 *
 * Handing back with basic.reject would count as a delivery, and the broker ends messages that were
 * delivered too often, which is none of its business here: so a copy is published, and the original
 * acknowledged when the copy is safe. The copy goes behind all others. Where publishing is not
 * possible, the original is rejected after all.
 */

/* ---- consumers ---- */

static int open_lane_channel(struct rabbit_thread *t, struct rabbit_lane *lane, struct err *e)
{
	int r;

	if (lane->open)
		return 0;
	if (!lane->channel) {
		if (CHANNEL_LANES + t->n_channels >= RABBIT_CHANNELS_MAX)
			return err_set(e, -EAGAIN, "too many queues to consume from");
		lane->channel = (amqp_channel_t)(CHANNEL_LANES + t->n_channels++);
		t->channels[lane->channel] = lane;
	}
	r = rabbit_open_channel(&t->in, lane->channel, e);
	lane->open = r == 0;
	return r;
}

static int cancel(struct rabbit_thread *t, struct rabbit_lane *lane, struct err *e)
{
	if (!lane->consuming)
		return 0;
	lane->consuming = 0;
	(void)amqp_basic_cancel(t->in.c, lane->channel, amqp_cstring_bytes(lane->tag));
	return rabbit_reply(&t->in, lane->channel, e);
}

static int consume(struct rabbit_thread *t, struct rabbit_lane *lane, struct err *e)
{
	uint16_t prefetch = lane->wanted < UINT16_MAX ? (uint16_t)lane->wanted : UINT16_MAX;
	int r;

	(void)amqp_basic_qos(t->in.c, lane->channel, 0, prefetch, 0);
	r = rabbit_reply(&t->in, lane->channel, e);
	if (r < 0)
		return r;
	/* RabbitMQ 3.10.8: a second consumer with the tag of one that still has deliveries makes
	 * the channel fail, so no tag is used twice. */
	(void)snprintf(lane->tag, sizeof lane->tag, "%u", ++t->consumers);
	(void)amqp_basic_consume(t->in.c, lane->channel, amqp_cstring_bytes(lane->queue),
				 amqp_cstring_bytes(lane->tag), 0, 0, 0, amqp_empty_table);
	r = rabbit_reply(&t->in, lane->channel, e);
	if (r == 0)
		lane->consuming = lane->wanted;
	return r;
}

/* Makes the consumer of a lane what it should be. */
static int renew(struct rabbit_thread *t, struct rabbit_lane *lane)
{
	int64_t asked_us = rabbit_now_us();
	struct err e = {""};
	int r;

	if (lane->wanted) {
		r = rabbit_declare_lane(t, lane);
		if (r == -EAGAIN)
			return 0; /* it is tried again when it is not broken any more */
		if (r < 0)
			return r;
	}
	r = open_lane_channel(t, lane, &e);
	if (r == 0)
		r = cancel(t, lane, &e);
	if (r == 0 && lane->wanted)
		r = consume(t, lane, &e);
	if (r == 0)
		return 0;
	if (r == -EAGAIN) {
		rabbit_tell_reason(t, &e);
		lane->broken_until_us = INT64_MAX;
		return 0;
	}
	/* A refusal closed the channel, and with it went what was delivered there: as a whole, this
	 * is told by a session that ends. */
	(void)err_wrap(&e, r, "could not consume from \"%s\"", lane->queue);
	return rabbit_lose_by_lane(t, lane, asked_us, &e);
}

/* One that is counted must be there; a broker that refuses it is asked again by those that retry.
 */
static int declare_followed(struct rabbit_thread *t, struct rabbit_lane *lane)
{
	int r;

	if (!lane->followed || lane->declared || lane->wanted || lane->broken_until_us)
		return 0;
	r = rabbit_declare_lane(t, lane);
	return r == -EAGAIN ? 0 : r;
}

int rabbit_consume_lanes(struct rabbit_thread *t)
{
	int64_t now_us = rabbit_now_us();
	struct rabbit_lane *lane;

	LIST_FOREACH (lane, &t->lanes, link) {
		int r = declare_followed(t, lane);

		if (r < 0)
			return r;
		if (lane->wanted == lane->consuming)
			continue;
		if (lane->wanted && (lane->hung_ms || now_us < lane->broken_until_us))
			continue;
		r = renew(t, lane);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- deliveries ---- */

static struct rabbit_item *item_of(struct rabbit_thread *t, struct rabbit_lane *lane)
{
	struct rabbit_item *item = calloc(1, sizeof *item);

	if (!item)
		return NULL;
	list_init(&item->link);
	list_init(&item->flight_link);
	item->lane = lane;
	item->tag = lane->content.tag;
	item->session = t->session;
	return item;
}

void rabbit_delivered(struct rabbit_thread *t, struct rabbit_lane *lane)
{
	struct rabbit_content *c = &lane->content;
	struct rabbit_item *item = item_of(t, lane);
	struct queue_message *m = item ? &item->delivery.message : NULL;

	/* Without memory it stays with the broker, unacknowledged, until the session ends. */
	if (!item)
		return;
	if (c->too_large || queue_message_read(c->body, c->len, m, NULL) < 0) {
		item->kind = RABBIT_DISCARD;
		list_push_back(&t->to_settle, &item->link);
		return;
	}
	memcpy(m->traceparent, c->traceparent, sizeof m->traceparent);
	item->kind = RABBIT_DELIVERY;
	lane->seen_out++;
	rabbit_post(t, item);
}

/* The end of a delivery, or of a hand back. */
static void settled(struct rabbit_thread *t, struct rabbit_item *item, int code)
{
	list_unlink(&item->link);
	if (!item->handing) {
		free(item);
		return;
	}
	if (code == 0)
		item->lane->seen_in++;
	item->kind = RABBIT_HAND_BACK;
	item->code = code;
	rabbit_post(t, item);
}

static int settle_one(struct rabbit_thread *t, struct rabbit_item *item)
{
	struct rabbit_lane *lane = item->lane;
	amqp_basic_reject_t reject = {.delivery_tag = item->tag,
				      .requeue = item->kind == RABBIT_REJECT};
	struct err e;
	int r;

	/* Of a session that is over. */
	if (item->session != t->session) {
		settled(t, item, -ENOTCONN);
		return 0;
	}
	if (item->kind == RABBIT_ACK)
		r = amqp_basic_ack(t->in.c, lane->channel, item->tag, 0);
	else
		r = amqp_send_method(t->in.c, lane->channel, AMQP_BASIC_REJECT_METHOD, &reject);
	if (r < 0) {
		(void)rabbit_status(r, &e);
		return rabbit_lose(t, &e);
	}
	settled(t, item, 0);
	return 0;
}

int rabbit_settle(struct rabbit_thread *t)
{
	struct rabbit_item *item;
	int r = 0;

	for (unsigned n = 0; r == 0; n++) {
		item = LIST_FIRST(&t->to_settle, struct rabbit_item, link);
		if (!item || (n % RABBIT_SEND_BATCH == 0 && !rabbit_has_room(&t->in)))
			break;
		r = settle_one(t, item);
	}
	return r;
}

/* Publishes the copies that are due; all of them at the end. */
void rabbit_release_handed(struct rabbit_thread *t)
{
	int64_t now_us = rabbit_now_us();
	struct rabbit_item *item;

	while ((item = LIST_FIRST(&t->handed, struct rabbit_item, link))) {
		if (item->due_us > now_us && !t->closing)
			break;
		list_unlink(&item->link);
		item->deadline_us = now_us + RABBIT_CONFIRM_MS * 1000;
		if (item->session != t->session)
			settled(t, item, -ENOTCONN);
		else if (t->blocked || t->stalled)
			item->kind = RABBIT_REJECT, list_push_back(&t->to_settle, &item->link);
		else
			list_push_back(&t->to_send, &item->link);
	}
}

/* With the session, all of it is void. */
void rabbit_drop_deliveries(struct rabbit_thread *t)
{
	struct rabbit_item *item;

	while ((item = LIST_FIRST(&t->handed, struct rabbit_item, link)))
		settled(t, item, -ENOTCONN);
	while ((item = LIST_FIRST(&t->to_settle, struct rabbit_item, link)))
		settled(t, item, -ENOTCONN);
}
