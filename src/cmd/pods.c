/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "base/str.h"
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/outcome.h"
#include "config/config.h"
#include "pods/mark.h"
#include "json/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_MAX = 16 * 1024 * 1024 };

const char cmd_pods_usage[] =
	"usage: kiln pods [--json] [--monitor URL]\n"
	"       kiln pods drain POD... [--pool POOL] [--node NODE] [--pods URL] [--monitor URL]\n"
	"\n"
	"Shows the pools of standby pods as a scheduler of the cluster sees them: how many pods\n"
	"each should have and why, and what each pod does. Sizes are decided by one of the\n"
	"schedulers; another one says who that is.\n"
	"\n"
	"With drain the named pods, those of a pool or those on a node are replaced: first the\n"
	"new ones come, a quarter of the pool at a time, then the old ones take no more tasks,\n"
	"and end with their last. It notes that on the pods (kiln/replace), which takes the right\n"
	"to change them; `kubectl annotate pod NAME kiln/replace=` is the same.\n"
	"\n"
	"  --monitor URL       metrics_listen of a scheduler (default: http://127.0.0.1:9465)\n"
	"  --json              what the scheduler answers, as it is\n"
	"  --pool POOL         the pods of this pool\n"
	"  --node NODE         the pods on this node\n"
	"  --pods URL          as of `kiln scheduler` (default: KILN_PODS)\n"
	"\n"
	"exit status: 0; 1 where a pod could not be noted, or none is meant; 64 for wrong "
	"options.\n";

struct request {
	struct client_options client;
	bool json;
	const char *pool, *node, *pods;
};

static int parse(int argc, char **argv, struct request *q, struct err *e)
{
	const struct option_row rows[] = {
		{.name = "monitor", .text = &q->client.server},
		{.name = "json", .flag = &q->json},
		{.name = "pool", .text = &q->pool},
		{.name = "node", .text = &q->node},
		{.name = "pods", .text = &q->pods},
	};
	int n = options_parse(argc, argv, rows, ARRAY_SIZE(rows), OPTIONS_ANYWHERE, e);
	bool drain = n > 0 && str_eq(argv[1], "drain");

	if (n > 0 && !drain)
		return err_set(e, -EINVAL, "usage: kiln pods [drain POD...] [OPTIONS]");
	if (n >= 0 && !drain && (q->pool || q->node || q->pods))
		return err_set(e, -EINVAL, "--pool, --node and --pods are for kiln pods drain");
	if (drain && n == 1 && !q->pool && !q->node)
		return err_set(e, -EINVAL, "which pods: their names, --pool or --node");
	if (!q->client.server)
		q->client.server = "http://127.0.0.1:9465";
	if (!q->pods)
		q->pods = config_env("KILN_PODS");
	if (drain && !q->pods)
		return err_set(e, -EINVAL,
			       "--pods is required: the kubernetes:NAMESPACE of the schedulers");
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

/* In the largest unit that says enough; "-": not known. */
static void age(const json_t *pod, char text[24])
{
	static const struct {
		long long s;
		char unit;
	} units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}};
	long long s = number(pod, "age_s");

	if (!json_is_integer(json_object_get(pod, "age_s"))) {
		(void)snprintf(text, 24, "-");
		return;
	}
	(void)snprintf(text, 24, "%llds", s);
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (s < 2 * units[i].s)
			continue;
		(void)snprintf(text, 24, "%lld%c", s / units[i].s, units[i].unit);
		return;
	}
}

