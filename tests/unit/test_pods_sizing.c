/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/sizing.h"

#include "base/cleanup.h"
#include "unit.h"

#include <math.h>
#include <string.h>

/* splitmix64: the same cases in every run. */
static uint64_t draw(uint64_t *x)
{
	uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static double draw_unit(uint64_t *x)
{
	return (double)((draw(x) >> 11) + 1) * 0x1p-53;
}

static const struct sizing_pool common = {
	.min_pods = 1, .max_pods = 1000, .slots = 4, .idle_ms = 60000, .drain_ms = 5000};

static struct sizing_verdict fresh_want(const struct sizing_pool *p, const struct sizing_demand *d,
					const struct sizing_pods *now)
{
	struct sizing_state st = {0};
	struct sizing_verdict v;
	const struct sizing_pods none = {0};

	/* Begun while there was nothing, so that nothing is held. */
	sizing_want(p, d, &none, 0, &st, &v);
	memset(&st.held, 0, sizeof st.held);
	sizing_want(p, d, now, 1, &st, &v);
	return v;
}

static struct sizing_demand draw_demand(uint64_t *x)
{
	return (struct sizing_demand){.known = true,
				      .rate_fast = pow(10, draw_unit(x) * 6 - 3),
				      .rate_slow = pow(10, draw_unit(x) * 6 - 3),
				      .service_s = pow(10, draw_unit(x) * 5 - 3),
				      .backlog = draw(x) % 5000,
				      .used_slots = draw(x) % 500,
				      .start_ms = (int64_t)(draw(x) % 20000)};
}

static void want_is_load_and_what_chance_adds(void **state)
{
	const struct sizing_pods now = {.idle = 1};
	/* 200/s of 0.5 s: 100 slots, and 2.25 times their root: 122.5 slots, 31 pods of four. */
	const struct sizing_demand d = {
		.known = true, .rate_fast = 200, .rate_slow = 200, .service_s = 0.5};
	struct sizing_verdict v = fresh_want(&common, &d, &now);

	(void)state;
	assert_int_equal(v.want, 31);
	assert_int_equal(v.reason, SIZING_LOAD);
	assert_true(fabs(v.load_slots - 100) < 1e-6);
	assert_true(fabs(v.chance_slots - 22.5) < 1e-6);
}

static void want_of_single_use_pods_counts_their_start(void **state)
{
	struct sizing_pool p = common;
	const struct sizing_pods now = {.idle = 1};
	const struct sizing_demand d = {
		.known = true, .rate_fast = 10, .rate_slow = 10, .service_s = 1, .start_ms = 3000};
	struct sizing_verdict v;

	(void)state;
	p.slots = 1;
	p.single_use = true;
	v = fresh_want(&p, &d, &now);
	assert_true(fabs(v.load_slots - 40) < 1e-6);
	assert_in_range(v.want, 50, 60);
}

static void want_follows_a_surge_and_not_chance(void **state)
{
	const struct sizing_pods now = {.idle = 10};
	struct sizing_demand d = {.known = true, .rate_fast = 12, .rate_slow = 10, .service_s = 1};

	(void)state;
	/* 12 where 10 are usual is within two deviations of what six seconds show. */
	assert_true(fabs(fresh_want(&common, &d, &now).load_slots - 10) < 1e-6);
	d.rate_fast = 100;
	assert_true(fresh_want(&common, &d, &now).load_slots > 90);
	assert_int_equal(fresh_want(&common, &d, &now).reason, SIZING_SURGE);
	/* And down: the minute before is no reason to keep what the last seconds do not need. */
	d.rate_fast = 1;
	assert_true(fresh_want(&common, &d, &now).load_slots < 2);
}

static void want_of_a_burst_is_what_came(void **state)
{
	const struct sizing_pods now = {.busy = 1};
	struct sizing_pool p = common;
	struct sizing_demand d = {.known = true,
				  .rate_fast = 1.7,
				  .rate_slow = 0.18,
				  .service_s = 20,
				  .start_ms = 1000,
				  .used_slots = 1,
				  .backlog = 10};
	struct sizing_verdict v;

	(void)state;
	p.slots = 1;
	v = fresh_want(&p, &d, &now);
	assert_true(v.load_slots + v.chance_slots > 25); /* if as many came for the next 20 s */
	assert_int_equal(v.want, 12);
	/* Pods that take long to start are ordered for what comes until then. */
	d.start_ms = 60000;
	assert_in_range(fresh_want(&p, &d, &now).want, 22, 30);
}

static void want_ignores_a_backlog_that_is_gone_before_a_pod_could_help(void **state)
{
	const struct sizing_pods now = {.idle = 5};
	struct sizing_demand d = {.known = true,
				  .rate_fast = 1,
				  .rate_slow = 1,
				  .service_s = 0.1,
				  .backlog = 100,
				  .start_ms = 2000};

	(void)state;
	assert_true(fresh_want(&common, &d, &now).backlog_slots <= 0);
	d.service_s =
		10; /* each task longer than the drain time: a slot each, as far as not free */
	assert_true(fresh_want(&common, &d, &now).backlog_slots > 95);
	assert_true(fresh_want(&common, &d, &now).backlog_slots <= 100);
	assert_int_equal(fresh_want(&common, &d, &now).reason, SIZING_BACKLOG);
}

/* Whatever else is the case: more of it never gives fewer pods. */
static void want_more_demand_never_gives_fewer(void **state)
{
	uint64_t x = 1;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct sizing_demand d = draw_demand(&x), more = d;
		struct sizing_pods now = {.idle = (uint32_t)(draw(&x) % 50),
					  .busy = (uint32_t)(draw(&x) % 50),
					  .starting = (uint32_t)(draw(&x) % 20)};
		struct sizing_pool p = common;

		p.slots = 1 + (uint32_t)(draw(&x) % 8);
		p.single_use = p.slots == 1 && draw(&x) % 2;
		p.max_pods = 100000;
		switch (draw(&x) % 5) {
		case 0:
			more.backlog += draw(&x) % 1000;
			break;
		case 1:
			more.rate_fast *= 1 + draw_unit(&x);
			break;
		case 2:
			more.rate_slow *= 1 + draw_unit(&x);
			break;
		case 3:
			more.service_s *= 1 + draw_unit(&x);
			more.age_s += draw_unit(&x);
			break;
		default:
			more.used_slots += draw(&x) % 100;
		}
		assert_true(fresh_want(&p, &more, &now).want >= fresh_want(&p, &d, &now).want);
	}
}

