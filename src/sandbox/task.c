/* SPDX-License-Identifier: Apache-2.0 */

/* The process that becomes the user's program. It runs with the task's id and nothing else, from
 * before it reads the first byte that the user wrote. */

#include "sandbox/inside.h"
#include "sandbox/pod.h"
#include "sandbox/syscalls.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static void set_rlimit(int resource, uint64_t value)
{
	struct rlimit now, want = {.rlim_cur = value, .rlim_max = value};

	if (setrlimit((__rlimit_resource_t)resource, &want) == 0)
		return;
	/* Without CAP_SYS_RESOURCE a hard limit only goes down. */
	if (errno != EPERM || getrlimit((__rlimit_resource_t)resource, &now) < 0)
		inside_fail(SANDBOX_STEP_LIMITS, errno);
	want.rlim_cur = want.rlim_max = now.rlim_max;
	if (setrlimit((__rlimit_resource_t)resource, &want) < 0)
		inside_fail(SANDBOX_STEP_LIMITS, errno);
}

static void set_limits(const struct inside_plan *plan, const struct sandbox_limits *limits)
{
	cpu_set_t cpus;

	set_rlimit(RLIMIT_FSIZE, limits->file_bytes);
	set_rlimit(RLIMIT_STACK, limits->stack_bytes);
	set_rlimit(RLIMIT_NOFILE, limits->open_files);
	/* Behind the group's pids.max: init shares the id, and counts, where there is one only. */
	/* Without a user namespace it would count all of that id on the node: the spawner counts.
	 */
	if (!plan->pod)
		set_rlimit(RLIMIT_NPROC, (uint64_t)limits->processes + (plan->two_ids ? 0 : 1));
	/* Behind the exact count of the spawner, which also sees child processes. */
	set_rlimit(RLIMIT_CPU, limits->cpu_usec / 1000000 + 2);
	if (!(limits->cpuset[0] | limits->cpuset[1] | limits->cpuset[2] | limits->cpuset[3]))
		return;
	CPU_ZERO(&cpus);
	memcpy(&cpus, limits->cpuset, sizeof(limits->cpuset));
	if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
		inside_fail(SANDBOX_STEP_LIMITS, errno);
}

/* All received descriptors are close-on-exec and above 2, so standard streams go straight to their
 * place. Other targets may be the number of another source: those are moved out of the way first.
 */
static void place_descriptors(const struct sandbox_start *start, int *fds)
{
	for (unsigned int i = 0; i < start->mapped; i++) {
		if (start->target[i] <= 2 || fds[i] > INSIDE_FD)
			continue;
		for (unsigned int k = 0; k < start->mapped; k++) {
			if (fds[k] > INSIDE_FD)
				continue;
			fds[k] = fcntl(fds[k], F_DUPFD_CLOEXEC, INSIDE_FD + 1);
			if (fds[k] < 0)
				inside_fail(SANDBOX_STEP_DESCRIPTORS, errno);
		}
		break;
	}
	for (unsigned int i = 0; i < start->mapped; i++)
		if (dup2(fds[i], start->target[i]) < 0)
			inside_fail(SANDBOX_STEP_DESCRIPTORS, errno);
}

static void unpack_inputs(const int *fds, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		struct archive_reader archive;
		const void *data;
		size_t len;
		int r = files_map(fds[i], &data, &len);

		if (r == 0 && len > 0)
			r = archive_open(&archive, data, len);
		if (r == 0 && len > 0)
			r = files_unpack(&archive, data, fds[i]);
		if (r < 0)
			inside_fail(SANDBOX_STEP_FILES, -r);
	}
}

static const char *path_of(const char *const *envp)
{
	for (; *envp; envp++)
		if (strncmp(*envp, "PATH=", 5) == 0)
			return *envp + 5;
	return "/usr/local/bin:/usr/bin:/bin";
}

/* As execvpe(3), which is not async-signal-safe and would run a shell for a file without "#!". */
static int execute(const char **argv, const char **envp)
{
	char *const *args = (char *const *)(uintptr_t)argv;
	char *const *env = (char *const *)(uintptr_t)envp;
	const char *path = path_of(envp);
	size_t name_len = strlen(argv[0]);
	static char file[4096]; /* on the stack it would be touched where nothing is looked for */
	int error = ENOENT;

	if (name_len == 0 || strchr(argv[0], '/')) {
		(void)execve(argv[0], args, env);
		return errno;
	}
	for (;;) {
		size_t len = strcspn(path, ":");

		if (len + 1 + name_len < sizeof(file)) {
			memcpy(file, path, len);
			file[len] = '/';
			memcpy(file + len + (len > 0), argv[0], name_len + 1);
			(void)execve(file, args, env);
			if (errno != ENOENT && errno != ENOTDIR)
				error = errno;
			if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
				break;
		}
		if (path[len] == 0)
			break;
		path += len + 1;
	}
	return error;
}

/* Instead of an execve, which closes what is not meant for the program, and makes it one that its
 * own user may look at. */
static _Noreturn void go_on(const struct inside_plan *plan, const struct sandbox_start *start,
			    const char **argv, const char **envp)
{
	if (sys_close_range(INSIDE_FD + 1, ~0u, 0) < 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
		inside_fail(SANDBOX_STEP_EXEC, errno);
	for (int fd = 3; fd <= INSIDE_FD; fd++)
		if (fd == INSIDE_FD || !memchr(start->target, fd, start->mapped))
			(void)close(fd);
	plan->resume(argv, envp);
	_exit(127);
}

static _Noreturn void run_job(const struct inside_plan *plan, const struct sandbox_start *start,
			      int *fds)
{
	static const char *strings[JOB_LISTS_MAX];
	const char **argv = strings, **envp = NULL, **patterns = NULL;
	struct job job;
	const void *data;
	size_t len;
	int r = files_map(fds[0], &data, &len);

	if (r == 0)
		r = job_open(&job, data, len);
	if (r == 0) {
		envp = argv + job.argc + 1;
		patterns = envp + job.envc + 1;
		r = job_strings(&job, argv, envp, patterns);
	}
	if (r < 0)
		inside_fail(SANDBOX_STEP_JOB, -r);
	r = plan->pod ? pod_empty_work() : 0;
	if (r < 0)
		inside_fail(SANDBOX_STEP_FILES, -r);
	/* Inputs first: the job's own files win. */
	unpack_inputs(fds + 1, start->inputs);
	r = files_unpack(&job.files, data, fds[0]);
	if (r < 0)
		inside_fail(SANDBOX_STEP_FILES, -r);
	place_descriptors(start, fds + 1 + start->inputs);
	set_limits(plan, &start->limits);
	if (plan->resume)
		go_on(plan, start, argv, envp);
	inside_fail(SANDBOX_STEP_EXEC, execute(argv, envp));
}

void inside_task(const struct inside_plan *plan)
{
	struct sandbox_start start;
	int fds[SANDBOX_FDS_MAX];
	size_t count;

	(void)setsid();
	inside_become_task(plan);
	set_rlimit(RLIMIT_CORE, 0);
	set_rlimit(RLIMIT_MEMLOCK, 0);
	set_rlimit(RLIMIT_MSGQUEUE, 0);
	if (inside_receive(&start, sizeof(start), fds, SANDBOX_FDS_MAX, &count) !=
		    (ssize_t)sizeof(start) ||
	    count != 1u + start.inputs + start.mapped)
		inside_fail(SANDBOX_STEP_MESSAGE, EBADMSG);
	run_job(plan, &start, fds);
}
