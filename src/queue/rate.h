/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How fast room comes free in a bounded queue: what left it, counted in seconds of the recent past.
 */

#include <stddef.h>
#include <stdint.h>

enum { QUEUE_RATE_SECONDS = 10, QUEUE_RETRY_MAX_SECONDS = 60 };

struct queue_rate {
	int64_t second; /* the newest that is counted, of the monotonic clock */
	size_t left[QUEUE_RATE_SECONDS];
};

void queue_rate_count(struct queue_rate *r, size_t n);

/* Seconds until a hundredth of max is free, so that not all who wait come back for the same place:
 * from 1 to QUEUE_RETRY_MAX_SECONDS. */
int queue_rate_retry_after(struct queue_rate *r, size_t taken, size_t max);
