/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/bus-private.h"

#include "base/cleanup.h"
#include "base/url.h"

#include <errno.h>

static const struct bus_ops *const implementations[] = {
	&bus_local_ops,
};

int bus_open(uv_loop_t *loop, const char *url, struct bus **ret_bus, struct err *e)
{
	const char *rest;

	for (size_t i = 0; i < ARRAY_SIZE(implementations); i++) {
		const struct bus_ops *ops = implementations[i];
		int r;

		if (!url_scheme_is(url, ops->scheme, &rest))
			continue;
		r = ops->open(loop, url, rest, ret_bus, e);
		if (r >= 0)
			(*ret_bus)->ops = ops;
		return r;
	}
	return err_set(e, -EINVAL, "\"%s\" is no bus: known is memory:", url);
}

void bus_close(struct bus *b, void (*closed)(void *ctx), void *ctx)
{
	b->ops->close(b, closed, ctx);
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

void bus_publish(struct bus *b, enum bus_topic topic, const struct uuid *id, const void *payload,
		 size_t len)
{
	if (len <= BUS_PAYLOAD_MAX)
		b->ops->publish(b, topic, id, payload, len);
}

/* A callback may subscribe and unsubscribe: places are fixed, and looked at one by one. */
void bus_deliver(struct bus *b, enum bus_topic topic, const struct uuid *id, const void *payload,
		 size_t len)
{
	for (size_t i = 0; i < BUS_SUBSCRIBERS_MAX; i++) {
		const struct bus_subscriber *s = &b->subscribers[topic][i];

		if (s->cb)
			s->cb(s->ctx, topic, id, payload, len);
	}
}
