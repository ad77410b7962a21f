/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/host.h"

#include "sandbox/identity.h"
#include "sandbox/inside.h"
#include "sandbox/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* 1 where ids [first, first + count) exist in our user namespace, else 0; ret_last: the highest id
 * of its widest range. */
static int ids_mapped(const char *map, uint64_t first, uint64_t count, uint64_t *ret_last)
{
	char text[4096], *save = NULL;
	uint64_t widest = 0;
	int found = 0, r = io_read_at(AT_FDCWD, map, text, sizeof(text));

	*ret_last = 0;
	if (r < 0)
		return r;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		uint64_t inside, outside, length;

		if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64, &inside, &outside, &length) !=
		    3)
			continue;
		if (first >= inside && first - inside < length &&
		    count <= length - (first - inside))
			found = 1;
		if (length > widest) {
			widest = length;
			*ret_last = inside + length - 1;
		}
	}
	return found;
}

static int range_mapped(uint64_t first, uint64_t count, uint64_t *ret_last)
{
	uint64_t other;
	int r = ids_mapped("/proc/self/uid_map", first, count, ret_last);

	return r > 0 ? ids_mapped("/proc/self/gid_map", first, count, &other) : r;
}

int ids_choose(uint32_t wish, unsigned int count, uint32_t *ret_base, struct err *e)
{
	uint64_t base = wish ? wish : IDENTITY_UID_BASE, last;
	int r;

	*ret_base = 0;
	if (geteuid() != 0 || (caps_effective() & IDENTITY_NEEDED) != IDENTITY_NEEDED)
		return 0;
	if (base < SANDBOX_UID_MIN)
		return err_set(e, -EINVAL, "uid_base %" PRIu64 " is below %u", base,
			       SANDBOX_UID_MIN);
	r = range_mapped(base, count, &last);
	if (r == 0 && wish)
		return err_set(e, -EINVAL,
			       "ids %" PRIu64 " to %" PRIu64 " do not exist in this user namespace",
			       base, base + count - 1);
	if (r == 0 && last >= 4096) {
		/* In a container: the end of what it was given, without the overflow id. */
		base = last - count;
		r = range_mapped(base, count, &last);
	}
	if (r < 0)
		return err_errno(e, r, "could not read the id maps");
	*ret_base = r > 0 ? (uint32_t)base : 0;
	return 0;
}
