/* SPDX-License-Identifier: Apache-2.0 */
#include "sim.h"

#include "base/cleanup.h"

#include <math.h>

static double steady(const struct sim_scenario *s, size_t pool, double t)
{
	(void)pool;
	(void)t;
	return s->rate_max;
}

/* A day of two hours: from a twentieth to the whole. */
static double wave(const struct sim_scenario *s, size_t pool, double t)
{
	(void)pool;
	return s->rate_max * (0.525 - 0.475 * cos(2 * M_PI * t / s->seconds));
}

/* Fifty times as much for 30 s in every ten minutes. */
static double burst(const struct sim_scenario *s, size_t pool, double t)
{
	double at = fmod(t, 600);

	(void)pool;
	return at >= 300 && at < 330 ? s->rate_max : s->rate_max / 50;
}

/* The same for three seconds: over before a pod could start. */
static double flash(const struct sim_scenario *s, size_t pool, double t)
{
	double at = fmod(t, 600);

	(void)pool;
	return at >= 300 && at < 303 ? s->rate_max : s->rate_max / 50;
}

/* Somebody tries something for a minute and a half, then nobody for long: each pool at another
 * time, between one and four times an hour. */
static double rare(const struct sim_scenario *s, size_t pool, double t)
{
	double every = 900 + (double)(pool * 67 % 2700);
	double at = fmod(t + (double)pool * 211, every);

	return at < 90 ? s->rate_max : s->rate_max / 2000;
}

/* A contest: people come, the first problems are sent in, a wave before the end, and silence. */
static double contest(const struct sim_scenario *s, size_t pool, double t)
{
	static const struct {
		double until, from_rate, to_rate;
	} parts[] = {{600, 0.01, 0.02}, {660, 0.05, 0.5}, {1500, 0.5, 0.35}, {4200, 0.35, 0.3},
		     {5100, 0.3, 0.6},	{5400, 0.6, 1.0}, {5430, 1.0, 0.1},  {7200, 0.05, 0.01}};
	double from = 0;

	(void)pool;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (t < parts[i].until)
			return s->rate_max *
			       (parts[i].from_rate + (parts[i].to_rate - parts[i].from_rate) *
							     (t - from) / (parts[i].until - from));
		from = parts[i].until;
	}
	return 0;
}

const struct sim_scenario sim_scenarios[] = {
	{.name = "steady-small",
	 .what = "10/s of 0.2 s",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 3600,
	 .rate = steady,
	 .rate_max = 10,
	 .service_s = 0.2,
	 .spread = 1,
	 .slots = 4,
	 .min_pods = 1,
	 .max_pods = 100},
	{.name = "steady",
	 .what = "200/s of 0.5 s",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 3600,
	 .rate = steady,
	 .rate_max = 200,
	 .service_s = 0.5,
	 .spread = 1,
	 .slots = 4,
	 .min_pods = 1,
	 .max_pods = 100},
	{.name = "wave",
	 .what = "10 to 200/s of 0.5 s, and back, in two hours",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 7200,
	 .rate = wave,
	 .rate_max = 200,
	 .service_s = 0.5,
	 .spread = 1,
	 .slots = 4,
	 .min_pods = 1,
	 .max_pods = 100},
	{.name = "burst",
	 .what = "4/s of 0.3 s, x50 for 30 s every ten minutes",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 3600,
	 .rate = burst,
	 .rate_max = 200,
	 .service_s = 0.3,
	 .spread = 1,
	 .slots = 4,
	 .min_pods = 1,
	 .max_pods = 100},
	{.name = "flash",
	 .what = "the same for 3 s",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 3600,
	 .rate = flash,
	 .rate_max = 200,
	 .service_s = 0.3,
	 .spread = 1,
	 .slots = 4,
	 .min_pods = 1,
	 .max_pods = 100},
	{.name = "slow",
	 .what = "0.5/s of 30 s that use a tenth of a core",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 0.1,
	 .seconds = 3600,
	 .rate = steady,
	 .rate_max = 0.5,
	 .service_s = 30,
	 .spread = 0.7,
	 .slots = 4,
	 .min_pods = 1,
	 .max_pods = 100},
	{.name = "slow-single",
	 .what = "0.2/s of 20 s, one slot per pod",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 3600,
	 .rate = steady,
	 .rate_max = 0.2,
	 .service_s = 20,
	 .spread = 0.7,
	 .slots = 1,
	 .min_pods = 1,
	 .max_pods = 100},
	{.name = "rare",
	 .what = "40 languages, a few tasks in a minute, then long nothing",
	 .pools = 40,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 14400,
	 .rate = rare,
	 .rate_max = 0.08,
	 .service_s = 0.5,
	 .spread = 1,
	 .slots = 4,
	 .min_pods = 0,
	 .max_pods = 20},
	{.name = "contest",
	 .what = "two hours: start, middle, last minutes, silence",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 7200,
	 .rate = contest,
	 .rate_max = 150,
	 .service_s = 0.8,
	 .spread = 1.2,
	 .slots = 4,
	 .min_pods = 1,
	 .max_pods = 100},
	{.name = "failures",
	 .what = "wave; a tenth of starts fail, all for 3 min, pods die",
	 .pools = 1,
	 .nodes = 2,
	 .cpu = 1,
	 .seconds = 3600,
	 .rate = wave,
	 .rate_max = 100,
	 .service_s = 0.5,
	 .spread = 1,
	 .slots = 4,
	 .min_pods = 1,
	 .max_pods = 100,
	 .start_fails = 0.1,
	 .outage = {1000, 1180},
	 .pod_life_s = 1200},
};
const size_t sim_n_scenarios = ARRAY_SIZE(sim_scenarios);
