/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/cache.h"

#include "base/map.h"
#include "runner/verdict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	uint8_t key[DIGEST_SIZE];
	struct list link; /* most recently used first */
	struct build *build;
};

/* A compile that somebody does just now. */
struct flight {
	uint8_t key[DIGEST_SIZE];
	struct list waiters;
};

struct cache {
	struct map entries, flights;
	struct list used;
	size_t max_bytes, max_entries;
	struct cache_stats stats;
};

struct build *build_new_consume(int archive_fd, size_t archive_bytes,
				struct task_compile_result *result)
{
	struct build *b = calloc(1, sizeof(*b));

	if (!b) {
		cleanup_close(&archive_fd);
		return NULL;
	}
	b->refs = 1;
	b->archive_fd = archive_fd;
	b->result = *result;
	result->output = (struct bytes){0};
	b->bytes = archive_bytes + b->result.output.len + sizeof(*b) + sizeof(struct entry);
	return b;
}

struct build *build_ref(struct build *b)
{
	b->refs++;
	return b;
}

void build_unref(struct build *b)
{
	if (!b || --b->refs > 0)
		return;
	cleanup_close(&b->archive_fd);
	bytes_fini(&b->result.output);
	free(b);
}

struct cache *cache_new(size_t max_bytes, size_t max_entries)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	map_init(&c->entries);
	map_init(&c->flights);
	list_init(&c->used);
	c->max_bytes = max_bytes;
	c->max_entries = max_entries;
	return c;
}

static void entry_drop(struct cache *c, struct entry *en)
{
	(void)map_remove(&c->entries, en->key, DIGEST_SIZE);
	list_unlink(&en->link);
	c->stats.bytes -= en->build->bytes;
	c->stats.entries--;
	build_unref(en->build);
	free(en);
}

void cache_free(struct cache *c)
{
	struct entry *en, *next;
	struct flight *f;
	size_t cursor;

	if (!c)
		return;
	LIST_FOREACH_SAFE (en, next, &c->used, link)
		entry_drop(c, en);
	MAP_FOREACH (f, cursor, &c->flights) {
		while (!list_empty(&f->waiters))
			list_unlink(f->waiters.next);
		free(f);
	}
	map_fini(&c->entries);
	map_fini(&c->flights);
	free(c);
}

static int flight_begin(struct cache *c, const uint8_t *key)
{
	struct flight *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	memcpy(f->key, key, DIGEST_SIZE);
	list_init(&f->waiters);
	r = map_put(&c->flights, f->key, DIGEST_SIZE, f);
	if (r < 0)
		free(f);
	return r;
}

int cache_ask(struct cache *c, const uint8_t key[static DIGEST_SIZE], struct cache_waiter *w,
	      struct build **ret_build)
{
	struct entry *en = map_get(&c->entries, key, DIGEST_SIZE);
	struct flight *f;
	int r;

	if (en) {
		list_unlink(&en->link);
		list_push_front(&c->used, &en->link);
		c->stats.hits++;
		*ret_build = build_ref(en->build);
		return CACHE_HIT;
	}
	f = map_get(&c->flights, key, DIGEST_SIZE);
	if (f) {
		list_push_back(&f->waiters, &w->link);
		return CACHE_WAIT;
	}
	r = flight_begin(c, key);
	if (r < 0)
		return r;
	c->stats.misses++;
	return CACHE_LEAD;
}

/* Keeping is a favour: where there is no memory for it, or no room, nothing is kept. */
static void cache_keep(struct cache *c, const uint8_t *key, struct build *build)
{
	struct entry *en;

	if (build->bytes > c->max_bytes || c->max_entries == 0 ||
	    map_get(&c->entries, key, DIGEST_SIZE))
		return;
	while (c->stats.bytes + build->bytes > c->max_bytes || c->stats.entries >= c->max_entries)
		entry_drop(c, container_of(c->used.prev, struct entry, link));
	en = calloc(1, sizeof(*en));
	if (!en)
		return;
	memcpy(en->key, key, DIGEST_SIZE);
	if (map_put(&c->entries, en->key, DIGEST_SIZE, en) < 0) {
		free(en);
		return;
	}
	en->build = build_ref(build);
	list_push_front(&c->used, &en->link);
	c->stats.bytes += build->bytes;
	c->stats.entries++;
}

static void flight_hand_on(struct cache *c, struct flight *f)
{
	struct cache_waiter *w = LIST_FIRST(&f->waiters, struct cache_waiter, link);

	list_unlink(&w->link);
	c->stats.misses++;
	w->call(w, NULL);
}

void cache_finish(struct cache *c, const uint8_t key[static DIGEST_SIZE], struct build *build)
{
	struct flight *f = map_get(&c->flights, key, DIGEST_SIZE);

	if (!f)
		return;
	if (!build && !list_empty(&f->waiters)) {
		flight_hand_on(c, f);
		return;
	}
	(void)map_remove(&c->flights, f->key, DIGEST_SIZE);
	if (build && verdict_compile_ok(&build->result))
		cache_keep(c, key, build);
	/* A waiter may call back into the cache; the flight is out of its sight by now. */
	while (!list_empty(&f->waiters)) {
		struct cache_waiter *w = LIST_FIRST(&f->waiters, struct cache_waiter, link);

		list_unlink(&w->link);
		c->stats.hits++;
		w->call(w, build);
	}
	free(f);
}

void cache_leave(struct cache_waiter *w)
{
	list_unlink(&w->link);
}

void cache_stats(const struct cache *c, struct cache_stats *ret_stats)
{
	*ret_stats = c->stats;
}
