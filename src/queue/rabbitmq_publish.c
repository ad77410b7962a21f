/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include <errno.h>
#include <stdlib.h>

/*
 * Publishes are persistent, mandatory and confirmed. A message that no queue takes comes back as
 * "returned" and is confirmed all the same, afterwards: it counts as failed. What is not confirmed
 * in time is answered as failed and forgotten when its confirm comes; until then the broker, or the
 * queue alone where others were confirmed meanwhile, counts as stalled, and new publishes fail at
 * once.
 */

enum { GHOSTS_MAX = RABBIT_WINDOW / 2 };

static const char content_type[] = "text/plain";

int rabbit_write(struct rabbit_conn *c, const struct rabbit_url *url, const char *key,
		 const struct queue_message *m, struct err *e)
{
	char id[UUID_TEXT_MAX], exchange[RABBIT_NAME_MAX];
	amqp_table_entry_t trace = {
		.key = amqp_cstring_bytes("traceparent"),
		.value = {.kind = AMQP_FIELD_KIND_UTF8,
			  .value = {.bytes = amqp_cstring_bytes(m->traceparent)}},
	};
	amqp_basic_properties_t p = {
		._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG |
			  AMQP_BASIC_CONTENT_TYPE_FLAG,
		.delivery_mode = AMQP_DELIVERY_PERSISTENT,
		.content_type = amqp_cstring_bytes(content_type),
		.message_id = {.len = UUID_TEXT_MAX - 1, .bytes = id},
		.headers = {.num_entries = 1, .entries = &trace},
	};
	struct buf body;
	int r;

	buf_init(&body, QUEUE_MESSAGE_BYTES_MAX);
	r = queue_message_write(m, &body);
	if (r == 0) {
		uuid_format(&m->id, id);
		rabbit_name(url, "tasks", exchange);
		if (m->traceparent[0])
			p._flags |= AMQP_BASIC_HEADERS_FLAG;
		r = amqp_basic_publish(c->c, CHANNEL_PUBLISH, amqp_cstring_bytes(exchange),
				       amqp_cstring_bytes(key), 1, 0, &p,
				       (amqp_bytes_t){.len = body.len, .bytes = body.data});
		r = r < 0 ? rabbit_status(r, e) : 0;
	}
	buf_fini(&body);
	return r;
}

/* Sends it back to the loop, or on to the original where it is the copy of one. */
static void answer(struct rabbit_thread *t, struct rabbit_item *item, int code)
{
	list_unlink(&item->link);
	if (item->kind == RABBIT_PUBLISH) {
		if (code == 0)
			item->lane->seen_in++;
		item->code = code;
		rabbit_post(t, item);
		return;
	}
	/* Handed back: the original goes when the copy is safe, else it goes back as it is. */
	item->kind = code == 0 ? RABBIT_ACK : RABBIT_REJECT;
	list_push_back(&t->to_settle, &item->link);
}

static void finish(struct rabbit_thread *t, struct rabbit_item *item, bool ok)
{
	list_unlink(&item->flight_link);
	(void)map_remove(&t->by_tag, &item->confirm_tag, sizeof item->confirm_tag);
	item->lane->stalled_until_us = 0;
	t->n_ghosts -= item->answered;
	if (item->answered)
		free(item);
	else
		answer(t, item, ok && !item->returned ? 0 : -EAGAIN);
}

static void set_stalled(struct rabbit_thread *t, bool stalled)
{
	if (t->stalled == stalled)
		return;
	t->stalled = stalled;
	rabbit_tell_blocked(t);
}

void rabbit_confirmed(struct rabbit_thread *t, uint64_t tag, bool multiple, bool ok)
{
	struct rabbit_item *item, *tmp;

	set_stalled(t, false);
	t->confirmed_us = rabbit_now_us();
	if (!multiple) {
		item = map_get(&t->by_tag, &tag, sizeof tag);
		if (item)
			finish(t, item, ok);
		return;
	}
	LIST_FOREACH_SAFE (item, tmp, &t->in_flight, flight_link) {
		/* Zero: all so far. */
		if (tag && item->confirm_tag > tag)
			break;
		finish(t, item, ok);
	}
}

static const struct queue_message *message_of(const struct rabbit_item *item)
{
	return item->kind == RABBIT_PUBLISH ? &item->request->message : &item->delivery.message;
}

int rabbit_returned(struct rabbit_thread *t, const char *message_id)
{
	struct rabbit_item *item;
	struct uuid id;

	if (uuid_parse(message_id, &id) < 0)
		return 0;
	LIST_FOREACH (item, &t->in_flight, flight_link) {
		if (item->answered || item->returned || !uuid_eq(&message_of(item)->id, &id))
			continue;
		item->returned = true;
		return rabbit_lane_gone(t, item->lane);
	}
	return 0;
}

