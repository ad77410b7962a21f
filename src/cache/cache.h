/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A cache of bytes by kind and task id. It is never the truth and may forget anything at any time:
 * a miss, an error and a time-out are one and the same to callers, who then ask the store.
 */

#include "base/buf.h"
#include "base/err.h"
#include "base/uuid7.h"
#include "loop/defer.h"
#include "task/task.h"

#include <uv.h>

struct cache;

enum cache_kind {
	CACHE_SPEC, /* a packed Spec: spares the scheduler a read of the store */
	CACHE_TASK, /* a packed final Task, as results are read from */
	_CACHE_KIND_MAX
};

/* Packed tasks of ordinary size are worth keeping; larger ones are read from the store by those who
 * want them. */
enum { CACHE_TASK_BYTES_MAX = 4 * 1024 * 1024 };

struct cache_config {
	const char *url;  /* "memory:", "redis://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/DB" */
	size_t max_bytes; /* of what this process keeps, overhead included */
};

int cache_open(uv_loop_t *loop, const struct cache_config *cfg, struct cache **ret_cache,
	       struct err *e);
void cache_close(struct cache *c, void (*closed)(void *ctx), void *ctx);

/* Keeps a copy, or does not: there is nothing to handle. */
void cache_put(struct cache *c, enum cache_kind kind, const struct uuid *id, const void *bytes,
	       size_t len);
void cache_drop(struct cache *c, enum cache_kind kind, const struct uuid *id);

/* A final task, packed, under its spec's id, unless that is larger than CACHE_TASK_BYTES_MAX. */
void cache_put_task(struct cache *c, const struct task *t);

/* done comes once, from the loop: 0 with value (valid only during the call), or -ENOENT. */
struct cache_get {
	enum cache_kind kind;							    /* in */
	struct uuid id;								    /* in */
	void (*done)(struct cache_get *r, int code, const void *bytes, size_t len); /* in */
	void *ctx;								    /* in */
	struct cache *cache;
	struct deferred deferred;
	void *call; /* the implementation's */
};
void cache_get(struct cache *c, struct cache_get *r);

/* No callback comes after this. */
void cache_cancel(struct cache_get *r);

/* Whether the cache is more than this process' own memory at the moment; nothing depends on it but
 * what people are told. Where not, why gets the reason; it may be NULL. */
bool cache_is_up(const struct cache *c, struct buf *why);

/* Called from the loop each time that changes, or its reason does: for the log. */
typedef void (*cache_watch_cb)(void *ctx, bool up, const char *text);
void cache_watch(struct cache *c, cache_watch_cb cb, void *ctx);

struct cache_stats {
	uint64_t hits, misses, evictions;
	size_t bytes, entries;
};
void cache_get_stats(const struct cache *c, struct cache_stats *ret_stats);
