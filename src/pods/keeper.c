/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/keeper.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum {
	RUNNER_ARGS_MAX = 64,
	STOP_GRACE_MS = 5000,
	RESTART_MIN_MS = 1000, /* a child that lived shorter is not started again at once */
};

struct keeper {
	const struct keeper_config *cfg;
	pid_t child; /* 0: none */
	int socket;  /* to the child */
	int signals;
	bool stopping;			   /* a signal told us to end */
	pid_t runners[KEEPER_RUNNERS_MAX]; /* 0: none */
	sigset_t old_mask;
};

/* ---- starting runners ---- */

static void send_message(struct keeper *k, const struct keeper_message *m, int fd)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)m, .iov_len = sizeof *m};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof control.bytes;
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	(void)sendmsg(k->socket, &msg, MSG_NOSIGNAL);
}

/* After fork, single-threaded: the runner's command, with what is its own appended. */
static void exec_runner(const struct keeper *k, const struct keeper_message *m, int connection)
{
	char name[32], slots[16], fd[16], uid_base[16];
	char *argv[RUNNER_ARGS_MAX + 12];
	size_t n = 0;

	for (char *const *arg = k->cfg->runner_argv; *arg && n < RUNNER_ARGS_MAX; arg++)
		argv[n++] = *arg;
	(void)snprintf(name, sizeof name, "local-%u", m->index);
	(void)snprintf(slots, sizeof slots, "%u", m->slots);
	(void)snprintf(uid_base, sizeof uid_base, "%u",
		       k->cfg->uid_base + m->index * KEEPER_UIDS_PER_RUNNER);
	(void)snprintf(fd, sizeof fd, "%d", KEEPER_CONNECTION_FD);
	char *const own[] = {
		(char[]){"--connection-fd"}, fd,    (char[]){"--name"},	    name,
		(char[]){"--slots"},	     slots, (char[]){"--uid-base"}, uid_base,
	};
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		argv[n++] = own[i];
	argv[n] = NULL;
	(void)setpgid(0, 0);
	(void)sigprocmask(SIG_SETMASK, &k->old_mask, NULL);
	signals_default_pipe();
	if (connection == KEEPER_CONNECTION_FD) {
		if (fcntl(connection, F_SETFD, 0) < 0)
			_exit(127);
	} else if (dup2(connection, KEEPER_CONNECTION_FD) < 0) {
		_exit(127);
	}
	(void)execv(argv[0], argv);
	log_error("keeper", "could not start a runner", LOG_STR("program", argv[0]),
		  LOG_STR("reason", err_text(errno)));
	_exit(127);
}

static int spawn(struct keeper *k, const struct keeper_message *m, int *ret_connection)
{
	int pair[2];
	pid_t pid;

	if (m->index >= k->cfg->max_runners || k->runners[m->index] || !m->slots ||
	    m->slots > k->cfg->max_slots)
		return -EINVAL;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	AUTO_FD int ours = pair[0];
	AUTO_FD int theirs = pair[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		exec_runner(k, m, theirs);
	k->runners[m->index] = pid;
	*ret_connection = TAKE_FD(ours);
	return (int)pid;
}

static void handle_request(struct keeper *k, const struct keeper_message *m)
{
	struct keeper_message reply = {.verb = KEEPER_SPAWNED, .index = m->index};
	AUTO_FD int connection = -EBADF;

	switch (m->verb) {
	case KEEPER_SPAWN:
		reply.number = spawn(k, m, &connection);
		send_message(k, &reply, connection);
		break;
	case KEEPER_SIGNAL:
		if (m->index < k->cfg->max_runners && k->runners[m->index] &&
		    (m->number == SIGTERM || m->number == SIGKILL))
			(void)kill(k->runners[m->index], m->number);
		break;
	default:
		log_error("keeper", "unknown request", LOG_INT("verb", m->verb));
	}
}

/* ---- watching ---- */

static void runner_exited(struct keeper *k, pid_t pid, int status)
{
	struct keeper_message m = {.verb = KEEPER_EXITED, .number = status};

	for (uint32_t i = 0; i < KEEPER_RUNNERS_MAX; i++) {
		if (k->runners[i] != pid)
			continue;
		k->runners[i] = 0;
		m.index = i;
		send_message(k, &m, -EBADF);
	}
}

/* Reaps everything that has ended. True, with its status, when the child was among them. */
static bool reap(struct keeper *k, int *ret_status)
{
	bool child_ended = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == k->child) {
			child_ended = true;
			*ret_status = status;
			k->child = 0;
		} else {
			runner_exited(k, pid, status);
		}
	}
	return child_ended;
}

