/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Hash map from bytes to a pointer: open addressing with linear probing, SipHash-1-3 under a key
 * drawn at init, so that clients who choose keys cannot choose collisions. Keys are not copied:
 * they must live, unchanged, as long as their entry (usually inside the value).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot;

struct map {
	struct map_slot *slots;
	size_t cap; /* a power of two, or 0 */
	size_t used;
	uint64_t seed[2];
};

void map_init(struct map *m);
void map_fini(struct map *m);

size_t map_count(const struct map *m);

/* NULL where the key is absent. */
void *map_get(const struct map *m, const void *key, size_t len);

/* Adds an entry. -EEXIST where the key is there, -ENOMEM. value must not be NULL. */
int map_put(struct map *m, const void *key, size_t len, void *value);

/* Removes the entry and returns its value, NULL where there was none. */
void *map_remove(struct map *m, const void *key, size_t len);

/* Iteration in no order: start with *cursor = 0; NULL at the end. The map must not change. */
void *map_next(const struct map *m, size_t *cursor);

#define MAP_FOREACH(it, cursor, m)                                                                 \
	for ((cursor) = 0, (it) = map_next((m), &(cursor)); (it); (it) = map_next((m), &(cursor)))

/* The hash itself (Aumasson, Bernstein: "SipHash: a fast short-input PRF", with 1 and 3 rounds). */
uint64_t map_hash(const uint64_t seed[2], const void *bytes, size_t len);
