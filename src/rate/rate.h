/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How often something may happen, counted by name: the generic cell rate algorithm (ITU-T I.371),
 * a leaky bucket that keeps one number for each name, the moment at which all that was taken so far
 * would have come at an even pace.
 *
 * With "redis:" all processes count together. Whoever asks while Redis is away, or slow, is counted
 * by this process alone: then n processes let up to n times as much pass, and nobody is refused
 * because a part is missing.
 */

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct rate;

enum { RATE_NAME_MAX = 80 };

struct rate_limit {
	int64_t per_minute; /* at least 1 */
	int64_t burst;	    /* at once, at least 1 */
};

/* "memory:" or "redis://...", as of the cache. */
int rate_open(uv_loop_t *loop, const char *url, struct rate **ret_rate, struct err *e);

/* All requests must be done. */
void rate_close(struct rate *r, void (*closed)(void *ctx), void *ctx);

/* Takes one. */
struct rate_take {
	const char *name;		   /* in: shorter than RATE_NAME_MAX */
	struct rate_limit limit;	   /* in */
	void (*done)(struct rate_take *t); /* in: called from the loop, not from in here */
	void *ctx;			   /* in */
	int64_t wait_us; /* out: 0: taken; else nothing was, and one can be after this time */
	struct rate *rate;
};

/* True where it is settled already and done will not be called; false: done comes. */
bool rate_take(struct rate *r, struct rate_take *t);
