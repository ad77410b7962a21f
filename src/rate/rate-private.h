/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What rates counted here and rates counted at Redis have in common. */

#include "base/map.h"
#include "rate/rate.h"

/* Counts of this process, by name. Bounded: those that are full again are forgotten. */
struct rate_counts {
	struct map by_name;
	size_t sweep_at; /* how many there are when those at rest are looked for again */
};

void rate_counts_init(struct rate_counts *c);
void rate_counts_fini(struct rate_counts *c);

/* Takes one at a time (monotonic); gives 0, or the microseconds to wait. Where memory is gone it
 * lets pass. */
int64_t rate_counts_take(struct rate_counts *c, const char *name, const struct rate_limit *l,
			 int64_t now_us);

struct rate_impl {
	const char *scheme;
	int (*open)(uv_loop_t *loop, const char *url, struct rate **ret_rate, struct err *e);
	bool (*take)(struct rate *r, struct rate_take *t);
	void (*close)(struct rate *r, void (*closed)(void *ctx), void *ctx);
};

/* First member of every implementation's structure. */
struct rate {
	const struct rate_impl *impl;
};

extern const struct rate_impl rate_memory, rate_redis;

/* Microseconds from one to the next at an even pace. */
int64_t rate_interval_us(const struct rate_limit *l);
