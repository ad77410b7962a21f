/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/cache-private.h"

#include "base/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What malloc and the map take for an entry beside its own structure. The bound is on memory, not
 * on payload: a million small results must not take ten times what was allowed. */
enum { ENTRY_OVERHEAD = 64 };

struct key {
	uint8_t kind;
	uint8_t id[sizeof(struct uuid)];
};

struct entry {
	struct list link;
	struct key key;
	bool pinned; /* its bytes are being read by a callback */
	bool removed;
	size_t len;
	char bytes[];
};

struct lru {
	struct cache base;
	struct defer *defer;
	size_t max_bytes;
	struct map by_key;
	struct list entries; /* the one used last in front */

	struct deferred closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static struct lru *lru_of(struct cache *c)
{
	return container_of(c, struct lru, base);
}

static struct key make_key(enum cache_kind kind, const struct uuid *id)
{
	struct key key = {.kind = (uint8_t)kind};

	memcpy(key.id, id->bytes, sizeof key.id);
	return key;
}

static size_t cost(size_t len)
{
	return sizeof(struct entry) + len + ENTRY_OVERHEAD;
}

static struct entry *find(struct lru *c, enum cache_kind kind, const struct uuid *id)
{
	struct key key = make_key(kind, id);

	return map_get(&c->by_key, &key, sizeof key);
}

static void remove_entry(struct lru *c, struct entry *entry)
{
	(void)map_remove(&c->by_key, &entry->key, sizeof entry->key);
	list_unlink(&entry->link);
	c->base.stats.bytes -= cost(entry->len);
	c->base.stats.entries--;
	entry->removed = true;
	if (!entry->pinned)
		free(entry);
}

static void make_room(struct lru *c, size_t bytes)
{
	while (c->base.stats.bytes + bytes > c->max_bytes && !list_empty(&c->entries)) {
		remove_entry(c, container_of(c->entries.prev, struct entry, link));
		c->base.stats.evictions++;
	}
}

static void lru_put(struct cache *base, enum cache_kind kind, const struct uuid *id,
		    const void *bytes, size_t len)
{
	struct lru *c = lru_of(base);
	struct entry *entry = find(c, kind, id);

	if (entry)
		remove_entry(c, entry);
	/* One giant must not push out everything else. */
	if (len > c->max_bytes / 8 || cost(len) > c->max_bytes)
		return;
	make_room(c, cost(len));
	entry = malloc(sizeof *entry + len);
	if (!entry)
		return;
	entry->key = make_key(kind, id);
	entry->pinned = entry->removed = false;
	entry->len = len;
	if (len)
		memcpy(entry->bytes, bytes, len);
	if (map_put(&c->by_key, &entry->key, sizeof entry->key, entry) < 0) {
		free(entry);
		return;
	}
	list_push_front(&c->entries, &entry->link);
	c->base.stats.bytes += cost(len);
	c->base.stats.entries++;
}

static void lru_drop(struct cache *base, enum cache_kind kind, const struct uuid *id)
{
	struct lru *c = lru_of(base);
	struct entry *entry = find(c, kind, id);

	if (entry)
		remove_entry(c, entry);
}

/* Looked up only now: between the question and its answer the entry may have gone. The callback may
 * put and drop as it likes, this very entry too: its bytes hold until it returns. */
static void on_get(struct deferred *d)
{
	struct cache_get *r = container_of(d, struct cache_get, deferred);
	struct lru *c = lru_of(r->cache);
	struct entry *entry = find(c, r->kind, &r->id);

	if (!entry) {
		cache_answer(&c->base, r, NULL, 0);
		return;
	}
	list_unlink(&entry->link);
	list_push_front(&c->entries, &entry->link);
	entry->pinned = true;
	cache_answer(&c->base, r, entry->bytes, entry->len);
	entry->pinned = false;
	if (entry->removed)
		free(entry);
}

static void lru_get(struct cache *base, struct cache_get *r)
{
	r->deferred.call = on_get;
	defer_call(lru_of(base)->defer, &r->deferred);
}

static void lru_cancel(struct cache *base, struct cache_get *r)
{
	(void)base;
	defer_cancel(&r->deferred);
}

static int lru_open(uv_loop_t *loop, const struct cache_config *cfg, const char *rest,
		    struct cache **ret_cache, struct err *e)
{
	struct lru *c;
	int r;

	if (*rest)
		return err_set(e, -EINVAL, "\"%s\": nothing may follow \"memory:\"", cfg->url);
	c = calloc(1, sizeof *c);
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	r = defer_new(loop, &c->defer);
	if (r < 0) {
		free(c);
		return err_errno(e, r, "could not open the cache");
	}
	c->max_bytes = cfg->max_bytes;
	map_init(&c->by_key);
	list_init(&c->entries);
	list_init(&c->closing.link);
	*ret_cache = &c->base;
	return 0;
}

/* Behind all that was deferred before. */
static void on_closing(struct deferred *d)
{
	struct lru *c = container_of(d, struct lru, closing);
	void (*closed)(void *) = c->closed;
	void *ctx = c->closed_ctx;

	defer_close(c->defer);
	while (!list_empty(&c->entries))
		remove_entry(c, LIST_FIRST(&c->entries, struct entry, link));
	map_fini(&c->by_key);
	free(c);
	if (closed)
		closed(ctx);
}

static void lru_close(struct cache *base, void (*closed)(void *ctx), void *ctx)
{
	struct lru *c = lru_of(base);

	c->closed = closed;
	c->closed_ctx = ctx;
	c->closing.call = on_closing;
	defer_call(c->defer, &c->closing);
}

const struct cache_ops cache_lru_ops = {
	.scheme = "memory",
	.open = lru_open,
	.close = lru_close,
	.put = lru_put,
	.drop = lru_drop,
	.get = lru_get,
	.cancel = lru_cancel,
};
