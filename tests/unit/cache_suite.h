/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The tests that every cache has to pass. The test program gives the URL of an empty one. */

#include "unit.h"

struct cache_backend {
	const char *(*fresh)(void);
	size_t max_bytes; /* that this process may keep */
};

extern const struct cache_backend *cache_backend; /* to be set before the table is run */
extern const struct CMUnitTest cache_suite[];
extern const size_t cache_suite_count;

/* For the test program's own tests. */
struct cache_fixture {
	uv_loop_t loop;
	struct cache *cache;
	bool closed;
};

enum { CACHE_ROOM = 64 * 1024 };

int cache_setup(void **state);
int cache_teardown(void **state);

/* Asserts that the cache answers with these bytes; NULL: with a miss. */
void expect_cached(struct cache_fixture *f, enum cache_kind kind, const struct uuid *id,
		   const void *bytes, size_t len);
