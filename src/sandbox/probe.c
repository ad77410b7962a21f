/* SPDX-License-Identifier: Apache-2.0 */

/* `kiln-sandbox probe`: starts a spawner as a runner would and prints what is in force, then what
 * the kernel and its settings say, one key=value per line. Each part that is missing is followed by
 * NAME.cost and NAME.get: what its absence costs, and how to have it. Exit code 0 where a sandbox
 * can be made, or one task be run without (pod.h), and has the walls that are demanded, 3 where it
 * lacks one, 1 where neither can be.
 */

#include "base/cleanup.h"
#include "sandbox/client.h"
#include "sandbox/commands.h"
#include "sandbox/inside.h"
#include "sandbox/io.h"
#include "sandbox/seccomp.h"
#include "sandbox/syscalls.h"
#include "sandbox/walls.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>

/* Exit codes. */
enum { PROBE_MET = 0, PROBE_NONE = 1, PROBE_BELOW = 3 };

static void advise(const char *name, const char *cost, const char *get)
{
	(void)printf("%s.cost=%s\n%s.get=%s\n", name, cost, name, get);
}

static void print_has(const char *name, bool has, const char *cost, const char *get)
{
	(void)printf("%s=%s\n", name, has ? "yes" : "no");
	if (!has)
		advise(name, cost, get);
}

/* Each namespace by itself, inside a user namespace as an ordinary user would have to. */
static void print_namespaces(void)
{
	static const struct {
		const char *name;
		uint64_t flag;
	} all[] = {{"user", CLONE_NEWUSER},    {"pid", CLONE_NEWPID}, {"mount", CLONE_NEWNS},
		   {"network", CLONE_NEWNET},  {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS},
		   {"cgroup", CLONE_NEWCGROUP}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct clone_args args = {.flags = CLONE_NEWUSER | all[i].flag,
					  .exit_signal = SIGCHLD};
		pid_t pid = sys_clone3(&args);

		if (pid == 0)
			_exit(0);
		(void)printf("namespace.%s=%s\n", all[i].name, pid > 0 ? "yes" : err_text(errno));
		if (pid > 0)
			(void)waitpid(pid, NULL, 0);
	}
}

/* Settings of the kernel that decide over user namespaces or weaken a sandbox. */
static const struct setting {
	const char *name, *path;
	const char *bad; /* the value that is worth a word, NULL none */
	const char *cost, *get;
} settings[] = {
	{"aslr", "/proc/sys/kernel/randomize_va_space", "0",
	 "memory errors of programs are easier to use", "sysctl kernel.randomize_va_space=2"},
	{"aslr", "/proc/sys/kernel/randomize_va_space", "1",
	 "the heap of a program is where it always is", "sysctl kernel.randomize_va_space=2"},
	{"apparmor", "/sys/module/apparmor/parameters/enabled", NULL, NULL, NULL},
	{"seccomp_actions", "/proc/sys/kernel/seccomp/actions_avail", NULL, NULL, NULL},
	{"yama", "/proc/sys/kernel/yama/ptrace_scope", NULL, NULL, NULL},
	{"apparmor_restricts_userns", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
	 "an ordinary user cannot make sandboxes",
	 "start as root, or install an AppArmor profile with \"userns,\" for kiln-sandbox"},
	{"unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone", "0",
	 "an ordinary user cannot make sandboxes",
	 "start as root, or sysctl kernel.unprivileged_userns_clone=1"},
	{"max_user_namespaces", "/proc/sys/user/max_user_namespaces", "0", "no sandbox can be made",
	 "sysctl user.max_user_namespaces=10000"},
	{"max_net_namespaces", "/proc/sys/user/max_net_namespaces", "0", "no sandbox can be made",
	 "sysctl user.max_net_namespaces=10000"},
	{"unprivileged_bpf_disabled", "/proc/sys/kernel/unprivileged_bpf_disabled", "0",
	 "users of this host (not tasks, whose calls are filtered) can load BPF programs",
	 "sysctl kernel.unprivileged_bpf_disabled=2"},
	{"dmesg_restrict", "/proc/sys/kernel/dmesg_restrict", NULL, NULL, NULL},
};

