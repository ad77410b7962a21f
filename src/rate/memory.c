/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "loop/defer.h"
#include "rate/rate-private.h"

#include <errno.h>
#include <stdlib.h>

struct local {
	struct rate base;
	struct rate_counts counts;
	struct defer *defer;
	struct deferred closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static bool local_take(struct rate *base, struct rate_take *t)
{
	struct local *r = container_of(base, struct local, base);

	t->wait_us = rate_counts_take(&r->counts, t->name, &t->limit, clock_monotonic_us());
	return true;
}

static int local_open(uv_loop_t *loop, const char *url, struct rate **ret_rate, struct err *e)
{
	struct local *r = calloc(1, sizeof *r);
	int code;

	(void)url;
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	code = defer_new(loop, &r->defer);
	if (code < 0) {
		free(r);
		return err_errno(e, code, "could not count rates");
	}
	r->base.impl = &rate_memory;
	rate_counts_init(&r->counts);
	list_init(&r->closing.link);
	*ret_rate = &r->base;
	return 0;
}

static void on_closing(struct deferred *d)
{
	struct local *r = container_of(d, struct local, closing);
	void (*closed)(void *) = r->closed;
	void *ctx = r->closed_ctx;

	defer_close(r->defer);
	rate_counts_fini(&r->counts);
	free(r);
	if (closed)
		closed(ctx);
}

static void local_close(struct rate *base, void (*closed)(void *ctx), void *ctx)
{
	struct local *r = container_of(base, struct local, base);

	r->closed = closed;
	r->closed_ctx = ctx;
	r->closing.call = on_closing;
	defer_call(r->defer, &r->closing);
}

const struct rate_impl rate_memory = {
	.scheme = "memory",
	.open = local_open,
	.take = local_take,
	.close = local_close,
};
