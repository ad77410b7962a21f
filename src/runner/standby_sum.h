/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How many standbys wait, for what, and what they hold: what a runner's heartbeats tell of them.
 * One is an interpreter that was started for one task, or a fork of one in its box.
 */

#include "runner/charge.h"
#include "runner/residents.h"
#include "runner/standby.h"
#include "runner/zygote.h"

/* Those that are ready, of one step of one language. */
struct standby_sum {
	const struct language *language;
	bool compiles;
	bool measured; /* or by what the language says that one costs */
	unsigned n;
	uint64_t memory_bytes;
};

struct standby_report {
	struct standby_sum sums[SANDBOX_BOXES_MAX];
	size_t n;
	uint64_t used_bytes, budget_bytes; /* by what languages say, those that boot included */
};

/* Where they are; NULL for what there is none of. */
struct standby_sources {
	const struct standby_pool *pool;
	const struct zygotes *zygotes;
	const struct residents *residents; /* whose bytes are in the pool's */
	const struct charge *charge;
	uint64_t budget_bytes;
};

/* Reads some files of the host for each: too much to be asked at each task. */
void standby_report(const struct standby_sources *from, struct standby_report *ret_report);
