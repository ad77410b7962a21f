/* SPDX-License-Identifier: Apache-2.0 */
#include "redis/redis.h"
#include "bus/bus-private.h"
#include "bus/envelope.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * PUBLISH and SUBSCRIBE. Two connections, since one that listens may hardly do anything else.
 * Redis' channels know no databases: the number is in their names, "kiln:0:finished".
 */

enum {
	CALL_MS = 1000, /* nobody waits for an answer: rather late than never */
	UNSENT_MAX = 4 * 1024 * 1024,
	REPLY_MAX = 256 * 1024,
	CHANNEL_MAX = 32,
	N_CONNECTIONS = 2,
};

struct remote {
	struct bus base;
	struct redis *publisher, *subscriber;
	uint8_t self[sizeof((struct envelope *)0)->sender];
	char names[_BUS_TOPIC_MAX][CHANNEL_MAX];
	const char *channels[_BUS_TOPIC_MAX + 1];
	size_t open;	 /* connections that are not closed yet */
	struct err told; /* what was last said of them */
};

int envelope_open(const void *bytes, size_t len, struct envelope *ret_envelope,
		  const void **ret_payload, size_t *ret_len)
{
	const uint8_t *version = bytes;

	if (len < sizeof *ret_envelope || len - sizeof *ret_envelope > BUS_PAYLOAD_MAX ||
	    *version != ENVELOPE_VERSION)
		return -EBADMSG;
	memcpy(ret_envelope, bytes, sizeof *ret_envelope);
	*ret_payload = version + sizeof *ret_envelope;
	*ret_len = len - sizeof *ret_envelope;
	return 0;
}

static struct remote *remote_of(struct bus *b)
{
	return container_of(b, struct remote, base);
}

static void remote_publish(struct bus *base, enum bus_topic topic, const struct uuid *id,
			   const void *payload, size_t len)
{
	struct remote *b = remote_of(base);
	char bytes[sizeof(struct envelope) + BUS_PAYLOAD_MAX];
	struct envelope envelope = {.version = ENVELOPE_VERSION};
	const struct redis_arg args[] = {
		REDIS_WORD("PUBLISH"),
		{b->names[topic], strlen(b->names[topic])},
		{bytes, sizeof envelope + len},
	};

	memcpy(envelope.sender, b->self, sizeof envelope.sender);
	memcpy(envelope.id, id->bytes, sizeof envelope.id);
	memcpy(bytes, &envelope, sizeof envelope);
	if (len)
		memcpy(bytes + sizeof envelope, payload, len);
	(void)redis_command(b->publisher, args, ARRAY_SIZE(args), NULL, NULL, NULL);
}

static void on_message(void *ctx, size_t channel, const void *bytes, size_t len)
{
	struct remote *b = ctx;
	struct envelope envelope;
	const void *payload;
	size_t payload_len;
	struct uuid id;

	if (envelope_open(bytes, len, &envelope, &payload, &payload_len) < 0 ||
	    memcmp(envelope.sender, b->self, sizeof b->self) == 0)
		return;
	memcpy(id.bytes, envelope.id, sizeof id.bytes);
	bus_deliver(&b->base, (enum bus_topic)channel, &id, payload, payload_len);
}

static bool is_up(const struct remote *b)
{
	return redis_is_up(b->publisher) && redis_is_up(b->subscriber);
}

static const char *state_text(const struct remote *b)
{
	return redis_text(redis_is_up(b->subscriber) ? b->publisher : b->subscriber);
}

static bool remote_is_up(const struct bus *base, struct buf *why)
{
	const void *self = base; /* its first member */
	const struct remote *b = self;

	if (is_up(b))
		return true;
	if (why)
		(void)buf_printf(why, "bus: %s", state_text(b));
	return false;
}

/* Both lose the same Redis for the same reason: that is told once, and so is that both are back. */
static void on_changed(void *ctx, bool up, const char *text)
{
	struct remote *b = ctx;

	if (b->base.is_closing || (up && !is_up(b)) || strcmp(b->told.msg, text) == 0)
		return;
	(void)err_set(&b->told, -EAGAIN, "%s", text);
	bus_tell_watchers(&b->base, up, text);
}

static void name_channels(struct remote *b)
{
	static const char *const topics[_BUS_TOPIC_MAX] = {
		[BUS_FINISHED] = "finished",   [BUS_CANCEL] = "cancel", [BUS_QUEUED] = "queued",
		[BUS_LANGUAGES] = "languages", [BUS_OUTBOX] = "outbox", [BUS_WAITING] = "waiting",
	};

	for (int t = 0; t < _BUS_TOPIC_MAX; t++) {
		(void)snprintf(b->names[t], sizeof b->names[t], "kiln:%u:%s",
			       redis_db(b->publisher), topics[t]);
		b->channels[t] = b->names[t];
	}
}

static int open_connections(struct remote *b, uv_loop_t *loop, const char *url, struct err *e)
{
	struct redis_config cfg = {
		.use = "bus",
		.call_ms = CALL_MS,
		.unsent_max = UNSENT_MAX,
		.reply_max = REPLY_MAX,
		.changed = on_changed,
		.ctx = b,
	};
	int r = redis_open(loop, url, &cfg, &b->publisher, e);

	if (r < 0)
		return r;
	name_channels(b);
	cfg.use = "subscriber";
	cfg.channels = b->channels;
	cfg.message = on_message;
	r = redis_open(loop, url, &cfg, &b->subscriber, e);
	if (r < 0)
		redis_close(b->publisher, NULL, NULL);
	return r;
}

static int remote_open(uv_loop_t *loop, const char *url, struct bus **ret_bus, struct err *e)
{
	struct remote *b = calloc(1, sizeof *b);
	int r = b ? bus_init(&b->base, loop, e) : err_set(e, -ENOMEM, "out of memory");

	if (r < 0) {
		free(b);
		return r;
	}
	arc4random_buf(b->self, sizeof b->self);
	r = open_connections(b, loop, url, e);
	if (r < 0) {
		defer_close(b->base.defer);
		free(b);
		return r;
	}
	b->open = N_CONNECTIONS;
	*ret_bus = &b->base;
	return 0;
}

static void on_connection_closed(void *ctx)
{
	struct remote *b = ctx;

	if (--b->open == 0)
		bus_free(&b->base);
}

static void remote_close(struct bus *base)
{
	struct remote *b = remote_of(base);

	redis_close(b->publisher, on_connection_closed, b);
	redis_close(b->subscriber, on_connection_closed, b);
}

const struct bus_ops bus_redis_ops = {
	.scheme = "redis",
	.open = remote_open,
	.close = remote_close,
	.publish = remote_publish,
	.is_up = remote_is_up,
};