static void handle_signals(struct keeper *k)
{
	struct signalfd_siginfo info;

	while (read(k->signals, &info, sizeof info) == (ssize_t)sizeof info) {
		if (info.ssi_signo == SIGCHLD)
			continue; /* reaped after every wake-up */
		k->stopping = true;
		if (k->child)
			(void)kill(k->child, SIGTERM);
	}
}

/* Serves one child until it has ended. */
static int watch(struct keeper *k)
{
	struct pollfd fds[] = {
		{.fd = k->signals, .events = POLLIN},
		{.fd = k->socket, .events = POLLIN},
	};
	struct keeper_message m;
	int status;

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return -1;
		handle_signals(k);
		if (reap(k, &status))
			return status;
		if (!(fds[1].revents & (POLLIN | POLLHUP)))
			continue;
		if (recv(k->socket, &m, sizeof m, MSG_DONTWAIT) == (ssize_t)sizeof m)
			handle_request(k, &m);
		else if (fds[1].revents & POLLHUP)
			fds[1].fd = -1; /* the child is on its way out */
	}
}

static bool any_runner(const struct keeper *k)
{
	for (size_t i = 0; i < KEEPER_RUNNERS_MAX; i++)
		if (k->runners[i])
			return true;
	return false;
}

static void signal_runners(const struct keeper *k, int signo)
{
	for (size_t i = 0; i < KEEPER_RUNNERS_MAX; i++)
		if (k->runners[i])
			(void)kill(k->runners[i], signo);
}

/* Ends all runners: asked first, by force when the grace is over. */
static void end_runners(struct keeper *k)
{
	int64_t until_us = clock_monotonic_us() + STOP_GRACE_MS * INT64_C(1000);
	struct pollfd fd = {.fd = k->signals, .events = POLLIN};
	int status;

	signal_runners(k, SIGTERM);
	while (any_runner(k)) {
		int64_t left_ms = (until_us - clock_monotonic_us()) / 1000;

		if (left_ms <= 0)
			signal_runners(k, SIGKILL);
		(void)poll(&fd, 1, left_ms > 0 ? (int)left_ms : 1000);
		handle_signals(k);
		(void)reap(k, &status);
	}
}

/* ---- life ---- */

static int block_signals(struct keeper *k, struct err *e)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, &k->old_mask) < 0)
		return err_errno(e, -errno, "could not block signals");
	k->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (k->signals < 0)
		return err_errno(e, -errno, "could not watch signals");
	return 0;
}

/* 0 in the child, 1 in the keeper. */
static int fork_child(struct keeper *k, int *ret_fd, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(e, -errno, "could not make a socket");
	k->child = fork();
	if (k->child < 0) {
		(void)close(pair[0]);
		(void)close(pair[1]);
		return err_errno(e, -errno, "could not fork");
	}
	if (k->child == 0) {
		(void)close(pair[0]);
		(void)close(k->signals);
		/* A process group of its own: Ctrl-C reaches the keeper alone, which passes it on.
		 */
		(void)setpgid(0, 0);
		(void)sigprocmask(SIG_SETMASK, &k->old_mask, NULL);
		*ret_fd = pair[1];
		return 0;
	}
	(void)close(pair[1]);
	k->socket = pair[0];
	return 1;
}

/* A child that dies young would be started in a tight loop: let the second go by first. */
static void pause_after(int64_t started_us, struct keeper *k)
{
	int64_t lived_ms = (clock_monotonic_us() - started_us) / 1000;
	struct pollfd fd = {.fd = k->signals, .events = POLLIN};

	if (lived_ms < RESTART_MIN_MS)
		(void)poll(&fd, 1, (int)(RESTART_MIN_MS - lived_ms));
	handle_signals(k);
}

int keeper_split(const struct keeper_config *cfg, int *ret_fd, int *ret_status, struct err *e)
{
	struct keeper k = {.cfg = cfg};
	int r = block_signals(&k, e);

	while (r >= 0) {
		int64_t started_us = clock_monotonic_us();
		int status;

		r = fork_child(&k, ret_fd, e);
		if (r <= 0)
			return r;
		status = watch(&k);
		(void)close(k.socket);
		end_runners(&k);
		if (!WIFSIGNALED(status) || k.stopping) {
			*ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
			return 1;
		}
		log_error("keeper", "the server was killed; starting it again",
			  LOG_INT("signal", WTERMSIG(status)));
		pause_after(started_us, &k);
		if (k.stopping) { /* told to end when there was no server to be told */
			*ret_status = 0;
			return 1;
		}
	}
	return r;
}