static void print_settings(void)
{
	const char *before = "";

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		const struct setting *s = &settings[i];
		char value[256] = "absent";

		if (io_read_at(AT_FDCWD, s->path, value, sizeof(value)) >= 0)
			value[strcspn(value, "\n")] = 0;
		if (strcmp(before, s->name) != 0)
			(void)printf("%s=%s\n", s->name, value);
		before = s->name;
		if (s->bad && strcmp(value, s->bad) == 0)
			advise(s->name, s->cost, s->get);
	}
}

/* Our own group of version 2, and what was handed down to it: limits can be set below it where it
 * is ours to write and has the controllers. */
static void print_delegation(const char *mount)
{
	char text[4096], path[4600], controllers[256] = "", *own, *end;
	bool ours;

	if (io_read_at(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text)) < 0)
		return;
	own = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	if (!own)
		return;
	own += strcspn(own, ":") + 2;
	end = own + strcspn(own, "\n");
	*end = 0;
	(void)snprintf(path, sizeof(path), "%s%s/cgroup.controllers", mount, own);
	(void)io_read_at(AT_FDCWD, path, controllers, sizeof(controllers));
	controllers[strcspn(controllers, "\n")] = 0;
	(void)snprintf(path, sizeof(path), "%s%s/cgroup.procs", mount, own);
	ours = access(path, W_OK) == 0;
	(void)printf("cgroup2.group=%s\ncgroup2.group_controllers=%s\n", own, controllers);
	print_has(
		"cgroup2.delegated",
		ours && strstr(controllers, "memory") && strstr(controllers, "pids"),
		ours ? "limits by cgroup v2 are not possible: no memory and pids controllers here"
		     : "limits by cgroup v2 are not possible: the group belongs to somebody else",
		"a systemd unit with Delegate=yes (systemd-run -p Delegate=yes --user --scope), or "
		"cgroup_writable for the container; on a hybrid host boot with "
		"systemd.unified_cgroup_hierarchy=1");
}

/* One line of each hierarchy, as the kernel lists it. */
static void print_cgroups(void)
{
	char text[16384], *save = NULL, mount2[256] = "";
	bool has1 = false;
	int n = io_read_at(AT_FDCWD, "/proc/self/mountinfo", text, sizeof(text));

	for (char *line = n < 0 ? NULL : strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char point[256], type[16], options[256], *dash = strstr(line, " - ");

		if (!dash || sscanf(line, "%*s %*s %*s %*s %255s", point) != 1 ||
		    sscanf(dash, " - %15s %*s %255s", type, options) != 2)
			continue;
		if (strcmp(type, "cgroup2") == 0) {
			char path[300], controllers[256];

			(void)snprintf(path, sizeof(path), "%s/cgroup.controllers", point);
			if (io_read_at(AT_FDCWD, path, controllers, sizeof(controllers)) < 0)
				controllers[0] = 0;
			controllers[strcspn(controllers, "\n")] = 0;
			(void)printf("cgroup2.mount=%s\ncgroup2.controllers=%s\n", point,
				     controllers);
			(void)snprintf(mount2, sizeof(mount2), "%s", point);
		} else if (strcmp(type, "cgroup") == 0) {
			(void)printf("cgroup1.mount=%s %s\n", point, options);
			has1 = true;
		}
	}
	(void)printf("cgroups=%s\n", has1 && mount2[0] ? "version 1, version 2 beside it"
				     : mount2[0]       ? "version 2"
				     : has1	       ? "version 1"
						       : "none");
	if (mount2[0])
		print_delegation(mount2);
}

static void print_capabilities(const char *key, uint64_t caps)
{
	static const struct {
		int cap;
		const char *name;
	} names[] = {{CAP_SYS_ADMIN, "sys_admin"},
		     {CAP_SETUID, "setuid"},
		     {CAP_SETGID, "setgid"},
		     {CAP_NET_ADMIN, "net_admin"},
		     {CAP_KILL, "kill"},
		     {CAP_DAC_OVERRIDE, "dac_override"},
		     {CAP_SYS_RESOURCE, "sys_resource"},
		     {CAP_SYS_PTRACE, "sys_ptrace"}};
	const char *between = "";

	(void)printf("%s=", key);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!(caps >> names[i].cap & 1))
			continue;
		(void)printf("%s%s", between, names[i].name);
		between = ",";
	}
	(void)printf("\n");
}

