/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/isolation.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "runner/profile.h"
#include "sandbox/seccomp.h"
#include "sandbox/walls.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* More than any machine has: the kernel's way to say that there is no limit. */
#define NO_LIMIT_BYTES (UINT64_C(1) << 60)

enum { PLACES = 4 }; /* of interpreters to fork: three tenants, and the next of one of them */

int isolation_drop_privileges(const struct runner_options *o, struct err *e)
{
	if (geteuid() == 0) {
		if (setgroups(0, NULL) < 0 || setresgid(o->gid, o->gid, o->gid) < 0 ||
		    setresuid(o->uid, o->uid, o->uid) < 0)
			return err_errno(e, -errno, "could not become user %u", o->uid);
		if (o->uid != 0 && setuid(0) == 0)
			return err_set(e, -EPERM, "could not give up root for good");
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, -errno, "could not give up gaining privileges");
	return 0;
}

/* Those that run, as many that wait, and one that is being cleared away. */
unsigned isolation_place_boxes(const struct runner_options *o)
{
	return 2 * o->slots + 1;
}

static int start_spawner(const struct runner_options *o, const struct language_registry *languages,
			 const char *setup_dir, unsigned boxes, bool pod,
			 struct sandbox_client **ret_spawner, struct err *e)
{
	AUTO_FREE struct sandbox_bind *binds = NULL;
	AUTO_FD int filter = -EBADF;
	struct sandbox_client_options options = {
		.program = o->sandbox,
		.boxes = boxes,
		.uid_base = o->uid_base,
		.rung = o->rung,
		.flags = pod ? SANDBOX_CONFIGURE_POD : 0,
		.places = pod || o->fork_bytes == 0 ? 0 : PLACES,
		.place_boxes = isolation_place_boxes(o),
	};
	int r = profile_new(languages, setup_dir, &binds, &options.bind_count, e);

	if (r == 0)
		r = sandbox_seccomp_compile(pod ? SANDBOX_IN_POD : SANDBOX_IN_NAMESPACES, &filter,
					    e);
	if (r < 0)
		return r;
	options.binds = binds;
	options.seccomp_fd = filter;
	r = sandbox_client_new(&options, ret_spawner, e);
	return r < 0 ? err_wrap(e, r, "could not start the spawner") : 0;
}

/* The tasks have the id of this process: it must not be read or traced by them. */
static int start_pod(const struct runner_options *o, const struct language_registry *languages,
		     unsigned boxes, struct isolation *i, struct err *e)
{
	int r;

	if (o->setup_dir)
		return err_set(e, -EINVAL,
			       "with pod isolation nothing is made beforehand: leave out "
			       "--setup-dir");
	r = isolation_drop_privileges(o, e);
	if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = err_errno(e, -errno, "could not keep tasks from reading this process");
	if (r == 0)
		r = start_spawner(o, languages, NULL, boxes, true, &i->spawner, e);
	if (r < 0)
		return r;
	i->pod = true;
	i->slots = 1;
	return 0;
}

static bool is_limited(const char *file)
{
	struct buf text;
	uint64_t bytes = NO_LIMIT_BYTES;

	buf_init(&text, 64);
	if (fs_read_file(AT_FDCWD, file, &text, NULL) == 0 && text.data) {
		text.data[strcspn(text.data, "\n")] = '\0';
		/* "max" is no number. */
		if (str_to_u64(text.data, 1, UINT64_MAX, &bytes) < 0)
			bytes = NO_LIMIT_BYTES;
	}
	buf_fini(&text);
	return bytes < NO_LIMIT_BYTES;
}

/* Where tasks have no groups of their own below a limit that this process is under too, one that
 * meets it takes its neighbours with it. A container sees its own group as the root of the tree. */
static bool shares_memory(const struct isolation *i)
{
	return sandbox_client_in_force(i->spawner)->rung == SANDBOX_RUNG_RLIMIT &&
	       (is_limited("/sys/fs/cgroup/memory.max") ||
		is_limited("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
}

static unsigned walls_of(const struct runner_options *o, bool pod)
{
	if (o->walls_given)
		return o->walls;
	return SANDBOX_WALL_SECCOMP | (pod ? SANDBOX_WALL_LANDLOCK : SANDBOX_WALL_NETNS);
}

int isolation_start(const struct runner_options *o, const struct language_registry *languages,
		    const char *setup_dir, unsigned (*boxes)(const struct runner_options *o),
		    struct isolation *ret, struct err *e)
{
	struct isolation i = {.slots = o->slots};
	int r = -EOPNOTSUPP;

	if (o->level != RUNNER_LEVEL_POD)
		r = start_spawner(o, languages, setup_dir, boxes(o), false, &i.spawner, e);
	if (r < 0 && o->level == RUNNER_LEVEL_AUTO)
		log_warn("runner",
			 "no sandboxes can be made: one task is run, and then this runner ends",
			 LOG_STR("reason", e->msg));
	if (r < 0 && o->level != RUNNER_LEVEL_SANDBOX)
		r = start_pod(o, languages, boxes(o), &i, e);
	if (r == 0)
		r = sandbox_walls_check(sandbox_client_in_force(i.spawner), walls_of(o, i.pod), e);
	if (r < 0) {
		sandbox_client_free(i.spawner);
		return r;
	}
	if (i.slots > 1 && shares_memory(&i)) {
		log_warn("runner",
			 "has one slot: tasks have no memory groups of their own, and more would "
			 "share one limit",
			 LOG_INT("wanted", o->slots));
		i.slots = 1;
	}
	*ret = i;
	return 0;
}

void isolation_describe(const struct isolation *i, struct task_isolation *ret)
{
	const struct sandbox_reply_configured *f = sandbox_client_in_force(i->spawner);

	*ret = (struct task_isolation){
		.level = (char *)(uintptr_t)(i->pod ? "pod" : "sandbox"),
		.limits = (char *)(uintptr_t)sandbox_rung_name(f->rung),
		.namespaces = f->has & SANDBOX_HAS_USERNS,
		.seccomp = f->has & SANDBOX_HAS_SECCOMP,
		.landlock = (int)f->landlock_abi,
		.standby = (char *)(uintptr_t) "sandbox",
	};
}
