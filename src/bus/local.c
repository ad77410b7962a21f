/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/bus-private.h"

#include "loop/defer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Within one process: a message is a deferred call. */

struct message {
	struct deferred deferred;
	struct local *bus;
	enum bus_topic topic;
	struct uuid id;
	size_t len;
	char payload[];
};

struct local {
	struct bus base;
	struct defer *defer;
	struct deferred closing;
	bool is_closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static void on_message(struct deferred *d)
{
	struct message *m = container_of(d, struct message, deferred);

	if (!m->bus->is_closing)
		bus_deliver(&m->bus->base, m->topic, &m->id, m->payload, m->len);
	free(m);
}

static void local_publish(struct bus *base, enum bus_topic topic, const struct uuid *id,
			  const void *payload, size_t len)
{
	struct local *b = container_of(base, struct local, base);
	struct message *m;

	if (b->is_closing)
		return;
	/* Delivery is not guaranteed: a message for which there is no memory is lost. */
	m = malloc(sizeof *m + len);
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

static int local_open(uv_loop_t *loop, const char *url, const char *rest, struct bus **ret_bus,
		      struct err *e)
{
	struct local *b;
	int r;

	if (*rest)
		return err_set(e, -EINVAL, "\"%s\": nothing may follow \"memory:\"", url);
	b = calloc(1, sizeof *b);
	if (!b)
		return err_set(e, -ENOMEM, "out of memory");
	r = defer_new(loop, &b->defer);
	if (r < 0) {
		free(b);
		return err_errno(e, r, "could not open the bus");
	}
	list_init(&b->closing.link);
	*ret_bus = &b->base;
	return 0;
}

/* Behind all messages that were published before, which then free themselves. */
static void on_closing(struct deferred *d)
{
	struct local *b = container_of(d, struct local, closing);
	void (*closed)(void *) = b->closed;
	void *ctx = b->closed_ctx;

	defer_close(b->defer);
	free(b);
	if (closed)
		closed(ctx);
}

static void local_close(struct bus *base, void (*closed)(void *ctx), void *ctx)
{
	struct local *b = container_of(base, struct local, base);

	b->is_closing = true;
	b->closed = closed;
	b->closed_ctx = ctx;
	b->closing.call = on_closing;
	defer_call(b->defer, &b->closing);
}

const struct bus_ops bus_local_ops = {
	.scheme = "memory",
	.open = local_open,
	.close = local_close,
	.publish = local_publish,
};
