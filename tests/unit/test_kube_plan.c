/* SPDX-License-Identifier: Apache-2.0 */

/* What the pod manager decides: pools, pods and time in, actions out. */

#include "plan_world.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- size ---- */

static void pool_begins_at_its_minimum(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"3\",\"kiln/max\":\"10\"");
	world_run(w, 5);
	assert_int_equal(map_count(&w->plan.pods), 3);
	world_start_all(w, 1);
	world_run(w, 60);
	assert_int_equal(world_count(w, PLAN_IDLE), 3);
	assert_int_equal(w->counts[PLAN_CREATE], 3);
	assert_int_equal(w->counts[PLAN_DELETE] + w->counts[PLAN_DRAIN], 0);
}

static void pool_without_minimum_waits_for_a_task(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/max\":\"10\"");
	world_run(w, 10);
	assert_int_equal(map_count(&w->plan.pods), 0);
	w->waiting = 1;
	world_run(w, 1);
	assert_int_equal(map_count(&w->plan.pods), 1);
}

static void burst_is_met_and_not_exceeded(void **state)
{
	struct world *w = *state;
	uint32_t most = 0;

	world_template(w, "python", "a", "\"kiln/max\":\"50\",\"kiln/drain\":\"1s\"");
	w->waiting = 10;
	for (int i = 0; i < 40; i++) {
		uint32_t want;

		w->now_ms += 50;
		world_step(w);
		want = plan_find_pool(&w->plan, "python")->verdict.want;
		most = want > most ? want : most;
	}
	assert_true(most >= 10);
	assert_int_equal(w->counts[PLAN_CREATE], most);
}

static void creates_that_are_not_seen_count(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"4\",\"kiln/max\":\"10\"");
	plan_find_pool(&w->plan, "python")->window = 32;
	w->hold = true;
	world_run(w, 20);
	assert_int_equal(w->counts[PLAN_CREATE], 4);
}

static void pool_is_sized_by_the_slots_that_its_pods_have(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a",
		       "\"kiln/min\":\"1\",\"kiln/max\":\"50\",\"kiln/slots\":\"8\"");
	world_run(w, 3);
	world_start_all(w, 1);
	w->waiting = 16;
	world_run(w, 1);
	assert_true(plan_find_pool(&w->plan, "python")->verdict.want >= 4);
	/* Another template's are to be seen. */
	w->waiting = 0;
	world_template(w, "python", "b",
		       "\"kiln/min\":\"1\",\"kiln/max\":\"50\",\"kiln/slots\":\"8\"");
	assert_int_equal(plan_find_pool(&w->plan, "python")->slots, 0);
}

static void pods_that_are_used_once_are_sized_with_their_start(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a",
		       "\"kiln/max\":\"50\",\"kiln/slots\":\"1\",\"kiln/recycle-tasks\":\"1\"");
	assert_true(plan_find_pool(&w->plan, "python")->def.size.single_use);
	world_template(w, "python", "a", "\"kiln/max\":\"50\",\"kiln/slots\":\"1\"");
	assert_false(plan_find_pool(&w->plan, "python")->def.size.single_use);
}

static void creates_start_slowly_and_double(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"14\",\"kiln/max\":\"20\"");
	for (size_t expected = 1; expected <= 4; expected *= 2) {
		world_step(w);
		assert_int_equal(world_asked(w, PLAN_CREATE), expected);
	}
	world_step(w);
	assert_int_equal(world_asked(w, PLAN_CREATE), 7);
}

static void creates_have_a_rate(void **state)
{
	struct world *w = *state;

	world_template(w, "a", "a", "\"kiln/min\":\"200\",\"kiln/max\":\"200\"");
	plan_find_pool(&w->plan, "a")->window = 32;
	for (int i = 0; i < 100; i++) {
		w->now_ms += 10;
		world_step(w);
		world_start_all(w, 1);
	}
	assert_in_range(w->counts[PLAN_CREATE], 35, 41); /* thirty at once, ten in a second */
}

