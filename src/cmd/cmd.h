/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The subcommands of kiln. Each takes its own argc and argv (argv[0] is its name), writes results
 * to standard output and everything else to standard error, and returns the exit status. "--help"
 * behind a command's name is answered by main.
 */

#include "base/err.h"

/* Exit statuses that are kiln's own. `kiln run` otherwise ends as the program did: with its exit
 * code, or 128 + the number of its signal. */
enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,	 /* what was asked for did not succeed */
	EXIT_WRONG_USE = 64,	 /* sysexits.h: EX_USAGE */
	EXIT_COMPILE_ERROR = 65, /* EX_DATAERR */
	EXIT_NO_SERVER = 69,	 /* EX_UNAVAILABLE */
	EXIT_KILN_FAILED = 70,	 /* EX_SOFTWARE: Kiln could not run the task */
	EXIT_NOT_RUN = 75,	 /* EX_TEMPFAIL: cancelled, or expired in the queue */
	EXIT_TIME_LIMIT = 124,	 /* as timeout(1) */
	EXIT_OTHER_LIMIT = 125,	 /* memory or output; as `kiln-sandbox run` */
	EXIT_INTERRUPTED = 130,	 /* by Ctrl-C; as shells say it */
};

struct command {
	const char *name;
	const char *help;  /* one line */
	const char *usage; /* the whole of `kiln help NAME` */
	int (*run)(int argc, char **argv);
};

extern const char cmd_run_usage[], cmd_submit_usage[], cmd_result_usage[], cmd_cancel_usage[];
extern const char cmd_languages_usage[], cmd_doctor_usage[], cmd_config_usage[], cmd_keys_usage[];
extern const char cmd_tenants_usage[], cmd_pods_usage[];
extern const char cmd_queue_usage[], cmd_serve_usage[], cmd_migrate_usage[];
extern const char cmd_api_usage[], cmd_scheduler_usage[], cmd_runner_key_usage[];

int cmd_serve(int argc, char **argv);
int cmd_api(int argc, char **argv);
int cmd_scheduler(int argc, char **argv);
int cmd_runner_key(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_submit(int argc, char **argv);
int cmd_result(int argc, char **argv);
int cmd_cancel(int argc, char **argv);
int cmd_languages(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_tenants(int argc, char **argv);
int cmd_pods(int argc, char **argv);
int cmd_queue(int argc, char **argv);
int cmd_migrate(int argc, char **argv);

/* "kiln: message" on standard error; returns status. */
int cmd_fail(int status, const struct err *e);
int cmd_fail_text(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