static void want_stays_within_limits_whatever_is_measured(void **state)
{
	static const double odd[] = {NAN, INFINITY, -INFINITY, -1, 0, 1e300, -1e300, 1e-300};
	const struct sizing_pods now = {.idle = UINT32_MAX, .busy = UINT32_MAX, .starting = 7};
	uint64_t x = 2;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		struct sizing_demand d = draw_demand(&x);
		struct sizing_pool p = {.min_pods = (uint32_t)(draw(&x) % 20),
					.max_pods = (uint32_t)(draw(&x) % 50),
					.slots = (uint32_t)(draw(&x) % 3),
					.idle_ms = (int64_t)draw(&x),
					.drain_ms = (int64_t)draw(&x)};
		struct sizing_state st = {0};
		struct sizing_tokens tokens = {.rate = 1, .burst = 5};
		struct sizing_verdict v;

		d.rate_fast = odd[draw(&x) % ARRAY_SIZE(odd)];
		d.rate_slow = odd[draw(&x) % ARRAY_SIZE(odd)];
		d.service_s = odd[draw(&x) % ARRAY_SIZE(odd)];
		d.backlog = draw(&x);
		d.used_slots = draw(&x);
		d.start_ms = (int64_t)draw(&x);
		d.quiet_ms = (int64_t)draw(&x);
		sizing_want(&p, &d, i % 2 ? &now : &(struct sizing_pods){0}, 1000, &st, &v);
		sizing_pace(&p, &now, 1000, &st, &tokens, &v);
		assert_true(v.want <= p.max_pods);
		assert_true(v.want >= p.min_pods || v.want == p.max_pods);
		assert_true(isfinite(v.load_slots) && isfinite(v.backlog_slots));
		assert_true(v.create == 0 || v.retire == 0);
	}
}

