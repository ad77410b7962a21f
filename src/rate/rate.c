/* SPDX-License-Identifier: Apache-2.0 */
#include "rate/rate-private.h"

#include "base/cleanup.h"

#include "base/str.h"
#include "base/url.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SWEEP_MIN = 10000, MINUTE_US = 60 * 1000 * 1000 };

struct count {
	char name[RATE_NAME_MAX];
	int64_t even_us; /* when all that was taken would have come at an even pace */
};

int64_t rate_interval_us(const struct rate_limit *l)
{
	int64_t us = MINUTE_US / l->per_minute;

	return us > 0 ? us : 1;
}

void rate_counts_init(struct rate_counts *c)
{
	map_init(&c->by_name);
	c->sweep_at = SWEEP_MIN;
}

static void forget(struct rate_counts *c, struct count *n)
{
	(void)map_remove(&c->by_name, n->name, strlen(n->name));
	free(n);
}

void rate_counts_fini(struct rate_counts *c)
{
	size_t cursor = 0;
	struct count *n;

	MAP_FOREACH (n, cursor, &c->by_name)
		free(n);
	map_fini(&c->by_name);
}

/* Those that are at rest are as good as new. The next time is when there are twice as many as are
 * left: what a look costs is shared by all that came since the last. */
static void sweep(struct rate_counts *c, int64_t now_us)
{
	struct count **rested = calloc(map_count(&c->by_name) + 1, sizeof *rested);
	size_t cursor = 0, n = 0;
	struct count *it;

	if (!rested)
		return;
	MAP_FOREACH (it, cursor, &c->by_name)
		if (it->even_us <= now_us)
			rested[n++] = it;
	for (size_t i = 0; i < n; i++)
		forget(c, rested[i]);
	free(rested);
	c->sweep_at = 2 * map_count(&c->by_name);
	if (c->sweep_at < SWEEP_MIN)
		c->sweep_at = SWEEP_MIN;
}

static struct count *find(struct rate_counts *c, const char *name, int64_t now_us)
{
	struct count *n = map_get(&c->by_name, name, strlen(name));

	if (n)
		return n;
	if (map_count(&c->by_name) >= c->sweep_at)
		sweep(c, now_us);
	n = calloc(1, sizeof *n);
	if (!n || !str_copy(n->name, sizeof n->name, name) ||
	    map_put(&c->by_name, n->name, strlen(n->name), n) < 0) {
		free(n);
		return NULL;
	}
	return n;
}

int64_t rate_counts_take(struct rate_counts *c, const char *name, const struct rate_limit *l,
			 int64_t now_us)
{
	int64_t interval_us = rate_interval_us(l), early_us;
	struct count *n = find(c, name, now_us);

	if (!n)
		return 0;
	if (n->even_us < now_us)
		n->even_us = now_us;
	/* How much before its time at an even pace this one may come, for the sake of bursts. */
	early_us = n->even_us - now_us - interval_us * (l->burst - 1);
	if (early_us > 0)
		return early_us;
	n->even_us += interval_us;
	return 0;
}

int rate_open(uv_loop_t *loop, const char *url, struct rate **ret_rate, struct err *e)
{
	static const struct rate_impl *const impls[] = {&rate_memory, &rate_redis};
	char shown[URL_SHOWN_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(impls); i++)
		if (url_scheme_is(url, impls[i]->scheme, NULL))
			return impls[i]->open(loop, url, ret_rate, e);
	(void)url_show(url, shown, sizeof shown);
	return err_set(e, -EINVAL, "rates are counted at memory: or redis:, not at \"%s\"", shown);
}

void rate_close(struct rate *r, void (*closed)(void *ctx), void *ctx)
{
	r->impl->close(r, closed, ctx);
}

bool rate_take(struct rate *r, struct rate_take *t)
{
	t->rate = r;
	t->wait_us = 0;
	return r->impl->take(r, t);
}
