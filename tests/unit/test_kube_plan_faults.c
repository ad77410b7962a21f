/* SPDX-License-Identifier: Apache-2.0 */

/* What the pod manager decides about pods that fail, vanish, stick or cannot be reached. */

#include "plan_world.h"

#include "base/str.h"

#include <stdio.h>

/* A pool of so many pods at least and of ten at most. */
static void begin(struct world *w, int min, const char *more)
{
	char notes[256];

	(void)snprintf(notes, sizeof notes, "\"kiln/min\":\"%d\",\"kiln/max\":\"10\"%s", min, more);
	world_template(w, "python", "a", notes);
}

/* The same, and its pods serve. */
static void begin_ready(struct world *w, int min)
{
	begin(w, min, "");
	world_run(w, 5);
	world_start_all(w, 1);
	assert_int_equal(world_count(w, PLAN_IDLE), min);
}

static uint32_t failures(struct world *w)
{
	return plan_find_pool(&w->plan, "python")->failures;
}

static void refused_creates_are_tried_ever_more_rarely(void **state)
{
	struct world *w = *state;

	begin(w, 5, "");
	w->refuse = 1000;
	world_run(w, 600);
	assert_in_range(w->counts[PLAN_CREATE], 6, 12);
	w->refuse = 0;
	world_run(w, 300);
	world_start_all(w, 1);
	world_run(w, 10);
	assert_int_equal(map_count(&w->plan.pods), 5);
}

static void failing_starts_are_tried_ever_more_rarely(void **state)
{
	struct world *w = *state;

	begin(w, 2, "");
	for (int i = 0; i < 600; i++) {
		struct plan_pod *pod;

		world_run(w, 1);
		while ((pod = world_any(w, PLAN_STARTING)))
			world_phase(w, pod, KUBE_FAILED);
	}
	assert_in_range(w->counts[PLAN_CREATE], 6, 14);
	assert_int_equal(failures(w), w->counts[PLAN_CREATE]);
}

static void pod_that_failed_to_start_is_kept_for_its_log(void **state)
{
	struct world *w = *state;

	begin(w, 1, "");
	world_run(w, 1);
	world_phase(w, world_any(w, PLAN_STARTING), KUBE_FAILED);
	world_run(w, 59);
	assert_int_equal(world_count(w, PLAN_ENDED), 1);
	world_run(w, 3);
	assert_int_equal(world_count(w, PLAN_ENDED), 0);
}

static void evicted_pod_is_no_failure_and_is_replaced(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	begin(w, 1, "");
	world_run(w, 1);
	pod = world_any(w, PLAN_STARTING);
	pod->facts.evicted = true;
	world_phase(w, pod, KUBE_FAILED);
	world_run(w, 2);
	assert_int_equal(failures(w), 0);
	assert_int_equal(world_count(w, PLAN_ENDED), 0);
	assert_int_equal(world_count(w, PLAN_STARTING), 1);
}

static void pod_that_crashed_is_no_failed_start(void **state)
{
	struct world *w = *state;

	begin(w, 1, "");
	for (int i = 0; i < 5; i++) {
		struct plan_pod *pod;

		world_run(w, 2);
		world_start_all(w, 1);
		pod = world_any(w, PLAN_IDLE);
		plan_lost(pod, w->now_ms);
		world_phase(w, pod, KUBE_FAILED);
	}
	assert_int_equal(failures(w), 0);
	assert_int_equal(w->counts[PLAN_CREATE], 5);
}

static void unschedulable_pods_are_held(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;
	bool is_new;

	begin(w, 3, "");
	world_run(w, 5);
	while ((pod = world_any(w, PLAN_STARTING))) {
		struct kube_pod facts = pod->facts;

		facts.unschedulable = true;
		assert_int_equal(plan_seen(&w->plan, &facts, w->now_ms, &pod, &is_new), 0);
	}
	w->waiting = 100;
	world_run(w, 1000);
	assert_int_equal(world_count(w, PLAN_UNSCHEDULABLE), 3);
	assert_int_equal(w->counts[PLAN_CREATE], 3);
	assert_int_equal(w->counts[PLAN_DELETE], 0);
	assert_int_equal(failures(w), 0);
	/* How long they waited for a node is not how long a start takes. */
	while ((pod = world_any(w, PLAN_UNSCHEDULABLE))) {
		world_phase(w, pod, KUBE_RUNNING);
		(void)plan_heard(&w->plan, pod, 1, 0, 0, w->now_ms);
	}
	assert_int_equal(plan_start_ms(plan_find_pool(&w->plan, "python")), 0);
}

