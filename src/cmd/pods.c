/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/outcome.h"
#include "json/reader.h"

#include <errno.h>
#include <stdio.h>

enum { TEXT_MAX = 16 * 1024 * 1024 };

const char cmd_pods_usage[] =
	"usage: kiln pods [--json] [--monitor URL]\n"
	"\n"
	"Shows the pools of standby pods as a scheduler of the cluster sees them: how many pods\n"
	"each should have and why, and what each pod does. Sizes are decided by one of the\n"
	"schedulers; another one says who that is.\n"
	"\n"
	"  --monitor URL       metrics_listen of a scheduler (default: http://127.0.0.1:9465)\n"
	"  --json              what the scheduler answers, as it is\n"
	"\n"
	"To replace one pod: kubectl annotate pod NAME kiln/replace=\n";

struct request {
	struct client_options client;
	bool json;
};

static int parse(int argc, char **argv, struct request *q, struct err *e)
{
	const struct option_row rows[] = {
		{.name = "monitor", .text = &q->client.server},
		{.name = "json", .flag = &q->json},
	};
	int n = options_parse(argc, argv, rows, ARRAY_SIZE(rows), OPTIONS_ANYWHERE, e);

	if (n > 0)
		return err_set(e, -EINVAL, "usage: kiln pods [OPTIONS]");
	if (!q->client.server)
		q->client.server = "http://127.0.0.1:9465";
	return n;
}

static long long number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

/* Pods of the pool in this state, or in any. */
static unsigned count(const json_t *pods, const char *pool, const char *state)
{
	const json_t *pod;
	unsigned n = 0;
	size_t i;

	json_array_foreach(pods, i, pod) n += str_eq(outcome_text(pod, "pool"), pool) &&
					      (!state || str_eq(outcome_text(pod, "state"), state));
	return n;
}

static void print_pools(const json_t *pools, const json_t *pods)
{
	const json_t *pool;
	size_t i;

	(void)printf("%-20s %5s %5s %5s %5s %5s %6s  %s\n", "POOL", "MIN", "MAX", "WANT", "HAVE",
		     "IDLE", "FAILED", "WHY");
	json_array_foreach(pools, i, pool)
	{
		const char *name = outcome_text(pool, "name");
		char want[24] = "-";

		if (json_is_integer(json_object_get(pool, "want")))
			(void)snprintf(want, sizeof want, "%lld", number(pool, "want"));
		(void)printf("%-20s %5lld %5lld %5s %5u %5u %6lld  %s\n", name, number(pool, "min"),
			     number(pool, "max"), want, count(pods, name, NULL),
			     count(pods, name, "idle"), number(pool, "failed_starts"),
			     outcome_text(pool, "reason"));
	}
}

static void print_pods(const json_t *pods)
{
	const json_t *pod;
	size_t i;

	(void)printf("\n%-44s %-13s %11s %9s %9s  %s\n", "POD", "STATE", "USED/SLOTS", "TASKS",
		     "KNOWN", "REASON");
	json_array_foreach(pods, i, pod)
	{
		char slots[48];

		(void)snprintf(slots, sizeof slots, "%lld/%lld", number(pod, "used"),
			       number(pod, "slots"));
		(void)printf("%-44s %-13s %11s %9lld %8llds  %s\n", outcome_text(pod, "name"),
			     outcome_text(pod, "state"), slots, number(pod, "tasks"),
			     number(pod, "known_s"), outcome_text(pod, "reason"));
	}
}

static void print(const json_t *all)
{
	const json_t *pools = json_object_get(all, "pools"), *pods = json_object_get(all, "pods");

	if (!json_array_size(pools))
		(void)printf("There are no pools: no pod template has the label kiln/standby.\n");
	else
		print_pools(pools, pods);
	if (json_array_size(pods))
		print_pods(pods);
	if (!json_is_true(json_object_get(all, "leads")))
		(void)printf("\nThis scheduler does not decide the sizes; \"%s\" does.\n",
			     outcome_text(all, "leader"));
}

int cmd_pods(int argc, char **argv)
{
	AUTO(client_free) struct client *client = NULL;
	AUTO(json_cleanup) json_t *all = NULL;
	struct request q = {.json = false};
	struct buf text;
	struct err e = {""};
	int r;

	buf_init(&text, TEXT_MAX);
	r = parse(argc, argv, &q, &e);
	if (r >= 0)
		r = client_new(&q.client, &client, &e);
	if (r >= 0)
		r = client_json(client, "GET", "/pods", NULL, NULL, &all, &text, &e);
	if (r >= 0 && q.json)
		(void)printf("%s\n", text.data);
	else if (r >= 0)
		print(all);
	buf_fini(&text);
	return r < 0 ? cmd_fail(client_exit_status(r), &e) : EXIT_OK;
}
