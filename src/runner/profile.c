/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/profile.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "runner/setup.h"
#include "sandbox/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *target_of(const struct sandbox_bind *b)
{
	return b->target[0] ? b->target : b->source;
}

/* Whether a folder that is shown already contains the path. */
static bool shown(const struct sandbox_bind *binds, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++) {
		const char *target = target_of(&binds[i]);
		size_t len = strlen(target);

		if (!(binds[i].flags & SANDBOX_BIND_SYMLINK) && strncmp(path, target, len) == 0 &&
		    (path[len] == '\0' || path[len] == '/'))
			return true;
	}
	return false;
}

static int add(struct sandbox_bind *binds, size_t *n, const char *path, struct err *e)
{
	struct sandbox_bind *b = &binds[*n];

	if (shown(binds, *n, path))
		return 0;
	if (*n == SANDBOX_BINDS_MAX)
		return err_set(e, -E2BIG, "the languages have more than %d mounts together",
			       SANDBOX_BINDS_MAX);
	*b = (struct sandbox_bind){.flags = SANDBOX_BIND_OPTIONAL};
	if (path[0] != '/' || !str_copy(b->source, sizeof(b->source), path))
		return err_set(e, -EINVAL, "\"%.200s\" cannot be a language's mount", path);
	(*n)++;
	return 0;
}

static int add_setup(struct sandbox_bind *binds, size_t *n, const char *dir, struct err *e)
{
	struct sandbox_bind *b = &binds[*n];

	if (shown(binds, *n, SETUP_TARGET))
		return err_set(e, -EINVAL, "\"%s\" cannot be a language's mount", SETUP_TARGET);
	if (*n == SANDBOX_BINDS_MAX)
		return err_set(e, -E2BIG, "the languages have too many mounts together");
	*b = (struct sandbox_bind){0};
	if (!str_copy(b->source, sizeof(b->source), dir))
		return err_set(e, -ENAMETOOLONG, "the path of the setup folder is too long");
	(void)str_copy(b->target, sizeof(b->target), SETUP_TARGET);
	(*n)++;
	return 0;
}

int profile_new(const struct language_registry *languages, const char *setup_dir,
		struct sandbox_bind **ret_binds, size_t *ret_count, struct err *e)
{
	AUTO_FREE struct sandbox_bind *common = NULL;
	AUTO_FREE struct sandbox_bind *binds = calloc(SANDBOX_BINDS_MAX + 1, sizeof(*binds));
	size_t n = 0;
	int r = sandbox_profile_default(&common, &n, e);

	if (r < 0)
		return r;
	if (!binds)
		return err_set(e, -ENOMEM, "out of memory");
	if (n > SANDBOX_BINDS_MAX)
		return err_set(e, -E2BIG, "the common profile is too big");
	memcpy(binds, common, n * sizeof(*binds));
	for (size_t i = 0; i < language_count(languages); i++) {
		char *const *mounts = language_at(languages, i)->mounts;

		for (; mounts && *mounts; mounts++) {
			r = add(binds, &n, *mounts, e);
			if (r < 0)
				return r;
		}
	}
	if (setup_dir) {
		r = add_setup(binds, &n, setup_dir, e);
		if (r < 0)
			return r;
	}
	*ret_binds = TAKE_PTR(binds);
	*ret_count = n;
	return 0;
}
