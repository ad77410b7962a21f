/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/cache-private.h"

#include "base/url.h"
#include "observe/metrics.h"
#include "wire/codec.h"

#include <errno.h>
#include <string.h>

static const struct cache_ops *const implementations[] = {
	&cache_memory_ops,
	&cache_redis_ops,
};

int cache_open(uv_loop_t *loop, const struct cache_config *cfg, struct cache **ret_cache,
	       struct err *e)
{
	char shown[URL_SHOWN_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(implementations); i++) {
		const struct cache_ops *ops = implementations[i];
		int r;

		if (!url_scheme_is(cfg->url, ops->scheme, NULL))
			continue;
		r = ops->open(loop, cfg, ret_cache, e);
		if (r >= 0)
			(*ret_cache)->ops = ops;
		return r;
	}
	(void)url_show(cfg->url, shown, sizeof shown);
	return err_set(e, -EINVAL, "\"%s\" is no cache: known are memory: and redis://HOST:PORT/DB",
		       shown);
}

void cache_close(struct cache *c, void (*closed)(void *ctx), void *ctx)
{
	c->ops->close(c, closed, ctx);
}

void cache_put(struct cache *c, enum cache_kind kind, const struct uuid *id, const void *bytes,
	       size_t len)
{
	c->ops->put(c, kind, id, bytes, len);
	metric_set(METRIC_CACHE_BYTES, (double)c->stats.bytes);
}

void cache_drop(struct cache *c, enum cache_kind kind, const struct uuid *id)
{
	c->ops->drop(c, kind, id);
	metric_set(METRIC_CACHE_BYTES, (double)c->stats.bytes);
}

void cache_put_task(struct cache *c, const struct task *t)
{
	struct buf packed;

	if (task_result_bytes(t->result) >= CACHE_TASK_BYTES_MAX)
		return; /* packing would only find that out later */
	buf_init(&packed, CACHE_TASK_BYTES_MAX);
	if (codec_pack_task(t, &packed) == 0)
		cache_put(c, CACHE_TASK, &t->spec.id, packed.data, packed.len);
	buf_fini(&packed);
}

void cache_get(struct cache *c, struct cache_get *r)
{
	r->cache = c;
	r->call = NULL;
	list_init(&r->deferred.link);
	c->ops->get(c, r);
}

void cache_cancel(struct cache_get *r)
{
	r->cache->ops->cancel(r->cache, r);
}

void cache_answer(struct cache *c, struct cache_get *r, const void *bytes, size_t len)
{
	if (bytes)
		c->stats.hits++;
	else
		c->stats.misses++;
	metric_add(METRIC_CACHE_REQUESTS, 1, bytes ? "hit" : "miss");
	r->done(r, bytes ? 0 : -ENOENT, bytes, len);
}

bool cache_is_up(const struct cache *c, struct buf *why)
{
	return !c->ops->is_up || c->ops->is_up(c, why);
}

void cache_watch(struct cache *c, cache_watch_cb cb, void *ctx)
{
	c->watch = cb;
	c->watch_ctx = ctx;
}

void cache_get_stats(const struct cache *c, struct cache_stats *ret_stats)
{
	*ret_stats = c->stats;
}
