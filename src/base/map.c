/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAP = 16 };

struct map_slot {
	const void *key;
	size_t len;
	uint64_t hash;
	void *value; /* NULL: free */
};

static uint64_t rotate(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

uint64_t map_hash(const uint64_t seed[2], const void *bytes, size_t len)
{
	const unsigned char *s = bytes;
	uint64_t word, last = (uint64_t)len << 56;
	uint64_t v[4] = {seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du,
			 seed[0] ^ 0x6c7967656e657261u, seed[1] ^ 0x7465646279746573u};

	for (; len >= 8; len -= 8, s += 8) {
		memcpy(&word, s, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	for (size_t i = 0; i < len; i++)
		last |= (uint64_t)s[i] << (8 * i);
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void map_init(struct map *m)
{
	*m = (struct map){0};
	arc4random_buf(m->seed, sizeof m->seed);
}

void map_fini(struct map *m)
{
	free(m->slots);
	m->slots = NULL;
	m->cap = m->used = 0;
}

size_t map_count(const struct map *m)
{
	return m->used;
}

/* The slot that holds the key, or the free one where it belongs. cap > used is kept always. */
static struct map_slot *find(const struct map *m, const void *key, size_t len, uint64_t hash)
{
	for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct map_slot *s = &m->slots[i];

		if (!s->value ||
		    (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0))
			return s;
	}
}

void *map_get(const struct map *m, const void *key, size_t len)
{
	if (!m->used)
		return NULL;
	return find(m, key, len, map_hash(m->seed, key, len))->value;
}

static int grow(struct map *m)
{
	struct map bigger = *m;

	bigger.cap = m->cap ? m->cap * 2 : FIRST_CAP;
	bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < m->cap; i++) {
		const struct map_slot *s = &m->slots[i];

		if (s->value)
			*find(&bigger, s->key, s->len, s->hash) = *s;
	}
	free(m->slots);
	*m = bigger;
	return 0;
}

int map_put(struct map *m, const void *key, size_t len, void *value)
{
	uint64_t hash = map_hash(m->seed, key, len);
	struct map_slot *s;
	int r;

	if (m->used * 4 >= m->cap * 3) {
		r = grow(m);
		if (r < 0)
			return r;
	}
	s = find(m, key, len, hash);
	if (s->value)
		return -EEXIST;
	*s = (struct map_slot){.key = key, .len = len, .hash = hash, .value = value};
	m->used++;
	return 0;
}

void *map_remove(struct map *m, const void *key, size_t len)
{
	size_t mask = m->cap - 1, hole, i;
	struct map_slot *s;
	void *value;

	if (!m->used)
		return NULL;
	s = find(m, key, len, map_hash(m->seed, key, len));
	value = s->value;
	if (!value)
		return NULL;
	/* Close the gap: an entry may move into the hole unless its home lies between the two. */
	hole = (size_t)(s - m->slots);
	for (i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
		size_t home = m->slots[i].hash & mask;

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->slots[hole] = (struct map_slot){0};
	m->used--;
	return value;
}

void *map_next(const struct map *m, size_t *cursor)
{
	while (*cursor < m->cap) {
		void *value = m->slots[(*cursor)++].value;

		if (value)
			return value;
	}
	return NULL;
}