static void want_what_is_not_a_number_counts_as_nothing(void **state)
{
	const struct sizing_pods now = {.idle = 1};
	const struct sizing_demand d = {
		.known = true, .rate_fast = NAN, .rate_slow = NAN, .service_s = -INFINITY};

	(void)state;
	assert_true(fresh_want(&common, &d, &now).load_slots <= 0);
	assert_int_equal(fresh_want(&common, &d, &now).want, 1);
}

static void want_without_knowledge_stays_as_it_is(void **state)
{
	const struct sizing_pods now = {.idle = 3, .busy = 4};
	const struct sizing_demand d = {.known = false};
	struct sizing_state st = {0};
	struct sizing_verdict v;

	(void)state;
	for (int64_t t = 0; t < 1000000; t += 1000) {
		sizing_want(&common, &d, &now, t, &st, &v);
		assert_int_equal(v.want, 7);
		assert_int_equal(v.reason, SIZING_BLIND);
	}
}

static void want_after_a_restart_keeps_what_is_there_for_the_hold_time(void **state)
{
	const struct sizing_pods now = {.idle = 20, .busy = 5, .starting = 5};
	const struct sizing_demand d = {.known = true, .quiet_ms = INT64_MAX};
	struct sizing_state st = {0};
	struct sizing_verdict v;

	(void)state;
	for (int64_t t = 5000; t < 5000 + 55000; t += 1000) {
		sizing_want(&common, &d, &now, t, &st, &v);
		assert_int_equal(v.want, 30);
		assert_int_equal(v.reason, SIZING_HELD);
	}
	sizing_want(&common, &d, &now, 5000 + 61000, &st, &v);
	assert_int_equal(v.want, 1);
	assert_int_equal(v.reason, SIZING_MIN);
}

static void want_goes_to_zero_when_quiet_and_says_the_cold_start(void **state)
{
	struct sizing_pool p = common;
	struct sizing_demand d = {
		.known = true, .rate_slow = 0.001, .service_s = 1, .start_ms = 2500};
	const struct sizing_pods now = {.idle = 1};
	struct sizing_state st = {0};
	struct sizing_verdict v;

	(void)state;
	p.min_pods = 0;
	for (int64_t t = 0; t < 120000; t += 1000) {
		d.quiet_ms = t % 60000;
		sizing_want(&p, &d, &now, t, &st, &v);
		assert_int_equal(v.want, 1);
		assert_int_equal(v.cold_start_ms, 0);
	}
	d.quiet_ms = 60000;
	sizing_want(&p, &d, &now, 121000, &st, &v);
	assert_int_equal(v.want, 0);
	assert_int_equal(v.reason, SIZING_NONE);
	assert_int_equal(v.cold_start_ms, 2500);
	d.backlog = 1; /* and back, however quiet the meters say it is */
	sizing_want(&p, &d, &(struct sizing_pods){0}, 122000, &st, &v);
	assert_int_equal(v.want, 1);
}

/* Poisson arrivals of a steady rate, over an hour and several seeds: the pool settles. Slots are as
 * many as are wanted at once; the number in use follows from the load. */
