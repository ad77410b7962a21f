/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/interrupt.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void add_unless_ignored(sigset_t *set, int signo)
{
	struct sigaction a;

	if (sigaction(signo, NULL, &a) == 0 && a.sa_handler != SIG_IGN)
		(void)sigaddset(set, signo);
}

int interrupt_begin(struct interrupt *i, struct err *e)
{
	sigset_t set;

	*i = (struct interrupt){.fd = -EBADF, .enough = 1};
	(void)sigemptyset(&set);
	add_unless_ignored(&set, SIGINT);
	add_unless_ignored(&set, SIGTERM);
	i->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (i->fd < 0)
		return err_errno(e, -errno, "could not watch for signals");
	(void)sigprocmask(SIG_BLOCK, &set, &i->before);
	return 0;
}

void interrupt_end(struct interrupt *i)
{
	if (i->fd < 0)
		return;
	(void)sigprocmask(SIG_SETMASK, &i->before, NULL);
	(void)close(i->fd);
	i->fd = -EBADF;
}

bool interrupt_reached(struct interrupt *i)
{
	struct signalfd_siginfo info;

	while (read(i->fd, &info, sizeof info) == (ssize_t)sizeof info)
		i->count++;
	return i->count >= i->enough;
}
