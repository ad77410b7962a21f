/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Bytes by kind and id, bounded; what was not used longest goes first. The bound is on memory, not
 * on payload: an entry counts with its overhead. It keeps bytes, entries and evictions of stats.
 */

#include "base/list.h"
#include "base/map.h"
#include "cache/cache.h"

struct lru_entry;

struct lru {
	struct cache_stats *stats;
	size_t max_bytes;
	struct map by_key;
	struct list entries; /* the one used last in front */
};

void lru_init(struct lru *c, size_t max_bytes, struct cache_stats *stats);
void lru_fini(struct lru *c);

/* Keeps a copy, or does not; what was there under this key is gone either way. */
void lru_put(struct lru *c, enum cache_kind kind, const struct uuid *id, const void *bytes,
	     size_t len);
void lru_drop(struct lru *c, enum cache_kind kind, const struct uuid *id);
bool lru_has(const struct lru *c, enum cache_kind kind, const struct uuid *id);

/* The entry, whose bytes hold until lru_unpin whatever is put and dropped meanwhile; one pin at a
 * time. NULL: there is none. */
struct lru_entry *lru_pin(struct lru *c, enum cache_kind kind, const struct uuid *id,
			  const void **ret_bytes, size_t *ret_len);
void lru_unpin(struct lru_entry *entry);
