/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/netpool.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Packets; what was tried with or without one; labels that outlive their socket; and open sockets,
 * which may be on their way in a message that nobody received. "netstat" costs as much as all of
 * these, and moves only with packets and with what "snmp" counts. */
static const char *const counter_files[NETPOOL_COUNTERS] = {
	"self/net/dev",		  "self/net/snmp",     "self/net/snmp6",
	"self/net/ip6_flowlabel", "self/net/sockstat",
};

int netpool_open(struct netpool *p, int proc_fd, struct err *e)
{
	*p = (struct netpool){.proc_fd = proc_fd, .reuse = true};
	for (size_t i = 0; i < ARRAY_SIZE(p->entries); i++)
		p->entries[i].fd = -EBADF;
	p->home = openat(proc_fd, "self/ns/net", O_RDONLY | O_CLOEXEC);
	if (p->home < 0)
		return err_errno(e, -errno, "could not open the network namespace");
	return 0;
}

static int raise_loopback(void)
{
	AUTO_FD int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

	if (s < 0)
		return -errno;
	return ioctl(s, SIOCSIFFLAGS, &r) < 0 ? -errno : 0;
}

/* Reads one file whole. Of the last only the first line is of this namespace. */
static int read_counter(const struct netpool_entry *entry, size_t i,
			char buf[static NETPOOL_TEXT_MAX])
{
	size_t used = 0;
	ssize_t n = 1;

	/* A kernel without IPv6 has no files of it. */
	while (entry->counters[i] >= 0 && n > 0 && used < NETPOOL_TEXT_MAX - 1) {
		n = pread(entry->counters[i], buf + used, NETPOOL_TEXT_MAX - 1 - used, (off_t)used);
		if (n < 0)
			return -errno;
		used += (size_t)n;
	}
	buf[used] = 0;
	if (used == NETPOOL_TEXT_MAX - 1)
		return -EOVERFLOW;
	return (int)(i == NETPOOL_COUNTERS - 1 ? strcspn(buf, "\n") : used);
}

/* Whether all read as they did when it was made. File by file: each page of stack that is used here
 * must be copied first, since a box was forked meanwhile. */
static bool is_as_new(const struct netpool_entry *entry)
{
	char buf[NETPOOL_TEXT_MAX];

	for (size_t i = 0; i < NETPOOL_COUNTERS; i++) {
		int n = entry->first[i] ? read_counter(entry, i, buf) : -1;

		if (n < 0 || (size_t)n != entry->first_len[i] ||
		    memcmp(buf, entry->first[i], entry->first_len[i]) != 0)
			return false;
	}
	return true;
}

/* Without all of them it will not be used again. */
static void remember(struct netpool_entry *entry)
{
	char buf[NETPOOL_TEXT_MAX];

	for (size_t i = 0; i < NETPOOL_COUNTERS; i++) {
		int n = read_counter(entry, i, buf);

		if (n < 0)
			return;
		entry->first[i] = malloc((size_t)n + 1);
		if (!entry->first[i])
			return;
		memcpy(entry->first[i], buf, (size_t)n);
		entry->first_len[i] = (size_t)n;
	}
}

static void discard(struct netpool_entry *entry)
{
	cleanup_close(&entry->fd);
	for (size_t i = 0; i < ARRAY_SIZE(entry->counters); i++) {
		cleanup_close(&entry->counters[i]);
		free(TAKE_PTR(entry->first[i]));
	}
	entry->busy = false;
}

/* Leaves this thread in the new namespace. */
static int make(struct netpool *p, struct netpool_entry *entry)
{
	int r;

	*entry = (struct netpool_entry){.fd = -EBADF};
	for (size_t i = 0; i < ARRAY_SIZE(entry->counters); i++)
		entry->counters[i] = -EBADF;
	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	entry->fd = openat(p->proc_fd, "self/ns/net", O_RDONLY | O_CLOEXEC);
	if (entry->fd < 0)
		return -errno;
	r = raise_loopback();
	if (r < 0)
		return r;
	if (!p->reuse)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(entry->counters); i++) {
		entry->counters[i] = openat(p->proc_fd, counter_files[i], O_RDONLY | O_CLOEXEC);
		/* What is not watched must not be used again. */
		if (entry->counters[i] < 0 && errno != ENOENT)
			return 0;
	}
	remember(entry);
	return 0;
}

int netpool_enter(struct netpool *p)
{
	int spare = -ENOSPC, r;

	for (int i = 0; i < SANDBOX_BOXES_MAX; i++) {
		struct netpool_entry *entry = &p->entries[i];

		if (entry->fd < 0)
			spare = i;
		if (entry->fd < 0 || entry->busy)
			continue;
		if (setns(entry->fd, CLONE_NEWNET) < 0)
			return -errno;
		entry->busy = true;
		return i;
	}
	if (spare < 0)
		return spare;
	r = make(p, &p->entries[spare]);
	if (r < 0) {
		discard(&p->entries[spare]);
		(void)netpool_leave(p);
		return r;
	}
	p->entries[spare].busy = true;
	return spare;
}

int netpool_leave(struct netpool *p)
{
	return setns(p->home, CLONE_NEWNET) < 0 ? -errno : 0;
}

void netpool_put(struct netpool *p, int index)
{
	struct netpool_entry *entry = &p->entries[index];

	entry->busy = false;
	if (!is_as_new(entry))
		discard(entry);
}