static void steady_load_does_not_flap(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 10; seed++) {
		uint64_t x = seed;
		struct sizing_meter m = {0};
		struct sizing_state st = {0};
		struct sizing_verdict v = {0};
		uint32_t last = 0, changes = 0, least = UINT32_MAX, greatest = 0;

		for (int64_t t = 0; t < 3600; t++) {
			struct sizing_demand d = {.known = true, .start_ms = 2000};
			uint64_t arrived = 0;
			const struct sizing_pods now = {.busy = last};

			for (double at = 0; (at -= log(draw_unit(&x)) / 50) < 1;)
				arrived++;
			sizing_meter_add(&m, t * 1000, arrived, arrived, 25);
			sizing_meter_tell(&m, &d);
			d.used_slots = 25;
			sizing_want(&common, &d, &now, t * 1000, &st, &v);
			if (t > 300) {
				changes += v.want != last;
				least = v.want < least ? v.want : least;
				greatest = v.want > greatest ? v.want : greatest;
			}
			last = v.want;
		}
		/* 50/s of 0.5 s: 25 slots, 10.7 more: nine pods. */
		assert_in_range(least, 8, 10);
		assert_in_range(greatest, least, 12);
		assert_in_range(changes, 0, 60); /* less than once a minute */
	}
}

static struct sizing_verdict pace(const struct sizing_pods *now, uint32_t want, int64_t now_ms)
{
	struct sizing_state st = {.started = true, .retire_credit = SIZING_PODS_MAX};
	struct sizing_tokens tokens = {.rate = 10, .burst = 1000};
	struct sizing_verdict v = {.want = want};

	sizing_pace(&common, now, now_ms, &st, &tokens, &v);
	return v;
}

static void create_counts_what_is_on_its_way(void **state)
{
	(void)state;
	/* However often it is asked before the first of them is seen to be ready. */
	assert_int_equal(pace(&(struct sizing_pods){.idle = 2}, 12, 0).create, 10);
	for (uint32_t starting = 0; starting <= 10; starting++)
		assert_int_equal(
			pace(&(struct sizing_pods){.idle = 2, .starting = starting}, 12, 0).create,
			10 - starting);
	/* More of them start together only in a pool that is big. */
	assert_int_equal(pace(&(struct sizing_pods){.idle = 2}, 100, 0).create, 16);
	assert_int_equal(pace(&(struct sizing_pods){.idle = 2}, 100, 0).brake, SIZING_STARTING);
	assert_int_equal(pace(&(struct sizing_pods){.idle = 60}, 100, 0).create, 30);
}

static void create_never_replaces_what_waits_for_a_node(void **state)
{
	struct sizing_verdict v = pace(&(struct sizing_pods){.idle = 2, .unschedulable = 3}, 5, 0);

	(void)state;
	assert_int_equal(v.create, 0);
	assert_int_equal(v.brake, SIZING_FREE);
	v = pace(&(struct sizing_pods){.idle = 2, .unschedulable = 3}, 50, 0);
	assert_int_equal(v.create, 0);
	assert_int_equal(v.brake, SIZING_UNSCHEDULABLE);
	/* And they are what leaves first. */
	v = pace(&(struct sizing_pods){.busy = 2, .unschedulable = 30}, 2, 0);
	assert_int_equal(v.retire, 30);
}

static void create_waits_longer_after_each_failure(void **state)
{
	struct sizing_pods now = {.failures = 2, .failed_ms = 1000};

	(void)state;
	assert_int_equal(pace(&now, 10, 1000).create, 10);
	now.failures = 3;
	assert_int_equal(pace(&now, 10, 2999).create, 0);
	assert_int_equal(pace(&now, 10, 2999).brake, SIZING_BACKOFF);
	assert_int_equal(pace(&now, 10, 3000).create, 1);
	now.starting = 1;
	assert_int_equal(pace(&now, 10, 3000).create, 0);
	now.starting = 0;
	now.failures = 5;
	assert_int_equal(pace(&now, 10, 8999).create, 0);
	assert_int_equal(pace(&now, 10, 9000).create, 1);
	now.failures = UINT32_MAX;
	assert_int_equal(pace(&now, 10, 1000 + 299999).create, 0);
	assert_int_equal(pace(&now, 10, 1000 + 300000).create, 1);
}

