/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/inspect.h"
#include "queue/rabbitmq-private.h"

#include "base/str.h"
#include "base/url.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/* The same two connections with the same channels as a session has; dead letters are taken on that
 * of the samples. What was taken and not acknowledged goes back when the connection ends. */
struct queue_inspector {
	struct rabbit_url url;
	struct rabbit_conn in, out;
};

enum { CHANNEL_GET = CHANNEL_SAMPLES };

static int open_channels(struct queue_inspector *i, struct err *e)
{
	int r = rabbit_open_channel(&i->in, CHANNEL_TOPOLOGY, e);

	if (r == 0)
		r = rabbit_open_channel(&i->in, CHANNEL_GET, e);
	if (r == 0)
		r = rabbit_declare_exchanges(&i->in, &i->url, e);
	if (r == 0)
		r = rabbit_declare_dead(&i->in, &i->url, e);
	if (r == 0)
		r = rabbit_open_channel(&i->out, CHANNEL_PUBLISH, e);
	if (r < 0)
		return r;
	(void)amqp_confirm_select(i->out.c, CHANNEL_PUBLISH);
	return rabbit_reply(&i->out, CHANNEL_PUBLISH, e);
}

static int connect_any(struct queue_inspector *i, struct err *e)
{
	int r = -ENOTCONN;

	for (size_t host = 0; host < i->url.n_hosts; host++) {
		r = rabbit_connect(&i->url, host, "kiln queue", &i->in, e);
		if (r == 0)
			r = rabbit_connect(&i->url, host, "kiln queue", &i->out, e);
		if (r == 0 || !rabbit_may_pass(r))
			break;
		rabbit_disconnect(&i->in, false);
	}
	return r;
}

int queue_inspector_new(const char *url, struct queue_inspector **ret_inspector, struct err *e)
{
	AUTO(queue_inspector_free) struct queue_inspector *i = calloc(1, sizeof *i);
	const char *rest;
	int r;

	if (!i)
		return err_set(e, -ENOMEM, "out of memory");
	i->in.fd = i->out.fd = -1;
	if (url_scheme_is(url, "memory", &rest))
		return err_set(e, -EOPNOTSUPP,
			       "the queue is in the memory of its server: see /metrics there");
	if (!url_scheme_is(url, queue_rabbitmq_ops.scheme, &rest))
		return err_set(e, -EINVAL, "\"%.*s\" is no queue: known are memory: and amqp://",
			       (int)strcspn(url, ":/@"), url);
	r = rabbit_url_parse(rest, &i->url, e);
	if (r == 0)
		r = connect_any(i, e);
	if (r == 0)
		r = open_channels(i, e);
	if (r == 0)
		*ret_inspector = TAKE_PTR(i);
	return r;
}

void queue_inspector_free(struct queue_inspector *i)
{
	if (!i)
		return;
	rabbit_disconnect(&i->in, true);
	rabbit_disconnect(&i->out, true);
	free(i);
}

/* ---- counts ---- */

static int count(struct queue_inspector *i, const char *name, struct queue_count *ret_count,
		 struct err *e)
{
	const amqp_queue_declare_ok_t *ok = amqp_queue_declare(
		i->in.c, CHANNEL_TOPOLOGY, amqp_cstring_bytes(name), 1, 0, 0, 0, amqp_empty_table);
	int r = ok ? 0 : rabbit_reply(&i->in, CHANNEL_TOPOLOGY, e);

	if (r < 0 && r != -ENOENT)
		return r;
	*ret_count = (struct queue_count){.exists = ok != NULL};
	(void)str_copy(ret_count->name, sizeof ret_count->name, name);
	if (ok) {
		ret_count->ready = ok->message_count;
		ret_count->consumers = ok->consumer_count;
	}
	return 0;
}

int queue_inspect_count(struct queue_inspector *i, const char *language, enum task_class class,
			struct queue_count *ret_count, struct err *e)
{
	char key[RABBIT_NAME_MAX], name[RABBIT_NAME_MAX];

