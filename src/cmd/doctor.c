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

enum { PROBE_MAX = 64 * 1024, KEY_MAX = 64 };

/* Exit status of the probe that are none of 0 and 1. */
enum { PROBE_WRONG_USE = 2, PROBE_BELOW = 3 };

const char cmd_doctor_usage[] =
	"usage: kiln doctor [--all] [--json] [--config FILE] [--languages DIR]\n\n"
	"Tells what this host offers to sandboxes (by making one: `kiln-sandbox probe`), what is\n"
	"missing, what that costs, how to get it, and which toolchains are installed. What is "
	"found\n"
	"is held against sandbox.min_isolation of the configuration, as a server does when it\n"
	"starts.\n\n"
	"exit status: 0 where tasks can be run; 1 where no sandbox can be made; 3 where one can, "
	"but\n"
	"below the configured minimum, so that nothing would be run.\n";

/* What of the probe's many lines people are shown, in words; --all shows the rest too. What is
 * missing comes with KEY.cost and KEY.get from the probe itself. */
static const struct {
	const char *key;
	const char *title;
} shown[] = {
	{"sandbox", "a sandbox can be made"},
	{"isolation", "isolation of tasks"},
	{"kernel", "kernel"},
	{"min_isolation", "demanded (sandbox.min_isolation)"},
	{"min_isolation.met", "what is demanded is there"},
	{"limits", "limits are kept by (cgroup2 is best)"},
	{"cgroups", "cgroups"},
	{"cgroup2.delegated", "cgroup v2: ours, with controllers"},
	{"seccomp", "seccomp: system calls are filtered"},
	{"landlock", "landlock ABI"},
	{"proc", "own /proc"},
	{"two_ids", "task and init have different users"},
	{"swap", "swap"},
	{"swap_limit", "swap is limited"},
	{"aslr", "addresses are random (ASLR, 2 is best)"},
	{"apparmor", "AppArmor"},
	{"apparmor_restricts_userns", "AppArmor restricts user namespaces"},
	{"memory_peak", "peak of memory is known"},
	{"cpu_rate", "shares of a CPU can be limited"},
	{"network_pool", "network namespaces are pooled"},
	{"cgroup_kill", "cgroup.kill"},
};

/* ---- the probe ---- */

