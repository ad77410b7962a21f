/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Measured durations, every one of them kept: percentiles are exact, and a run of an hour at ten
 * thousand a second still fits in memory. Nanoseconds.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct samples {
	int64_t *ns;
	size_t n, cap;
};

int64_t now_ns(void);

void samples_fini(struct samples *s);
int samples_add(struct samples *s, int64_t ns); /* 0 or -ENOMEM */

/* Sorts, then writes "\"n\": ..., \"p50_ms\": ..., ..." without braces. */
void samples_print(struct samples *s, FILE *f);
