/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The policies that are compared. Each of the others is its documented algorithm with its default
 * settings, given the benefit of the doubt where the simulator must choose: metrics arrive without
 * loss, no pod is killed with its tasks on scale-down, and the target of each is the one that suits
 * the pool (70 % of its slots, or as many queued tasks as a pod has slots).
 */

#include "sim.h"

#include "base/cleanup.h"

#include <math.h>
#include <string.h>

#define TARGET 0.7

static uint32_t here(const struct sim_view *v)
{
	return v->pods.idle + v->pods.busy + v->pods.starting;
}

/* The most of the last so many values. */
static double most(const double *values, size_t n)
{
	double max = 0;

	for (size_t i = 0; i < n; i++)
		max = fmax(max, values[i]);
	return max;
}

/* Replicas of a Deployment: it creates and deletes the difference at once. */
static struct sim_order replicas(const struct sim_view *v, double wanted, uint32_t min)
{
	uint32_t want, have = here(v);

	wanted = fmin(fmax(wanted, min), v->scenario->max_pods);
	want = (uint32_t)wanted;
	if (want > have)
		return (struct sim_order){.create = want - have};
	return (struct sim_order){.retire = have - want};
}

struct fixed {
	double pods;
};

static void fixed_init(void *state, const struct sim_scenario *s, double fixed)
{
	(void)s;
	((struct fixed *)state)->pods = fixed;
}

static struct sim_order fixed_look(void *state, const struct sim_view *v)
{
	return replicas(v, ((struct fixed *)state)->pods, 0);
}

const struct sim_policy sim_fixed = {.name = "fixed",
				     .tick_s = 1,
				     .kubelet_retries = true,
				     .state_size = sizeof(struct fixed),
				     .init = fixed_init,
				     .look = fixed_look};

/* HorizontalPodAutoscaler v2 with its defaults: every 15 s, tolerance 0.1, up by at most the double
 * or four pods in 15 s, down by the greatest recommendation of 300 s. */
enum { HPA_SYNC_S = 15, HPA_STABLE = 300 / HPA_SYNC_S };

struct hpa {
	double recommended[HPA_STABLE];
	size_t n;
	double replicas;
	double next_sync, idle_since; /* KEDA */
};

static void hpa_init(void *state, const struct sim_scenario *s, double fixed)
{
	(void)fixed;
	*(struct hpa *)state = (struct hpa){.replicas = s->min_pods};
}

/* ratio: of the metric to its target, per pod there is. */
static void hpa_sync(struct hpa *h, const struct sim_view *v, double wanted, double ratio)
{
	double limit = fmax(2 * h->replicas, h->replicas + 4);

	if (fabs(ratio - 1) <= 0.1)
		wanted = h->replicas;
	wanted = fmin(fmax(wanted, fmax(1, v->scenario->min_pods)), v->scenario->max_pods);
	h->recommended[h->n++ % HPA_STABLE] = wanted;
	wanted = fmax(wanted, most(h->recommended, HPA_STABLE));
	h->replicas = fmin(wanted, limit);
}

static struct sim_order hpa_look(void *state, const struct sim_view *v)
{
	struct hpa *h = state;
	double ready = v->pods.idle + v->pods.busy;
	/* A pod asks for as many cores as its slots use when all are busy. */
	double asked = v->scenario->slots * v->scenario->cpu, ratio;

	if (h->replicas < 1)
		h->replicas = 1;
	if (ready < 1)
		return replicas(v, h->replicas, 1);
	ratio = v->cpu / (ready * asked) / TARGET;
	/* Pods that are not ready count as using nothing where it would scale up. */
	if (ratio > 1 && here(v) > ready) {
		double with = v->cpu / (here(v) * asked) / TARGET;

		hpa_sync(h, v, with > 1 ? ceil(with * here(v)) : h->replicas, with > 1 ? with : 1);
	} else {
		hpa_sync(h, v, ceil(ratio * ready), ratio);
	}
	return replicas(v, h->replicas, 1);
}

const struct sim_policy sim_hpa = {.name = "hpa-cpu",
				   .tick_s = HPA_SYNC_S,
				   .kubelet_retries = true,
				   .state_size = sizeof(struct hpa),
				   .init = hpa_init,
				   .look = hpa_look};

/* KEDA's RabbitMQ scaler by queue length, unacknowledged messages counted, a pod's slots each: a
 * queue is looked at every 30 s while there is no pod; above that the HPA asks for the length at
 * each of its syncs; back to none after 300 s without a message. */
enum { KEDA_POLL_S = 30, KEDA_COOLDOWN_S = 300 };

static struct sim_order keda_look(void *state, const struct sim_view *v)
{
	struct hpa *h = state;
	double length = (double)v->waiting + v->used;
	bool polls = fmod(v->now, KEDA_POLL_S) < HPA_SYNC_S;
	double target = v->scenario->slots;

