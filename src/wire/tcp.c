/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/tcp.h"

#include "base/cleanup.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

void tcp_set_up(int fd)
{
	enum { PROBES = 3, PROBE_S = TCP_GONE_MS / 1000 / PROBES };
	static const struct {
		int level, option, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, PROBE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, PROBE_S},
		{IPPROTO_TCP, TCP_KEEPCNT, PROBES},
		/* For what was sent and not acknowledged, where keep-alive says nothing. */
		{IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_GONE_MS},
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].option, &options[i].value,
				 sizeof options[i].value);
}
