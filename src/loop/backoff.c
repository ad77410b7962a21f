/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/backoff.h"

#include <stdlib.h>

void backoff_init(struct backoff *b, uint64_t min_ms, uint64_t max_ms)
{
	*b = (struct backoff){.min_ms = min_ms, .max_ms = max_ms, .next_ms = min_ms};
}

uint64_t backoff_next_ms(struct backoff *b)
{
	uint64_t wait_ms = b->next_ms;

	b->next_ms = wait_ms * 2 < b->max_ms ? wait_ms * 2 : b->max_ms;
	return wait_ms + arc4random_uniform((uint32_t)(wait_ms / 4 + 1));
}

void backoff_reset(struct backoff *b)
{
	b->next_ms = b->min_ms;
}
