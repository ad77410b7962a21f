/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A simulator of pools: tasks arrive, wait for a slot, run; pods are created, start, serve, leave;
 * a policy says how many pods there should be. Event-driven, in simulated seconds; the same seed
 * gives the same run, and all policies of a scenario see the same arrivals and the same tasks.
 *
 * Pods start as they were measured to on one node: 0.4 to 1.4 s alone (the kubelet looks once a
 * second), and 0.15 s of the node's own time each, so that the last of 10, 20, 40 is ready after
 * about 2.5, 4, 7 s. A task goes to the pod with the most free slots. A pod that is taken out while
 * tasks run gets no new one and ends with its last, under every policy.
 */

#include "pods/sizing.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_POOLS_MAX = 64, SIM_STARTS = 64 };

struct sim_scenario {
	const char *name, *what;
	double seconds;
	/* Tasks per second of a pool at a time, and the most that it ever is. */
	double (*rate)(const struct sim_scenario *s, size_t pool, double t);
	double rate_max;
	double service_s;  /* mean */
	double spread;	   /* sigma of its logarithm: 0 all the same, 1 very mixed */
	double cpu;	   /* of a core that a running task uses */
	uint32_t slots;	   /* of a pod */
	uint32_t min_pods; /* 0: policies that can, go to zero */
	uint32_t max_pods;
	size_t pools;
	double nodes;	       /* that start pods beside each other */
	double start_fails;    /* share of the starts */
	double outage[2];      /* between these seconds every start fails */
	double pod_life_s;     /* mean, after which a pod is lost with its tasks; 0: never */
	const uint32_t *trace; /* arrivals of each second; NULL: by rate */
};

/* What a policy sees of a pool, and what it orders. */
struct sim_view {
	const struct sim_scenario *scenario;
	double now;
	uint64_t waiting;
	uint64_t arrived, finished; /* since its last look */
	struct sizing_pods pods;
	uint32_t used;	    /* slots */
	double concurrency; /* mean of waiting and running since its last look */
	double cpu;	    /* mean cores used since then */
	double start_p95;
};

struct sim_order {
	uint32_t create, retire;
};

struct sim_policy {
	const char *name;
	double tick_s;
	bool wakes; /* is asked at once when a task comes to a pool that has none */
	/* A pod whose start failed is tried again in its place by the kubelet, with back-off. */
	bool kubelet_retries;
	size_t state_size;
	void (*init)(void *state, const struct sim_scenario *s, double fixed);
	struct sim_order (*look)(void *state, const struct sim_view *v);
};

struct sim_result {
	uint64_t tasks, cold, created, failed, lost;
	double wait_mean, wait_p50, wait_p95, wait_p99, wait_max;
	double pod_seconds;
	uint32_t max_pods;
};

/* fixed is the size for the policy that has one. 0, or -ENOMEM. */
int sim_run(const struct sim_scenario *s, const struct sim_policy *p, double fixed, uint64_t seed,
	    struct sim_result *ret);

extern const struct sim_policy sim_fixed, sim_hpa, sim_keda, sim_knative, sim_kiln;
extern const struct sim_scenario sim_scenarios[];
extern const size_t sim_n_scenarios;
