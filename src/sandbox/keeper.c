/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/keeper.h"

#include "sandbox/host.h"
#include "sandbox/message.h"
#include "sandbox/protocol.h"
#include "sandbox/syscalls.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REMOVE_TRIES = 1500 };

static bool say(int fd)
{
	return send(fd, "k", 1, MSG_NOSIGNAL) == 1;
}

static int enter(int fd, const struct keeper_order *order)
{
	char go;

	if (order->maps) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 || !say(fd) ||
		    recv(fd, &go, 1, 0) != 1)
			return -1;
		if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
			return -1;
	}
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -1;
	return say(fd) ? 0 : -1;
}

/* Pipes, as a task has, whose other ends nobody holds. */
static int open_streams(void)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		return -1;
	return dup2(in[0], 0) < 0 || dup2(out[1], 1) < 0 || dup2(out[1], 2) < 0 ? -1 : 0;
}

/* What is ignored stays so, and an interpreter remembers it: its forks are to be as if a box had
 * started them. */
static void reset_signals(void)
{
	const struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)sigaction(sig, &dfl, NULL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Some measure theirs when they start, and go by that in each fork. */
static void set_stack(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_STACK, &limit) < 0)
		return;
	limit.rlim_cur =
		limit.rlim_max < NURSERY_STACK_BYTES ? limit.rlim_max : NURSERY_STACK_BYTES;
	(void)setrlimit(RLIMIT_STACK, &limit);
}

static _Noreturn void become(char **argv, char **envp, int control_fd)
{
	reset_signals();
	set_stack();
	if (open_streams() == 0 && dup2(control_fd, SANDBOX_CONTROL_FD) >= 0 &&
	    sys_close_range(SANDBOX_CONTROL_FD + 1, ~0u, 0) == 0)
		(void)execve(argv[0], argv, envp);
	_exit(127);
}

/* Takes the next n texts of the order. False where they are not there. */
static bool take_words(const struct keeper_order *order, size_t *at, uint32_t n, char **words)
{
	if (n > KEEPER_WORDS_MAX)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const char *word = order->text + *at;
		size_t room = sizeof(order->text) - *at, len = strnlen(word, room);

		if (len == room)
			return false;
		words[i] = (char *)(uintptr_t)word;
		*at += len + 1;
	}
	words[n] = NULL;
	return true;
}

static void start(const struct keeper_order *order, int control_fd)
{
	char *argv[KEEPER_WORDS_MAX + 1], *envp[KEEPER_WORDS_MAX + 1];
	size_t at = 0;

	if (order->argc == 0 || !take_words(order, &at, order->argc, argv) ||
	    !take_words(order, &at, order->envc, envp))
		return;
	if (fork() == 0)
		become(argv, envp, control_fd);
}

/* Those who used them end as we do, at the end of their sockets: soon, not yet. */
static void remove_groups(const int *groups, size_t count)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	char name[SANDBOX_GROUP_MAX];

	for (int tries = 0; tries < REMOVE_TRIES; tries++) {
		bool left = false;

		for (size_t i = 0; i < count * NURSERY_PLACES_MAX; i++) {
			nursery_place_name((unsigned int)(i / count), name);
			left = (unlinkat(groups[i % count], name, AT_REMOVEDIR) < 0 &&
				errno != ENOENT) ||
			       left;
		}
		if (!left)
			return;
		(void)nanosleep(&moment, NULL);
	}
}

int command_keep(int argc, char **argv)
{
	const int fd = SANDBOX_CONTROL_FD;
	static struct keeper_order order;
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	int control[1], groups[KEEPER_GROUPS_MAX];
	size_t fds, count;

	(void)argc;
	(void)argv;
	/* Children are nobody's to wait for; a terminal's keys are the runner's to hear. */
	if (sigaction(SIGCHLD, &ignore, NULL) < 0 || sigaction(SIGINT, &ignore, NULL) < 0 ||
	    sys_close_range((unsigned int)fd + 1, ~0u, 0) < 0 ||
	    message_receive(fd, &order, sizeof(order), groups, KEEPER_GROUPS_MAX, &count, 0) !=
		    sizeof(order) ||
	    order.type != KEEPER_ENTER || enter(fd, &order) < 0)
		return 1;
	while (message_receive(fd, &order, sizeof(order), control, 1, &fds, 0) == sizeof(order)) {
		if (order.type == KEEPER_START && fds == 1)
			start(&order, control[0]);
		if (fds == 1)
			(void)close(control[0]);
	}
	remove_groups(groups, count);
	return 0;
}
