/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The compile cache: what a compile step made, by a digest over all that it depends on. Holds
 * successes only, the least recently used go when the bytes pass the maximum. A build is shared by
 * reference: runs that use one keep it alive when the cache lets go of it.
 *
 * Identical compiles that arrive together are done once. The first to ask leads and must answer
 * with cache_finish; the others wait and are called with its build, failed ones too (the same
 * program fails the same way), or with NULL where the leader could not say: then the first of them
 * leads.
 */

#include "base/cleanup.h"
#include "base/list.h"
#include "crypto/digest.h"
#include "task/task.h"

#include <stddef.h>
#include <stdint.h>

struct build {
	int refs;
	int archive_fd; /* sealed memfd with the produced files; -EBADF where the compile failed */
	size_t bytes;	/* what it costs to keep */
	struct task_compile_result result;
};

/* Takes both: archive_fd always, the result's output by moving it out. NULL: no memory. */
struct build *build_new_consume(int archive_fd, size_t archive_bytes,
				struct task_compile_result *result);
struct build *build_ref(struct build *b);
void build_unref(struct build *b); /* accepts NULL */

struct cache;

struct cache_waiter {
	struct list link; /* list_init before the first use */
	/* Out of the list by now. build is borrowed; NULL: this one leads now. */
	void (*call)(struct cache_waiter *w, struct build *build);
};

struct cache_stats {
	uint64_t hits, misses; /* a wait that ended with a build is a hit */
	size_t bytes, entries;
};

enum cache_answer { CACHE_HIT, CACHE_LEAD, CACHE_WAIT };

/* Each entry holds one descriptor. */
struct cache *cache_new(size_t max_bytes, size_t max_entries);
void cache_free(struct cache *c); /* waiters are forgotten */
DEFINE_CLEANUP(struct cache, cache_free);

/* An answer, or -ENOMEM. On CACHE_HIT *ret_build is a reference for the caller. */
int cache_ask(struct cache *c, const uint8_t key[static DIGEST_SIZE], struct cache_waiter *w,
	      struct build **ret_build);

/* By the leader, once. build is borrowed: referenced where it is kept; NULL: could not say. */
void cache_finish(struct cache *c, const uint8_t key[static DIGEST_SIZE], struct build *build);

/* A waiter that waits no longer; harmless where it does not wait. */
void cache_leave(struct cache_waiter *w);

void cache_stats(const struct cache *c, struct cache_stats *ret_stats);
