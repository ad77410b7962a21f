/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/cache-private.h"
#include "cache/lru.h"

#include <errno.h>
#include <stdlib.h>

/* Within one process. */

struct memory {
	struct cache base;
	struct defer *defer;
	struct lru lru;

	struct deferred closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static struct memory *memory_of(struct cache *c)
{
	return container_of(c, struct memory, base);
}

static void memory_put(struct cache *base, enum cache_kind kind, const struct uuid *id,
		       const void *bytes, size_t len)
{
	lru_put(&memory_of(base)->lru, kind, id, bytes, len);
}

static void memory_drop(struct cache *base, enum cache_kind kind, const struct uuid *id)
{
	lru_drop(&memory_of(base)->lru, kind, id);
}

/* Looked up only now: between the question and its answer the entry may have gone. The callback may
 * put and drop as it likes, this very entry too, or close the cache. */
static void on_get(struct deferred *d)
{
	struct cache_get *r = container_of(d, struct cache_get, deferred);
	struct memory *c = memory_of(r->cache);
	const void *bytes = NULL;
	size_t len = 0;
	struct lru_entry *entry = lru_pin(&c->lru, r->kind, &r->id, &bytes, &len);

	cache_answer(&c->base, r, bytes, len);
	if (entry)
		lru_unpin(entry);
}

static void memory_get(struct cache *base, struct cache_get *r)
{
	r->deferred.call = on_get;
	defer_call(memory_of(base)->defer, &r->deferred);
}

static void memory_cancel(struct cache *base, struct cache_get *r)
{
	(void)base;
	defer_cancel(&r->deferred);
}

static int memory_open(uv_loop_t *loop, const struct cache_config *cfg, struct cache **ret_cache,
		       struct err *e)
{
	struct memory *c;
	int r;

	if (cfg->url[sizeof "memory:" - 1])
		return err_set(e, -EINVAL, "nothing may follow \"memory:\" as the cache");
	c = calloc(1, sizeof *c);
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	r = defer_new(loop, &c->defer);
	if (r < 0) {
		free(c);
		return err_errno(e, r, "could not open the cache");
	}
	lru_init(&c->lru, cfg->max_bytes, &c->base.stats);
	list_init(&c->closing.link);
	*ret_cache = &c->base;
	return 0;
}

/* Behind all that was deferred before. */
static void on_closing(struct deferred *d)
{
	struct memory *c = container_of(d, struct memory, closing);
	void (*closed)(void *) = c->closed;
	void *ctx = c->closed_ctx;

	defer_close(c->defer);
	lru_fini(&c->lru);
	free(c);
	if (closed)
		closed(ctx);
}

static void memory_close(struct cache *base, void (*closed)(void *ctx), void *ctx)
{
	struct memory *c = memory_of(base);

	c->closed = closed;
	c->closed_ctx = ctx;
	c->closing.call = on_closing;
	defer_call(c->defer, &c->closing);
}

const struct cache_ops cache_memory_ops = {
	.scheme = "memory",
	.open = memory_open,
	.close = memory_close,
	.put = memory_put,
	.drop = memory_drop,
	.get = memory_get,
	.cancel = memory_cancel,
};
