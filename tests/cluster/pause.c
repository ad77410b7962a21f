/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The first process of a pod: it holds the pod's namespaces and does nothing. What comes to a first
 * process without a handler is lost, so it waits for the word to end.
 */

#include <signal.h>
#include <stddef.h>

int main(void)
{
	sigset_t set;
	int got;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return sigwait(&set, &got);
}