static int read_probe(char *program, const struct config *cfg, struct buf *b, int *ret_status,
		      struct err *e)
{
	AUTO_FD int in = -EBADF;
	char verb[] = "probe", limits[] = "--limits", walls[] = "--min-isolation";
	char *argv[] = {
		program, verb, limits, cfg->sandbox_limits, walls, cfg->sandbox_min_isolation,
		NULL};
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

/* A key that comes again has several values. */
static int add_line(json_t *object, const char *key, const char *value)
{
	const char *before = json_string_value(json_object_get(object, key));

	return json_object_set_new(
		object, key, before ? json_sprintf("%s; %s", before, value) : json_string(value));
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
		if (add_line(object, line, equals + 1) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* The probe's exit status is ours. */
static int probe(const struct config *cfg, json_t *host, int *ret_status, struct err *e)
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
	r = read_probe(program, cfg, &b, &status, e);
	if (r >= 0 && parse_probe(b.data, host) < 0)
		r = err_errno(e, -ENOMEM, "could not read what \"%s\" says", program);
	buf_fini(&b);
	*ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
	if (r >= 0 && *ret_status == PROBE_WRONG_USE)
		r = err_set(e, -EINVAL,
			    "sandbox.min_isolation is \"%s\", of which a word is unknown",
			    cfg->sandbox_min_isolation);
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
	int r = language_registry_load(dir, &registry, e);

	if (r >= 0 && probe_languages(registry, languages) < 0)
		r = err_errno(e, -ENOMEM, "could not look for the toolchains");
	return r;
}

/* ---- showing ---- */

static const char *text_of(const json_t *host, const char *key, const char *suffix)
{
	char name[KEY_MAX];

	(void)snprintf(name, sizeof name, "%s%s", key, suffix);
	return json_string_value(json_object_get(host, name));
}

static void print_line(const json_t *host, const char *key, const char *title)
{
	const char *cost = text_of(host, key, ".cost"), *get = text_of(host, key, ".get");

	(void)printf("  %-38s %s\n", title, text_of(host, key, ""));
	if (cost)
		(void)printf("      what it costs: %s\n", cost);
	if (get)
		(void)printf("      how to get it: %s\n", get);
}

static bool is_shown(const char *key, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++) {
		if (strlen(shown[i].key) == len && memcmp(shown[i].key, key, len) == 0)
			return true;
	}
	return false;
}

/* Whatever else the probe found to be missing. */
static void print_other_costs(json_t *host)
{
	static const char suffix[] = ".cost";
	const char *key;
	json_t *value;

	json_object_foreach(host, key, value)
	{
		size_t len = strlen(key), tail = strlen(suffix);
		char name[KEY_MAX];

		if (len <= tail || len - tail >= sizeof name || !str_eq(key + len - tail, suffix) ||
		    is_shown(key, len - tail))
			continue;
		(void)snprintf(name, sizeof name, "%.*s", (int)(len - tail), key);
		print_line(host, name, name);
	}
}

/* One line for all of them: those that are there, and why others are not. */
static void print_namespaces(json_t *host)
{
	static const char prefix[] = "namespace.";
	const char *key;
	json_t *value;

	(void)printf("  %-38s", "namespaces");
	json_object_foreach(host, key, value)
	{
		const char *text = json_string_value(value);

		if (!str_has_prefix(key, prefix))
			continue;
		if (str_eq(text, "yes"))
			(void)printf(" %s", key + strlen(prefix));
		else
			(void)printf(" (%s: %s)", key + strlen(prefix), text);
	}
	(void)puts("");
}

static void print_host(json_t *host, bool all)
{
	const char *key;
	json_t *value;

	(void)puts("What sandboxes have on this host:");
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++) {
		if (text_of(host, shown[i].key, ""))
			print_line(host, shown[i].key, shown[i].title);
	}
	print_namespaces(host);
	print_other_costs(host);
	if (!all)
		return;
	(void)puts("\nAll that was looked at:");
	json_object_foreach(host, key, value)
	{
		(void)printf("  %s=%s\n", key, json_string_value(value));
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

struct request {
	const char *languages_dir, *config;
	bool all, as_json;
};

static int load_config(const char *file, struct config **ret_config, struct err *e)
{
	char self[] = "doctor", flag[] = "--config";
	char *argv[] = {self, flag, (char *)(uintptr_t)file, NULL};

	return config_load(file ? 3 : 1, argv, environ, ret_config, e);
}

/* For the last line, and for scripts that read JSON. */
static const char *verdict_of(int status)
{
	if (status == EXIT_OK)
		return "Tasks can be run here.";
	return status == PROBE_BELOW ? "Tasks will NOT be run here: below the configured minimum."
				     : "Tasks can NOT be run here.";
}

static int diagnose(const struct request *q, int *ret_status, struct err *e)
{
	AUTO(config_free) struct config *cfg = NULL;
	AUTO(json_cleanup) json_t *all = json_object();
	AUTO_FREE char *text = NULL;
	json_t *host = json_object(), *languages = json_array();
	int r;

	if (!all || json_object_set_new(all, "host", host) |
			    json_object_set_new(all, "languages", languages))
		return err_errno(e, -ENOMEM, "could not look around");
	r = load_config(q->config, &cfg, e);
	if (r >= 0)
		r = probe(cfg, host, ret_status, e);
	if (r >= 0)
		r = find_languages(q->languages_dir ? q->languages_dir : cfg->languages, languages,
				   e);
	if (r < 0)
		return r;
	if (!q->as_json) {
		print_host(host, q->all);
		print_languages(languages);
		(void)printf("\n%s\n", verdict_of(*ret_status));
		return 0;
	}
	if (json_object_set_new(all, "works", json_boolean(*ret_status == EXIT_OK)) < 0 ||
	    !(text = json_dumps(all, JSON_INDENT(2))))
		return err_errno(e, -ENOMEM, "could not look around");
	(void)puts(text);
	return 0;
}

int cmd_doctor(int argc, char **argv)
{
	struct request q = {0};
	int status = EXIT_FAILED;
	const struct option_row rows[] = {
		{.name = "all", .flag = &q.all},
		{.name = "json", .flag = &q.as_json},
		{.name = "config", .text = &q.config},
		{.name = "languages", .text = &q.languages_dir},
	};
	struct err e = {""};
	int n = options_parse(argc, argv, rows, ARRAY_SIZE(rows), OPTIONS_ANYWHERE, &e);

	if (n < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	if (n)
		return cmd_fail_text(EXIT_WRONG_USE, "unexpected argument \"%s\"", argv[1]);
	return diagnose(&q, &status, &e) < 0 ? cmd_fail(EXIT_FAILED, &e) : status;
}
