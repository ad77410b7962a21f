/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "sandbox/client.h"
#include "sandbox/commands.h"
#include "sandbox/io.h"
#include "sandbox/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

enum { FILES_MAX = 64, ENV_MAX = 64 };

static const char help[] =
	"Usage: kiln-sandbox run [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
	"\n"
	"Runs PROGRAM in a sandbox: no network, no files of the host but its programs, limits on\n"
	"everything. Standard input, output and error are passed through.\n"
	"\n"
	"Limits (sizes take KiB, MiB, GiB; times take ms or s):\n"
	"  --cpu TIME           CPU time of all processes together     (5s)\n"
	"  --wall TIME          time on the clock                      (15s)\n"
	"  --memory SIZE        memory of all processes together       (256MiB)\n"
	"  --processes N        processes and threads                  (64)\n"
	"  --disk SIZE          everything written: /box, /tmp         (64MiB)\n"
	"  --inodes N           files in there                         (4096)\n"
	"  --file SIZE          one file                               (as --disk)\n"
	"  --stack SIZE         stack of the main thread               (8MiB)\n"
	"  --open-files N       open descriptors of a process          (256)\n"
	"\n"
	"Files:\n"
	"  --put FILE[:NAME]    copy FILE into the work directory /box, keeping its permissions\n"
	"  --collect PATTERN    after exit code 0, bring matching files out (repeatable)\n"
	"  --collect-to DIR     ... into this directory                (.)\n"
	"  --collect-bytes SIZE ... all together                       (64MiB)\n"
	"  --bind PATH[:TARGET] make a file or directory of the host visible, read-only\n"
	"  --env NAME=VALUE     set a variable (PATH, HOME and LANG are set)\n"
	"\n"
	"The sandbox:\n"
	"  --limits HOW         auto, cgroup2, cgroup1 or rlimit       (auto)\n"
	"  --cgroup PATH        cgroup to nest under                   (the caller's own)\n"
	"  --seccomp FILE       another system call filter, in the kernel's form; or none\n"
	"  --uid-base N         first host id, two are used\n"
	"  --no-netpool         never use a network namespace again\n"
	"  --repeat N           run N times in N fresh sandboxes, report the last\n"
	"  --report FILE        write the report here                  (standard error)\n"
	"  --quiet              no report\n"
	"\n"
	"The report is one line of JSON. The exit code is the program's own; 128 + N after signal "
	"N;\n"
	"124 after a time limit; 125 after another limit; 126 where PROGRAM could not be "
	"executed;\n"
	"127 where the sandbox itself failed.\n";

struct run {
	struct sandbox_limits limits;
	struct sandbox_bind *binds;
	size_t bind_count;
	const char *env[ENV_MAX + 1];
	size_t env_count;
	const char *collect[JOB_COLLECT_MAX + 1];
	size_t collect_count;
	const char *collect_to;
	struct archive_entry files[FILES_MAX];
	size_t file_count;
	const char *seccomp, *report, *cgroup;
	enum sandbox_rung rung;
	uint64_t uid_base, repeat;
	bool quiet;
	unsigned int flags;
	char *const *argv;
};

static const struct {
	const char *suffix;
	uint64_t factor;
} size_units[] = {{"", 1},	  {"B", 1},	    {"K", 1024},       {"KiB", 1024},
		  {"M", 1 << 20}, {"MiB", 1 << 20}, {"G", 1 << 30},    {"GiB", 1 << 30},
		  {"kB", 1000},	  {"MB", 1000000},  {"GB", 1000000000}},
  time_units[] = {{"us", 1}, {"ms", 1000}, {"s", 1000000}, {"", 1000000}, {"m", 60000000}};

#define PARSE(units, text, ret_value) parse_unit(text, ret_value, units, ARRAY_SIZE(units))

