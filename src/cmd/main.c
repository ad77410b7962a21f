/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "base/str.h"
#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>

static const struct command commands[] = {
	{"serve", "start a server: API, scheduler and a local runner", cmd_serve_usage, cmd_serve},
	{"run", "run a file and wait for its output", cmd_run_usage, cmd_run},
	{"submit", "submit a file and print the id of the task", cmd_submit_usage, cmd_submit},
	{"result", "show a task and its result", cmd_result_usage, cmd_result},
	{"cancel", "cancel a task that waits or runs", cmd_cancel_usage, cmd_cancel},
	{"languages", "list the languages, or check that they work", cmd_languages_usage,
	 cmd_languages},
	{"doctor", "tell what this host offers and what is missing", cmd_doctor_usage, cmd_doctor},
	{"keys", "add, list and revoke API keys", cmd_keys_usage, cmd_keys},
	{"tenants", "give tenants limits of their own", cmd_tenants_usage, cmd_tenants},
	{"migrate", "bring the schema of a PostgreSQL store up to date", cmd_migrate_usage,
	 cmd_migrate},
	{"queue", "show what waits at a broker and the dead letters, put those back",
	 cmd_queue_usage, cmd_queue},
	{"api", "serve the HTTP API alone, for schedulers elsewhere", cmd_api_usage, cmd_api},
	{"scheduler", "run the tasks of a cluster, without the API", cmd_scheduler_usage,
	 cmd_scheduler},
	{"runner-key", "make the key of a runner on another machine", cmd_runner_key_usage,
	 cmd_runner_key},
	{"pods", "show the pools of pods in a cluster, and why they have their size",
	 cmd_pods_usage, cmd_pods},
	{"config", "print the configuration in force", cmd_config_usage, cmd_config},
};

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (str_eq(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

static int print_help(FILE *out)
{
	(void)fprintf(out,
		      "Kiln runs other people's code: in a sandbox, with limits, over HTTP.\n\n"
		      "usage: kiln COMMAND [ARGUMENTS]\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		(void)fprintf(out, "  %-11s %s\n", commands[i].name, commands[i].help);
	(void)fprintf(out,
		      "  %-11s %s\n  %-11s %s\n\n"
		      "A first try:  kiln serve    and in another terminal:  kiln run hello.py\n"
		      "`kiln help COMMAND` tells more about each.\n",
		      "help", "this text, or that of a command", "version", "the version");
	return EXIT_OK;
}

static int unknown(const char *name)
{
	const char *names[ARRAY_SIZE(commands)];
	const char *near;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		names[i] = commands[i].name;
	near = str_nearest(name, names, ARRAY_SIZE(names));
	if (near)
		return cmd_fail_text(EXIT_WRONG_USE,
				     "unknown command \"%s\" (did you mean \"%s\"?)", name, near);
	return cmd_fail_text(EXIT_WRONG_USE, "unknown command \"%s\": `kiln --help` lists all",
			     name);
}

static int help(int argc, char **argv)
{
	const struct command *c = argc > 1 ? find(argv[1]) : NULL;

	if (argc < 2)
		return print_help(stdout);
	if (!c)
		return unknown(argv[1]);
	(void)fputs(c->usage, stdout);
	return EXIT_OK;
}

/* Output that could not be written is a failure of the command: a full disk must not look like an
 * empty result. */
static int finish(int status)
{
	if (fflush(stdout) || ferror(stdout))
		return cmd_fail_text(status ? status : EXIT_FAILED, "could not write the output");
	return status;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	const struct command *c;

	if (argc < 2) {
		(void)print_help(stderr);
		return EXIT_WRONG_USE;
	}
	if (str_eq(name, "--help") || str_eq(name, "-h") || str_eq(name, "help"))
		return finish(help(argc - 1, argv + 1));
	if (str_eq(name, "--version") || str_eq(name, "version")) {
		(void)printf("kiln %s\n", KILN_VERSION);
		return finish(EXIT_OK);
	}
	c = find(name);
	if (!c)
		return unknown(name);
	if (argc > 2 && (str_eq(argv[2], "--help") || str_eq(argv[2], "-h")))
		return finish(help(2, argv));
	return finish(c->run(argc - 1, argv + 1));
}
