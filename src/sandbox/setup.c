/* SPDX-License-Identifier: Apache-2.0 */

/* The root of a box: that of the spawner (template.c), of which clone3 made a copy that the box can
 * neither unmount nor make writable, its own /proc over the one that shows nobody, and one tmpfs
 * with a size for everything that can be written. */

#include "sandbox/inside.h"
#include "sandbox/syscalls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* snprintf is not on the list of async-signal-safe functions. */
static void u64_text(uint64_t v, char buf[static 24])
{
	char tmp[24];
	size_t n = 0, i = 0;

	do {
		tmp[n++] = (char)('0' + v % 10);
		v /= 10;
	} while (v > 0);
	while (n > 0)
		buf[i++] = tmp[--n];
	buf[i] = 0;
}

static int new_context(const struct sandbox_limits *limits)
{
	int fd = fsopen("tmpfs", FSOPEN_CLOEXEC);
	char size[24], inodes[24];

	if (fd < 0)
		return -1;
	u64_text(limits->disk_bytes, size);
	/* Its three directories are no files of the user's. */
	u64_text((uint64_t)limits->inodes + 4, inodes);
	if (fsconfig(fd, FSCONFIG_SET_STRING, "size", size, 0) < 0 ||
	    fsconfig(fd, FSCONFIG_SET_STRING, "nr_inodes", inodes, 0) < 0 ||
	    fsconfig(fd, FSCONFIG_SET_STRING, "mode", "0711", 0) < 0)
		return -1;
	/* Since Linux 6.14 files then get few large folios instead of many pages: half the time for
	 * a program of 700 KiB. No kernel without them needs to know. */
	(void)fsconfig(fd, FSCONFIG_SET_STRING, "huge", "within_size", 0);
	if (fsconfig(fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	return fd;
}

/* The tmpfs is mounted on /tmp first, its directories are bound where they belong, "tmp" last and
 * over it: the top with all three is then out of reach. */
static int spread(void)
{
	static const struct {
		const char *name, *target;
		mode_t mode;
	} parts[] = {
		{"tmp/box", "box", 0700}, {"tmp/shm", "dev/shm", 01777}, {"tmp/tmp", "tmp", 01777}};
	int r = 0;

	(void)umask(0);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(parts); i++)
		if (mkdir(parts[i].name, parts[i].mode) < 0 ||
		    chown(parts[i].name, INSIDE_UID, INSIDE_UID) < 0 ||
		    mount(parts[i].name, parts[i].target, NULL, MS_BIND, NULL) < 0)
			r = -1;
	(void)umask(022);
	return r;
}

static int mount_work(const struct sandbox_limits *limits)
{
	int context = new_context(limits), top;

	if (context < 0)
		return -1;
	top = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	if (top < 0 || move_mount(top, "", AT_FDCWD, "tmp", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -1;
	(void)close(top);
	return spread() < 0 ? -1 : context;
}

void inside_setup(const struct inside_plan *plan, const struct sandbox_limits *limits,
		  int *ret_context)
{
	if (plan->pod) {
		if (chdir(SANDBOX_WORK_DIR) < 0)
			inside_fail(SANDBOX_STEP_ROOT, errno);
		return;
	}
	if (chdir("/") < 0)
		inside_fail(SANDBOX_STEP_ROOT, errno);
	*ret_context = mount_work(limits);
	if (*ret_context < 0)
		inside_fail(SANDBOX_STEP_TMPFS, errno);
	if (plan->proc && mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		inside_fail(SANDBOX_STEP_PROC, errno);
	if (chdir(SANDBOX_WORK_DIR) < 0)
		inside_fail(SANDBOX_STEP_ROOT, errno);
	if (sethostname("box", 3) < 0)
		inside_fail(SANDBOX_STEP_HOSTNAME, errno);
}
