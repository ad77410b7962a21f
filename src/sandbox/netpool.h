/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Network namespaces with nothing but a raised loopback device. Making one is the dearest part of a
 * sandbox, so they are used again, but only where every counter of the namespace reads as on the
 * first day (devices, IP, TCP, UDP, IPv6, flow labels, sockets): then no packet was sent, no
 * connection tried, no socket left, and there is no trace to find. Any other is thrown away. They
 * belong to the spawner's user namespace, so nobody in a box can change anything in them.
 */

#include "base/err.h"
#include "sandbox/protocol.h"

#include <stdbool.h>

enum { NETPOOL_COUNTERS = 5, NETPOOL_TEXT_MAX = 4096 };

struct netpool {
	int home;
	int proc_fd;
	bool reuse;
	struct netpool_entry {
		int fd;
		bool busy;
		int counters[NETPOOL_COUNTERS];
		char *first[NETPOOL_COUNTERS]; /* what they read when it was made */
		size_t first_len[NETPOOL_COUNTERS];
	} entries[SANDBOX_BOXES_MAX];
};

int netpool_open(struct netpool *p, int proc_fd, struct err *e);
/* Enters a free namespace; netpool_leave() goes home. Index or negative errno. */
int netpool_enter(struct netpool *p);
int netpool_leave(struct netpool *p);
/* Call when the last process of the box is gone. */
void netpool_put(struct netpool *p, int index);
