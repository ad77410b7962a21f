/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>

/*
 * What is at the broker, with "kiln" as the prefix:
 *
 *	exchange kiln.tasks (direct) --LANGUAGE.CLASS--> queue kiln.LANGUAGE.CLASS
 *	exchange kiln.dead (fanout) ------------------> queue kiln.dead
 *
 * Quorum queues, so that a message that was confirmed is on the disks of a majority. The store
 * decides about retries and deadlines: the delivery limit only ends a loop that nobody foresaw, and
 * the time to live only removes what everybody forgot. Both go to the dead letters, and those are
 * handed over at least once, which wants reject-publish.
 */

enum {
	DELIVERY_LIMIT = 20,
	MESSAGE_TTL_MS = 7 * 24 * 3600 * 1000,
	DEAD_LETTERS_MAX = 100000,
	/* Where nothing is known to have changed, others may have changed it. */
	COUNT_MS = 1000,
	COUNT_IDLE_MS = 5000,
	BROKEN_MS = 5000,
	GONE_MS = 1000,
};

void rabbit_name(const struct rabbit_url *url, const char *what, char dst[static RABBIT_NAME_MAX])
{
	(void)snprintf(dst, RABBIT_NAME_MAX, "%s.%s", url->prefix, what);
}

static amqp_table_entry_t text_entry(const char *key, const char *value)
{
	return (amqp_table_entry_t){
		.key = amqp_cstring_bytes(key),
		.value = {.kind = AMQP_FIELD_KIND_UTF8,
			  .value = {.bytes = amqp_cstring_bytes(value)}},
	};
}

static amqp_table_entry_t int_entry(const char *key, int value)
{
	return (amqp_table_entry_t){
		.key = amqp_cstring_bytes(key),
		.value = {.kind = AMQP_FIELD_KIND_I32, .value = {.i32 = value}},
	};
}

/* A queue that exists with other arguments is the one mistake that only a person can settle. */
static int declared(struct rabbit_conn *c, const char *kind, const char *name, struct err *e)
{
	int r = rabbit_reply(c, CHANNEL_TOPOLOGY, e);

	if (r == -EEXIST)
		return err_wrap(e, r,
				"the %s \"%s\" at %s was made with other arguments; delete it when "
				"it is empty (rabbitmqctl delete_queue), or give Kiln names of its "
				"own with ?prefix=NAME",
				kind, name, c->peer);
	return r < 0 ? err_wrap(e, r, "could not declare the %s \"%s\" at %s", kind, name, c->peer)
		     : 0;
}

static int declare_exchange(struct rabbit_conn *c, const char *name, const char *type,
			    struct err *e)
{
	(void)amqp_exchange_declare(c->c, CHANNEL_TOPOLOGY, amqp_cstring_bytes(name),
				    amqp_cstring_bytes(type), 0, 1, 0, 0, amqp_empty_table);
	return declared(c, "exchange", name, e);
}

/* Declares a durable quorum queue and binds it. */
static int declare_and_bind(struct rabbit_conn *c, const char *queue, const char *exchange,
			    const char *key, const amqp_table_t *arguments, struct err *e)
{
	int r;

	(void)amqp_queue_declare(c->c, CHANNEL_TOPOLOGY, amqp_cstring_bytes(queue), 0, 1, 0, 0,
				 *arguments);
	r = declared(c, "queue", queue, e);
	if (r < 0)
		return r;
	(void)amqp_queue_bind(c->c, CHANNEL_TOPOLOGY, amqp_cstring_bytes(queue),
			      amqp_cstring_bytes(exchange), amqp_cstring_bytes(key),
			      amqp_empty_table);
	return declared(c, "queue", queue, e);
}

static int declare_dead(struct rabbit_conn *c, const char *dead, struct err *e)
{
	/* Looking at dead letters counts as a delivery of them: never often enough. */
	amqp_table_entry_t entries[] = {
		text_entry("x-queue-type", "quorum"),
		int_entry("x-max-length", DEAD_LETTERS_MAX),
		int_entry("x-delivery-limit", 1000000000),
	};
	const amqp_table_t arguments = {.num_entries = ARRAY_SIZE(entries), .entries = entries};

	return declare_and_bind(c, dead, dead, "", &arguments, e);
}

int rabbit_declare_exchanges(struct rabbit_conn *c, const struct rabbit_url *url, struct err *e)
{
	char tasks[RABBIT_NAME_MAX], dead[RABBIT_NAME_MAX];
	int r;

	rabbit_name(url, "tasks", tasks);
	rabbit_name(url, "dead", dead);
	r = declare_exchange(c, tasks, "direct", e);
	return r == 0 ? declare_exchange(c, dead, "fanout", e) : r;
}

int rabbit_declare_dead(struct rabbit_conn *c, const struct rabbit_url *url, struct err *e)
{
	char dead[RABBIT_NAME_MAX];

	rabbit_name(url, "dead", dead);
	return declare_dead(c, dead, e);
}

int rabbit_declare_queue(struct rabbit_conn *c, const struct rabbit_url *url, const char *queue,
			 const char *key, struct err *e)
{
	char tasks[RABBIT_NAME_MAX], dead[RABBIT_NAME_MAX];
	amqp_table_entry_t entries[] = {
		text_entry("x-queue-type", "quorum"),
		text_entry("x-dead-letter-exchange", dead),
		text_entry("x-dead-letter-strategy", "at-least-once"),
		text_entry("x-overflow", "reject-publish"),
		int_entry("x-delivery-limit", DELIVERY_LIMIT),
		int_entry("x-message-ttl", MESSAGE_TTL_MS),
	};
	const amqp_table_t arguments = {.num_entries = ARRAY_SIZE(entries), .entries = entries};

	rabbit_name(url, "tasks", tasks);
	rabbit_name(url, "dead", dead);
	entries[1] = text_entry("x-dead-letter-exchange", dead);
	return declare_and_bind(c, queue, tasks, key, &arguments, e);
}

