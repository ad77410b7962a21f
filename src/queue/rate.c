/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rate.h"

#include "base/clock.h"

#include <string.h>

/* Forgets the seconds that have passed since the newest that is counted. */
static void turn(struct queue_rate *r)
{
	int64_t now = clock_monotonic_us() / 1000000;

	if (now - r->second >= QUEUE_RATE_SECONDS)
		memset(r->left, 0, sizeof r->left);
	else
		for (int64_t s = r->second + 1; s <= now; s++)
			r->left[s % QUEUE_RATE_SECONDS] = 0;
	r->second = now;
}

void queue_rate_count(struct queue_rate *r, size_t n)
{
	turn(r);
	r->left[r->second % QUEUE_RATE_SECONDS] += n;
}

int queue_rate_retry_after(struct queue_rate *r, size_t taken, size_t max)
{
	size_t left = 0, want = max / 100 + 1;
	size_t seconds;

	turn(r);
	if (taken + want <= max)
		return 1;
	for (int i = 0; i < QUEUE_RATE_SECONDS; i++)
		left += r->left[i];
	if (!left)
		return QUEUE_RETRY_MAX_SECONDS;
	seconds = (want * QUEUE_RATE_SECONDS + left - 1) / left;
	return seconds < QUEUE_RETRY_MAX_SECONDS ? (int)seconds : QUEUE_RETRY_MAX_SECONDS;
}
