/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Time. A point in time that is stored or shown is microseconds since 1970 UTC ("_us" of the wall
 * clock); a duration or time-out is measured on the monotonic clock only.
 */

#include <stdint.h>

enum { CLOCK_RFC3339_MAX = 28 }; /* "2026-01-02T03:04:05.678901Z" and NUL */

int64_t clock_wall_us(void);
int64_t clock_monotonic_us(void);

/* RFC 3339, UTC, microseconds. */
void clock_format(int64_t wall_us, char dst[static CLOCK_RFC3339_MAX]);
