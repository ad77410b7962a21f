/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One message with descriptors over a SOCK_SEQPACKET socket. Async-signal-safe. */

#include <stddef.h>
#include <sys/types.h>

/* Length of the message (0: end of file), or negative errno; of a message that was cut short more
 * than size, which fits no message. Received descriptors are close-on-exec; those beyond fds_max
 * are closed. */
ssize_t message_receive(int sock, void *buf, size_t size, int *fds, size_t fds_max, size_t *ret_fds,
			int flags);
/* At most SANDBOX_FDS_MAX descriptors. 0 or negative errno. */
int message_send(int sock, const void *buf, size_t size, const int *fds, size_t count, int flags);
