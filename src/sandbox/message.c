/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/message.h"

#include "sandbox/protocol.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t message_receive(int sock, void *buf, size_t size, int *fds, size_t fds_max, size_t *ret_fds,
			int flags)
{
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(sizeof(int) * SANDBOX_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c;
	ssize_t n;
	size_t count = 0;

	*ret_fds = 0;
	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | flags);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (count < fds_max)
				fds[count++] = fd;
			else
				(void)close(fd);
		}
	}
	*ret_fds = count;
	/* A message that was cut short is no message: its size will not fit. */
	return msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? (ssize_t)size + 1 : n;
}

int message_send(int sock, const void *buf, size_t size, const int *fds, size_t count, int flags)
{
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(sizeof(int) * SANDBOX_FDS_MAX)];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (count > 0) {
		control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int) * count),
						.cmsg_level = SOL_SOCKET,
						.cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * count);
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL | flags) < 0 ? -errno : 0;
}
