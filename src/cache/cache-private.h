/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Between cache.c, which chooses an implementation by the scheme of the URL and counts, and the
 * implementations. A new one is one struct cache_ops and one row in cache.c.
 */

#include "cache/cache.h"

struct cache_ops {
	const char *scheme;
	int (*open)(uv_loop_t *loop, const struct cache_config *cfg, struct cache **ret_cache,
		    struct err *e);
	void (*close)(struct cache *c, void (*closed)(void *ctx), void *ctx);
	void (*put)(struct cache *c, enum cache_kind kind, const struct uuid *id, const void *bytes,
		    size_t len);
	void (*drop)(struct cache *c, enum cache_kind kind, const struct uuid *id);
	/* Ends with cache_answer, never from in here. */
	void (*get)(struct cache *c, struct cache_get *r);
	void (*cancel)(struct cache *c, struct cache_get *r);
	bool (*is_up)(const struct cache *c, struct buf *why); /* NULL: always */
};

/* First member of every implementation. The implementation keeps evictions, bytes, entries. */
struct cache {
	const struct cache_ops *ops;
	struct cache_stats stats;
	cache_watch_cb watch;
	void *watch_ctx;
};

extern const struct cache_ops cache_memory_ops;
extern const struct cache_ops cache_redis_ops;

/* Counts the answer and gives it. bytes NULL is a miss. */
void cache_answer(struct cache *c, struct cache_get *r, const void *bytes, size_t len);