static void pod_that_never_gets_ready_is_replaced(void **state)
{
	struct world *w = *state;

	begin(w, 1, ",\"kiln/start-timeout\":\"20s\"");
	world_run(w, 1);
	world_run(w, 19);
	assert_int_equal(w->counts[PLAN_DELETE], 0);
	world_run(w, 2);
	assert_int_equal(w->counts[PLAN_DELETE], 1);
	assert_int_equal(failures(w), 1);
	assert_int_equal(w->counts[PLAN_CREATE], 2);
}

static void ready_pod_that_cannot_be_reached_is_left_alone(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	begin(w, 1, ",\"kiln/start-timeout\":\"20s\"");
	for (int i = 0; i < 300; i++) {
		world_run(w, 1);
		while ((pod = world_any(w, PLAN_STARTING))) {
			pod->facts.ready = true;
			world_phase(w, pod, KUBE_RUNNING);
		}
	}
	assert_int_equal(w->counts[PLAN_DELETE], 0);
	assert_in_range(w->counts[PLAN_CREATE], 5, 10); /* with growing waits */
}

static void lost_connection_for_a_moment_changes_nothing(void **state)
{
	struct world *w = *state;
	struct plan_pod *pods[3];

	begin_ready(w, 3);
	for (size_t i = 0; i < 3; i++) {
		pods[i] = world_any(w, PLAN_IDLE);
		plan_lost(pods[i], w->now_ms);
	}
	world_run(w, 14);
	assert_int_equal(w->counts[PLAN_CREATE], 3);
	for (size_t i = 0; i < 3; i++)
		(void)plan_heard(&w->plan, pods[i], 1, 0, 0, w->now_ms);
	world_run(w, 30);
	assert_int_equal(w->counts[PLAN_CREATE], 3);
	assert_int_equal(world_count(w, PLAN_IDLE), 3);
}

static void lost_pods_are_replaced_and_not_deleted(void **state)
{
	struct world *w = *state;

	begin_ready(w, 2);
	plan_lost(world_any(w, PLAN_IDLE), w->now_ms);
	plan_lost(world_any(w, PLAN_IDLE), w->now_ms);
	world_run(w, 20);
	assert_int_equal(w->counts[PLAN_CREATE], 4);
	assert_int_equal(w->counts[PLAN_DELETE], 0);
}

static struct plan_pod *place_on(struct world *w, struct plan_pod *pod, const char *node)
{
	struct kube_pod facts = pod->facts;
	bool is_new;

	(void)str_copy(facts.node, sizeof facts.node, node);
	assert_int_equal(plan_seen(&w->plan, &facts, w->now_ms, &pod, &is_new), 0);
	return pod;
}

static void see_node(struct world *w, const char *name, bool ready)
{
	struct kube_node facts = {.ready = ready};

	(void)str_copy(facts.name, sizeof facts.name, name);
	assert_true(plan_node_seen(&w->plan, &facts) >= 0);
}

static void lost_pod_of_a_failed_node_is_replaced_without_a_wait(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	begin_ready(w, 2);
	pod = place_on(w, world_any(w, PLAN_IDLE), "n1");
	see_node(w, "n1", true);
	plan_lost(pod, w->now_ms);
	world_run(w, 2);
	assert_int_equal(w->counts[PLAN_CREATE], 2); /* it may come back */
	see_node(w, "n1", false);
	world_run(w, 2);
	assert_int_equal(w->counts[PLAN_CREATE], 3);
	assert_int_equal(w->counts[PLAN_DELETE], 0);
}

static void pods_of_a_node_that_is_gone_take_no_place(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	world_template(w, "python", "a", "\"kiln/min\":\"2\",\"kiln/max\":\"2\"");
	world_run(w, 5);
	world_start_all(w, 1);
	see_node(w, "n1", true);
	pod = place_on(w, world_any(w, PLAN_IDLE), "n1");
	plan_lost(pod, w->now_ms);
	see_node(w, "n1", false);
	world_run(w, 30);
	assert_int_equal(w->counts[PLAN_CREATE], 2); /* it counts against the maximum */
	plan_node_gone(&w->plan, "n1");
	world_run(w, 3);
	assert_int_equal(w->counts[PLAN_CREATE], 3);
}

static void list_without_a_node_forgets_it(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	begin_ready(w, 1);
	see_node(w, "n1", true);
	pod = place_on(w, world_any(w, PLAN_IDLE), "n1");
	plan_nodes_begin(&w->plan);
	see_node(w, "n2", true);
	plan_nodes_listed(&w->plan);
	assert_int_equal(pod->node, PLAN_NODE_GONE);
	assert_int_equal(map_count(&w->plan.nodes), 1);
}

static void deletion_that_is_not_seen_is_decided_again(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	begin(w, 1, "");
	world_run(w, 1);
	pod = world_any(w, PLAN_STARTING);
	pod->order = PLAN_TO_DELETE;
	pod->ordered_ms = w->now_ms;
	world_run(w, 29);
	assert_false(w->plan.relist);
	world_run(w, 2);
	assert_true(w->plan.relist);
	assert_int_equal(w->counts[PLAN_DELETE], 1);
}

