/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "base/str.h"
#include "base/uuid7.h"
#include "cmd/cmd.h"
#include "cmd/outcome.h"
#include "json/reader.h"

#include <errno.h>
#include <stdio.h>

enum { TEXT_MAX = 64 * 1024 * 1024, WAIT_MAX_MS = 24 * 3600 * 1000 };

const char cmd_result_usage[] =
	"usage: kiln result [OPTIONS] ID\n\n"
	"Shows a task: its output when it is final, its state before.\n\n"
	"  --wait SECONDS      wait for the end of the task, at most so long\n"
	"  --json              print the result as JSON instead\n" CLIENT_USAGE "\n"
	"exit status: 0 whatever the program's outcome was; 75 where the task is not final yet.\n";

const char cmd_cancel_usage[] =
	"usage: kiln cancel [OPTIONS] ID\n\n"
	"Cancels a task: at once where it waits, soon where it runs.\n\n"
	"  --json              print the answer of the server\n" CLIENT_USAGE;

struct request {
	struct client_options client;
	const char *wait;
	bool json;
	double wait_s;
	const char *id;
};

static int parse(int argc, char **argv, struct request *q, struct err *e)
{
	const struct option_row rows[] = {
		CLIENT_OPTION_ROWS(&q->client),
		{.name = "json", .flag = &q->json},
		{.name = "wait", .text = &q->wait},
	};
	int n = options_parse(argc, argv, rows, ARRAY_SIZE(rows), OPTIONS_ANYWHERE, e);
	int64_t wait_ms = 0;
	struct uuid id;

	if (n < 0)
		return n;
	if (n != 1)
		return err_set(e, -EINVAL, "usage: kiln %s [OPTIONS] ID", argv[0]);
	if (uuid_parse(argv[1], &id) < 0)
		return err_set(e, -EINVAL, "\"%s\" is no id of a task", argv[1]);
	if (q->wait && str_seconds_to_ms(q->wait, WAIT_MAX_MS, &wait_ms) < 0)
		return err_set(e, -EINVAL, "\"%s\" is no number of seconds to wait", q->wait);
	q->wait_s = (double)wait_ms / 1000;
	q->id = argv[1];
	return 0;
}

static void print_state(const json_t *task)
{
	const json_t *timeline = json_object_get(task, "timeline");
	bool cancelling = json_is_true(json_object_get(task, "cancelling"));

	(void)fprintf(stderr, "kiln: the task is %s%s, queued at %s\n",
		      outcome_text(task, "status"), cancelling ? " and being cancelled" : "",
		      outcome_text(timeline, "queued_at"));
}

static int show(const struct request *q, const json_t *task, const struct buf *text)
{
	struct err e;

	if (q->json)
		(void)printf("%s\n", text->data);
	else if (!outcome_is_final(task))
		print_state(task);
	else if (outcome_print(task, &e) < 0)
		return cmd_fail(EXIT_FAILED, &e);
	return outcome_is_final(task) ? EXIT_OK : EXIT_NOT_RUN;
}

int cmd_result(int argc, char **argv)
{
	AUTO(client_free) struct client *client = NULL;
	AUTO(json_cleanup) json_t *task = NULL;
	struct request q = {0};
	struct buf text;
	struct err e = {""};
	char path[64];
	int r;

	buf_init(&text, TEXT_MAX);
	r = parse(argc, argv, &q, &e);
	if (r >= 0)
		r = client_new(&q.client, &client, &e);
	if (r >= 0) {
		(void)snprintf(path, sizeof path, "/result/%s", q.id);
		r = client_json(client, "GET", path, NULL, NULL, &task, &text, &e);
	}
	if (r >= 0)
		r = outcome_wait(client, &task, &text, q.wait_s, &e);
	r = r < 0 ? cmd_fail(client_exit_status(r), &e) : show(&q, task, &text);
	buf_fini(&text);
	return r;
}

int cmd_cancel(int argc, char **argv)
{
	AUTO(client_free) struct client *client = NULL;
	AUTO(json_cleanup) json_t *task = NULL;
	struct request q = {0};
	struct buf text;
	struct err e = {""};
	char path[64];
	int r;

	buf_init(&text, TEXT_MAX);
	r = parse(argc, argv, &q, &e);
	if (r >= 0)
		r = client_new(&q.client, &client, &e);
	if (r >= 0) {
		(void)snprintf(path, sizeof path, "/tasks/%s", q.id);
		r = client_json(client, "DELETE", path, NULL, NULL, &task, &text, &e);
	}
	if (r < 0)
		r = cmd_fail(client_exit_status(r), &e);
	else
		r = printf("%s\n", q.json		    ? text.data
				   : outcome_is_final(task) ? outcome_text(task, "status")
							    : "cancelling") < 0;
	buf_fini(&text);
	return r;
}
