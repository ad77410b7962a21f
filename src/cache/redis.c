/* SPDX-License-Identifier: Apache-2.0 */
#include "redis/redis.h"
#include "cache/cache-private.h"
#include "cache/lru.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Shared by all processes, with a memory of this process in front: what is kept under a key is
 * never replaced by something else, so that a copy cannot be out of date. A question that Redis
 * does not answer in time is a miss, and whoever asked asks the store.
 */

enum {
	CALL_MS = 20,
	SMALL_BYTES = 64 * 1024,
	VALUE_MAX = 4 * 1024 * 1024,
	UNSENT_MAX = 16 * 1024 * 1024,
	REPLY_MAX = VALUE_MAX + 1024 + 64 * 1024, /* and what comes behind it in the same chunk */
	KEY_MAX = 64,
};

static const char small_ttl_s[] = "3600", large_ttl_s[] = "600";

struct remote {
	struct cache base;
	struct defer *defer;
	struct redis *redis;
	struct lru near;

	struct deferred closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static struct remote *remote_of(struct cache *c)
{
	return container_of(c, struct remote, base);
}

static struct redis_arg make_key(char dst[static KEY_MAX], enum cache_kind kind,
				 const struct uuid *id)
{
	static const char *const kinds[_CACHE_KIND_MAX] = {
		[CACHE_SPEC] = "spec",
		[CACHE_TASK] = "task",
	};
	char text[UUID_TEXT_MAX];

	uuid_format(id, text);
	(void)snprintf(dst, KEY_MAX, "kiln:%s:%s", kinds[kind], text);
	return (struct redis_arg){dst, strlen(dst)};
}

static void remote_drop(struct cache *base, enum cache_kind kind, const struct uuid *id)
{
	struct remote *c = remote_of(base);
	char key[KEY_MAX];
	const struct redis_arg args[] = {REDIS_WORD("DEL"), make_key(key, kind, id)};

	lru_drop(&c->near, kind, id);
	(void)redis_command(c->redis, args, ARRAY_SIZE(args), NULL, NULL, NULL);
}

static void remote_put(struct cache *base, enum cache_kind kind, const struct uuid *id,
		       const void *bytes, size_t len)
{
	struct remote *c = remote_of(base);
	const char *ttl_s = len <= SMALL_BYTES ? small_ttl_s : large_ttl_s;
	char key[KEY_MAX];
	const struct redis_arg args[] = {
		REDIS_WORD("SET"), make_key(key, kind, id), {bytes, len},
		REDIS_WORD("EX"),  {ttl_s, strlen(ttl_s)},
	};

	if (len > VALUE_MAX) {
		remote_drop(base, kind, id);
		return;
	}
	lru_put(&c->near, kind, id, bytes, len);
	(void)redis_command(c->redis, args, ARRAY_SIZE(args), NULL, NULL, NULL);
}

static void on_reply(void *ctx, const struct redisReply *reply)
{
	struct cache_get *r = ctx;
	struct remote *c = remote_of(r->cache);
	bool found = reply && reply->type == REDIS_REPLY_STRING;

	r->call = NULL;
	if (found)
		lru_put(&c->near, r->kind, &r->id, reply->str, reply->len);
	cache_answer(&c->base, r, found ? reply->str : NULL, found ? reply->len : 0);
}

static void on_miss(struct deferred *d)
{
	struct cache_get *r = container_of(d, struct cache_get, deferred);

	cache_answer(r->cache, r, NULL, 0);
}

static void ask(struct remote *c, struct cache_get *r)
{
	struct redis_call *call = NULL;
	char key[KEY_MAX];
	const struct redis_arg args[] = {REDIS_WORD("GET"), make_key(key, r->kind, &r->id)};

	if (redis_command(c->redis, args, ARRAY_SIZE(args), on_reply, r, &call) < 0) {
		r->deferred.call = on_miss;
		defer_call(c->defer, &r->deferred);
		return;
	}
	r->call = call;
}

/* As it was near when it was asked for. */
static void on_near(struct deferred *d)
{
	struct cache_get *r = container_of(d, struct cache_get, deferred);
	struct remote *c = remote_of(r->cache);
	const void *bytes = NULL;
	size_t len = 0;
	struct lru_entry *entry = lru_pin(&c->near, r->kind, &r->id, &bytes, &len);

	if (!entry) {
		ask(c, r);
		return;
	}
	cache_answer(&c->base, r, bytes, len);
	lru_unpin(entry);
}

static void remote_get(struct cache *base, struct cache_get *r)
{
	struct remote *c = remote_of(base);

	if (!lru_has(&c->near, r->kind, &r->id)) {
		ask(c, r);
		return;
	}
	r->deferred.call = on_near;
	defer_call(c->defer, &r->deferred);
}

static void remote_cancel(struct cache *base, struct cache_get *r)
{
	(void)base;
	defer_cancel(&r->deferred);
	if (r->call)
		redis_cancel(r->call);
	r->call = NULL;
}

static void on_changed(void *ctx, bool up, const char *text)
{
	struct remote *c = ctx;

	if (c->base.watch)
		c->base.watch(c->base.watch_ctx, up, text);
}

static bool remote_is_up(const struct cache *base, struct buf *why)
{
	const void *self = base; /* its first member */
	const struct remote *c = self;

	if (redis_is_up(c->redis))
		return true;
	if (why)
		(void)buf_printf(why, "cache: %s", redis_text(c->redis));
	return false;
}

static int remote_open(uv_loop_t *loop, const struct cache_config *cfg, struct cache **ret_cache,
		       struct err *e)
{
	struct remote *c = calloc(1, sizeof *c);
	const struct redis_config redis = {
		.use = "cache",
		.call_ms = CALL_MS,
		.unsent_max = UNSENT_MAX,
		.reply_max = REPLY_MAX,
		.changed = on_changed,
		.ctx = c,
	};
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	r = defer_new(loop, &c->defer);
	if (r < 0)
		(void)err_errno(e, r, "could not open the cache");
	if (r == 0)
		r = redis_open(loop, cfg->url, &redis, &c->redis, e);
	if (r < 0) {
		defer_close(c->defer);
		free(c);
		return r;
	}
	lru_init(&c->near, cfg->max_bytes, &c->base.stats);
	list_init(&c->closing.link);
	*ret_cache = &c->base;
	return 0;
}

static void on_redis_closed(void *ctx)
{
	struct remote *c = ctx;
	void (*closed)(void *) = c->closed;
	void *closed_ctx = c->closed_ctx;

	defer_close(c->defer);
	lru_fini(&c->near);
	free(c);
	if (closed)
		closed(closed_ctx);
}

static void on_closing(struct deferred *d)
{
	struct remote *c = container_of(d, struct remote, closing);

	redis_close(c->redis, on_redis_closed, c);
}

static void remote_close(struct cache *base, void (*closed)(void *ctx), void *ctx)
{
	struct remote *c = remote_of(base);

	c->closed = closed;
	c->closed_ctx = ctx;
	c->closing.call = on_closing;
	defer_call(c->defer, &c->closing);
}

const struct cache_ops cache_redis_ops = {
	.scheme = "redis",
	.open = remote_open,
	.close = remote_close,
	.put = remote_put,
	.drop = remote_drop,
	.get = remote_get,
	.cancel = remote_cancel,
	.is_up = remote_is_up,
};
