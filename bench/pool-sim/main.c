/* SPDX-License-Identifier: Apache-2.0 */

/*
 * pool-sim [--scenario NAME] [--seeds N]     the table: what each policy costs and lets wait
 * pool-sim --trace FILE [--service SECONDS] [--slots N]
 *                                            the same for recorded arrivals: one count per line,
 *                                            the tasks that came in that second
 * pool-sim --cost PODS                       what a step of the sizing costs with so many pods
 */

#include "sim.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS = 3, ROWS = 6, TRACE_MAX = 1000000, TRACE_BYTES_MAX = 16 << 20 };

struct options {
	const char *scenario, *trace;
	uint64_t seeds, cost, slots;
	int64_t service_ms;
};

static void add(struct sim_result *sum, const struct sim_result *r, double share)
{
	sum->tasks += r->tasks;
	sum->cold += r->cold;
	sum->created += r->created;
	sum->failed += r->failed;
	sum->lost += r->lost;
	sum->wait_mean += r->wait_mean * share;
	sum->wait_p50 += r->wait_p50 * share;
	sum->wait_p95 += r->wait_p95 * share;
	sum->wait_p99 += r->wait_p99 * share;
	sum->wait_max = fmax(sum->wait_max, r->wait_max);
	sum->pod_seconds += r->pod_seconds * share;
	sum->max_pods = r->max_pods > sum->max_pods ? r->max_pods : sum->max_pods;
}

static int run_seeds(const struct sim_scenario *s, const struct sim_policy *p, double fixed,
		     uint64_t seeds, struct sim_result *ret)
{
	struct sim_result sum = {0}, one;

	for (uint64_t seed = 1; seed <= seeds; seed++) {
		int r = sim_run(s, p, fixed, seed, &one);

		if (r < 0)
			return r;
		add(&sum, &one, 1 / (double)seeds);
	}
	sum.created /= seeds;
	sum.cold /= seeds;
	*ret = sum;
	return 0;
}

/* -1: kiln has less, 1: more, 0: they differ by less than a twentieth or by less than it matters.
 */
static int differ(double kiln, double other, double matters)
{
	double d = kiln - other;

	if (fabs(d) <= matters || fabs(d) <= 0.05 * fmax(kiln, other))
		return 0;
	return d < 0 ? -1 : 1;
}

static const char *verdict(const struct sim_result *kiln, const struct sim_result *r)
{
	int mean = differ(kiln->wait_mean, r->wait_mean, 0.01);
	int tail = differ(kiln->wait_p99, r->wait_p99, 0.05);
	int wait = mean * tail < 0 ? tail : mean + tail;
	int pods = differ(kiln->pod_seconds, r->pod_seconds, 0);

	if (wait <= 0 && pods <= 0)
		return wait < 0	  ? pods < 0 ? "better in both" : "waits less"
		       : pods < 0 ? "costs less"
				  : "equal";
	if (wait > 0 && pods > 0)
		return "WORSE IN BOTH";
	return wait > 0	  ? pods < 0 ? "waits more, costs less" : "WAITS MORE"
	       : wait < 0 ? "waits less, costs more"
			  : "COSTS MORE";
}

static void print_row(const char *name, const struct sim_result *r, const char *kiln_is)
{
	printf("| %-12s | %7.3f | %7.3f | %7.3f | %7.3f | %6llu | %8.0f | %4u | %5llu | %s |\n",
	       name, r->wait_mean, r->wait_p50, r->wait_p95, r->wait_p99,
	       (unsigned long long)r->cold, r->pod_seconds, r->max_pods,
	       (unsigned long long)r->created, kiln_is);
}

