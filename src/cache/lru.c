/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/lru.h"

#include <stdlib.h>
#include <string.h>

/* What malloc and the map take for an entry beside its own structure: a million small results must
 * not take ten times what was allowed. */
enum { ENTRY_OVERHEAD = 64 };

struct key {
	uint8_t kind;
	uint8_t id[sizeof(struct uuid)];
};

struct lru_entry {
	struct list link;
	struct key key;
	bool pinned; /* its bytes are being read by a callback */
	bool removed;
	size_t len;
	char bytes[];
};

static struct key make_key(enum cache_kind kind, const struct uuid *id)
{
	struct key key = {.kind = (uint8_t)kind};

	memcpy(key.id, id->bytes, sizeof key.id);
	return key;
}

static size_t cost(size_t len)
{
	return sizeof(struct lru_entry) + len + ENTRY_OVERHEAD;
}

static struct lru_entry *find(const struct lru *c, enum cache_kind kind, const struct uuid *id)
{
	struct key key = make_key(kind, id);

	return map_get(&c->by_key, &key, sizeof key);
}

static void remove_entry(struct lru *c, struct lru_entry *entry)
{
	(void)map_remove(&c->by_key, &entry->key, sizeof entry->key);
	list_unlink(&entry->link);
	c->stats->bytes -= cost(entry->len);
	c->stats->entries--;
	entry->removed = true;
	if (!entry->pinned)
		free(entry);
}

static void make_room(struct lru *c, size_t bytes)
{
	while (c->stats->bytes + bytes > c->max_bytes && !list_empty(&c->entries)) {
		remove_entry(c, container_of(c->entries.prev, struct lru_entry, link));
		c->stats->evictions++;
	}
}

void lru_init(struct lru *c, size_t max_bytes, struct cache_stats *stats)
{
	c->stats = stats;
	c->max_bytes = max_bytes;
	map_init(&c->by_key);
	list_init(&c->entries);
}

void lru_fini(struct lru *c)
{
	while (!list_empty(&c->entries))
		remove_entry(c, LIST_FIRST(&c->entries, struct lru_entry, link));
	map_fini(&c->by_key);
}

void lru_put(struct lru *c, enum cache_kind kind, const struct uuid *id, const void *bytes,
	     size_t len)
{
	struct lru_entry *entry;

	lru_drop(c, kind, id);
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
	c->stats->bytes += cost(len);
	c->stats->entries++;
}

void lru_drop(struct lru *c, enum cache_kind kind, const struct uuid *id)
{
	struct lru_entry *entry = find(c, kind, id);

	if (entry)
		remove_entry(c, entry);
}

bool lru_has(const struct lru *c, enum cache_kind kind, const struct uuid *id)
{
	return find(c, kind, id) != NULL;
}

struct lru_entry *lru_pin(struct lru *c, enum cache_kind kind, const struct uuid *id,
			  const void **ret_bytes, size_t *ret_len)
{
	struct lru_entry *entry = find(c, kind, id);

	if (!entry)
		return NULL;
	list_unlink(&entry->link);
	list_push_front(&c->entries, &entry->link);
	entry->pinned = true;
	*ret_bytes = entry->bytes;
	*ret_len = entry->len;
	return entry;
}

void lru_unpin(struct lru_entry *entry)
{
	entry->pinned = false;
	if (entry->removed)
		free(entry);
}
