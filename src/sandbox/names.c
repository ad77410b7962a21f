/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/client.h"

#include <string.h>

static const char *const rung_names[] = {
	[SANDBOX_RUNG_AUTO] = "auto",
	[SANDBOX_RUNG_CGROUP2] = "cgroup2",
	[SANDBOX_RUNG_CGROUP1] = "cgroup1",
	[SANDBOX_RUNG_RLIMIT] = "rlimit",
};

static const char *const step_names[] = {
	[SANDBOX_STEP_NONE] = "none",
	[SANDBOX_STEP_CGROUP] = "make the control group",
	[SANDBOX_STEP_NETNS] = "make the network namespace",
	[SANDBOX_STEP_CLONE] = "make the namespaces",
	[SANDBOX_STEP_ID_MAP] = "map user ids",
	[SANDBOX_STEP_IDENTITY] = "change identity",
	[SANDBOX_STEP_ROOT] = "build the root",
	[SANDBOX_STEP_TMPFS] = "mount the work directory",
	[SANDBOX_STEP_PROC] = "mount /proc",
	[SANDBOX_STEP_HOSTNAME] = "set the host name",
	[SANDBOX_STEP_CAPABILITIES] = "drop capabilities",
	[SANDBOX_STEP_LANDLOCK] = "install landlock",
	[SANDBOX_STEP_SECCOMP] = "install the system call filter",
	[SANDBOX_STEP_FORK] = "fork the task",
	[SANDBOX_STEP_MESSAGE] = "talk to the spawner",
	[SANDBOX_STEP_LIMITS] = "set the limits",
	[SANDBOX_STEP_DESCRIPTORS] = "place the descriptors",
	[SANDBOX_STEP_JOB] = "read the job",
	[SANDBOX_STEP_FILES] = "write the files",
	[SANDBOX_STEP_EXEC] = "execute the program",
	[SANDBOX_STEP_COLLECT] = "take the files out",
	[SANDBOX_STEP_INIT_DIED] = "keep pid 1 alive",
};

static const char *const limit_names[] = {
	[SANDBOX_LIMIT_NONE] = "none",	   [SANDBOX_LIMIT_CPU] = "cpu",
	[SANDBOX_LIMIT_WALL] = "wall",	   [SANDBOX_LIMIT_MEMORY] = "memory",
	[SANDBOX_LIMIT_OUTPUT] = "output", [SANDBOX_LIMIT_REQUESTED] = "requested",
};

const char *sandbox_rung_name(unsigned int rung)
{
	return rung < ARRAY_SIZE(rung_names) ? rung_names[rung] : "unknown";
}

const char *sandbox_step_name(unsigned int step)
{
	return step < ARRAY_SIZE(step_names) ? step_names[step] : "unknown";
}

const char *sandbox_limit_name(unsigned int limit)
{
	return limit < ARRAY_SIZE(limit_names) ? limit_names[limit] : "unknown";
}

int sandbox_rung_parse(const char *text, enum sandbox_rung *ret_rung)
{
	for (unsigned int i = 0; i < _SANDBOX_RUNG_MAX; i++) {
		if (strcmp(text, rung_names[i]) == 0) {
			*ret_rung = (enum sandbox_rung)i;
			return 0;
		}
	}
	return -EINVAL;
}
