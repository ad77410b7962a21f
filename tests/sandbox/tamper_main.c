/* SPDX-License-Identifier: Apache-2.0 */

/* tamper PID ROLE NTH ERRNO: attaches to a running spawner, lets the nth call of that role fail
 * (the roles are those of tamper.h), prints the number of the call when it has, and stays until its
 * standard input ends. "ready" on a line of its own comes first. */

#include "tamper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const struct {
	const char *name;
	int error;
} errors[] = {{"ENOMEM", ENOMEM}, {"EMFILE", EMFILE}, {"ENOSPC", ENOSPC}, {"EAGAIN", EAGAIN}};

static int error_of(const char *name)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (strcmp(errors[i].name, name) == 0)
			return errors[i].error;
	return 0;
}

static unsigned int role_of(const char *name)
{
	unsigned int role = 0;

	while (role < _TAMPER_ROLE_MAX &&
	       strcmp(tamper_role_name((enum tamper_role)role), name) != 0)
		role++;
	return role;
}

static void watch(struct tamper *t, int signals)
{
	struct signalfd_siginfo info;
	bool told = false;
	long call;

	for (;;) {
		struct pollfd p[2] = {{.fd = signals, .events = POLLIN}, {.events = POLLIN}};

		(void)poll(p, 2, 100);
		while (read(signals, &info, sizeof(info)) > 0)
			;
		if (!tamper_step(t) || p[1].revents)
			return;
		if (!told && tamper_fired(t, &call)) {
			(void)printf("%ld\n", call);
			(void)fflush(stdout);
			told = true;
		}
	}
}

int main(int argc, char **argv)
{
	unsigned int nth, role;
	struct tamper *t;
	sigset_t mask;
	int pid, error;

	if (argc != 5 || sscanf(argv[1], "%d", &pid) != 1 || sscanf(argv[3], "%u", &nth) != 1 ||
	    (role = role_of(argv[2])) == _TAMPER_ROLE_MAX || (error = error_of(argv[4])) == 0)
		return 2;
	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	t = tamper_new(pid, TAMPER_RUNS);
	if (!t) {
		perror("tamper");
		return 1;
	}
	tamper_arm(t, (enum tamper_role)role, nth, 1, error);
	(void)puts("ready");
	(void)fflush(stdout);
	watch(t, signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
	tamper_free(t);
	return 0;
}
