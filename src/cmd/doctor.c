/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "config/config.h"
#include "task/language.h"
#include "json/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROBE_MAX = 64 * 1024 };

const char cmd_doctor_usage[] =
	"usage: kiln doctor [--json] [--languages DIR]\n\n"
	"Tells what this host offers to sandboxes (by making one: `kiln-sandbox probe`), what is\n"
	"missing, what that costs, how to get it, and which toolchains are installed.\n\n"
	"exit status: 0 where tasks can be run, else 1.\n";

/* What the probe's keys mean. A value of "no", "none" or "0" is bad where there is a cost. */
struct finding {
	const char *key;
	const char *title;
	const char *cost;   /* of its absence; NULL: only told */
	const char *remedy; /* or NULL */
};

static const struct finding findings[] = {
	{"limits", "limits", NULL, NULL},
	{"cgroup2", "cgroup v2", "memory and processes are limited by the older cgroup v1, or less",
	 "boot with systemd.unified_cgroup_hierarchy=1 and delegate cpu, memory and pids"},
	{"cgroup1", "cgroup v1", NULL, NULL},
	{"cgroup", "cgroup", NULL, NULL},
	{"userns", "user namespaces", "no sandbox can be made without being root",
	 "sysctl kernel.unprivileged_userns_clone=1 (Ubuntu: "
	 "kernel.apparmor_restrict_unprivileged_userns=0)"},
	{"namespaces", "namespaces", "a task would see the host's processes and mounts", NULL},
	{"netns", "network namespaces", "tasks could reach the network: none is run",
	 "a kernel with CONFIG_NET_NS"},
	{"netpool", "pool of network namespaces", "each task waits about 1 ms longer", NULL},
	{"seccomp", "seccomp", "system calls are not filtered",
	 "a kernel with CONFIG_SECCOMP_FILTER"},
	{"landlock", "Landlock", "one wall around files fewer",
	 "a kernel from 5.13 on with \"landlock\" in the lsm= list"},
	{"two_ids", "own user for each sandbox's init",
	 "task and init share a user id; a task is kept from its init by other means",
	 "start as root, or give the user a range in /etc/subuid"},
	{"swap_limit", "limit of swap", "a task may be swapped out instead of meeting its limit",
	 "swapoff -a, or boot with swapaccount=1"},
	{"cpu_rate", "CPU rate", "a task cannot be held to a part of a CPU", NULL},
	{"memory_peak", "peak of memory", "usage.memory_bytes is less exact", NULL},
	{"proc", "own /proc", "some programs do not run without /proc", NULL},
	{"cgroup_kill", "cgroup.kill", NULL, NULL},
	{"root", "started as root", NULL, NULL},
};

/* ---- the probe ---- */

static int read_probe(const char *program, struct buf *b, int *ret_status, struct err *e)
{
	AUTO_FD int in = -EBADF;
	char name[] = "kiln-sandbox", verb[] = "probe";
	char *argv[] = {name, verb, NULL};
	posix_spawn_file_actions_t files;
	int fds[2], r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "could not make a pipe");
	in = fds[0];
	r = posix_spawn_file_actions_init(&files);
	if (!r)
		r = posix_spawn_file_actions_adddup2(&files, fds[1], STDOUT_FILENO);
	if (!r)
		r = posix_spawn(&pid, program, &files, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&files);
	(void)close(fds[1]);
	if (r)
		return err_errno(e, -r, "could not start \"%s\"", program);
	r = fs_read_fd(in, b);
	if (waitpid(pid, ret_status, 0) < 0 || r < 0)
		return err_errno(e, r < 0 ? r : -errno, "could not read what \"%s\" says", program);
	return 0;
}

