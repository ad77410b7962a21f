/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid7.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Milliseconds in the high 48 bits, the fraction of one in units of 1/4096 in the low 12. */
static uint64_t ticks_of(int64_t ns)
{
	uint64_t ms = (uint64_t)(ns / 1000000), rest = (uint64_t)(ns % 1000000);

	return ms << 12 | rest * 4096 / 1000000;
}

static void put_ticks(uint64_t ticks, struct uuid *id)
{
	uint64_t ms = ticks >> 12;

	for (int i = 0; i < 6; i++)
		id->bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
	id->bytes[6] = (uint8_t)(0x70 | (ticks >> 8 & 0x0f));
	id->bytes[7] = (uint8_t)ticks;
}

void uuid7_new(struct uuid *ret_id)
{
	/* A clock that stands or steps back must not make a smaller id. */
	static uint64_t last;
	struct timespec ts;
	uint64_t ticks;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	ticks = ticks_of((int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec);
	if (ticks <= last)
		ticks = last + 1;
	last = ticks;
	put_ticks(ticks, ret_id);
	arc4random_buf(ret_id->bytes + 8, 8);
	ret_id->bytes[8] = (uint8_t)(0x80 | (ret_id->bytes[8] & 0x3f));
}

void uuid7_floor(int64_t wall_us, struct uuid *ret_id)
{
	memset(ret_id, 0, sizeof *ret_id);
	put_ticks(ticks_of(wall_us * 1000), ret_id);
	ret_id->bytes[8] = 0x80;
}

static bool is_dash_place(int i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

void uuid_format(const struct uuid *id, char dst[static UUID_TEXT_MAX])
{
	char hex[33];

	hex_encode(id->bytes, sizeof id->bytes, hex);
	for (int i = 0, k = 0; i < 36; i++)
		dst[i] = is_dash_place(i) ? '-' : hex[k++];
	dst[36] = '\0';
}

int uuid_parse(const char *text, struct uuid *ret_id)
{
	struct uuid id;
	char hex[32];
	int k = 0;

	if (strnlen(text, UUID_TEXT_MAX) != 36)
		return -EINVAL;
	for (int i = 0; i < 36; i++) {
		if (is_dash_place(i)) {
			if (text[i] != '-')
				return -EINVAL;
			continue;
		}
		hex[k++] = text[i];
	}
	if (hex_decode(hex, sizeof hex, id.bytes) < 0)
		return -EINVAL;
	*ret_id = id;
	return 0;
}

bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a, b, sizeof *a) == 0;
}

int64_t uuid7_time_us(const struct uuid *id)
{
	int64_t ms = 0;

	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id->bytes[i];
	return ms * 1000;
}
