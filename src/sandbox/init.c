/* SPDX-License-Identifier: Apache-2.0 */

/* Process 1 of a box. It holds no secret and, once the task runs, no right but (with two ids) to
 * kill and to change to the task's id; it is non-dumpable and filtered before the task starts. */

#include "sandbox/inside.h"
#include "sandbox/io.h"
#include "sandbox/message.h"
#include "sandbox/pod.h"
#include "sandbox/syscalls.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SEND_TRIES = 5000 };

/* What cannot be told would be taken for something else, a failure to start for a program that
 * exits with 127: so a shortage is waited for. */
int inside_send(const struct inside_message *m, int fd)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	for (int tries = 0;; tries++) {
		int r = message_send(INSIDE_FD, m, sizeof(*m), &fd, fd >= 0 ? 1 : 0, 0);

		if (r == 0 || tries == SEND_TRIES || !io_is_shortage(r))
			return r;
		(void)nanosleep(&moment, NULL);
	}
}

ssize_t inside_receive(void *buf, size_t size, int *fds, size_t fds_max, size_t *ret_fds)
{
	return message_receive(INSIDE_FD, buf, size, fds, fds_max, ret_fds, 0);
}

void inside_fail(enum sandbox_step step, int error)
{
	struct inside_message m = {.type = INSIDE_FAILED, .step = (uint32_t)step, .error = error};

	(void)inside_send(&m, -EBADF);
	_exit(127);
}

void inside_become_task(const struct inside_plan *plan)
{
	int r;

	if (plan->two_ids && (setresgid(INSIDE_UID, INSIDE_UID, INSIDE_UID) < 0 ||
			      setresuid(INSIDE_UID, INSIDE_UID, INSIDE_UID) < 0))
		inside_fail(SANDBOX_STEP_IDENTITY, errno);
	if (caps_set(0, 0) < 0)
		inside_fail(SANDBOX_STEP_CAPABILITIES, errno);
	/* Not in init, which the task must not reach: who shares its domain may signal it. */
	r = plan->pod ? pod_restrict(plan) : 0;
	if (r < 0)
		inside_fail(SANDBOX_STEP_LANDLOCK, -r);
}

static void take_socket(const struct inside_plan *plan, const struct leaf *leaf, int sock)
{
	int r;

	/* The spawner's standard input is the null device. */
	if (dup2(0, 1) < 0 || dup2(0, 2) < 0)
		_exit(127);
	/* First, while the group's descriptors are what they were: INSIDE_FD may be one of them. */
	r = leaf_enter(leaf);
	/* After that, so that the groups which the box is in are the roots that it sees. */
	if (r == 0 && !plan->pod && unshare(CLONE_NEWCGROUP) < 0)
		r = -errno;
	if (sock != INSIDE_FD && dup3(sock, INSIDE_FD, O_CLOEXEC) < 0)
		_exit(127);
	if (r < 0)
		inside_fail(SANDBOX_STEP_CGROUP, -r);
	/* The spawner's descriptors end here, before anything else happens. */
	if (sys_close_range(3, INSIDE_FD - 1, 0) < 0 || sys_close_range(INSIDE_FD + 1, ~0u, 0) < 0)
		_exit(127);
}