static void create_seen_before_its_answer_counts_once(void **state)
{
	struct world *w = *state;
	struct kube_pod facts = {.uid = "u", .version = "1", .pool = "python"};
	struct plan_pod *pod;
	bool is_new;

	world_template(w, "python", "a", "\"kiln/min\":\"1\",\"kiln/max\":\"10\"");
	w->hold = true;
	world_run(w, 1);
	(void)str_copy(facts.name, sizeof facts.name, w->actions[0].name);
	assert_int_equal(plan_seen(&w->plan, &facts, w->now_ms, &pod, &is_new), 0);
	assert_true(is_new);
	world_run(w, 3);
	plan_created(&w->plan, "python", facts.name);
	assert_int_equal(w->plan.n_expected, 0);
	world_run(w, 3);
	assert_int_equal(w->counts[PLAN_CREATE], 1);
}

static void create_that_is_never_seen_is_looked_for(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"1\",\"kiln/max\":\"10\"");
	w->hold = true;
	world_run(w, 1);
	plan_created(&w->plan, "python", w->actions[0].name);
	world_run(w, 29);
	assert_false(w->plan.relist);
	world_run(w, 2);
	assert_true(w->plan.relist);
	assert_int_equal(w->counts[PLAN_CREATE], 1);
	w->hold = false;
	plan_begin(&w->plan);
	plan_listed(&w->plan, NULL, NULL);
	world_run(w, 1);
	assert_int_equal(w->counts[PLAN_CREATE], 2);
}

static void doubtful_create_is_kept_until_a_list(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"1\",\"kiln/max\":\"10\"");
	w->hold = true;
	world_run(w, 1);
	plan_create_failed(&w->plan, "python", w->actions[0].name, true, w->now_ms);
	assert_true(w->plan.relist);
	world_run(w, 5);
	assert_int_equal(w->counts[PLAN_CREATE], 1);
	plan_begin(&w->plan);
	plan_listed(&w->plan, NULL, NULL);
	world_run(w, 1);
	assert_int_equal(w->counts[PLAN_CREATE], 2);
}

static void list_that_was_under_way_proves_nothing(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"1\",\"kiln/max\":\"10\"");
	w->hold = true;
	world_run(w, 1);
	plan_begin(&w->plan); /* the answer comes after the list was begun */
	plan_created(&w->plan, "python", w->actions[0].name);
	plan_listed(&w->plan, NULL, NULL);
	world_run(w, 3);
	assert_int_equal(w->counts[PLAN_CREATE], 1);
}

static void pools_share_what_there_is(void **state)
{
	struct world *w = *state;

	w->plan.max_pods = 9;
	world_template(w, "a", "a", "\"kiln/min\":\"6\",\"kiln/max\":\"10\"");
	world_template(w, "b", "a", "\"kiln/min\":\"6\",\"kiln/max\":\"10\",\"kiln/weight\":\"2\"");
	world_run(w, 10);
	assert_int_equal(map_count(&w->plan.pods), 9);
	assert_int_equal(plan_find_pool(&w->plan, "b")->count.starting, 6);
	assert_int_equal(plan_find_pool(&w->plan, "a")->verdict.reason, SIZING_SHARE);
}

static void surplus_drains_and_busy_pods_end_with_their_last_task(void **state)
{
	struct world *w = *state;
	struct plan_pod *busy;

	world_template(w, "python", "a", "\"kiln/min\":\"4\",\"kiln/max\":\"10\"");
	world_run(w, 5);
	world_start_all(w, 1);
	busy = world_any(w, PLAN_IDLE);
	world_use(w, busy, 1);
	world_run(w, 5);
	world_template(w, "python", "a",
		       "\"kiln/min\":\"0\",\"kiln/max\":\"10\",\"kiln/idle\":\"10s\"");
	world_run(w, 60);
	assert_int_equal(map_count(&w->plan.pods), 1);
	assert_int_equal(world_count(w, PLAN_BUSY), 1);
	world_finish(w, busy);
	world_run(w, 120);
	assert_int_equal(map_count(&w->plan.pods), 0);
}

static void blind_manager_keeps_what_there_is(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"3\",\"kiln/max\":\"10\"");
	world_run(w, 5);
	world_start_all(w, 1);
	w->blind = true;
	world_template(w, "python", "b",
		       "\"kiln/min\":\"0\",\"kiln/max\":\"10\",\"kiln/idle\":\"1s\"");
	world_run(w, 100);
	assert_int_equal(world_count(w, PLAN_IDLE), 3);
	assert_int_equal(w->counts[PLAN_CREATE], 3);
}

/* ---- roll-out ---- */

