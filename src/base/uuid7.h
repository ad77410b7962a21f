/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Task ids: UUID version 7 (RFC 9562, section 5.7, method 3): 48 bits of Unix milliseconds, then
 * 12 bits of sub-millisecond fraction, then 62 random bits. Ids made by one process increase;
 * byte order is time order. The random bits make an id unguessable enough to be no name to try.
 */

#include <stdbool.h>
#include <stdint.h>

enum { UUID_TEXT_MAX = 37 };

struct uuid {
	uint8_t bytes[16];
};

void uuid7_new(struct uuid *ret_id);

/* The smallest id that a task made at that time could have; for ranges by time. */
void uuid7_floor(int64_t wall_us, struct uuid *ret_id);

/* The wall clock's time that is in it, of a whole millisecond. */
int64_t uuid7_time_us(const struct uuid *id);

void uuid_format(const struct uuid *id, char dst[static UUID_TEXT_MAX]);

/* The 36-character form, either case. 0 or -EINVAL. */
int uuid_parse(const char *text, struct uuid *ret_id);

bool uuid_eq(const struct uuid *a, const struct uuid *b);
