/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/identity.h"

#include "sandbox/inside.h"
#include "sandbox/io.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BIT(cap) (UINT64_C(1) << (cap))

/* SYS_ADMIN: enter pooled network namespaces, resize a box's tmpfs; SETUID, SETGID: id maps;
 * NET_ADMIN: raise the loopback device of a new one; KILL: end what runs under other ids. */
static const uint64_t needed =
	BIT(CAP_SYS_ADMIN) | BIT(CAP_SETUID) | BIT(CAP_SETGID) | BIT(CAP_NET_ADMIN) | BIT(CAP_KILL);

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

static int choose_ids(struct identity *id, uint32_t uid_base, unsigned int boxes, struct err *e)
{
	uint64_t base = uid_base ? uid_base : IDENTITY_UID_BASE, count = 2u * boxes, last;

	int r;

	if (base < 1000)
		return err_set(e, -EINVAL, "uid_base %" PRIu64 " is below 1000", base);
	r = range_mapped(base, count, &last);
	if (r == 0 && uid_base)
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
	id->two_ids = r > 0;
	if (id->two_ids)
		id->uid_base = (uint32_t)base;
	return 0;
}

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

int identity_enter(struct identity *id, uint32_t uid_base, unsigned int boxes, struct err *e)
{
	*id = (struct identity){.root = geteuid() == 0, .uid_base = geteuid()};
	if (id->root && (caps_effective() & needed) == needed) {
		int r = choose_ids(id, uid_base, boxes, e);

		if (r < 0)
			return r;
		if (setgroups(0, NULL) < 0 && id->two_ids)
			return err_errno(e, -errno, "could not drop groups");
		return 0;
	}
	return enter_user_namespace(e);
}

int identity_drop(struct identity *id, struct err *e)
{
	/* Held back, not in force, until identity_raise_for_cleanup. */
	const uint64_t spare = caps_effective() & BIT(CAP_DAC_OVERRIDE);
	int r = caps_bound(needed | spare, caps_last());

	if (r == 0)
		r = caps_set(needed, needed | spare);
	if (r < 0)
		return err_errno(e, r, "could not drop capabilities");
	id->capabilities = needed;
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