static void new_template_replaces_pods_one_after_the_other(void **state)
{
	struct world *w = *state;
	size_t least = SIZE_MAX, most = 0;

	world_template(w, "python", "a", "\"kiln/min\":\"8\",\"kiln/max\":\"20\"");
	world_run(w, 10);
	world_start_all(w, 1);
	assert_int_equal(world_count(w, PLAN_IDLE), 8);
	world_template(w, "python", "b", "\"kiln/min\":\"8\",\"kiln/max\":\"20\"");
	for (int i = 0; i < 40; i++) {
		size_t ready = world_count(w, PLAN_IDLE), all = map_count(&w->plan.pods);

		least = ready < least ? ready : least;
		most = all > most ? all : most;
		world_run(w, 1);
		if (i % 2)
			world_start_all(w, 1);
	}
	assert_int_equal(world_count(w, PLAN_IDLE), 8);
	assert_int_equal(world_revision(w, "python"), 8);
	assert_true(least >= 8);
	assert_in_range(most, 9, 12);
	assert_int_equal(w->counts[PLAN_CREATE], 16);
}

static void new_template_that_does_not_work_takes_nothing_away(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"4\",\"kiln/max\":\"4\"");
	world_run(w, 10);
	world_start_all(w, 1);
	world_template(w, "python", "broken", "\"kiln/min\":\"4\",\"kiln/max\":\"6\"");
	for (int i = 0; i < 900; i++) {
		struct plan_pod *pod;

		world_run(w, 1);
		while ((pod = world_any(w, PLAN_STARTING)))
			world_phase(w, pod, KUBE_FAILED);
	}
	assert_int_equal(world_count(w, PLAN_IDLE), 4);
	assert_in_range(w->counts[PLAN_CREATE], 4 + 3, 4 + 14);
}

static void new_template_without_room_for_more_goes_one_by_one(void **state)
{
	struct world *w = *state;
	size_t least = SIZE_MAX, most = 0;

	world_template(w, "python", "a", "\"kiln/min\":\"4\",\"kiln/max\":\"4\"");
	world_run(w, 10);
	world_start_all(w, 1);
	world_template(w, "python", "b", "\"kiln/min\":\"4\",\"kiln/max\":\"4\"");
	for (int i = 0; i < 40; i++) {
		world_run(w, 1);
		least = world_count(w, PLAN_IDLE) < least ? world_count(w, PLAN_IDLE) : least;
		most = map_count(&w->plan.pods) > most ? map_count(&w->plan.pods) : most;
		world_start_all(w, 1);
	}
	assert_int_equal(world_revision(w, "python"), 4);
	assert_int_equal(least, 3);
	assert_int_equal(most, 4);
}

static void new_template_waits_for_long_tasks_without_draining_all(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	world_template(w, "python", "a", "\"kiln/min\":\"4\",\"kiln/max\":\"4\"");
	world_run(w, 10);
	world_start_all(w, 1);
	while ((pod = world_any(w, PLAN_IDLE)))
		world_use(w, pod, 1);
	world_template(w, "python", "b", "\"kiln/min\":\"4\",\"kiln/max\":\"4\"");
	world_run(w, 120);
	assert_int_equal(world_count(w, PLAN_DRAINING), 1);
	assert_int_equal(world_count(w, PLAN_BUSY), 3);
}

static void pods_that_served_long_enough_are_replaced(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	world_template(w, "python", "a",
		       "\"kiln/min\":\"1\",\"kiln/max\":\"4\",\"kiln/recycle-tasks\":\"5\"");
	world_run(w, 1);
	world_start_all(w, 1);
	pod = world_any(w, PLAN_IDLE);
	for (int i = 0; i < 5; i++) {
		world_use(w, pod, 1);
		world_finish(w, pod);
		world_run(w, 1);
	}
	for (int i = 0; i < 5; i++) {
		world_run(w, 1);
		world_start_all(w, 1);
	}
	assert_true(w->counts[PLAN_DRAIN] >= 1);
	assert_true(world_count(w, PLAN_IDLE) >= 1);
	pod = world_any(w, PLAN_IDLE);
	assert_int_equal(pod->tasks, 0);
}

static void pod_that_is_unwanted_is_replaced(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;
	char name[KUBE_POD_NAME_MAX];

	world_template(w, "python", "a", "\"kiln/min\":\"2\",\"kiln/max\":\"4\"");
	world_run(w, 3);
	world_start_all(w, 1);
	pod = world_any(w, PLAN_IDLE);
	pod->facts.unwanted = true;
	memcpy(name, pod->facts.name, sizeof name);
	world_run(w, 3);
	assert_non_null(plan_find(&w->plan, name)); /* until there is another */
	world_start_all(w, 1);
	world_run(w, 3);
	assert_null(plan_find(&w->plan, name));
	assert_int_equal(world_count(w, PLAN_IDLE), 2);
	assert_int_equal(w->counts[PLAN_DRAIN], 1);
}