static int compare_policies(const struct sim_scenario *s, uint64_t seeds)
{
	static const struct sim_policy *const others[] = {&sim_hpa, &sim_keda, &sim_knative};
	struct sim_result kiln, r;
	double same;
	char name[32];

	printf("\n**%s**: %s\n\n", s->name, s->what);
	printf("| policy | mean wait, s | p50 | p95 | p99 | cold | pod-seconds | max | created | "
	       "kiln "
	       "is |\n|---|---|---|---|---|---|---|---|---|---|\n");
	if (run_seeds(s, &sim_kiln, 0, seeds, &kiln) < 0)
		return -1;
	print_row("kiln", &kiln, "");
	/* The same money, and as many as kiln ever had: the two that are worth asking about. */
	same = ceil(kiln.pod_seconds / s->seconds / (double)s->pools);
	if (run_seeds(s, &sim_fixed, same, seeds, &r) < 0)
		return -1;
	(void)snprintf(name, sizeof name, "fixed %.0f", same);
	print_row(name, &r, verdict(&kiln, &r));
	if (s->pools == 1) {
		if (run_seeds(s, &sim_fixed, kiln.max_pods, seeds, &r) < 0)
			return -1;
		(void)snprintf(name, sizeof name, "fixed %u", kiln.max_pods);
		print_row(name, &r, verdict(&kiln, &r));
	}
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		if (run_seeds(s, others[i], 0, seeds, &r) < 0)
			return -1;
		print_row(others[i]->name, &r, verdict(&kiln, &r));
	}
	return 0;
}

static int compare_all(const struct options *o)
{
	bool found = false;

	for (size_t i = 0; i < sim_n_scenarios; i++) {
		if (o->scenario && strcmp(o->scenario, sim_scenarios[i].name) != 0)
			continue;
		found = true;
		if (compare_policies(&sim_scenarios[i], o->seeds) < 0)
			return 1;
	}
	if (!found)
		(void)fprintf(stderr, "pool-sim: no scenario \"%s\"\n", o->scenario);
	return found ? 0 : 2;
}

/* text ends with a NUL and is cut into its lines. */
static int parse_trace(const char *path, char *text, uint32_t *counts, size_t *ret_n)
{
	size_t n = 0;
	char *rest;

	for (char *line = text; line && *line && n < TRACE_MAX; line = rest) {
		uint64_t count;

		rest = strchr(line, '\n');
		if (rest)
			*rest++ = '\0';
		if (str_to_u64(line, 0, 100000, &count) < 0) {
			(void)fprintf(stderr, "pool-sim: %s:%zu: not a count of tasks: \"%s\"\n",
				      path, n + 1, line);
			return -1;
		}
		counts[n++] = (uint32_t)count;
	}
	*ret_n = n;
	return 0;
}

static int read_trace(const char *path, uint32_t *counts, size_t *ret_n)
{
	struct err e = {.msg = "no memory"};
	struct buf b;
	int r;

	buf_init(&b, TRACE_BYTES_MAX);
	r = fs_read_file(AT_FDCWD, path, &b, &e);
	if (r >= 0)
		r = buf_append(&b, "", 1);
	if (r >= 0)
		r = parse_trace(path, b.data, counts, ret_n);
	else
		(void)fprintf(stderr, "pool-sim: %s\n", e.msg);
	buf_fini(&b);
	return r;
}

static int compare_trace(const struct options *o)
{
	AUTO_FREE uint32_t *counts = calloc(TRACE_MAX, sizeof *counts);
	struct sim_scenario s = {.name = "trace",
				 .what = o->trace,
				 .service_s = (double)o->service_ms / 1000,
				 .spread = 1,
				 .cpu = 1,
				 .slots = (uint32_t)o->slots,
				 .min_pods = 1,
				 .max_pods = 1000,
				 .pools = 1,
				 .nodes = 2};
	size_t n = 0;

	if (!counts || read_trace(o->trace, counts, &n) < 0)
		return 1;
	s.trace = counts;
	s.seconds = (double)n;
	return compare_policies(&s, o->seeds) < 0;
}

struct costed {
	struct sizing_pool pool;
	struct sizing_state state;
	struct sizing_meter meter;
	struct sizing_verdict verdict;
	struct sizing_pods pods;
};