static void drain_that_was_not_heard_is_said_again(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	begin_ready(w, 1);
	pod = world_any(w, PLAN_IDLE);
	pod->order = PLAN_TO_DRAIN;
	pod->ordered_ms = w->now_ms;
	world_run(w, 9);
	assert_int_equal(plan_state_of(pod), PLAN_DRAINING);
	world_run(w, 2);
	assert_int_equal(pod->order, PLAN_NO_ORDER);
	/* And where the connection breaks before it was heard. */
	pod->order = PLAN_TO_DRAIN;
	plan_lost(pod, w->now_ms);
	assert_int_equal(plan_state_of(pod), PLAN_LOST);
}

static void runner_that_is_drained_and_does_not_end_is_deleted(void **state)
{
	struct world *w = *state;
	struct plan_pod *pod;

	begin_ready(w, 1);
	pod = world_any(w, PLAN_IDLE);
	world_use(w, pod, 1);
	(void)plan_heard(&w->plan, pod, 0, 1, 0, w->now_ms);
	world_run(w, 3);
	world_start_all(w, 1);
	world_run(w, 300);
	assert_int_equal(w->counts[PLAN_DELETE], 0); /* it has a task */
	(void)plan_heard(&w->plan, pod, 0, 0, 1, w->now_ms);
	world_run(w, 59);
	assert_int_equal(w->counts[PLAN_DELETE], 0);
	world_run(w, 2);
	assert_int_equal(w->counts[PLAN_DELETE], 1);
}

static void pod_of_no_pool_is_let_go(void **state)
{
	struct world *w = *state;

	begin_ready(w, 3);
	world_use(w, world_any(w, PLAN_IDLE), 1);
	plan_drop_pool(&w->plan, "python");
	world_run(w, 3);
	assert_int_equal(map_count(&w->plan.pods), 1);
	assert_int_equal(world_count(w, PLAN_DRAINING), 1);
}

static void name_that_comes_again_is_another_pod(void **state)
{
	struct world *w = *state;
	struct kube_pod facts;
	struct plan_pod *pod;
	bool is_new;

	begin_ready(w, 1);
	facts = world_any(w, PLAN_IDLE)->facts;
	(void)str_copy(facts.uid, sizeof facts.uid, "another");
	facts.phase = KUBE_PENDING;
	assert_int_equal(plan_seen(&w->plan, &facts, w->now_ms, &pod, &is_new), 0);
	assert_true(is_new);
	assert_int_equal(plan_state_of(pod), PLAN_STARTING);
	assert_int_equal(map_count(&w->plan.pods), 1);
}

static void count_gone(void *ctx, struct plan_pod *pod)
{
	assert_non_null(pod);
	++*(int *)ctx;
}

static void list_without_a_pod_forgets_it(void **state)
{
	struct world *w = *state;
	struct kube_pod facts;
	struct plan_pod *pod;
	int gone = 0;
	bool is_new;

	begin(w, 2, "");
	world_run(w, 3);
	plan_begin(&w->plan);
	facts = world_any(w, PLAN_STARTING)->facts;
	assert_int_equal(plan_seen(&w->plan, &facts, w->now_ms, &pod, &is_new), 0);
	assert_false(is_new);
	plan_listed(&w->plan, count_gone, &gone);
	assert_int_equal(gone, 1);
	assert_int_equal(map_count(&w->plan.pods), 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(refused_creates_are_tried_ever_more_rarely),
		CASE(failing_starts_are_tried_ever_more_rarely),
		CASE(pod_that_failed_to_start_is_kept_for_its_log),
		CASE(evicted_pod_is_no_failure_and_is_replaced),
		CASE(pod_that_crashed_is_no_failed_start),
		CASE(unschedulable_pods_are_held),
		CASE(pod_that_never_gets_ready_is_replaced),
		CASE(ready_pod_that_cannot_be_reached_is_left_alone),
		CASE(lost_connection_for_a_moment_changes_nothing),
		CASE(lost_pods_are_replaced_and_not_deleted),
		CASE(lost_pod_of_a_failed_node_is_replaced_without_a_wait),
		CASE(pods_of_a_node_that_is_gone_take_no_place),
		CASE(list_without_a_node_forgets_it),
		CASE(deletion_that_is_not_seen_is_decided_again),
		CASE(drain_that_was_not_heard_is_said_again),
		CASE(runner_that_is_drained_and_does_not_end_is_deleted),
		CASE(pod_of_no_pool_is_let_go),
		CASE(name_that_comes_again_is_another_pod),
		CASE(list_without_a_pod_forgets_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
