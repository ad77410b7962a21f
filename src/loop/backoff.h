/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Waits between tries: doubling from min to max, each with up to a quarter of random spread so that
 * many who lost the same peer do not return at once.
 */

#include <stdint.h>

struct backoff {
	uint64_t min_ms, max_ms, next_ms;
};

void backoff_init(struct backoff *b, uint64_t min_ms, uint64_t max_ms);

/* The next wait; call backoff_reset after a success. */
uint64_t backoff_next_ms(struct backoff *b);
void backoff_reset(struct backoff *b);
