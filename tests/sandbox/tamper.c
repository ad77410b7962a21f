/* SPDX-License-Identifier: Apache-2.0 */
#include "tamper.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

enum { TRACEES_MAX = 64, NO_ROLE = _TAMPER_ROLE_MAX };

#define STOP_OF_CALL (SIGTRAP | 0x80)

struct tracee {
	pid_t pid;
	unsigned int role;
	unsigned int children;
	bool stopped; /* before its parent said whose child it is */
	bool spoiled; /* the call it is in will be told the error */
};

struct tamper {
	pid_t spawner;
	bool over;
	bool waits; /* for execve */
	struct tracee tracees[TRACEES_MAX];
	unsigned int count[_TAMPER_ROLE_MAX];
	enum tamper_role role;
	unsigned int nth, length;
	int error;
	long fired;   /* number of the call, -1 none yet */
	pid_t reaped; /* the last that was never traced */
	int reaped_status;
	int ended; /* wait status of the spawner */
};

/* What cannot fail whatever the machine lacks, so that a caller need not be ready for it: ending,
 * closing, forgetting, being told one's own numbers, sending a signal that needs no memory, and
 * waiting for a child that is there. */
static const long infallible[] = {
	SYS_exit,    SYS_exit_group, SYS_close,	 SYS_close_range,	SYS_rt_sigreturn,
	SYS_getpid,  SYS_getppid,    SYS_gettid, SYS_clock_gettime,	SYS_geteuid,
	SYS_getegid, SYS_getuid,     SYS_kill,	 SYS_pidfd_send_signal, SYS_munmap,
	SYS_wait4,   SYS_waitid,     SYS_setsid, SYS_restart_syscall,	SYS_set_robust_list,
	SYS_rseq,    SYS_umask,	     SYS_capget,
};

const char *tamper_role_name(enum tamper_role role)
{
	static const char *const names[_TAMPER_ROLE_MAX] = {"spawner", "init", "task", "collector"};

	return names[role];
}

static struct tracee *find(struct tamper *t, pid_t pid)
{
	struct tracee *spare = NULL;

	for (size_t i = 0; i < TRACEES_MAX; i++) {
		if (t->tracees[i].pid == pid)
			return &t->tracees[i];
		if (t->tracees[i].pid == 0 && !spare)
			spare = &t->tracees[i];
	}
	if (!spare)
		abort();
	*spare = (struct tracee){.pid = pid, .role = NO_ROLE};
	return spare;
}

/* A process that has just been killed cannot be resumed: ESRCH, and its end is told next. */
static void resume(const struct tracee *c, int sig)
{
	(void)ptrace(PTRACE_SYSCALL, c->pid, 0L, (long)sig);
}

struct tamper *tamper_new(pid_t spawner, enum tamper_state state)
{
	const long family = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK,
		   options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC |
			     (state == TAMPER_ALONE ? 0 : family);
	struct tamper *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->spawner = spawner;
	t->waits = state == TAMPER_WILL_EXECUTE;
	t->fired = -1;
	find(t, spawner)->role = TAMPER_SPAWNER;
	if (ptrace(PTRACE_SEIZE, spawner, 0L, options) < 0 ||
	    ptrace(PTRACE_INTERRUPT, spawner, 0L, 0L) < 0) {
		free(t);
		return NULL;
	}
	return t;
}

void tamper_free(struct tamper *t)
{
	free(t);
}

void tamper_arm(struct tamper *t, enum tamper_role role, unsigned int nth, unsigned int length,
		int error)
{
	for (size_t i = 0; i < _TAMPER_ROLE_MAX; i++)
		t->count[i] = 0;
	t->role = role;
	t->nth = nth;
	t->length = length;
	t->error = error;
	t->fired = -1;
}

bool tamper_fired(const struct tamper *t, long *ret_number)
{
	if (ret_number)
		*ret_number = t->fired;
	return t->fired >= 0;
}