/* ---- labels ---- */

static void labels_say_what_lasts(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	world_template(w, "python", "a", "\"kiln/min\":\"1\",\"kiln/max\":\"1\"");
	world_run(w, 1);
	world_start_all(w, 1);
	pod = world_any(w, PLAN_IDLE);
	for (int i = 0; i < 20; i++) {
		world_use(w, pod, 1);
		world_run(w, 1);
		world_use(w, pod, 0);
		world_run(w, 1);
	}
	assert_int_equal(w->counts[PLAN_LABEL], 0);
	world_use(w, pod, 1);
	world_run(w, 3);
	assert_true(pod->facts.labelled_busy);
	world_use(w, pod, 0);
	world_run(w, 29);
	assert_true(pod->facts.labelled_busy);
	world_run(w, 2);
	assert_false(pod->facts.labelled_busy);
	assert_int_equal(w->counts[PLAN_LABEL], 2);
}

/* ---- measures ---- */

static void starts_are_measured(void **state)
{
	struct world *w = *state;

	world_template(w, "python", "a", "\"kiln/min\":\"2\",\"kiln/max\":\"10\"");
	world_run(w, 3);
	w->now_ms += 700;
	world_start_all(w, 1);
	assert_in_range(plan_start_ms(plan_find_pool(&w->plan, "python")), 1700, 2700);
}

/* Of a pool that has no other, with so many slots: it is idle. */
static struct plan_pod *only_pod(struct world *w, unsigned slots)
{
	char notes[96];

	(void)snprintf(notes, sizeof notes,
		       "\"kiln/min\":\"1\",\"kiln/max\":\"1\",\"kiln/slots\":\"%u\"", slots);
	world_template(w, "python", "a", notes);
	world_run(w, 1);
	world_start_all(w, slots);
	return world_any(w, PLAN_IDLE);
}

static void arrivals_are_what_ended_and_what_is_more_than_before(void **state)
{
	struct world *w = *state;
	struct plan_pool *pool;
	struct plan_pod *pod;

	pod = only_pod(w, 4);
	pool = plan_find_pool(&w->plan, "python");
	for (int i = 0; i < 300; i++) { /* two a second, one of them waits for a second */
		(void)plan_heard(&w->plan, pod, 4, 1, pod->tasks + 2, w->now_ms);
		w->waiting = 1;
		world_run(w, 1);
	}
	assert_true(pool->meter.slow > 1.9 && pool->meter.slow < 2.1);
	assert_true(pool->meter.fast > 1.9 && pool->meter.fast < 2.1);
}

/* Between the queue and a runner's word a task is nowhere. */
static void tasks_that_are_given_to_runners_come_once(void **state)
{
	struct world *w = *state;
	struct plan_pool *pool;
	struct plan_pod *pod;
	double before;

	pod = only_pod(w, 20);
	pool = plan_find_pool(&w->plan, "python");
	w->waiting = 12;
	world_run(w, 1);
	before = pool->meter.slow;
	assert_true(before > 0.15);
	w->waiting = 0;
	world_run(w, 1);
	(void)plan_heard(&w->plan, pod, 20, 12, 0, w->now_ms);
	world_run(w, 1);
	assert_true(pool->meter.slow < before);
	/* Of these, nobody told: they were cancelled. What comes later is new. */
	w->waiting = 12;
	world_run(w, 1);
	w->waiting = 0;
	world_run(w, 4);
	before = pool->meter.slow;
	w->waiting = 12;
	world_run(w, 1);
	assert_true(pool->meter.slow > before + 0.15);
}

/* ---- anything ---- */

/* Below n; xorshift64 (Marsaglia 2003), the same in every run. */
static uint32_t draw(uint32_t n)
{
	static uint64_t x = 88172645463325252;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x % n);
}