static void create_tries_sooner_while_tasks_wait(void **state)
{
	const struct sizing_pods now = {.failures = 20, .failed_ms = 0};
	struct sizing_state st = {.started = true};
	struct sizing_tokens tokens = {.rate = 10, .burst = 10};
	struct sizing_verdict v = {.want = 10, .backlog_slots = 1};

	(void)state;
	sizing_pace(&common, &now, 9999, &st, &tokens, &v);
	assert_int_equal(v.create, 0);
	sizing_pace(&common, &now, 10000, &st, &tokens, &v);
	assert_int_equal(v.create, 1);
}

static void create_takes_from_tokens_that_pools_share(void **state)
{
	struct sizing_tokens tokens = {.rate = 2, .burst = 5};
	struct sizing_state a = {.started = true}, b = {.started = true};
	struct sizing_verdict v = {.want = 4}, w = {.want = 4};
	const struct sizing_pods none = {0};

	(void)state;
	sizing_pace(&common, &none, 0, &a, &tokens, &v);
	sizing_pace(&common, &none, 0, &b, &tokens, &w);
	assert_int_equal(v.create, 4);
	assert_int_equal(w.create, 1);
	assert_int_equal(w.brake, SIZING_TOKENS);
	sizing_pace(&common, &none, 1000, &b, &tokens, &w);
	assert_int_equal(w.create, 2);
	sizing_pace(&common, &none, 500, &b, &tokens,
		    &w); /* a clock that goes back gives nothing */
	assert_int_equal(w.create, 0);
	sizing_pace(&common, &none, 1000000, &b, &tokens, &w);
	assert_int_equal(w.create, 4);
	assert_true(tokens.left <= 1);
}

static void create_leaves_the_maximum_to_what_still_leaves(void **state)
{
	struct sizing_verdict v = pace(&(struct sizing_pods){.idle = 900, .leaving = 95}, 1000, 0);

	(void)state;
	assert_int_equal(v.create, 5);
	assert_int_equal(v.brake, SIZING_LEAVING);
}

static void retire_is_paced(void **state)
{
	struct sizing_state st = {.started = true, .retire_credit = SIZING_PODS_MAX};
	struct sizing_tokens tokens = {.rate = 1, .burst = 1};
	struct sizing_pods now = {.idle = 100};
	struct sizing_verdict v = {.want = 10};

	(void)state;
	sizing_pace(&common, &now, 0, &st, &tokens, &v);
	assert_int_equal(v.retire, 25);
	now.idle -= v.retire;
	sizing_pace(&common, &now, 0, &st, &tokens, &v);
	assert_int_equal(v.retire, 0);
	sizing_pace(&common, &now, 2000, &st, &tokens, &v);
	assert_int_equal(v.retire, 7);
}

static void share_gives_nobody_more_than_it_wants_and_all_there_is(void **state)
{
	uint64_t x = 3;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		struct sizing_claim c[12];
		size_t n = 1 + draw(&x) % ARRAY_SIZE(c);
		uint64_t capacity = draw(&x) % 3000, used = 0, wanted = 0, missing = 0;

		for (size_t j = 0; j < n; j++) {
			c[j] = (struct sizing_claim){.want = (uint32_t)(draw(&x) % 200),
						     .weight = (uint32_t)(draw(&x) % 4),
						     .cost = 1 + draw(&x) % 5};
			wanted += c[j].want;
		}
		missing = sizing_share(c, n, capacity);
		for (size_t j = 0; j < n; j++) {
			assert_true(c[j].granted <= c[j].want);
			used += c[j].granted * c[j].cost;
			wanted -= c[j].granted;
		}
		assert_int_equal(wanted, missing);
		assert_true(used <= capacity);
		for (size_t j = 0; j < n; j++) /* what is left fits nobody who wants more */
			assert_true(c[j].granted == c[j].want || used + c[j].cost > capacity);
	}
}