int rabbit_declare_lane(struct rabbit_thread *t, struct rabbit_lane *lane)
{
	int64_t asked_us = rabbit_now_us();
	struct err e = {""};
	int r;

	if (lane->declared)
		return 0;
	if (lane->hung_ms || asked_us < lane->broken_until_us)
		return -EAGAIN;
	r = lane->is_dead ? rabbit_declare_dead(&t->in, &t->q->url, &e)
			  : rabbit_declare_queue(&t->in, &t->q->url, lane->queue, lane->key, &e);
	if (r == -ENOTCONN)
		return rabbit_lose_by_lane(t, lane, asked_us, &e);
	if (r < 0) {
		lane->broken_until_us = rabbit_now_us() + BROKEN_MS * 1000;
		rabbit_tell_reason(t, &e);
		return -EAGAIN;
	}
	if (lane->broken_until_us)
		rabbit_tell_reason(t, NULL);
	lane->broken_until_us = 0;
	lane->declared = true;
	return 0;
}

/*
 * RabbitMQ 3.10.8: a channel that hears of the end of its queue asks whether there is one of that
 * name, and where somebody has made it again already, it consumes from that one, but forgets it in
 * the same breath: the new queue delivers to a consumer whose channel drops everything, and nobody
 * is told. So queues are not made again at once, and whoever consumed from one begins a new
 * session: what its channels have forgotten goes back with them.
 */
int rabbit_lane_gone(struct rabbit_thread *t, struct rabbit_lane *lane)
{
	int64_t again_us = rabbit_now_us() + GONE_MS * 1000;
	struct err e;
	int r;

	lane->declared = false;
	if (!lane->consuming) {
		lane->broken_until_us = again_us;
		return 0;
	}
	(void)err_set(&e, -ENOTCONN, "the queue \"%s\" was deleted", lane->queue);
	r = rabbit_lose(t, &e);
	t->retry_at_us = again_us;
	return r;
}

/* Those that the broker refused are asked for again also where nobody publishes, so that what is
 * said of them is true. */
int rabbit_retry_broken(struct rabbit_thread *t)
{
	struct rabbit_lane *lane;

	LIST_FOREACH (lane, &t->lanes, link)
		if (lane->broken_until_us && rabbit_declare_lane(t, lane) == -ENOTCONN)
			return -ENOTCONN;
	return 0;
}

/* ---- counts ---- */

static bool is_due(const struct rabbit_lane *lane, int64_t now_us)
{
	bool moved = lane->seen_in != lane->sample_in || lane->seen_out != lane->sample_out;
	int64_t every_ms = moved || lane->followed ? COUNT_MS : COUNT_IDLE_MS;

	return !lane->hung_ms && (lane->declared || lane->is_dead) &&
	       (!lane->counted_us || now_us - lane->counted_us >= every_ms * 1000);
}

/* The one that has waited for longest, so that none starves behind those before it. */
static struct rabbit_lane *next_due(const struct rabbit_thread *t, int64_t now_us)
{
	struct rabbit_lane *lane, *oldest = NULL;

	LIST_FOREACH (lane, &t->lanes, link)
		if (is_due(lane, now_us) && (!oldest || lane->counted_us < oldest->counted_us))
			oldest = lane;
	return oldest;
}

/* Asks for one lane at a time; the answer comes through the pump. */
int rabbit_ask_counts(struct rabbit_thread *t)
{
	amqp_queue_declare_t m = {.passive = 1};
	int64_t now_us = rabbit_now_us();
	struct rabbit_lane *lane = t->asked ? NULL : next_due(t, now_us);
	struct err e;
	int r;

	if (!lane)
		return 0;
	m.queue = amqp_cstring_bytes(lane->queue);
	lane->counted_us = now_us;
	lane->sample_in = lane->seen_in;
	lane->sample_out = lane->seen_out;
	t->asked = lane;
	r = amqp_send_method(t->in.c, CHANNEL_SAMPLES, AMQP_QUEUE_DECLARE_METHOD, &m);
	if (r == 0)
		return 0;
	(void)rabbit_status(r, &e);
	return rabbit_lose(t, &e);
}

void rabbit_counted(struct rabbit_thread *t, const amqp_queue_declare_ok_t *m)
{
	struct rabbit_lane *lane = t->asked;
	struct rabbit *q = t->q;

	t->asked = NULL;
	if (!lane)
		return;
	(void)pthread_mutex_lock(&q->lock);
	lane->fresh = true;
	lane->count = m->message_count;
	lane->count_in = lane->sample_in;
	lane->count_out = lane->sample_out;
	q->shared.fresh = true;
	(void)pthread_mutex_unlock(&q->lock);
	(void)eventfd_write(q->loop_fd, 1);
}

/* The broker has closed the channel; where nothing has the name, the queue was deleted. */
int rabbit_samples_refused(struct rabbit_thread *t, uint16_t code)
{
	amqp_channel_close_ok_t ok = {0};
	struct rabbit_lane *lane = t->asked;
	struct err e = {""};
	int r;

	t->asked = NULL;
	if (lane && code == AMQP_NOT_FOUND && rabbit_lane_gone(t, lane) < 0)
		return -ENOTCONN;
	r = amqp_send_method(t->in.c, CHANNEL_SAMPLES, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
	if (r < 0)
		(void)rabbit_status(r, &e);
	else
		r = rabbit_open_channel(&t->in, CHANNEL_SAMPLES, &e);
	return r < 0 ? rabbit_lose(t, &e) : 0;
}