static void cost_step(struct costed *c, struct sizing_claim *claims, size_t n,
		      struct sizing_tokens *tokens, uint64_t capacity, int64_t now_ms)
{
	for (size_t i = 0; i < n; i++) {
		struct sizing_demand d = {.known = true, .start_ms = 2000, .used_slots = 360};

		d.backlog = (uint64_t)(now_ms / 1000 + (int64_t)i) % 50;
		sizing_meter_add(&c[i].meter, now_ms, 200 + i, 200 + i, 360);
		sizing_meter_tell(&c[i].meter, &d);
		sizing_want(&c[i].pool, &d, &c[i].pods, now_ms, &c[i].state, &c[i].verdict);
		claims[i].want = c[i].verdict.want;
	}
	(void)sizing_share(claims, n, capacity);
	for (size_t i = 0; i < n; i++) {
		sizing_grant(&c[i].verdict, claims[i].granted);
		sizing_pace(&c[i].pool, &c[i].pods, now_ms, &c[i].state, tokens, &c[i].verdict);
		c[i].pods.idle += c[i].verdict.create;
		c[i].pods.idle -=
			c[i].verdict.retire < c[i].pods.idle ? c[i].verdict.retire : c[i].pods.idle;
	}
}

/* Pools of a hundred pods each, capacity for nine tenths of what they want, so that all is done. */
static int cost(uint64_t pods)
{
	enum { STEPS = 2000, POOL_PODS = 100 };
	size_t n = pods / POOL_PODS ? pods / POOL_PODS : 1;
	AUTO_FREE struct costed *c = calloc(n, sizeof *c);
	AUTO_FREE struct sizing_claim *claims = calloc(n, sizeof *claims);
	struct sizing_tokens tokens = {.rate = 20, .burst = 40};
	int64_t begun, us;

	if (!c || !claims)
		return 1;
	for (size_t i = 0; i < n; i++) {
		c[i].pool = (struct sizing_pool){.min_pods = 1,
						 .max_pods = 2 * POOL_PODS,
						 .slots = 4,
						 .idle_ms = 60000,
						 .drain_ms = 5000};
		c[i].pods = (struct sizing_pods){.idle = POOL_PODS - 95, .busy = 90};
		claims[i] = (struct sizing_claim){.weight = 1 + (uint32_t)i % 3, .cost = 1000};
	}
	begun = clock_monotonic_us();
	for (int64_t t = 0; t < STEPS; t++)
		cost_step(c, claims, n, &tokens, n * POOL_PODS * 900, t * 1000);
	us = clock_monotonic_us() - begun;
	printf("%zu pods in %zu pools: %.1f us for a step of all, %.2f us each; %zu bytes a pool\n",
	       n * POOL_PODS, n, (double)us / STEPS, (double)us / STEPS / (double)n, sizeof *c);
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	for (int i = 1; i + 1 < argc; i += 2) {
		const char *key = argv[i], *value = argv[i + 1];
		uint64_t *number = strcmp(key, "--seeds") == 0	 ? &o->seeds
				   : strcmp(key, "--cost") == 0	 ? &o->cost
				   : strcmp(key, "--slots") == 0 ? &o->slots
								 : NULL;

		if (strcmp(key, "--scenario") == 0)
			o->scenario = value;
		else if (strcmp(key, "--trace") == 0)
			o->trace = value;
		else if (strcmp(key, "--service") == 0) {
			if (str_seconds_to_ms(value, 3600000, &o->service_ms) < 0)
				return -1;
		} else if (!number || str_to_u64(value, 1, 1000000, number) < 0)
			return -1;
	}
	return argc % 2 ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct options o = {.seeds = SEEDS, .slots = 4, .service_ms = 500};

	if (parse(argc, argv, &o) < 0) {
		(void)fprintf(stderr,
			      "usage: pool-sim [--scenario NAME] [--seeds N]\n"
			      "       pool-sim --trace FILE [--service SECONDS] [--slots N]\n"
			      "       pool-sim --cost PODS\n");
		return 2;
	}
	if (o.cost)
		return cost(o.cost);
	return o.trace ? compare_trace(&o) : compare_all(&o);
}