/* To a queue that does not confirm, one message in a while. */
static bool may_try(struct rabbit_lane *lane)
{
	int64_t now_us = rabbit_now_us();

	if (now_us < lane->stalled_until_us)
		return false;
	if (lane->stalled_until_us)
		lane->stalled_until_us = now_us + RABBIT_CONFIRM_MS * INT64_C(1000);
	return true;
}

/* One message on its way. -ENOTCONN where the session is over; the item is then answered. */
static int send_one(struct rabbit_thread *t, struct rabbit_item *item)
{
	int r = rabbit_declare_lane(t, item->lane);
	struct err e = {""};

	if (r == -ENOTCONN)
		return r;
	if (r == 0 && !may_try(item->lane))
		r = -EAGAIN;
	if (r < 0) {
		answer(t, item, r);
		return 0;
	}
	item->confirm_tag = t->next_tag;
	r = map_put(&t->by_tag, &item->confirm_tag, sizeof item->confirm_tag, item);
	if (r < 0) {
		answer(t, item, r);
		return 0;
	}
	list_unlink(&item->link);
	list_push_back(&t->in_flight, &item->flight_link);
	r = rabbit_write(&t->out, &t->q->url, item->lane->key, message_of(item), &e);
	if (r == -ENOTCONN)
		return rabbit_lose(t, &e);
	if (r < 0) {
		/* Nothing of it was written. */
		list_unlink(&item->flight_link);
		(void)map_remove(&t->by_tag, &item->confirm_tag, sizeof item->confirm_tag);
		answer(t, item, r);
		return 0;
	}
	t->next_tag++;
	return 0;
}

int rabbit_send_publishes(struct rabbit_thread *t)
{
	struct rabbit_item *item;
	int r = 0;

	for (unsigned n = 0; r == 0 && !t->blocked; n++) {
		item = LIST_FIRST(&t->to_send, struct rabbit_item, link);
		if (!item || map_count(&t->by_tag) >= RABBIT_WINDOW)
			break;
		if (n % RABBIT_SEND_BATCH == 0 && !rabbit_has_room(&t->out))
			break;
		r = send_one(t, item);
	}
	return r;
}

/* Its place stays taken, so that the confirm is known when it comes. */
static int leave_ghost(struct rabbit_thread *t, struct rabbit_item *item)
{
	struct rabbit_item *ghost = calloc(1, sizeof *ghost);

	if (!ghost)
		return -ENOMEM;
	ghost->answered = true;
	ghost->lane = item->lane;
	ghost->confirm_tag = item->confirm_tag;
	list_init(&ghost->link);
	list_insert_before(&item->flight_link, &ghost->flight_link);
	list_unlink(&item->flight_link);
	(void)map_remove(&t->by_tag, &item->confirm_tag, sizeof item->confirm_tag);
	if (map_put(&t->by_tag, &ghost->confirm_tag, sizeof ghost->confirm_tag, ghost) < 0) {
		list_unlink(&ghost->flight_link);
		free(ghost);
		return 0;
	}
	t->n_ghosts++;
	return 0;
}

/* Others were confirmed since: it is this queue. None was: it is the broker. */
static void note_late(struct rabbit_thread *t, struct rabbit_item *item, int64_t now_us)
{
	if (t->confirmed_us > item->deadline_us - RABBIT_CONFIRM_MS * INT64_C(1000))
		item->lane->stalled_until_us = now_us + RABBIT_CONFIRM_MS * INT64_C(1000);
	else
		set_stalled(t, true);
}

/* Answers what has waited too long, sent or not. */
int rabbit_expire_publishes(struct rabbit_thread *t)
{
	int64_t now_us = rabbit_now_us();
	struct rabbit_item *item, *tmp;
	struct err e;

	LIST_FOREACH_SAFE (item, tmp, &t->in_flight, flight_link) {
		if (item->answered)
			continue;
		if (item->deadline_us > now_us || leave_ghost(t, item) < 0)
			break;
		note_late(t, item, now_us);
		answer(t, item, -EAGAIN);
	}
	LIST_FOREACH_SAFE (item, tmp, &t->to_send, link) {
		if (item->deadline_us > now_us)
			break;
		answer(t, item, -EAGAIN);
	}
	if (t->n_ghosts < GHOSTS_MAX)
		return 0;
	(void)err_set(&e, -ENOTCONN, "too many publishes were never confirmed");
	return rabbit_lose(t, &e);
}

void rabbit_fail_publishes(struct rabbit_thread *t, bool in_flight)
{
	struct rabbit_item *item;

	while ((item = LIST_FIRST(&t->to_send, struct rabbit_item, link)))
		answer(t, item, -EAGAIN);
	while (in_flight && (item = LIST_FIRST(&t->in_flight, struct rabbit_item, flight_link)))
		finish(t, item, false);
}
