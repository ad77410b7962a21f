/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "cmd/cmd.h"
#include "cmd/interrupt.h"
#include "cmd/outcome.h"
#include "cmd/submission.h"
#include "json/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIRST_WAIT_S = 1, TEXT_MAX = 64 * 1024 * 1024 };

const char cmd_run_usage[] =
	"usage: kiln run [OPTIONS] FILE [ARGUMENTS...]\n\n"
	"Runs FILE on the server and waits. Its output becomes ours byte for byte, and so\n"
	"does its exit status. Our standard input is passed on when it is no terminal. What\n"
	"stands behind FILE are arguments of the program; FILE - is source from our "
	"input.\n\n" SUBMISSION_USAGE
	"  --json              print the result as JSON instead\n" CLIENT_USAGE "\n"
	"exit status: that of the program, 128 + N after signal N, 124 time limit, 125 memory\n"
	"or output limit, 65 does not compile, 64 wrong use, 1 refused, 69 no server, 70 Kiln\n"
	"could not run it, 75 cancelled or expired, 130 interrupted. --json tells one from the\n"
	"other.\n\n"
	"Ctrl-C (SIGINT, SIGTERM) cancels the task; a second one leaves at once.\n";

const char cmd_submit_usage[] =
	"usage: kiln submit [OPTIONS] FILE [ARGUMENTS...]\n\n"
	"Submits FILE and prints the id of the task at once; `kiln result ID` shows what came\n"
	"of it.\n\n" SUBMISSION_USAGE
	"  --json              print the answer of the server\n" CLIENT_USAGE;

struct request {
	struct submission submission;
	struct client_options client;
	bool json;
	const char *path;
	char **args;
	size_t n_args;
};

static int parse(int argc, char **argv, struct request *q, struct err *e)
{
	const struct option_row rows[] = {
		SUBMISSION_OPTION_ROWS(&q->submission),
		CLIENT_OPTION_ROWS(&q->client),
		{.name = "json", .flag = &q->json},
	};
	int n = options_parse(argc, argv, rows, ARRAY_SIZE(rows), OPTIONS_FIRST, e);

	if (n < 0)
		return n;
	if (n < 1)
		return err_set(e, -EINVAL, "usage: kiln %s [OPTIONS] FILE [ARGUMENTS...]", argv[0]);
	q->path = argv[1];
	q->args = argv + 2;
	q->n_args = (size_t)n - 1;
	q->submission.stdin_passed = !isatty(STDIN_FILENO);
	return 0;
}

/* Makes the submission that the command line describes; its text is the caller's. */
static int prepare(int argc, char **argv, struct request *q, struct client **ret_client,
		   char **ret_json, struct err *e)
{
	int r = parse(argc, argv, q, e);

	if (r >= 0)
		r = client_new(&q->client, ret_client, e);
	if (r >= 0)
		r = submission_make(&q->submission, *ret_client, q->path, q->args, q->n_args,
				    ret_json, e);
	return r;
}

static int finish_run(const struct request *q, const json_t *task, const struct buf *text)
{
	struct err e;

	if (q->json) {
		(void)printf("%s\n", text->data);
		return outcome_exit_status(task);
	}
	if (outcome_print(task, &e) < 0)
		return cmd_fail(EXIT_FAILED, &e);
	return outcome_exit_status(task);
}

/* Tells the server, and says so. A second signal ends this too. */
static int cancel(struct client *c, const json_t *task, struct interrupt *stop)
{
	const char *id = outcome_text(task, "task_id");
	struct client_answer answer = {0};
	char path[96];
	struct err e;

	stop->enough = stop->count + 1;
	(void)snprintf(path, sizeof path, "/tasks/%s", id);
	buf_init(&answer.body, TEXT_MAX);
	if (client_call(c, "DELETE", path, NULL, NULL, &answer, &e) < 0)
		(void)cmd_fail_text(EXIT_INTERRUPTED, "the task %s goes on: %s", id, e.msg);
	else if (answer.status == 409)
		(void)cmd_fail_text(EXIT_INTERRUPTED, "interrupted; the task %s had ended", id);
	else if (answer.status < 200 || answer.status > 299)
		(void)cmd_fail_text(EXIT_INTERRUPTED,
				    "the task %s goes on: cancelling it gave status %ld", id,
				    answer.status);
	else
		(void)cmd_fail_text(EXIT_INTERRUPTED, "interrupted; the task %s is cancelled", id);
	buf_fini(&answer.body);
	return -EINTR;
}

/* The answer to the submission brings the task's id, without which nothing can be cancelled: only
 * a second signal ends the wait for it. */
static int send_and_wait(struct client *c, const char *json, json_t **task, struct buf *text,
			 struct err *e)
{
	struct interrupt stop;
	int r = interrupt_begin(&stop, e);

	if (r < 0)
		return r;
	client_set_interrupt(c, &stop);
	stop.enough = 2;
	r = submission_send(c, json, FIRST_WAIT_S, task, text, e);
	if (r >= 0) {
		stop.enough = 1;
		r = outcome_wait(c, task, text, -1, e);
		if (r == -EINTR)
			r = cancel(c, *task, &stop);
	} else if (stop.count) {
		r = cmd_fail(-EINTR, e);
	}
	client_set_interrupt(c, NULL);
	interrupt_end(&stop);
	return r;
}

int cmd_run(int argc, char **argv)
{
	AUTO(client_free) struct client *client = NULL;
	AUTO(json_cleanup) json_t *task = NULL;
	AUTO_FREE char *json = NULL;
	struct request q = {0};
	struct buf text;
	struct err e = {""};
	int r;

	buf_init(&text, TEXT_MAX);
	r = prepare(argc, argv, &q, &client, &json, &e);
	if (r >= 0)
		r = send_and_wait(client, json, &task, &text, &e);
	if (r == -EINTR)
		r = EXIT_INTERRUPTED; /* and it was said why */
	else
		r = r < 0 ? cmd_fail(client_exit_status(r), &e) : finish_run(&q, task, &text);
	buf_fini(&text);
	return r;
}

int cmd_submit(int argc, char **argv)
{
	AUTO(client_free) struct client *client = NULL;
	AUTO(json_cleanup) json_t *task = NULL;
	AUTO_FREE char *json = NULL;
	struct request q = {0};
	struct buf text;
	struct err e = {""};
	int r;

	buf_init(&text, TEXT_MAX);
	r = prepare(argc, argv, &q, &client, &json, &e);
	if (r >= 0)
		r = submission_send(client, json, 0, &task, &text, &e);
	if (r < 0)
		r = cmd_fail(client_exit_status(r), &e);
	else
		r = printf("%s\n", q.json ? text.data : outcome_text(task, "task_id")) < 0;
	buf_fini(&text);
	return r;
}
