/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/walls.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "sandbox/client.h"

#include <errno.h>
#include <string.h>

static bool has_cgroup2(const struct sandbox_reply_configured *f)
{
	return f->rung == SANDBOX_RUNG_CGROUP2;
}

static bool has_cgroup(const struct sandbox_reply_configured *f)
{
	return f->rung == SANDBOX_RUNG_CGROUP2 || f->rung == SANDBOX_RUNG_CGROUP1;
}

static bool has_userns(const struct sandbox_reply_configured *f)
{
	return f->has & SANDBOX_HAS_USERNS;
}

static bool has_netns(const struct sandbox_reply_configured *f)
{
	return f->has & SANDBOX_HAS_NETNS;
}

static bool has_seccomp(const struct sandbox_reply_configured *f)
{
	return f->has & SANDBOX_HAS_SECCOMP;
}

static bool has_landlock(const struct sandbox_reply_configured *f)
{
	return f->landlock_abi > 0;
}

static bool has_two_ids(const struct sandbox_reply_configured *f)
{
	return f->has & SANDBOX_HAS_TWO_IDS;
}

static const struct {
	const char *name;
	unsigned wall;
	bool (*stands)(const struct sandbox_reply_configured *f);
} walls[] = {
	{"cgroup2", SANDBOX_WALL_CGROUP2, has_cgroup2},
	{"cgroup", SANDBOX_WALL_CGROUP, has_cgroup},
	{"userns", SANDBOX_WALL_USERNS, has_userns},
	{"netns", SANDBOX_WALL_NETNS, has_netns},
	{"seccomp", SANDBOX_WALL_SECCOMP, has_seccomp},
	{"landlock", SANDBOX_WALL_LANDLOCK, has_landlock},
	{"two-ids", SANDBOX_WALL_TWO_IDS, has_two_ids},
};

static int wall_parse(const char *word, size_t len, unsigned *ret_wall)
{
	for (size_t i = 0; i < ARRAY_SIZE(walls); i++) {
		if (strlen(walls[i].name) == len && memcmp(walls[i].name, word, len) == 0) {
			*ret_wall = walls[i].wall;
			return 0;
		}
	}
	return -EINVAL;
}

int sandbox_walls_parse(const char *list, unsigned *ret_walls, struct err *e)
{
	unsigned found = 0;

	if (strcmp(list, "none") == 0) {
		*ret_walls = 0;
		return 0;
	}
	for (const char *word = list;; word++) {
		size_t len = strcspn(word, ",");
		unsigned wall;

		if (wall_parse(word, len, &wall) < 0)
			return err_set(e, -EINVAL, "\"%.*s\" is no kind of isolation",
				       (int)(len < 64 ? len : 64), word);
		found |= wall;
		word += len;
		if (!*word)
			break;
	}
	*ret_walls = found;
	return 0;
}

int sandbox_walls_check(const struct sandbox_reply_configured *in_force, unsigned wanted,
			struct err *e)
{
	struct buf missing;
	int r = 0;

	buf_init(&missing, 256);
	for (size_t i = 0; i < ARRAY_SIZE(walls); i++) {
		if (wanted & walls[i].wall && !walls[i].stands(in_force))
			(void)buf_printf(&missing, "%s%s", missing.len > 0 ? ", " : "",
					 walls[i].name);
	}
	if (missing.len > 0)
		r = err_set(e, -EPERM,
			    "refusing to run programs below the demanded isolation: without %s "
			    "(limits in force: %s)",
			    missing.data, sandbox_rung_name(in_force->rung));
	buf_fini(&missing);
	return r;
}
