/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include <errno.h>
#include <sys/time.h>

/*
 * From frames to what they mean. The library's own calls for messages wait for the rest of one
 * without a time-out, and stumble over frames of other kinds; here each frame is taken as it
 * comes, and a message is put together where its channel keeps it. Taking frames is also what makes
 * the library send heartbeats and miss those of the broker.
 */

enum { FRAMES_MAX = 256 };

static bool is_out(const struct rabbit_thread *t, const struct rabbit_conn *c)
{
	return c == &t->out;
}

/* ---- messages ---- */

static struct rabbit_lane *lane_of(struct rabbit_thread *t, const struct rabbit_conn *c,
				   amqp_channel_t channel)
{
	return !is_out(t, c) && channel < RABBIT_CHANNELS_MAX ? t->channels[channel] : NULL;
}

/* Where the message of a channel is put together; NULL where none can come. */
static struct rabbit_content *content_of(struct rabbit_thread *t, const struct rabbit_conn *c,
					 amqp_channel_t channel)
{
	struct rabbit_lane *lane = lane_of(t, c, channel);

	if (is_out(t, c))
		return channel == CHANNEL_PUBLISH ? &t->returned : NULL;
	return lane ? &lane->content : NULL;
}

static int complete(struct rabbit_thread *t, const struct rabbit_conn *c, amqp_channel_t channel,
		    struct rabbit_content *content)
{
	bool is_return = content->kind == CONTENT_RETURN;

	content->kind = CONTENT_NONE;
	if (is_return)
		return rabbit_returned(t, content->message_id);
	rabbit_delivered(t, lane_of(t, c, channel));
	return 0;
}

/* A frame of a message: header or body. */
static int on_content(struct rabbit_thread *t, const struct rabbit_conn *c, const amqp_frame_t *f,
		      struct err *e)
{
	struct rabbit_content *content = content_of(t, c, f->channel);
	int r = -EPROTO;

	if (content)
		r = f->frame_type == AMQP_FRAME_HEADER ? rabbit_content_header(content, f)
						       : rabbit_content_body(content, f);
	if (r < 0)
		return err_set(e, r, "the broker's frames are out of order");
	return r > 0 ? complete(t, c, f->channel, content) : 0;
}

/* ---- methods ---- */

typedef int (*method_cb)(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
			 struct err *e);

static int on_deliver(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
		      struct err *e)
{
	const amqp_basic_deliver_t *m = f->payload.method.decoded;
	struct rabbit_lane *lane = lane_of(t, c, f->channel);

	if (!lane)
		return err_set(e, -EPROTO, "a delivery came where none was asked for");
	rabbit_content_begin(&lane->content, CONTENT_DELIVERY, m->delivery_tag);
	return 0;
}

static int on_return(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
		     struct err *e)
{
	(void)e;
	(void)c;
	(void)f;
	rabbit_content_begin(&t->returned, CONTENT_RETURN, 0);
	return 0;
}

static int on_ack(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
		  struct err *e)
{
	const amqp_basic_ack_t *m = f->payload.method.decoded;

	(void)e;
	if (is_out(t, c))
		rabbit_confirmed(t, m->delivery_tag, m->multiple, true);
	return 0;
}

static int on_nack(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
		   struct err *e)
{
	const amqp_basic_nack_t *m = f->payload.method.decoded;

	(void)e;
	if (is_out(t, c))
		rabbit_confirmed(t, m->delivery_tag, m->multiple, false);
	return 0;
}

static int on_cancel(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
		     struct err *e)
{
	struct rabbit_lane *lane = lane_of(t, c, f->channel);

	(void)e;
	return lane ? rabbit_lane_gone(t, lane) : 0;
}

static int on_count(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
		    struct err *e)
{
	(void)e;
	if (is_out(t, c) || f->channel != CHANNEL_SAMPLES)
		return 0;
	rabbit_counted(t, f->payload.method.decoded);
	return rabbit_ask_counts(t); /* the next one, without waiting for something to happen */
}