	(void)snprintf(key, sizeof key, "%s.%s", language, task_class_name(class));
	rabbit_name(&i->url, key, name);
	return count(i, name, ret_count, e);
}

/* ---- dead letters ---- */

static bool is_named(const amqp_table_entry_t *entry, const char *name)
{
	return entry->key.len == strlen(name) &&
	       memcmp(entry->key.bytes, name, entry->key.len) == 0;
}

static void copy_value(const amqp_field_value_t *v, char *dst, size_t size)
{
	size_t len = v->kind == AMQP_FIELD_KIND_UTF8 ? v->value.bytes.len : 0;

	if (len >= size)
		len = size - 1;
	if (len)
		memcpy(dst, v->value.bytes.bytes, len);
	dst[len] = '\0';
}

/* Whoever may publish may write headers, and this is shown on terminals. */
static void copy_reason(const amqp_field_value_t *v, char *dst, size_t size)
{
	copy_value(v, dst, size);
	if (dst[strspn(dst, "abcdefghijklmnopqrstuvwxyz_")])
		dst[0] = '\0';
}

/* The newest of the deaths that RabbitMQ has noted is the first of the array "x-death". */
static void read_death(const amqp_basic_properties_t *p, struct queue_dead_letter *l)
{
	const amqp_table_t *death = NULL;

	if (!(p->_flags & AMQP_BASIC_HEADERS_FLAG))
		return;
	for (int n = 0; n < p->headers.num_entries; n++) {
		const amqp_field_value_t *v = &p->headers.entries[n].value;

		if (is_named(&p->headers.entries[n], "x-death") &&
		    v->kind == AMQP_FIELD_KIND_ARRAY && v->value.array.num_entries > 0 &&
		    v->value.array.entries[0].kind == AMQP_FIELD_KIND_TABLE)
			death = &v->value.array.entries[0].value.table;
	}
	for (int n = 0; death && n < death->num_entries; n++) {
		const amqp_table_entry_t *entry = &death->entries[n];

		if (is_named(entry, "reason"))
			copy_reason(&entry->value, l->reason, sizeof l->reason);
		else if (is_named(entry, "queue"))
			copy_value(&entry->value, l->queue, sizeof l->queue);
		else if (is_named(entry, "time") &&
			 entry->value.kind == AMQP_FIELD_KIND_TIMESTAMP &&
			 entry->value.value.u64 < INT64_MAX / 1000000)
			l->died_us = (int64_t)entry->value.value.u64 * 1000000;
	}
}

static int next_frame(struct rabbit_conn *c, amqp_frame_t *ret_frame, struct err *e)
{
	struct timeval patience = {.tv_sec = RABBIT_RPC_MS / 1000};
	int r = amqp_simple_wait_frame_noblock(c->c, ret_frame, &patience);

	return r < 0 ? rabbit_status(r, e) : 0;
}

/* The frames of a message, behind the method that announced it. */
static int read_content(struct rabbit_conn *c, struct rabbit_content *content,
			struct queue_dead_letter *l, struct err *e)
{
	int r = 0;

	while (r == 0) {
		amqp_frame_t f;

		r = next_frame(c, &f, e);
		if (r < 0)
			return r;
		if (f.frame_type == AMQP_FRAME_HEADER) {
			r = rabbit_content_header(content, &f);
			if (r >= 0 && l)
				read_death(f.payload.properties.decoded, l);
		} else if (f.frame_type == AMQP_FRAME_BODY) {
			r = rabbit_content_body(content, &f);
		}
	}
	return r < 0 ? err_set(e, r, "the broker's frames are out of order") : 0;
}