static void print_pods(const json_t *pods)
{
	const json_t *pod;
	size_t i;

	(void)printf("\n%-44s %-13s %11s %9s %6s  %-20s %s\n", "POD", "STATE", "USED/SLOTS",
		     "TASKS", "AGE", "NODE", "REASON");
	json_array_foreach(pods, i, pod)
	{
		char slots[48], old[24];

		(void)snprintf(slots, sizeof slots, "%lld/%lld", number(pod, "used"),
			       number(pod, "slots"));
		age(pod, old);
		(void)printf("%-44s %-13s %11s %9lld %6s  %-20s %s%s%s\n",
			     outcome_text(pod, "name"), outcome_text(pod, "state"), slots,
			     number(pod, "tasks"), old, outcome_text(pod, "node"),
			     outcome_text(pod, "reason"), *outcome_text(pod, "said") ? ": " : "",
			     outcome_text(pod, "said"));
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

/* ---- drain ---- */

struct drain {
	const char **names;
	size_t n, failed;
};

static bool is_meant(const struct request *q, int argc, char **argv, const json_t *pod)
{
	const char *name = outcome_text(pod, "name");

	if (q->pool && str_eq(outcome_text(pod, "pool"), q->pool))
		return true;
	if (q->node && str_eq(outcome_text(pod, "node"), q->node))
		return true;
	for (int i = 2; i <= argc; i++)
		if (str_eq(argv[i], name))
			return true;
	return false;
}

/* argc: how many words there are, "drain" among them. */
static int choose(const struct request *q, int argc, char **argv, const json_t *pods,
		  struct drain *d, struct err *e)
{
	const json_t *pod;
	size_t i;

	for (int k = 2; k <= argc; k++) {
		bool found = false;

		json_array_foreach(pods, i, pod) found =
			found || str_eq(argv[k], outcome_text(pod, "name"));
		if (!found)
			return err_set(e, -ENOENT, "there is no pod \"%s\"", argv[k]);
	}
	d->names = calloc(json_array_size(pods) + 1, sizeof *d->names);
	if (!d->names)
		return err_set(e, -ENOMEM, "out of memory");
	json_array_foreach(pods, i, pod) if (is_meant(q, argc, argv, pod)) d->names[d->n++] =
		outcome_text(pod, "name");
	return d->n ? 0 : err_set(e, -ENOENT, "no pod is meant by that");
}

static void on_told(void *ctx, const char *pod, int code, const char *reason)
{
	struct drain *d = ctx;

	d->failed += code < 0;
	if (code < 0)
		(void)fprintf(stderr, "kiln: could not ask for \"%s\" to be replaced: %s\n", pod,
			      reason);
	else
		(void)printf("%s is to be replaced\n", pod);
}

static int drain(const struct request *q, int argc, char **argv, const json_t *all, struct err *e)
{
	struct drain d = {0};
	int r = choose(q, argc, argv, json_object_get(all, "pods"), &d, e);
	const struct pods_mark mark = {
		.url = q->pods,
		.kube_host = config_env("KUBERNETES_SERVICE_HOST"),
		.kube_port = config_env("KUBERNETES_SERVICE_PORT"),
		.pods = d.names,
		.n = d.n,
		.told = on_told,
		.ctx = &d,
	};

	if (r == 0)
		r = pods_mark(&mark, e);
	free(d.names);
	if (r == 0 && d.failed)
		r = err_set(e, -EIO, "%zu of %zu pods were not asked for", d.failed, d.n);
	return r;
}

int cmd_pods(int argc, char **argv)
{
	AUTO(client_free) struct client *client = NULL;
	AUTO(json_cleanup) json_t *all = NULL;
	struct request q = {.json = false};
	struct buf text;
	struct err e = {""};
	int words = parse(argc, argv, &q, &e), r;

	if (words < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	buf_init(&text, TEXT_MAX);
	r = client_new(&q.client, &client, &e);
	if (r >= 0)
		r = client_json(client, "GET", "/pods", NULL, NULL, &all, &text, &e);
	if (r < 0) {
		buf_fini(&text);
		return cmd_fail(client_exit_status(r), &e);
	}
	if (words)
		r = drain(&q, words, argv, all, &e);
	else if (q.json)
		(void)printf("%s\n", text.data);
	else
		print(all);
	buf_fini(&text);
	return r < 0 ? cmd_fail(EXIT_FAILED, &e) : EXIT_OK;
}