static bool may_fail(long number)
{
	for (size_t i = 0; i < sizeof(infallible) / sizeof(infallible[0]); i++)
		if (infallible[i] == number)
			return false;
	return true;
}

static void on_entry(struct tamper *t, struct tracee *c, long number)
{
	struct user_regs_struct regs;
	unsigned int n;

	if (t->waits || !may_fail(number))
		return;
	n = ++t->count[c->role];
	if (t->nth == 0 || c->role != t->role || n < t->nth || n - t->nth >= t->length ||
	    ptrace(PTRACE_GETREGS, c->pid, 0L, &regs) < 0)
		return;
	regs.orig_rax = (unsigned long long)-1; /* no such call: it is skipped */
	if (ptrace(PTRACE_SETREGS, c->pid, 0L, &regs) < 0)
		return;
	c->spoiled = true;
	if (t->fired < 0)
		t->fired = number;
}

static void on_leaving(struct tamper *t, struct tracee *c)
{
	struct user_regs_struct regs;

	if (!c->spoiled || ptrace(PTRACE_GETREGS, c->pid, 0L, &regs) < 0)
		return;
	c->spoiled = false;
	regs.rax = (unsigned long long)-t->error;
	(void)ptrace(PTRACE_SETREGS, c->pid, 0L, &regs);
}

static void on_call(struct tamper *t, struct tracee *c)
{
	struct __ptrace_syscall_info info;

	if (ptrace((enum __ptrace_request)PTRACE_GET_SYSCALL_INFO, c->pid, sizeof(info), &info) <=
	    0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
		on_entry(t, c, (long)info.entry.nr);
	else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
		on_leaving(t, c);
}

/* The first child of an init is the task, the others collect. */
static void on_child(struct tamper *t, struct tracee *parent)
{
	unsigned long pid;
	struct tracee *c;

	if (ptrace(PTRACE_GETEVENTMSG, parent->pid, 0L, &pid) < 0)
		return;
	c = find(t, (pid_t)pid);
	if (parent->role == TAMPER_SPAWNER)
		c->role = TAMPER_INIT;
	else
		c->role = parent->children++ == 0 ? TAMPER_TASK : TAMPER_COLLECTOR;
	if (c->stopped)
		resume(c, 0);
	c->stopped = false;
}

static void on_stop(struct tamper *t, struct tracee *c, int status)
{
	switch (status >> 16) {
	case PTRACE_EVENT_CLONE:
	case PTRACE_EVENT_FORK:
	case PTRACE_EVENT_VFORK:
		on_child(t, c);
		resume(c, 0);
		return;
	case PTRACE_EVENT_EXEC:
		if (c->role == TAMPER_SPAWNER) {
			t->waits = false;
			resume(c, 0);
			return;
		}
		(void)ptrace(PTRACE_DETACH, c->pid, 0L, 0L);
		*c = (struct tracee){0};
		return;
	case PTRACE_EVENT_STOP:
		if (c->role == NO_ROLE)
			c->stopped = true;
		else
			resume(c, 0);
		return;
	}
	if (WSTOPSIG(status) == STOP_OF_CALL) {
		on_call(t, c);
		resume(c, 0);
		return;
	}
	resume(c, WSTOPSIG(status));
}

bool tamper_step(struct tamper *t)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		struct tracee *c = find(t, pid);

		if (WIFSTOPPED(status)) {
			on_stop(t, c, status);
			continue;
		}
		if (c->role == NO_ROLE) {
			t->reaped = pid;
			t->reaped_status = status;
		}
		*c = (struct tracee){0};
		t->over = t->over || pid == t->spawner;
		if (pid == t->spawner)
			t->ended = status;
	}
	return !t->over;
}

int tamper_ended(const struct tamper *t)
{
	return t->ended;
}

bool tamper_reaped(const struct tamper *t, pid_t other, int *ret_status)
{
	*ret_status = t->reaped_status;
	return t->reaped == other;
}