static void read_letter(const struct rabbit_content *content, struct queue_dead_letter *l)
{
	struct err why = {""};

	if (content->too_large)
		(void)err_set(&why, -EBADMSG, "the message is larger than %d bytes",
			      QUEUE_MESSAGE_BYTES_MAX);
	else if (queue_message_read(content->body, content->len, &l->message, &why) == 0)
		l->readable = true;
	(void)str_copy(l->problem, sizeof l->problem, why.msg);
}

/* The next dead letter, held until it is acknowledged: 1, or 0 where there is none. */
static int get_letter(struct queue_inspector *i, const char *dead, struct queue_dead_letter *ret_l,
		      uint64_t *ret_tag, struct err *e)
{
	struct queue_dead_letter l = {0};
	struct rabbit_content content;
	amqp_rpc_reply_t reply;
	int r;

	reply = amqp_basic_get(i->in.c, CHANNEL_GET, amqp_cstring_bytes(dead), 0);
	r = rabbit_reply(&i->in, CHANNEL_GET, e);
	if (r < 0)
		return r;
	if (reply.reply.id != AMQP_BASIC_GET_OK_METHOD)
		return 0;
	*ret_tag = ((const amqp_basic_get_ok_t *)reply.reply.decoded)->delivery_tag;
	rabbit_content_begin(&content, CONTENT_DELIVERY, *ret_tag);
	r = read_content(&i->in, &content, &l, e);
	if (r < 0)
		return r;
	read_letter(&content, &l);
	memcpy(l.message.traceparent, content.traceparent, sizeof l.message.traceparent);
	amqp_maybe_release_buffers_on_channel(i->in.c, CHANNEL_GET);
	*ret_l = l;
	return 1;
}

/* Lets go of what was looked at, and waits until it is there again: who looks next wants to see
 * it. */
static int put_back(struct queue_inspector *i, const char *dead, uint64_t last_tag, size_t total,
		    struct err *e)
{
	enum { TRIES = 100, TRY_MS = 20 };
	struct queue_count now;
	int r = 0;

	if (amqp_basic_nack(i->in.c, CHANNEL_GET, last_tag, 1, 1) < 0)
		return err_set(e, -ENOTCONN, "the connection ended");
	for (int n = 0; r == 0 && n < TRIES; n++) {
		r = count(i, dead, &now, e);
		if (r == 0 && now.ready >= total)
			return 0;
		(void)poll(NULL, 0, TRY_MS);
	}
	return r;
}

int queue_inspect_dead(struct queue_inspector *i, size_t max, size_t *ret_total,
		       queue_dead_letter_cb show, void *ctx, struct err *e)
{
	char dead[RABBIT_NAME_MAX];
	struct queue_count total;
	uint64_t tag = 0;
	int r;

	rabbit_name(&i->url, "dead", dead);
	r = count(i, dead, &total, e);
	for (size_t n = 0; r >= 0 && n < max; n++) {
		struct queue_dead_letter l;

		r = get_letter(i, dead, &l, &tag, e);
		if (r <= 0)
			break;
		show(ctx, &l);
	}
	if (r >= 0 && tag)
		r = put_back(i, dead, tag, total.ready, e);
	if (r >= 0)
		*ret_total = total.ready;
	return r < 0 ? r : 0;
}

/* ---- replay ---- */

/* Until the broker has answered for the one message that was published: 0, or -EAGAIN where it does
 * not want it. */
static int wait_confirmed(struct queue_inspector *i, struct err *e)
{
	bool returned = false;

	for (;;) {
		struct rabbit_content content;
		amqp_frame_t f;
		int r = next_frame(&i->out, &f, e);

		if (r < 0)
			return r;
		if (f.frame_type != AMQP_FRAME_METHOD)
			continue;
		switch (f.payload.method.id) {
		case AMQP_BASIC_RETURN_METHOD:
			returned = true;
			rabbit_content_begin(&content, CONTENT_RETURN, 0);
			r = read_content(&i->out, &content, NULL, e);
			if (r < 0)
				return r;
			break;
		case AMQP_BASIC_ACK_METHOD:
			amqp_maybe_release_buffers(i->out.c);
			return returned ? err_set(e, -EAGAIN, "no queue takes the message") : 0;
		case AMQP_BASIC_NACK_METHOD:
			return err_set(e, -EAGAIN, "the broker refuses the message");
		case AMQP_CONNECTION_CLOSE_METHOD:
		case AMQP_CHANNEL_CLOSE_METHOD:
			return err_set(e, -ENOTCONN, "the broker closed the connection");
		case AMQP_CONNECTION_BLOCKED_METHOD:
			return err_set(e, -EAGAIN, "the broker takes no messages now");
		default:
			break;
		}
	}
}