/* Max-min: who wants more than it got has, for its weight, no less than anybody else, but for the
 * one pod that whole numbers make. */
static void share_is_max_min(void **state)
{
	uint64_t x = 4;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		struct sizing_claim c[8];

		for (size_t j = 0; j < ARRAY_SIZE(c); j++)
			c[j] = (struct sizing_claim){.want = (uint32_t)(draw(&x) % 200),
						     .weight = 1 + (uint32_t)(draw(&x) % 4),
						     .cost = 1};
		(void)sizing_share(c, ARRAY_SIZE(c), 20 + draw(&x) % 800);
		for (size_t a = 0; a < ARRAY_SIZE(c); a++)
			for (size_t b = 0; b < ARRAY_SIZE(c); b++)
				if (c[a].granted < c[a].want && c[b].granted > 1)
					assert_true((c[a].granted + 1.0) / c[a].weight >=
						    (c[b].granted - 1.0) / c[b].weight);
	}
}

static void share_gives_each_one_before_any_a_second(void **state)
{
	struct sizing_claim c[] = {{.want = 1000, .weight = 100, .cost = 1},
				   {.want = 5, .weight = 1, .cost = 1},
				   {.want = 0, .weight = 1, .cost = 1},
				   {.want = 1, .weight = 1, .cost = 1}};

	(void)state;
	assert_int_equal(sizing_share(c, ARRAY_SIZE(c), 50), 1006 - 50);
	assert_int_equal(c[0].granted, 48);
	assert_int_equal(c[1].granted, 1);
	assert_int_equal(c[2].granted, 0);
	assert_int_equal(c[3].granted, 1);
	(void)sizing_share(c, ARRAY_SIZE(c), 2);
	assert_int_equal(c[0].granted + c[1].granted + c[3].granted, 2);
	assert_int_equal(c[0].granted, 1);
	(void)sizing_share(c, ARRAY_SIZE(c), 0);
	assert_int_equal(c[0].granted, 0);
}

static void grant_cuts_and_says_so(void **state)
{
	struct sizing_verdict v = {.want = 10, .reason = SIZING_LOAD, .unsatisfied = 2};
	char text[SIZING_EXPLAIN_MAX];

	(void)state;
	sizing_grant(&v, 10);
	assert_int_equal(v.reason, SIZING_LOAD);
	sizing_grant(&v, 4);
	assert_int_equal(v.want, 4);
	assert_int_equal(v.unsatisfied, 8);
	sizing_explain(&v, &(struct sizing_pods){.idle = 3, .busy = 1}, text);
	assert_non_null(strstr(text, "want 4 (share), have 4"));
	assert_non_null(strstr(text, "unsatisfied 8"));
}

static void meter_finds_rate_and_service_time(void **state)
{
	struct sizing_meter m = {0};

	(void)state;
	for (int64_t t = 0; t < 1200; t++)
		sizing_meter_add(&m, t * 1000, 20, 20, 10);
	assert_true(fabs(m.fast - 20) < 0.1 && fabs(m.slow - 20) < 0.1);
	assert_true(fabs(sizing_meter_service_s(&m) - 0.5) < 0.01);
	sizing_meter_add(&m, 0, 5, 0, 0); /* a clock that goes back: kept for later */
	assert_true(m.fast < 21);
	assert_int_equal(m.arrived, 5);
}

static void meter_knows_slow_tasks_before_the_first_ends(void **state)
{
	struct sizing_meter m = {0};

	(void)state;
	for (int64_t t = 0; t < 60; t++)
		sizing_meter_add(&m, t * 1000, t == 0, 0, 1);
	assert_true(sizing_meter_service_s(&m) > 30);
}