static int parse_unit(const char *text, uint64_t *ret_value, const void *units, size_t count)
{
	const __typeof__(size_units[0]) *u = units;
	const char *end;
	uint64_t v;

	if (io_parse_u64(text, &v, &end) < 0)
		return -EINVAL;
	for (size_t i = 0; i < count; i++)
		if (strcmp(end, u[i].suffix) == 0)
			return __builtin_mul_overflow(v, u[i].factor, ret_value) ? -ERANGE : 0;
	return -EINVAL;
}

enum kind { SIZE, TIME, COUNT };

static const struct limit_option {
	const char *name;
	size_t offset;
	enum kind kind;
} limit_options[] = {
#define LIMIT(name, field, kind)                                                                   \
	{                                                                                          \
		name, offsetof(struct sandbox_limits, field), kind                                 \
	}
	LIMIT("cpu", cpu_usec, TIME),
	LIMIT("wall", wall_usec, TIME),
	LIMIT("memory", memory_bytes, SIZE),
	LIMIT("disk", disk_bytes, SIZE),
	LIMIT("file", file_bytes, SIZE),
	LIMIT("stack", stack_bytes, SIZE),
	LIMIT("collect-bytes", collect_bytes, SIZE),
	LIMIT("processes", processes, COUNT),
	LIMIT("inodes", inodes, COUNT),
	LIMIT("open-files", open_files, COUNT),
#undef LIMIT
};

static int set_limit(struct run *run, const struct limit_option *o, const char *text)
{
	char *at = (char *)&run->limits + o->offset;
	uint64_t v = 0;
	uint32_t v32;
	int r = -EINVAL;

	switch (o->kind) {
	case SIZE:
		r = PARSE(size_units, text, &v);
		break;
	case TIME:
		r = PARSE(time_units, text, &v);
		break;
	case COUNT:
		r = parse_unit(text, &v, size_units, 1);
		break;
	}
	if (r < 0 || v == 0 || (o->kind == COUNT && v > UINT32_MAX))
		return -EINVAL;
	v32 = (uint32_t)v;
	if (o->kind == COUNT)
		memcpy(at, &v32, sizeof(v32));
	else
		memcpy(at, &v, sizeof(v));
	return 0;
}

static int add_bind(struct run *run, const char *text)
{
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	struct sandbox_bind *b = &run->binds[run->bind_count];

	if (run->bind_count == SANDBOX_BINDS_MAX || text[0] != '/' || len >= SANDBOX_PATH_MAX ||
	    (colon && (colon[1] != '/' || strlen(colon) > SANDBOX_PATH_MAX)))
		return -EINVAL;
	*b = (struct sandbox_bind){0};
	memcpy(b->source, text, len);
	if (colon)
		memcpy(b->target, colon + 1, strlen(colon));
	run->bind_count++;
	return 0;
}

static int add_file(struct run *run, const char *text)
{
	const char *colon = strrchr(text, ':'), *slash;
	AUTO_FREE char *path = colon ? strndup(text, (size_t)(colon - text)) : strdup(text);
	AUTO_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	struct archive_entry *entry = &run->files[run->file_count];
	struct stat st;
	void *data = NULL;

	if (run->file_count == FILES_MAX || fd < 0 || fstat(fd, &st) < 0)
		return -EINVAL;
	if (st.st_size > 0)
		data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return -EINVAL;
	slash = strrchr(text, '/');
	entry->name = colon ? colon + 1 : slash ? slash + 1 : text;
	entry->name_len = strlen(entry->name);
	entry->mode = st.st_mode & 0777;
	entry->data = data;
	entry->size = (uint64_t)st.st_size;
	run->file_count++;
	return 0;
}