static void take_identity(const struct inside_plan *plan)
{
	char go;
	size_t fds;

	if (inside_receive(&go, sizeof(go), NULL, 0, &fds) != 1)
		_exit(127);
	/* Until then the id is the overflow id, and every file creation fails with EOVERFLOW. */
	if (plan->two_ids && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
		inside_fail(SANDBOX_STEP_IDENTITY, errno);
	/* A change of ids clears the death signal, so it is set after; a spawner that died before
	 * is seen when PREPARED cannot be sent. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    (plan->pod && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0))
		inside_fail(SANDBOX_STEP_IDENTITY, errno);
}

static void reset_signals(void)
{
	static const int ignored_by_spawner[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	const struct sigaction dfl = {.sa_handler = SIG_DFL};

	for (size_t i = 0; i < sizeof(ignored_by_spawner) / sizeof(int); i++)
		(void)sigaction(ignored_by_spawner[i], &dfl, NULL);
}

static void give_up_rights(const struct inside_plan *plan)
{
	const uint64_t keep =
		plan->two_ids ? 1ULL << CAP_SETUID | 1ULL << CAP_SETGID | 1ULL << CAP_KILL : 0;
	struct sock_fprog program = {.len = plan->filter_len,
				     .filter = (struct sock_filter *)(uintptr_t)plan->filter};
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		inside_fail(SANDBOX_STEP_CAPABILITIES, errno);
	r = plan->pod ? 0 : landlock_restrict(plan->landlock_abi);
	if (r < 0)
		inside_fail(SANDBOX_STEP_LANDLOCK, -r);
	r = caps_set(keep, keep);
	if (r < 0)
		inside_fail(SANDBOX_STEP_CAPABILITIES, -r);
	if (plan->filter_len > 0 && sys_seccomp(SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		inside_fail(SANDBOX_STEP_SECCOMP, errno);
}

/* Reaps until pid is done (its status), or with pid 0 until no child is left. */
static int reap(pid_t pid)
{
	for (;;) {
		int status;
		pid_t done = waitpid(-1, &status, __WALL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 || (pid > 0 && done == pid))
			return done < 0 ? -1 : status;
	}
}

static pid_t fork_self(const struct inside_plan *plan)
{
	/* clone3 is filtered by now, and fork() would run handlers and take locks of libc: only who
	 * goes on with that libc needs them. */
	long pid = plan->resume ? fork() : syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);

	if (pid < 0)
		inside_fail(SANDBOX_STEP_FORK, errno);
	return (pid_t)pid;
}

static _Noreturn void collector(const struct inside_plan *plan, const struct inside_message *order,
				const int fds[2])
{
	static const char *strings[JOB_LISTS_MAX];
	const char **argv = strings, **envp = NULL, **patterns = NULL;
	struct inside_message done = {.type = INSIDE_COLLECTED};
	const void *data;
	size_t len;
	struct job job;
	int r;

	inside_become_task(plan);
	r = files_map(fds[0], &data, &len);
	if (r == 0)
		r = job_open(&job, data, len);
	if (r == 0) {
		envp = argv + job.argc + 1;
		patterns = envp + job.envc + 1;
		r = job_strings(&job, argv, envp, patterns);
	}
	if (r == 0)
		r = files_collect(fds[1], patterns, order->bytes, order->files, &done.bytes,
				  &done.files);
	if (io_is_shortage(r))
		inside_fail(SANDBOX_STEP_COLLECT, -r);
	done.error = -r;
	_exit(inside_send(&done, -EBADF) < 0);
}

/* Waits for the order to collect; most boxes are killed here instead. */
static void serve_collect(const struct inside_plan *plan)
{
	struct inside_message order;
	struct inside_message died = {.type = INSIDE_COLLECTED, .error = ENOMEM};
	int fds[2];
	size_t count;
	pid_t pid;

	if (inside_receive(&order, sizeof(order), fds, 2, &count) != (ssize_t)sizeof(order) ||
	    order.type != INSIDE_COLLECT || count != 2)
		return;
	pid = fork_self(plan);
	if (pid == 0)
		collector(plan, &order, fds);
	/* It was killed before it could say anything: out of memory. */
	if (reap(pid) != 0)
		(void)inside_send(&died, -EBADF);
	/* The spawner kills us when it has read that. */
	(void)inside_receive(&order, sizeof(order), fds, 2, &count);
}

/* Orphans become ours. To look for a child is cheaper than kill(-1), which walks through all
 * processes of the host. Without a pid namespace that is the spawner's to do. */
static void end_orphans(const struct inside_plan *plan)
{
	while (!plan->pod && waitpid(-1, NULL, WNOHANG | __WALL) >= 0) {
		(void)kill(-1, SIGKILL);
		(void)reap(0);
	}
}

void inside_init(const struct inside_plan *plan, const struct sandbox_limits *limits,
		 const struct leaf *leaf, int sock)
{
	struct inside_message m = {.type = INSIDE_PREPARED};
	int context = -EBADF;
	/* Before the kernel charges the group for each of these many small steps, and while the
	 * spawner writes the id maps. Without a namespace of its own an ordinary user cannot change
	 * the bounding set, and gains nothing from it without new privileges. */
	int bound = plan->pod ? 0 : caps_bound(0, plan->last_capability);
	pid_t task;

	take_socket(plan, leaf, sock);
	if (bound < 0)
		inside_fail(SANDBOX_STEP_CAPABILITIES, -bound);
	reset_signals();
	take_identity(plan);
	inside_setup(plan, limits, &context);
	give_up_rights(plan);
	task = fork_self(plan);
	if (task == 0) {
		if (context >= 0)
			(void)close(context);
		inside_task(plan);
	}
	if (inside_send(&m, context) < 0)
		_exit(127);
	if (context >= 0)
		(void)close(context);
	m = (struct inside_message){.type = INSIDE_EXITED};
	m.status = reap(task);
	end_orphans(plan);
	if (inside_send(&m, -EBADF) == 0)
		serve_collect(plan);
	_exit(0);
}