static void print_in_force(const struct sandbox_reply_configured *f)
{
	static const struct {
		const char *name;
		uint32_t flag;
		const char *cost, *get;
	} flags[] = {
		{"network_pool", SANDBOX_HAS_NETPOOL, "each sandbox costs a millisecond more", "-"},
		{"seccomp", SANDBOX_HAS_SECCOMP, "system calls are not filtered",
		 "do not start with --seccomp none"},
		{"two_ids", SANDBOX_HAS_TWO_IDS,
		 "init and task of a sandbox share one host id with the spawner",
		 "start as root with a range of ids (--uid-base)"},
		{"swap_limit", SANDBOX_HAS_SWAP_LIMIT,
		 "a task may swap beyond its memory limit where the host has swap",
		 "boot with swapaccount=1 (cgroup v1), or turn swap off"},
		{"cpu_rate", SANDBOX_HAS_CPU_RATE, "no bound on a share of a CPU",
		 "cgroup v2 with the cpu controller delegated"},
		{"memory_peak", SANDBOX_HAS_MEMORY_PEAK, "memory_bytes of results is null",
		 "cgroup v2 on Linux 5.19 or newer, or cgroup v1"},
		{"proc", SANDBOX_HAS_PROC, "programs have no /proc; some runtimes need it",
		 "procMount: Unmasked for the pod, with hostUsers: false"},
		{"cgroup_kill", SANDBOX_HAS_CGROUP_KILL, "none: the pid namespace ends with pid 1",
		 "cgroup v2 on Linux 5.14 or newer"},
	};

	(void)printf("limits=%s\n", sandbox_rung_name(f->rung));
	if (f->rung == SANDBOX_RUNG_CGROUP1)
		advise("limits",
		       "one process of a task that wants too much memory dies before the others; "
		       "no "
		       "share of a CPU can be set",
		       "cgroup v2: boot with systemd.unified_cgroup_hierarchy=1");
	if (f->rung == SANDBOX_RUNG_RLIMIT)
		advise("limits",
		       "memory and CPU time are polled, not enforced by the kernel; no peak is "
		       "known",
		       "systemd with Delegate=yes, or start as root");
	(void)printf("cgroup=%s\nlandlock=%u\n", f->cgroup, f->landlock_abi);
	if (f->landlock_abi == 0)
		advise("landlock", "no second wall around files",
		       "Linux 5.13 or newer, with landlock in the lsm= list");
	else if (f->landlock_abi < 3)
		advise("landlock", "the second wall does not see truncation of files",
		       "Linux 6.2 or newer");
	else if (f->landlock_abi < 5)
		advise("landlock", "the second wall does not see ioctl on devices",
		       "Linux 6.10 or newer");
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		print_has(flags[i].name, f->has & flags[i].flag, flags[i].cost, flags[i].get);
	(void)printf("uid_base=%u\nfilter_instructions=%u\n", f->uid_base, f->filter_len);
	print_capabilities("spawner_capabilities", f->capabilities);
}

struct probe {
	enum sandbox_rung rung;
	const char *demanded; /* "netns,seccomp"; NULL: nothing */
	unsigned int walls;
};

/* As a runner does before it takes a task. */
static int hold_against(const struct probe *p, const struct sandbox_reply_configured *f)
{
	struct err e = {0};
	int r = sandbox_walls_check(f, p->walls, &e);

	if (p->demanded)
		(void)printf("min_isolation=%s\nmin_isolation.met=%s\n", p->demanded,
			     r < 0 ? "no" : "yes");
	if (r < 0)
		advise("min_isolation", e.msg,
		       "the walls that are missing, see there; or demand less "
		       "(sandbox.min_isolation)");
	return r;
}