	if (length > 0 || v->arrived)
		h->idle_since = v->now;
	if (h->replicas < 1) {
		if (length > 0 && polls)
			h->replicas = 1;
		return replicas(v, h->replicas, 0);
	}
	if (length <= 0 && !v->scenario->min_pods && v->now - h->idle_since >= KEDA_COOLDOWN_S) {
		*h = (struct hpa){.replicas = 0};
		return replicas(v, 0, 0);
	}
	hpa_sync(h, v, ceil(length / target), length / (target * h->replicas));
	return replicas(v, h->replicas, 0);
}

const struct sim_policy sim_keda = {.name = "keda",
				    .tick_s = HPA_SYNC_S,
				    .kubelet_retries = true,
				    .state_size = sizeof(struct hpa),
				    .init = hpa_init,
				    .look = keda_look};

/* Knative's KPA with its defaults: every 2 s, mean concurrency of 60 s, panic over 6 s when it asks
 * for twice of what is ready; the activator wakes a revision that has no pod. */
enum { KPA_TICK_S = 2, KPA_STABLE = 60 / KPA_TICK_S, KPA_PANIC = 6 / KPA_TICK_S };

struct kpa {
	double seen[KPA_STABLE];
	size_t n;
	bool panics;
	double panic_since, panic_most, last_at;
};

static void kpa_init(void *state, const struct sim_scenario *s, double fixed)
{
	(void)s;
	(void)fixed;
	*(struct kpa *)state = (struct kpa){.last_at = -KPA_TICK_S};
}

static double mean_of_last(const struct kpa *k, size_t n)
{
	double sum = 0;

	if (n > k->n)
		n = k->n;
	for (size_t i = 1; i <= n; i++)
		sum += k->seen[(k->n - i) % KPA_STABLE];
	return n ? sum / (double)n : 0;
}

static struct sim_order kpa_look(void *state, const struct sim_view *v)
{
	struct kpa *k = state;
	double ready = fmax(1, v->pods.idle + v->pods.busy), target = v->scenario->slots * TARGET;
	double stable, panic, wanted;

	if (v->now - k->last_at < KPA_TICK_S / 2.0) /* woken between two ticks */
		return replicas(v, fmax(1, here(v)), v->scenario->min_pods);
	k->last_at = v->now;
	k->seen[k->n++ % KPA_STABLE] = v->concurrency;
	stable = ceil(mean_of_last(k, KPA_STABLE) / target - 1e-9);
	panic = ceil(mean_of_last(k, KPA_PANIC) / target - 1e-9);
	stable = fmin(fmax(stable, floor(ready / 2)), ready * 1000);
	panic = fmin(fmax(panic, floor(ready / 2)), ready * 1000);
	if (panic / ready >= 2) {
		k->panics = true;
		k->panic_since = v->now;
	} else if (k->panics && v->now - k->panic_since >= 60) {
		k->panics = false;
		k->panic_most = 0;
	}
	wanted = stable;
	if (k->panics) {
		k->panic_most = fmax(k->panic_most, fmax(stable, panic));
		wanted = k->panic_most;
	}
	return replicas(v, wanted, v->scenario->min_pods);
}

const struct sim_policy sim_knative = {.name = "knative",
				       .tick_s = KPA_TICK_S,
				       .wakes = true,
				       .kubelet_retries = true,
				       .state_size = sizeof(struct kpa),
				       .init = kpa_init,
				       .look = kpa_look};

struct kiln {
	struct sizing_meter meter;
	struct sizing_state state;
	struct sizing_tokens tokens;
	struct sizing_pool pool;
};

static void kiln_init(void *state, const struct sim_scenario *s, double fixed)
{
	(void)fixed;
	*(struct kiln *)state = (struct kiln){
		.tokens = {.rate = 20, .burst = 40},
		.pool = {.min_pods = s->min_pods,
			 .max_pods = s->max_pods,
			 .slots = s->slots,
			 .idle_ms = 60000,
			 .drain_ms = 5000},
	};
}

static struct sim_order kiln_look(void *state, const struct sim_view *v)
{
	struct kiln *k = state;
	int64_t now_ms = (int64_t)(v->now * 1000);
	struct sizing_demand d = {.known = true,
				  .backlog = v->waiting,
				  .used_slots = v->used,
				  .start_ms = (int64_t)(v->start_p95 * 1000)};
	struct sizing_verdict verdict;

	sizing_meter_add(&k->meter, now_ms, v->arrived, v->finished, v->used);
	sizing_meter_tell(&k->meter, &d);
	d.quiet_ms = now_ms - k->meter.last_use_ms;
	sizing_want(&k->pool, &d, &v->pods, now_ms, &k->state, &verdict);
	sizing_pace(&k->pool, &v->pods, now_ms, &k->state, &k->tokens, &verdict);
	return (struct sim_order){.create = verdict.create, .retire = verdict.retire};
}

const struct sim_policy sim_kiln = {.name = "kiln",
				    .tick_s = 1,
				    .wakes = true,
				    .state_size = sizeof(struct kiln),
				    .init = kiln_init,
				    .look = kiln_look};