/* 40/s of some milliseconds, and then a few that take long: who waits, waits for those. */
static void want_grows_for_slow_tasks_after_many_fast_ones(void **state)
{
	const struct sizing_pool single = {
		.max_pods = 100, .slots = 1, .idle_ms = 300000, .drain_ms = 5000};
	struct sizing_meter m = {0};
	struct sizing_state st = {0};
	struct sizing_verdict v = {0};
	int64_t t = 0;

	(void)state;
	for (; t < 40; t++)
		sizing_meter_add(&m, t * 1000, 40, 40, (uint32_t)(t % 2));
	for (uint64_t arrived = 11; t < 46; t++, arrived = 0) {
		const struct sizing_pods now = {.busy = 1};
		struct sizing_demand d = {
			.known = true, .backlog = 10, .used_slots = 1, .start_ms = 2000};

		sizing_meter_add(&m, t * 1000, arrived, 0, 1);
		sizing_meter_tell(&m, &d);
		sizing_want(&single, &d, &now, t * 1000, &st, &v);
	}
	assert_true(sizing_meter_service_s(&m) < 0.1);
	/* One pod does not get through ten tasks of five seconds and more in five seconds. */
	assert_in_range(v.want, 9, 12);
	assert_int_equal(v.reason, SIZING_BACKLOG);
}

static void meter_knows_how_long_running_tasks_have_run(void **state)
{
	struct sizing_meter m = {0};

	(void)state;
	for (int64_t t = 0; t <= 10; t++)
		sizing_meter_add(&m, t * 1000, 0, 0, 4);
	assert_true(fabs(sizing_meter_age_s(&m) - 10) < 0.01);
	sizing_meter_add(&m, 10 * 1000, 0, 1, 3); /* one of four has ended */
	assert_true(fabs(sizing_meter_age_s(&m) - 10) < 0.01);
	sizing_meter_add(&m, 11 * 1000, 100, 100, 3); /* and many since */
	assert_true(sizing_meter_age_s(&m) < 0.01);
	sizing_meter_add(&m, 12 * 1000, 0, 0, 0);
	assert_true(sizing_meter_age_s(&m) < 0.01);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(want_is_load_and_what_chance_adds),
		cmocka_unit_test(want_of_single_use_pods_counts_their_start),
		cmocka_unit_test(want_follows_a_surge_and_not_chance),
		cmocka_unit_test(want_of_a_burst_is_what_came),
		cmocka_unit_test(want_ignores_a_backlog_that_is_gone_before_a_pod_could_help),
		cmocka_unit_test(want_more_demand_never_gives_fewer),
		cmocka_unit_test(want_stays_within_limits_whatever_is_measured),
		cmocka_unit_test(want_what_is_not_a_number_counts_as_nothing),
		cmocka_unit_test(want_without_knowledge_stays_as_it_is),
		cmocka_unit_test(want_after_a_restart_keeps_what_is_there_for_the_hold_time),
		cmocka_unit_test(want_goes_to_zero_when_quiet_and_says_the_cold_start),
		cmocka_unit_test(steady_load_does_not_flap),
		cmocka_unit_test(create_counts_what_is_on_its_way),
		cmocka_unit_test(create_never_replaces_what_waits_for_a_node),
		cmocka_unit_test(create_waits_longer_after_each_failure),
		cmocka_unit_test(create_tries_sooner_while_tasks_wait),
		cmocka_unit_test(create_takes_from_tokens_that_pools_share),
		cmocka_unit_test(create_leaves_the_maximum_to_what_still_leaves),
		cmocka_unit_test(retire_is_paced),
		cmocka_unit_test(share_gives_nobody_more_than_it_wants_and_all_there_is),
		cmocka_unit_test(share_is_max_min),
		cmocka_unit_test(share_gives_each_one_before_any_a_second),
		cmocka_unit_test(grant_cuts_and_says_so),
		cmocka_unit_test(meter_finds_rate_and_service_time),
		cmocka_unit_test(meter_knows_slow_tasks_before_the_first_ends),
		cmocka_unit_test(meter_knows_how_long_running_tasks_have_run),
		cmocka_unit_test(want_grows_for_slow_tasks_after_many_fast_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
