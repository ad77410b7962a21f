/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/bus-private.h"

#include "base/cleanup.h"
#include "base/url.h"

#include <errno.h>
#include <string.h>

static const struct bus_ops *const implementations[] = {
	&bus_local_ops,
	&bus_redis_ops,
};

/* A message to the subscribers of this process, on its way to the end of the turn. */
struct message {
	struct deferred deferred;
	struct bus *bus;
	enum bus_topic topic;
	struct uuid id;
	size_t len;
	char payload[];
};

int bus_open(uv_loop_t *loop, const char *url, struct bus **ret_bus, struct err *e)
{
	char shown[URL_SHOWN_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(implementations); i++) {
		const struct bus_ops *ops = implementations[i];
		int r;

		if (!url_scheme_is(url, ops->scheme, NULL))
			continue;
		r = ops->open(loop, url, ret_bus, e);
		if (r >= 0)
			(*ret_bus)->ops = ops;
		return r;
	}
	(void)url_show(url, shown, sizeof shown);
	return err_set(e, -EINVAL, "\"%s\" is no bus: known are memory: and redis://HOST:PORT/DB",
		       shown);
}

int bus_init(struct bus *b, uv_loop_t *loop, struct err *e)
{
	int r = defer_new(loop, &b->defer);

	if (r < 0)
		return err_errno(e, r, "could not open the bus");
	list_init(&b->closing.link);
	return 0;
}

static void on_closing(struct deferred *d)
{
	struct bus *b = container_of(d, struct bus, closing);

	b->ops->close(b);
}

/* Behind all messages that were published before, which then free themselves. */
void bus_close(struct bus *b, void (*closed)(void *ctx), void *ctx)
{
	b->is_closing = true;
	b->closed = closed;
	b->closed_ctx = ctx;
	b->closing.call = on_closing;
	defer_call(b->defer, &b->closing);
}

void bus_free(struct bus *b)
{
	void (*closed)(void *) = b->closed;
	void *ctx = b->closed_ctx;

	defer_close(b->defer);
	free(b);
	if (closed)
		closed(ctx);
}

int bus_subscribe(struct bus *b, enum bus_topic topic, bus_cb cb, void *ctx)
{
	for (size_t i = 0; i < BUS_SUBSCRIBERS_MAX; i++) {
		struct bus_subscriber *s = &b->subscribers[topic][i];

		if (s->cb)
			continue;
		*s = (struct bus_subscriber){cb, ctx};
		return 0;
	}
	return -ENOSPC;
}

void bus_unsubscribe(struct bus *b, enum bus_topic topic, bus_cb cb, void *ctx)
{
	for (size_t i = 0; i < BUS_SUBSCRIBERS_MAX; i++) {
		struct bus_subscriber *s = &b->subscribers[topic][i];

		if (s->cb == cb && s->ctx == ctx) {
			*s = (struct bus_subscriber){0};
			return;
		}
	}
}

static void on_message(struct deferred *d)
{
	struct message *m = container_of(d, struct message, deferred);

	bus_deliver(m->bus, m->topic, &m->id, m->payload, m->len);
	free(m);
}

/* Delivery is not guaranteed: a message for which there is no memory is lost. */
static void deliver_here(struct bus *b, enum bus_topic topic, const struct uuid *id,
			 const void *payload, size_t len)
{
	struct message *m = malloc(sizeof *m + len);

	if (!m)
		return;
	m->bus = b;
	m->topic = topic;
	m->id = *id;
	m->len = len;
	if (len)
		memcpy(m->payload, payload, len);
	m->deferred.call = on_message;
	list_init(&m->deferred.link);
	defer_call(b->defer, &m->deferred);
}

void bus_publish(struct bus *b, enum bus_topic topic, const struct uuid *id, const void *payload,
		 size_t len)
{
	if (len > BUS_PAYLOAD_MAX || b->is_closing)
		return;
	deliver_here(b, topic, id, payload, len);
	b->ops->publish(b, topic, id, payload, len);
}

/* A callback may subscribe, unsubscribe and close: places are fixed, and looked at one by one. */
void bus_deliver(struct bus *b, enum bus_topic topic, const struct uuid *id, const void *payload,
		 size_t len)
{
	for (size_t i = 0; i < BUS_SUBSCRIBERS_MAX && !b->is_closing; i++) {
		const struct bus_subscriber *s = &b->subscribers[topic][i];

		if (s->cb)
			s->cb(s->ctx, topic, id, payload, len);
	}
}

bool bus_is_up(const struct bus *b, struct buf *why)
{
	return !b->ops->is_up || b->ops->is_up(b, why);
}

int bus_watch(struct bus *b, bus_watch_cb cb, void *ctx)
{
	for (size_t i = 0; i < BUS_WATCHERS_MAX; i++) {
		if (b->watchers[i].cb)
			continue;
		b->watchers[i] = (struct bus_watcher){cb, ctx};
		return 0;
	}
	return -ENOSPC;
}

void bus_unwatch(struct bus *b, bus_watch_cb cb, void *ctx)
{
	for (size_t i = 0; i < BUS_WATCHERS_MAX; i++)
		if (b->watchers[i].cb == cb && b->watchers[i].ctx == ctx)
			b->watchers[i] = (struct bus_watcher){0};
}

void bus_tell_watchers(const struct bus *b, bool up, const char *text)
{
	for (size_t i = 0; i < BUS_WATCHERS_MAX; i++)
		if (b->watchers[i].cb)
			b->watchers[i].cb(b->watchers[i].ctx, up, text);
}