static int replay(struct queue_inspector *i, const struct queue_message *m, struct err *e)
{
	char key[RABBIT_NAME_MAX], queue[RABBIT_NAME_MAX];
	int r;

	(void)snprintf(key, sizeof key, "%s.%s", m->language, task_class_name(m->class));
	rabbit_name(&i->url, key, queue);
	r = rabbit_declare_queue(&i->in, &i->url, queue, key, e);
	if (r == 0)
		r = rabbit_write(&i->out, &i->url, key, m, e);
	return r == 0 ? wait_confirmed(i, e) : r;
}

/* What becomes of a dead letter that can be read: 1 where it is to be dropped, 0 where it stays. */
typedef int (*letter_cb)(struct queue_inspector *i, const struct queue_message *m, const void *ctx,
			 struct err *e);

/* One turn over those that were there at the beginning: a replayed one may come back. */
static int for_each_dead(struct queue_inspector *i, letter_cb act, const void *ctx,
			 size_t *ret_dropped, size_t *ret_left, struct err *e)
{
	char dead[RABBIT_NAME_MAX];
	struct queue_count total;
	int r;

	*ret_dropped = *ret_left = 0;
	rabbit_name(&i->url, "dead", dead);
	r = count(i, dead, &total, e);
	for (size_t n = 0; r >= 0 && n < total.ready; n++) {
		struct queue_dead_letter l;
		uint64_t tag;

		r = get_letter(i, dead, &l, &tag, e);
		if (r <= 0)
			break;
		r = l.readable ? act(i, &l.message, ctx, e) : 0;
		if (r > 0 && amqp_basic_ack(i->in.c, CHANNEL_GET, tag, 0) < 0)
			r = err_set(e, -ENOTCONN, "the connection ended");
		*ret_dropped += r > 0;
		*ret_left += r == 0;
	}
	return r < 0 ? r : 0;
}

static int replay_letter(struct queue_inspector *i, const struct queue_message *m, const void *ctx,
			 struct err *e)
{
	int r = replay(i, m, e);

	(void)ctx;
	return r < 0 ? r : 1;
}

int queue_replay_dead(struct queue_inspector *i, size_t *ret_replayed, size_t *ret_left,
		      struct err *e)
{
	size_t replayed, left;
	int r = for_each_dead(i, replay_letter, NULL, &replayed, &left, e);

	if (r < 0)
		return err_wrap(e, r, "%zu were put back, then it failed", replayed);
	*ret_replayed = replayed;
	*ret_left = left;
	return 0;
}

struct id_set {
	const struct uuid *ids;
	size_t n;
};

static int drop_letter(struct queue_inspector *i, const struct queue_message *m, const void *ctx,
		       struct err *e)
{
	const struct id_set *set = ctx;

	(void)i;
	(void)e;
	for (size_t n = 0; n < set->n; n++)
		if (uuid_eq(&set->ids[n], &m->id))
			return 1;
	return 0;
}

int queue_drop_dead(struct queue_inspector *i, const struct uuid *ids, size_t n,
		    size_t *ret_dropped, size_t *ret_left, struct err *e)
{
	const struct id_set set = {ids, n};

	return for_each_dead(i, drop_letter, &set, ret_dropped, ret_left, e);
}