/* Its lines, KEY=VALUE, as an object of texts. */
static int parse_probe(char *text, json_t *object)
{
	char *line;

	while ((line = strsep(&text, "\n"))) {
		char *equals = strchr(line, '=');

		if (!equals)
			continue;
		*equals = '\0';
		if (json_object_set_new(object, line, json_string(equals + 1)) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int probe(json_t *host, bool *ret_works, struct err *e)
{
	AUTO_FREE char *self = fs_self_dir();
	AUTO_FREE char *program = NULL;
	struct buf b;
	int status = 0, r;

	if (!self || asprintf(&program, "%s/kiln-sandbox", self) < 0) {
		program = NULL;
		return err_errno(e, -ENOMEM, "could not find kiln-sandbox");
	}
	buf_init(&b, PROBE_MAX);
	r = read_probe(program, &b, &status, e);
	if (r >= 0 && parse_probe(b.data, host) < 0)
		r = err_errno(e, -ENOMEM, "could not read what \"%s\" says", program);
	buf_fini(&b);
	*ret_works = WIFEXITED(status) && !WEXITSTATUS(status);
	return r;
}

/* ---- toolchains ---- */

/* The first program of a language that is not there; NULL: all are. What a compile step makes is
 * not looked for. */
static const char *missing_program(const struct language *l)
{
	char *const *const argvs[] = {l->compile.argv, l->run.argv};

	for (size_t i = 0; i < ARRAY_SIZE(argvs); i++) {
		if (argvs[i] && argvs[i][0][0] == '/' && access(argvs[i][0], X_OK) < 0)
			return argvs[i][0];
	}
	return NULL;
}

static int probe_languages(const struct language_registry *registry, json_t *languages)
{
	for (size_t i = 0; i < language_count(registry); i++) {
		const struct language *l = language_at(registry, i);
		const char *missing = missing_program(l);
		json_t *row = json_pack("{s:s, s:s, s:b}", "name", l->name, "title", l->title,
					"installed", !missing);

		if (!row || json_array_append_new(languages, row) < 0)
			return -ENOMEM;
		if (missing && json_object_set_new(row, "missing", json_string(missing)) < 0)
			return -ENOMEM;
		if (missing && l->install_debian &&
		    json_object_set_new(row, "install", json_string(l->install_debian)) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int find_languages(const char *dir, json_t *languages, struct err *e)
{
	AUTO(language_registry_free) struct language_registry *registry = NULL;
	AUTO(config_free) struct config *cfg = NULL;
	char self[] = "doctor";
	char *argv[] = {self, NULL};
	int r = dir ? 0 : config_load(1, argv, environ, &cfg, e);

	if (r >= 0)
		r = language_registry_load(dir ? dir : cfg->languages, &registry, e);
	if (r >= 0 && probe_languages(registry, languages) < 0)
		r = err_errno(e, -ENOMEM, "could not look for the toolchains");
	return r;
}

/* ---- showing ---- */

static bool is_bad(const char *value)
{
	return str_eq(value, "no") || str_eq(value, "none") || str_eq(value, "0");
}

static const struct finding *find_finding(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(findings); i++) {
		if (str_eq(findings[i].key, key))
			return &findings[i];
	}
	return NULL;
}

static void print_host(json_t *host)
{
	const char *key;
	json_t *value;

	(void)puts("What sandboxes have on this host:");
	json_object_foreach(host, key, value)
	{
		const struct finding *f = find_finding(key);
		const char *text = json_string_value(value);

		(void)printf("  %-34s %s\n", f ? f->title : key, text);
		if (f && f->cost && is_bad(text))
			(void)printf("    without it: %s\n", f->cost);
		if (f && f->remedy && is_bad(text))
			(void)printf("    to get it:  %s\n", f->remedy);
	}
}

static void print_languages(const json_t *languages)
{
	size_t i;
	const json_t *l;

	(void)puts("\nLanguages:");
	json_array_foreach(languages, i, l)
	{
		const char *install = json_string_value(json_object_get(l, "install"));
		const char *missing = json_string_value(json_object_get(l, "missing"));

		(void)printf("  %-12s %-24s ", json_string_value(json_object_get(l, "name")),
			     json_string_value(json_object_get(l, "title")));
		if (!missing)
			(void)puts("installed");
		else if (install)
			(void)printf("no %s: apt-get install %s\n", missing, install);
		else
			(void)printf("no %s\n", missing);
	}
}

static int diagnose(const char *languages_dir, bool as_json, bool *ret_works, struct err *e)
{
	AUTO(json_cleanup) json_t *all = json_object();
	AUTO_FREE char *text = NULL;
	json_t *host = json_object(), *languages = json_array();
	int r;

	if (!all || json_object_set_new(all, "host", host) |
			    json_object_set_new(all, "languages", languages))
		return err_errno(e, -ENOMEM, "could not look around");
	r = probe(host, ret_works, e);
	if (r >= 0)
		r = find_languages(languages_dir, languages, e);
	if (r < 0)
		return r;
	if (!as_json) {
		print_host(host);
		print_languages(languages);
		(void)puts(*ret_works ? "\nTasks can be run here."
				      : "\nTasks can NOT be run here.");
		return 0;
	}
	if (json_object_set_new(all, "works", json_boolean(*ret_works)) < 0 ||
	    !(text = json_dumps(all, JSON_INDENT(2))))
		return err_errno(e, -ENOMEM, "could not look around");
	(void)puts(text);
	return 0;
}

int cmd_doctor(int argc, char **argv)
{
	const char *languages_dir = NULL;
	bool as_json = false, works = false;
	const struct option_row rows[] = {
		{.name = "json", .flag = &as_json},
		{.name = "languages", .text = &languages_dir},
	};
	struct err e = {""};
	int n = options_parse(argc, argv, rows, ARRAY_SIZE(rows), OPTIONS_ANYWHERE, &e);

	if (n < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	if (n)
		return cmd_fail_text(EXIT_WRONG_USE, "unexpected argument \"%s\"", argv[1]);
	if (diagnose(languages_dir, as_json, &works, &e) < 0)
		return cmd_fail(EXIT_FAILED, &e);
	return works ? EXIT_OK : EXIT_FAILED;
}
