/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/identity.h"

#include "sandbox/inside.h"
#include "sandbox/io.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

static int enter_user_namespace(struct err *e)
{
	char line[64];
	const unsigned int uid = geteuid(), gid = getegid();

	/* With a network namespace of its own as the home that it may return to: only the owner of
	 * a namespace may enter it. */
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return err_errno(e, -errno,
				 "could not make a user namespace (see `kiln-sandbox probe`)");
	(void)io_write_at(AT_FDCWD, "/proc/self/setgroups", "deny", 0);
	(void)snprintf(line, sizeof(line), "%u %u 1", uid, uid);
	if (io_write_at(AT_FDCWD, "/proc/self/uid_map", line, 0) < 0)
		return err_errno(e, -errno, "could not map the user id");
	(void)snprintf(line, sizeof(line), "%u %u 1", gid, gid);
	if (io_write_at(AT_FDCWD, "/proc/self/gid_map", line, 0) < 0)
		return err_errno(e, -errno, "could not map the group id");
	return 0;
}

int identity_enter(struct identity *id, uint32_t uid_base, struct err *e)
{
	*id = (struct identity){.root = geteuid() == 0, .uid_base = geteuid()};
	if (!id->root || (caps_effective() & IDENTITY_NEEDED) != IDENTITY_NEEDED)
		return enter_user_namespace(e);
	id->two_ids = uid_base != 0;
	if (id->two_ids)
		id->uid_base = uid_base;
	if (setgroups(0, NULL) < 0 && id->two_ids)
		return err_errno(e, -errno, "could not drop groups");
	return 0;
}

int identity_drop(struct identity *id, struct err *e)
{
	/* Held back, not in force, until identity_raise_for_cleanup. */
	const uint64_t spare = caps_effective() & (UINT64_C(1) << CAP_DAC_OVERRIDE);
	int r = caps_bound(IDENTITY_NEEDED | spare, caps_last());

	if (r == 0)
		r = caps_set(IDENTITY_NEEDED, IDENTITY_NEEDED | spare);
	if (r < 0)
		return err_errno(e, r, "could not drop capabilities");
	id->capabilities = IDENTITY_NEEDED;
	id->spare = spare;
	return 0;
}

void identity_raise_for_cleanup(const struct identity *id)
{
	const uint64_t all = id->capabilities | id->spare;

	for (int tries = 0; tries < 3 && caps_set(all, all) < 0; tries++)
		;
}

static int write_map(int proc_fd, pid_t pid, const char *which, const char *text)
{
	char name[48];

	(void)snprintf(name, sizeof(name), "%d/%s", pid, which);
	return io_write_at(proc_fd, name, text, 0);
}

int identity_map(const struct identity *id, int proc_fd, unsigned int box, pid_t pid)
{
	const uint32_t init = id->uid_base + 2 * box;
	char uids[80], gids[80];
	int r = write_map(proc_fd, pid, "setgroups", "deny");

	if (id->two_ids) {
		(void)snprintf(uids, sizeof(uids), "0 %u 1\n%d %u 1\n", init, INSIDE_UID, init + 1);
		(void)snprintf(gids, sizeof(gids), "%s", uids);
	} else {
		(void)snprintf(uids, sizeof(uids), "%d %u 1\n", INSIDE_UID, geteuid());
		(void)snprintf(gids, sizeof(gids), "%d %u 1\n", INSIDE_UID, getegid());
	}
	if (r == 0)
		r = write_map(proc_fd, pid, "uid_map", uids);
	return r < 0 ? r : write_map(proc_fd, pid, "gid_map", gids);
}