static int on_blocked(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
		      struct err *e)
{
	const amqp_connection_blocked_t *m = f->payload.method.decoded;
	int len = m->reason.len < ERR_MSG_MAX ? (int)m->reason.len : ERR_MSG_MAX;

	if (!is_out(t, c))
		return 0;
	(void)err_set(e, -EAGAIN, "RabbitMQ at %s takes no messages: %.*s", c->peer, len,
		      (const char *)m->reason.bytes);
	rabbit_tell_reason(t, e);
	t->blocked = true;
	rabbit_tell_blocked(t);
	rabbit_fail_publishes(t, false);
	return 0;
}

static int on_unblocked(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
			struct err *e)
{
	(void)f;
	(void)e;
	if (!is_out(t, c))
		return 0;
	t->blocked = false;
	rabbit_tell_reason(t, NULL);
	rabbit_tell_blocked(t);
	return 0;
}

static int on_channel_close(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
			    struct err *e)
{
	const amqp_channel_close_t *m = f->payload.method.decoded;

	if (!is_out(t, c) && f->channel == CHANNEL_SAMPLES)
		return rabbit_samples_refused(t, m->reply_code);
	return rabbit_close_reason(m->reply_code, m->reply_text, e);
}

static int on_connection_close(struct rabbit_thread *t, struct rabbit_conn *c,
			       const amqp_frame_t *f, struct err *e)
{
	const amqp_connection_close_t *m = f->payload.method.decoded;
	amqp_connection_close_ok_t ok = {0};

	(void)t;
	(void)amqp_send_method(c->c, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok);
	return rabbit_close_reason(m->reply_code, m->reply_text, e);
}

static const struct {
	amqp_method_number_t id;
	method_cb call;
} methods[] = {
	{AMQP_BASIC_DELIVER_METHOD, on_deliver},
	{AMQP_BASIC_ACK_METHOD, on_ack},
	{AMQP_BASIC_NACK_METHOD, on_nack},
	{AMQP_BASIC_RETURN_METHOD, on_return},
	{AMQP_BASIC_CANCEL_METHOD, on_cancel},
	{AMQP_QUEUE_DECLARE_OK_METHOD, on_count},
	{AMQP_CONNECTION_BLOCKED_METHOD, on_blocked},
	{AMQP_CONNECTION_UNBLOCKED_METHOD, on_unblocked},
	{AMQP_CHANNEL_CLOSE_METHOD, on_channel_close},
	{AMQP_CONNECTION_CLOSE_METHOD, on_connection_close},
};

static int on_frame(struct rabbit_thread *t, struct rabbit_conn *c, const amqp_frame_t *f,
		    struct err *e)
{
	switch (f->frame_type) {
	case AMQP_FRAME_METHOD:
		for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
			if (methods[i].id == f->payload.method.id)
				return methods[i].call(t, c, f, e);
		return 0;
	case AMQP_FRAME_HEADER:
	case AMQP_FRAME_BODY:
		return on_content(t, c, f, e);
	default:
		return 0;
	}
}

int rabbit_pump(struct rabbit_thread *t, struct rabbit_conn *c)
{
	struct timeval now = {0};

	for (int n = 0; n < FRAMES_MAX; n++) {
		amqp_frame_t f;
		struct err e = {""};
		int r = amqp_simple_wait_frame_noblock(c->c, &f, &now);

		if (r == AMQP_STATUS_TIMEOUT)
			return 0;
		if (r < 0) {
			(void)rabbit_status(r, &e);
			return rabbit_lose(t, &e);
		}
		r = on_frame(t, c, &f, &e);
		if (r < 0)
			return t->up ? rabbit_lose(t, &e) : -ENOTCONN;
		amqp_maybe_release_buffers_on_channel(c->c, f.channel);
	}
	return 1;
}