static int set_other(struct run *run, const char *name, const char *text)
{
	if (strcmp(name, "bind") == 0)
		return add_bind(run, text);
	if (strcmp(name, "put") == 0)
		return add_file(run, text);
	if (strcmp(name, "limits") == 0)
		return sandbox_rung_parse(text, &run->rung);
	if (strcmp(name, "env") == 0 && run->env_count < ENV_MAX)
		run->env[run->env_count++] = text;
	else if (strcmp(name, "collect") == 0 && run->collect_count < JOB_COLLECT_MAX)
		run->collect[run->collect_count++] = text;
	else if (strcmp(name, "collect-to") == 0)
		run->collect_to = text;
	else if (strcmp(name, "seccomp") == 0)
		run->seccomp = text;
	else if (strcmp(name, "report") == 0)
		run->report = text;
	else if (strcmp(name, "cgroup") == 0)
		run->cgroup = text;
	else if (strcmp(name, "uid-base") == 0)
		return parse_unit(text, &run->uid_base, size_units, 1);
	else if (strcmp(name, "repeat") == 0)
		return parse_unit(text, &run->repeat, size_units, 1);
	else if (strcmp(name, "quiet") == 0)
		run->quiet = true;
	else if (strcmp(name, "no-netpool") == 0)
		run->flags |= SANDBOX_CONFIGURE_NO_NETPOOL;
	else
		return -EINVAL;
	return 0;
}

/* Returns an exit code, or -1 to go on. */
static int parse_options(struct run *run, int argc, char **argv)
{
	static const char *const others[] = {"bind",	"put",	      "limits",	 "env",
					     "collect", "collect-to", "seccomp", "report",
					     "cgroup",	"uid-base",   "repeat"};
	struct option options[ARRAY_SIZE(limit_options) + ARRAY_SIZE(others) + 4] = {0};
	size_t n = 0;
	int c, index;

	for (size_t i = 0; i < ARRAY_SIZE(limit_options); i++)
		options[n++] = (struct option){limit_options[i].name, required_argument, NULL, 'L'};
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		options[n++] = (struct option){others[i], required_argument, NULL, 'O'};
	options[n++] = (struct option){"quiet", no_argument, NULL, 'O'};
	options[n++] = (struct option){"no-netpool", no_argument, NULL, 'O'};
	options[n++] = (struct option){"help", no_argument, NULL, 'h'};
	while ((c = getopt_long(argc, argv, "+h", options, &index)) != -1) {
		if (c == 'h') {
			(void)fputs(help, stdout);
			return 0;
		}
		if (c != 'L' && c != 'O')
			return 2;
		if ((c == 'L' ? set_limit(run, &limit_options[index], optarg)
			      : set_other(run, options[index].name, optarg)) < 0) {
			(void)fprintf(stderr, "kiln-sandbox: --%s cannot be \"%s\"\n",
				      options[index].name, optarg ? optarg : "");
			return 2;
		}
	}
	if (optind == argc) {
		(void)fputs("kiln-sandbox: no program given; see `kiln-sandbox run --help`\n",
			    stderr);
		return 2;
	}
	run->argv = argv + optind;
	return -1;
}

static void print_report(FILE *f, const struct sandbox_reply_configured *in_force,
			 const struct sandbox_event_exited *x)
{
	static const char *const outcomes[_SANDBOX_OUTCOME_MAX] = {
		[SANDBOX_EXITED] = "exited",   [SANDBOX_SIGNALLED] = "signalled",
		[SANDBOX_LIMITED] = "limited", [SANDBOX_NOT_EXECUTABLE] = "not_executable",
		[SANDBOX_FAILED] = "failed",
	};

	(void)fprintf(f,
		      "{\"outcome\":\"%s\",\"code\":%d,\"signal\":%d,\"limit\":\"%s\","
		      "\"step\":\"%s\",\"error\":\"%s\",\"cpu_usec\":%" PRIu64
		      ",\"wall_usec\":%" PRIu64 ",\"memory_peak_bytes\":%" PRId64
		      ",\"oom_kills\":%" PRIu64 ",\"collected\":%u,\"collect_error\":\"%s\","
		      "\"limits\":\"%s\",\"two_ids\":%s,\"landlock\":%u,\"seccomp\":%s}\n",
		      outcomes[x->outcome], x->code, x->signal, sandbox_limit_name(x->limit),
		      sandbox_step_name(x->step), x->error ? err_text(x->error) : "", x->cpu_usec,
		      x->wall_usec, x->memory_peak_bytes, x->oom_kills, x->collected_files,
		      x->collect_error ? err_text(x->collect_error) : "",
		      sandbox_rung_name(in_force->rung),
		      in_force->has & SANDBOX_HAS_TWO_IDS ? "true" : "false",
		      in_force->landlock_abi,
		      in_force->has & SANDBOX_HAS_SECCOMP ? "true" : "false");
}

