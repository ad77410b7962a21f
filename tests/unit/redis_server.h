/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A Redis of the test's own, on a free port of 127.0.0.1, that can be killed, stopped and started
 * again. It keeps nothing on disk. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct redis_server {
	uint16_t port;
	pid_t pid;
	const char *password; /* NULL: none */
	char url[96];	      /* without the password */
};

/* False where there is no redis-server. */
bool redis_server_exists(void);

/* Returns when it answers; on the port of before where there is one. */
void redis_server_start(struct redis_server *s);

/* SIGKILL, and waits until it is gone. */
void redis_server_kill(struct redis_server *s);
