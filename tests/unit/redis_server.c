/* SPDX-License-Identifier: Apache-2.0 */
#include "redis_server.h"

#include "base/cleanup.h"
#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

static const char program[] = "/usr/bin/redis-server";

bool redis_server_exists(void)
{
	return access(program, X_OK) == 0;
}

static struct sockaddr_in address(uint16_t port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return addr;
}

static uint16_t free_port(void)
{
	AUTO_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in addr = address(0);
	socklen_t len = sizeof addr;

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	return ntohs(addr.sin_port);
}

/* Any answer will do: with a password it is an error. */
static bool answers(uint16_t port)
{
	AUTO_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in addr = address(port);
	char byte;

	return connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0 &&
	       send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6 && recv(fd, &byte, 1, 0) == 1;
}

void redis_server_start(struct redis_server *s)
{
	const struct timespec nap = {.tv_nsec = 10000000};
	char *no_environment[] = {NULL};
	char port[8], *args[20];
	const char *argv[20] = {
		"redis-server", "--port", port,	       "--bind",    "127.0.0.1", "--save", "",
		"--dir",	"/tmp",	  "--logfile", "/dev/null",
	};

	if (!s->port)
		s->port = free_port();
	(void)snprintf(port, sizeof port, "%u", s->port);
	if (s->password) {
		argv[11] = "--requirepass";
		argv[12] = s->password;
	}
	memcpy(&args, &argv, sizeof args);
	assert_int_equal(posix_spawn(&s->pid, program, NULL, NULL, args, no_environment), 0);
	for (int i = 0; i < 1000 && !answers(s->port); i++)
		(void)nanosleep(&nap, NULL);
	assert_true(answers(s->port));
	(void)snprintf(s->url, sizeof s->url, "redis://127.0.0.1:%u/0", s->port);
}

void redis_server_kill(struct redis_server *s)
{
	if (s->pid <= 0)
		return;
	(void)kill(s->pid, SIGKILL);
	(void)waitpid(s->pid, NULL, 0);
	s->pid = 0;
}