static int exit_code(const struct sandbox_event_exited *x)
{
	switch (x->outcome) {
	case SANDBOX_EXITED:
		return x->code;
	case SANDBOX_SIGNALLED:
		return 128 + x->signal;
	case SANDBOX_LIMITED:
		return x->limit == SANDBOX_LIMIT_CPU || x->limit == SANDBOX_LIMIT_WALL ? 124 : 125;
	case SANDBOX_NOT_EXECUTABLE:
		return 126;
	default:
		return 127;
	}
}

static int write_collected_file(int dir, const struct archive_entry *entry, struct err *e)
{
	char path[ARCHIVE_NAME_MAX + 1];
	AUTO_FD int fd = -EBADF;

	(void)snprintf(path, sizeof(path), "%.*s", (int)entry->name_len, entry->name);
	for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdirat(dir, path, 0755) < 0 && errno != EEXIST)
			return err_errno(e, -errno, "could not make \"%s\"", path);
		*slash = '/';
	}
	fd = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, entry->mode);
	if (fd < 0)
		return err_errno(e, -errno, "could not create \"%s\"", path);
	if (write(fd, entry->data, entry->size) != (ssize_t)entry->size)
		return err_errno(e, -EIO, "could not write \"%s\"", path);
	return 0;
}

static int write_collected(const struct run *run, int output, struct err *e)
{
	AUTO_FD int dir =
		open(run->collect_to ? run->collect_to : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct archive_reader reader;
	struct archive_entry entry;
	const void *data;
	size_t len;
	int r;

	if (dir < 0)
		return err_errno(e, -errno, "could not open \"%s\"", run->collect_to);
	r = archive_map(output, &data, &len, e);
	if (r < 0 || len == 0)
		return r;
	r = archive_open(&reader, data, len);
	while (r == 0 && (r = archive_next(&reader, &entry)) > 0)
		r = write_collected_file(dir, &entry, e);
	(void)munmap((void *)(uintptr_t)data, len);
	return r == -EBADMSG ? err_set(e, r, "the collected files make no sense") : r;
}

static int open_client(const struct run *run, struct sandbox_client **ret_client, struct err *e)
{
	AUTO_FD int filter = -EBADF;
	struct sandbox_client_options o = {.program = command_self(),
					   .boxes = 1,
					   .uid_base = (unsigned int)run->uid_base,
					   .rung = run->rung,
					   .flags = run->flags,
					   .cgroup_parent = run->cgroup,
					   .binds = run->binds,
					   .bind_count = run->bind_count};

	if (run->seccomp && strcmp(run->seccomp, "none") != 0) {
		filter = open(run->seccomp, O_RDONLY | O_CLOEXEC);
		if (filter < 0)
			return err_errno(e, -errno, "could not open \"%s\"", run->seccomp);
	} else if (!run->seccomp) {
		int r = sandbox_seccomp_compile(SANDBOX_IN_NAMESPACES, &filter, e);

		if (r < 0)
			return r;
	}
	o.seccomp_fd = filter;
	return sandbox_client_new(&o, ret_client, e);
}

/* Waits for one event, ending the box at the first SIGINT or SIGTERM. */
static int next_event(struct sandbox_client *c, uint64_t cookie, int signals,
		      union sandbox_event *ret_event, struct err *e)
{
	struct signalfd_siginfo info;

	for (;;) {
		struct pollfd p[2] = {{.fd = sandbox_client_fd(c), .events = POLLIN},
				      {.fd = signals, .events = POLLIN}};
		int r = sandbox_client_receive(c, ret_event, e);

		if (r != 0)
			return r;
		(void)poll(p, 2, -1);
		if (p[1].revents && read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
			r = sandbox_client_kill(c, 0, cookie, SANDBOX_LIMIT_REQUESTED, e);
			if (r < 0)
				return r;
		}
	}
}

static int run_once(const struct run *run, struct sandbox_client *c, uint64_t cookie,
		    const struct sandbox_task *task, int signals,
		    struct sandbox_event_exited *ret_exited, struct err *e)
{
	union sandbox_event event;
	int r = sandbox_client_prepare(c, 0, cookie, &run->limits, e);

	while (r >= 0) {
		r = next_event(c, cookie, signals, &event, e);
		if (r < 0)
			return r;
		switch (event.h.type) {
		case SANDBOX_EVENT_PREPARED:
			r = sandbox_client_start(c, 0, cookie, task, e);
			break;
		case SANDBOX_EVENT_EXITED:
			*ret_exited = event.exited;
			break;
		case SANDBOX_EVENT_RELEASED:
			return 0;
		case SANDBOX_REPLY_ERROR:
			return err_set(e, -event.error.error, "%s", event.error.message);
		default:
			break;
		}
	}
	return r;
}

static int run_all(const struct run *run, struct sandbox_client *c,
		   struct sandbox_event_exited *ret_exited, struct err *e)
{
	static const int streams[] = {0, 1, 2};
	static const uint8_t targets[] = {0, 1, 2};
	const struct job_spec spec = {
		.argv = (const char *const *)run->argv, .envp = run->env, .collect = run->collect};
	AUTO_FD int job = -EBADF;
	AUTO_FD int output = -EBADF;
	AUTO_FD int signals = -EBADF;
	struct sandbox_task task = {.limits = run->limits,
				    .map_fds = streams,
				    .map_targets = targets,
				    .map_count = ARRAY_SIZE(streams)};
	sigset_t set;
	int r = job_write(&spec, run->files, run->file_count, &job, e);

	if (r == 0 && run->collect_count > 0)
		r = archive_output_new(&output, e);
	if (r < 0)
		return r;
	task.job_fd = job;
	task.output_fd = output;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	for (uint64_t i = 0; r == 0 && i < run->repeat; i++)
		r = run_once(run, c, i + 1, &task, signals, ret_exited, e);
	if (r == 0 && output >= 0)
		r = write_collected(run, output, e);
	return r;
}

static int report(const struct run *run, const struct sandbox_client *c,
		  const struct sandbox_event_exited *x)
{
	FILE *f = run->report ? fopen(run->report, "we") : stderr;

	if (!f) {
		(void)fprintf(stderr, "kiln-sandbox: could not open \"%s\": %s\n", run->report,
			      err_text(errno));
		return 127;
	}
	if (!run->quiet)
		print_report(f, sandbox_client_in_force(c), x);
	if (run->report)
		(void)fclose(f);
	return exit_code(x);
}

int command_run(int argc, char **argv)
{
	AUTO(sandbox_client_free) struct sandbox_client *c = NULL;
	struct sandbox_event_exited exited = {.outcome = SANDBOX_FAILED};
	static struct run run = {
		.limits = {.cpu_usec = 5000000,
			   .wall_usec = 15000000,
			   .memory_bytes = 256u << 20,
			   .processes = 64},
		.env = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" SANDBOX_WORK_DIR,
			"LANG=C.UTF-8"},
		.env_count = 3,
		.repeat = 1,
	};
	struct err e = {0};
	int r = sandbox_profile_default(&run.binds, &run.bind_count, &e);

	if (r == 0) {
		r = parse_options(&run, argc, argv);
		if (r >= 0)
			return r;
		r = open_client(&run, &c, &e);
	}
	if (r == 0)
		r = run_all(&run, c, &exited, &e);
	if (r < 0) {
		(void)fprintf(stderr, "kiln-sandbox: %s\n", e.msg);
		return 127;
	}
	return report(&run, c, &exited);
}
