/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/verdict.h"

#include "base/cleanup.h"

#include <errno.h>
#include <sys/wait.h>

/* What execve(2) says of the user's own program file, as against of the system. */
static bool is_about_the_file(int error)
{
	static const int errors[] = {ENOENT, EACCES, ENOEXEC, ENOTDIR, ELOOP,  ENAMETOOLONG,
				     EISDIR, EPERM,  ELIBBAD, E2BIG,   EINVAL, ETXTBSY};

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (errors[i] == error)
			return true;
	return false;
}

static enum sandbox_limit limit_of(const struct verdict_facts *f)
{
	if (f->killed_for != SANDBOX_LIMIT_NONE)
		return f->killed_for;
	/* It may have ended by itself, or by RLIMIT_CPU, between two looks. */
	if (f->cpu_usec > f->cpu_limit_usec)
		return SANDBOX_LIMIT_CPU;
	if (f->wall_usec > f->wall_limit_usec)
		return SANDBOX_LIMIT_WALL;
	if (f->oom_kills > 0)
		return SANDBOX_LIMIT_MEMORY;
	return SANDBOX_LIMIT_NONE;
}

void verdict_decide(const struct verdict_facts *f, struct sandbox_event_exited *ret_exited)
{
	struct sandbox_event_exited *x = ret_exited;
	enum sandbox_limit limit = limit_of(f);

	x->cpu_usec = f->cpu_usec;
	x->wall_usec = f->wall_usec;
	x->oom_kills = f->oom_kills;
	x->code = -1;
	x->signal = 0;
	x->limit = SANDBOX_LIMIT_NONE;
	x->step = f->step;
	x->error = f->error;
	if (f->step == SANDBOX_STEP_EXEC && is_about_the_file(f->error)) {
		x->outcome = SANDBOX_NOT_EXECUTABLE;
		return;
	}
	/* A program too big for its memory limit fails to load with ENOMEM. */
	if (f->step == SANDBOX_STEP_EXEC && f->error == ENOMEM && limit == SANDBOX_LIMIT_NONE)
		limit = SANDBOX_LIMIT_MEMORY;
	if (f->step != SANDBOX_STEP_NONE && limit == SANDBOX_LIMIT_NONE) {
		x->outcome = SANDBOX_FAILED;
		return;
	}
	x->step = SANDBOX_STEP_NONE;
	x->error = 0;
	if (f->has_status) {
		if (WIFSIGNALED(f->status))
			x->signal = WTERMSIG(f->status);
		else
			x->code = WEXITSTATUS(f->status);
	}
	if (limit != SANDBOX_LIMIT_NONE) {
		x->outcome = SANDBOX_LIMITED;
		x->limit = (uint32_t)limit;
	} else if (!f->has_status) {
		x->outcome = SANDBOX_FAILED;
		x->step = SANDBOX_STEP_INIT_DIED;
	} else {
		x->outcome = WIFSIGNALED(f->status) ? SANDBOX_SIGNALLED : SANDBOX_EXITED;
	}
}