static int try_spawner(const struct probe *p, enum sandbox_place place, struct err *e)
{
	AUTO(sandbox_client_free) struct sandbox_client *c = NULL;
	AUTO_FREE struct sandbox_bind *binds = NULL;
	AUTO_FD int filter = -EBADF;
	struct sandbox_client_options o = {
		.program = command_self(),
		.boxes = 1,
		.rung = p->rung,
		.flags = place == SANDBOX_IN_POD ? SANDBOX_CONFIGURE_POD : 0,
	};
	int r = sandbox_profile_default(&binds, &o.bind_count, e);

	if (r == 0)
		r = sandbox_seccomp_compile(place, &filter, e);
	o.binds = binds;
	o.seccomp_fd = filter;
	if (r == 0)
		r = sandbox_client_new(&o, &c, e);
	if (r < 0)
		return PROBE_NONE;
	print_in_force(sandbox_client_in_force(c));
	return hold_against(p, sandbox_client_in_force(c)) < 0 ? PROBE_BELOW : PROBE_MET;
}

/* The best that can be had: sandboxes, else one task with the whole place as its box. */
static int try_levels(const struct probe *p)
{
	struct err e = {0};
	int r = try_spawner(p, SANDBOX_IN_NAMESPACES, &e);

	(void)printf("sandbox=%s\n", r == PROBE_NONE ? e.msg : "yes");
	if (r != PROBE_NONE) {
		(void)printf("isolation=sandbox\n");
		return r;
	}
	r = try_spawner(p, SANDBOX_IN_POD, &e);
	(void)printf("pod=%s\nisolation=%s\n", r == PROBE_NONE ? e.msg : "yes",
		     r == PROBE_NONE ? "none" : "pod");
	if (r != PROBE_NONE)
		advise("isolation",
		       "one task is run, then the pod ends: each task has the start of a pod to "
		       "wait for",
		       "a seccomp profile that allows namespaces, with hostUsers: false and "
		       "procMount: Unmasked");
	return r;
}

static void print_ids(const char *key, const char *path)
{
	char text[512];

	if (io_read_at(AT_FDCWD, path, text, sizeof(text)) < 0)
		return;
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = p[1] ? ';' : 0;
	(void)printf("%s=%s\n", key, text);
}

static int parse_options(struct probe *p, int argc, char **argv)
{
	static const struct option options[] = {{"limits", required_argument, NULL, 'l'},
						{"min-isolation", required_argument, NULL, 'm'},
						{0}};
	struct err e = {0};
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'l')
			r = sandbox_rung_parse(optarg, &p->rung);
		else if (c == 'm')
			r = sandbox_walls_parse(p->demanded = optarg, &p->walls, &e);
		else
			r = -EINVAL;
	}
	if (r == 0 && optind == argc)
		return 0;
	(void)fprintf(stderr,
		      "%s%susage: kiln-sandbox probe [--limits HOW] [--min-isolation WALLS]\n",
		      e.msg, e.msg[0] ? "\n" : "");
	return -EINVAL;
}

int command_probe(int argc, char **argv)
{
	struct probe p = {0};
	struct utsname u;
	char swaps[1024];
	int r;

	if (parse_options(&p, argc, argv) < 0)
		return 2;
	if (uname(&u) == 0)
		(void)printf("kernel=%s\nmachine=%s\n", u.release, u.machine);
	r = try_levels(&p);
	print_namespaces();
	print_cgroups();
	print_settings();
	print_ids("uid_map", "/proc/self/uid_map");
	(void)printf("user=%u\n", geteuid());
	print_capabilities("capabilities", caps_effective());
	if (io_read_at(AT_FDCWD, "/proc/swaps", swaps, sizeof(swaps)) >= 0) {
		bool on = strchr(swaps, '\n') && strchr(swaps, '\n')[1];

		(void)printf("swap=%s\n", on ? "on" : "off");
		if (on)
			advise("swap", "what a task had in memory may stay on the host's disk",
			       "swapoff -a, or encrypted swap");
	}
	return r;
}
