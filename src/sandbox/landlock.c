/* SPDX-License-Identifier: Apache-2.0 */

/* A second wall around the file system (linux: Documentation/userspace-api/landlock.rst): read and
 * execute everywhere, write only in the work directory and the temporary ones. Installed after the
 * pivot, since a restricted process can no longer change mounts. */

#include "base/cleanup.h"
#include "sandbox/inside.h"
#include "sandbox/syscalls.h"

#include <errno.h>

#define READ                                                                                       \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* What ABI 1 knows, REFER is ABI 2. */
#define ALL_1 ((1ULL << 13) - 1)

int landlock_abi(void)
{
	int abi = sys_landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (abi < 0)
		return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
	return abi;
}

static uint64_t rights_of(uint32_t abi)
{
	uint64_t rights = ALL_1;

	if (abi >= 2)
		rights |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		rights |= LANDLOCK_ACCESS_FS_TRUNCATE;
	if (abi >= 5)
		rights |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
	return rights;
}

static int allow(int ruleset, const char *path, uint64_t rights)
{
	AUTO_FD int fd = open(path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr attr = {.allowed_access = rights, .parent_fd = fd};

	/* No /proc where the host does not let us mount it. */
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	return sys_landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr) < 0 ? -errno : 0;
}

int landlock_restrict(uint32_t abi)
{
	const uint64_t all = rights_of(abi);
	const uint64_t device = READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE |
				LANDLOCK_ACCESS_FS_IOCTL_DEV;
	/* Making device nodes takes a capability anyhow. */
	const uint64_t work = all & ~(LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK);
	const struct {
		const char *path;
		uint64_t rights;
	} rules[] = {
		{"/", READ},	    {"/dev", device & all}, {"/proc", device & all},
		{"/dev/shm", work}, {"/tmp", work},	    {SANDBOX_WORK_DIR, work},
	};
	const struct {
		uint64_t handled_access_fs;
	} attr = {all};
	AUTO_FD int ruleset = -EBADF;

	if (abi == 0)
		return 0;
	ruleset = sys_landlock_create_ruleset(&attr, sizeof(attr), 0);
	if (ruleset < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		int r = allow(ruleset, rules[i].path, rules[i].rights);

		if (r < 0)
			return r;
	}
	return sys_landlock_restrict_self(ruleset) < 0 ? -errno : 0;
}