static void jolt(struct world *w, struct plan_pod *pod)
{
	struct kube_pod facts = pod->facts;
	struct plan_pod *seen;
	bool is_new;

	switch (draw(12)) {
	case 0:
		world_phase(w, pod, KUBE_FAILED);
		plan_lost(pod, w->now_ms);
		return;
	case 1:
		plan_lost(pod, w->now_ms);
		return;
	case 2:
		if (pod->facts.phase == KUBE_PENDING) {
			facts.unschedulable = !facts.unschedulable;
			(void)plan_seen(&w->plan, &facts, w->now_ms, &seen, &is_new);
		}
		return;
	case 3:
		plan_deleted(&w->plan, pod->facts.name);
		return;
	case 4:
		if (pod->facts.phase == KUBE_RUNNING && pod->slots)
			world_use(w, pod, draw(pod->slots + 1));
		return;
	case 5:
		if (pod->used)
			world_finish(w, pod);
		return;
	default:
		if (pod->facts.phase == KUBE_PENDING && !pod->facts.unschedulable) {
			world_phase(w, pod, KUBE_RUNNING);
			(void)plan_heard(&w->plan, pod, 2, 0, 0, w->now_ms);
		}
		return;
	}
}

static struct plan_pod *any_pod(struct world *w)
{
	size_t n = map_count(&w->plan.pods), cursor = 0;
	uint32_t skip = n ? draw((uint32_t)n) : 0;
	struct plan_pod *pod;

	MAP_FOREACH (pod, cursor, &w->plan.pods)
		if (!skip--)
			return pod;
	return NULL;
}

/* world_step checks each deletion. */
static void whatever_happens_no_task_is_lost_and_the_maximum_holds(void **state)
{
	struct world *w = *state;

	world_template(w, "a", "1", "\"kiln/min\":\"2\",\"kiln/max\":\"8\",\"kiln/slots\":\"2\"");
	world_template(w, "b", "1", "\"kiln/max\":\"5\",\"kiln/idle\":\"5s\"");
	for (int i = 0; i < 20000; i++) {
		struct plan_pod *pod = any_pod(w);
		size_t there = 0;

		if (pod && draw(3) == 0)
			jolt(w, pod);
		if (draw(50) == 0)
			w->waiting = draw(30);
		if (draw(300) == 0)
			world_template(
				w, "a", draw(2) ? "1" : "2",
				"\"kiln/min\":\"2\",\"kiln/max\":\"8\",\"kiln/slots\":\"2\"");
		w->refuse = draw(40) == 0;
		w->now_ms += draw(1500);
		world_step(w);
		for (enum plan_state s = 0; s < PLAN_ENDED; s++)
			there += world_count(w, s);
		assert_true(there <= 8 + 5);
	}
	assert_true(w->counts[PLAN_CREATE] > 100 && w->counts[PLAN_DRAIN] > 10);
}

/* ---- memory ---- */

static void known_pod_is_small(void **state)
{
	(void)state;
	assert_true(sizeof(struct plan_pod) <= 900);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(pool_begins_at_its_minimum),
		CASE(pool_without_minimum_waits_for_a_task),
		CASE(burst_is_met_and_not_exceeded),
		CASE(creates_that_are_not_seen_count),
		CASE(pool_is_sized_by_the_slots_that_its_pods_have),
		CASE(pods_that_are_used_once_are_sized_with_their_start),
		CASE(creates_start_slowly_and_double),
		CASE(creates_have_a_rate),
		CASE(create_seen_before_its_answer_counts_once),
		CASE(create_that_is_never_seen_is_looked_for),
		CASE(doubtful_create_is_kept_until_a_list),
		CASE(list_that_was_under_way_proves_nothing),
		CASE(pools_share_what_there_is),
		CASE(surplus_drains_and_busy_pods_end_with_their_last_task),
		CASE(blind_manager_keeps_what_there_is),
		CASE(new_template_replaces_pods_one_after_the_other),
		CASE(new_template_that_does_not_work_takes_nothing_away),
		CASE(new_template_without_room_for_more_goes_one_by_one),
		CASE(new_template_waits_for_long_tasks_without_draining_all),
		CASE(pods_that_served_long_enough_are_replaced),
		CASE(pod_that_is_unwanted_is_replaced),
		CASE(labels_say_what_lasts),
		CASE(starts_are_measured),
		CASE(arrivals_are_what_ended_and_what_is_more_than_before),
		CASE(tasks_that_are_given_to_runners_come_once),
		CASE(whatever_happens_no_task_is_lost_and_the_maximum_holds),
		cmocka_unit_test(known_pod_is_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
