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

/* Of a path that is no directory only these can be allowed. */
#define FILE_RIGHTS                                                                                \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |                              \
	 LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_TRUNCATE |                              \
	 LANDLOCK_ACCESS_FS_IOCTL_DEV)

static int allow(int ruleset, const char *path, uint64_t rights)
{
	AUTO_FD int fd = open(path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr attr = {.allowed_access = rights, .parent_fd = fd};
	int r;

	/* No /proc where the host does not let us mount it. */
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = sys_landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr);
	attr.allowed_access &= FILE_RIGHTS;
	if (r < 0 && errno == EINVAL) /* no directory */
		r = sys_landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr);
	return r < 0 ? -errno : 0;
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

/* Newer than the headers of Debian 12: the fields of ABI 4 and 6, of which older kernels take only
 * the beginning. */
struct ruleset_attr_6 {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

enum { ABI_SCOPED = 6, SCOPE_ABSTRACT_UNIX = 1 << 0, SCOPE_SIGNAL = 1 << 1 };

static int allow_all(int ruleset, const char *const *paths, size_t n, uint64_t rights)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = allow(ruleset, paths[i], rights);
	return r;
}

int landlock_restrict_pod(uint32_t abi, const struct sandbox_bind *binds, size_t n)
{
	static const char *const readable[] = {"/proc",	     "/etc/passwd",	   "/etc/group",
					       "/etc/hosts", "/etc/nsswitch.conf", "/etc/hostname"};
	static const char *const devices[] = {"/dev/null",   "/dev/zero",    "/dev/full",
					      "/dev/random", "/dev/urandom", "/proc/self"};
	static const char *const writable[] = {SANDBOX_WORK_DIR, "/tmp", "/dev/shm"};
	const uint64_t all = rights_of(abi);
	const uint64_t device = READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE |
				LANDLOCK_ACCESS_FS_IOCTL_DEV;
	const struct ruleset_attr_6 attr = {
		.handled_access_fs = all,
		.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL,
	};
	AUTO_FD int ruleset = sys_landlock_create_ruleset(
		(const void *)&attr,
		abi >= ABI_SCOPED ? sizeof(attr) : sizeof(attr.handled_access_fs), 0);
	int r;

	if (ruleset < 0)
		return -errno;
	r = allow_all(ruleset, readable, ARRAY_SIZE(readable), READ);
	if (r == 0)
		r = allow_all(ruleset, devices, ARRAY_SIZE(devices), device & all);
	if (r == 0)
		r = allow_all(
			ruleset, writable, ARRAY_SIZE(writable),
			all & ~(LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK));
	for (size_t i = 0; i < n && r == 0; i++)
		if (!(binds[i].flags & SANDBOX_BIND_SYMLINK))
			r = allow(ruleset, binds[i].source, READ);
	if (r < 0)
		return r;
	return sys_landlock_restrict_self(ruleset) < 0 ? -errno : 0;
}
