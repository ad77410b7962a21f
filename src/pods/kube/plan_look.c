/* SPDX-License-Identifier: Apache-2.0 */

/* The first part of a step: what has become of each pod, whatever size its pool should have. */

#include "base/str.h"
#include "pods/kube/plan-private.h"

enum {
	EXPECTED_MAX_MS = 30 * 1000, /* until what was created should be seen */
	ORDER_MAX_MS = 30 * 1000,    /* until a deletion should be seen */
	DRAIN_HEARD_MS = 10 * 1000,  /* until a runner should say that it drains */
	DRAINED_MAX_MS = 60 * 1000,  /* until a runner without tasks should have ended */
	FAILED_KEPT_MS = 60 * 1000,  /* so that its log can be read */
};

struct plan_action *plan_add(struct plan_step *s, enum plan_verb verb, const char *name,
			     const char *why)
{
	struct plan_action *a;

	if (s->n == PLAN_ACTIONS_MAX)
		return NULL;
	a = &s->actions[s->n++];
	*a = (struct plan_action){.verb = verb, .why = why};
	(void)str_copy(a->name, sizeof a->name, name);
	return a;
}

bool plan_order(struct plan_step *s, struct plan_pod *pod, enum plan_order what, const char *why)
{
	if (!plan_add(s, what == PLAN_TO_DRAIN ? PLAN_DRAIN : PLAN_DELETE, pod->facts.name, why))
		return false;
	pod->order = what;
	pod->ordered_ms = s->now_ms;
	return true;
}

static void count_failure(struct plan_step *s, struct plan_pool *pool, struct plan_pod *pod)
{
	if (pod->failure_counted)
		return;
	pod->failure_counted = true;
	/* Of an older template it says nothing about this one. */
	if (pool && str_eq(pool->def.revision, pod->facts.revision))
		plan_note_failure(pool, s->now_ms);
}

/* ended_ms: it ended before our eyes. What was found ended may have served for long. */
static bool failed_to_start(const struct plan_pod *pod)
{
	return pod->ended_ms && !pod->served && !pod->facts.evicted &&
	       pod->facts.phase == KUBE_FAILED;
}

static void look_at_ended(struct plan_step *s, struct plan_pool *pool, struct plan_pod *pod)
{
	bool kept = false;

	if (failed_to_start(pod)) {
		count_failure(s, pool, pod);
		kept = pool && s->now_ms - pod->ended_ms < FAILED_KEPT_MS;
	}
	if (!kept && !pod->facts.deleting && pod->order != PLAN_TO_DELETE)
		(void)plan_order(s, pod, PLAN_TO_DELETE, "ended");
}

static void look_at_starting(struct plan_step *s, struct plan_pool *pool, struct plan_pod *pod)
{
	/* It never served, and where it is it will not. That is not its template's fault. */
	if (pod->node == PLAN_NODE_NOT_READY || pod->node == PLAN_NODE_GONE) {
		(void)plan_order(s, pod, PLAN_TO_DELETE, plan_node_trouble(pod));
		return;
	}
	if (!pool || s->now_ms - pod->seen_ms < pool->def.start_timeout_ms)
		return;
	count_failure(s, pool, pod);
	(void)plan_order(s, pod, PLAN_TO_DELETE, "never_ready");
}

/* One that says it is ready, and that was never reached, is left alone: others may reach it. It
 * is no success either. */
static void look_at_lost(struct plan_step *s, struct plan_pool *pool, struct plan_pod *pod)
{
	if (!pod->slots && s->now_ms - pod->changed_ms >= PLAN_LOST_GRACE_MS)
		count_failure(s, pool, pod);
}

/* Its runner refuses tasks from the moment that it has heard. One that says that it has none, and
 * does not end, is stuck; of one that cannot be reached nobody knows what it has. */
static void look_at_draining(struct plan_step *s, struct plan_pod *pod)
{
	int64_t age_ms = s->now_ms - pod->ordered_ms;

	if (pod->order != PLAN_TO_DRAIN) { /* somebody else's order: the time begins now */
		pod->order = PLAN_TO_DRAIN;
		pod->ordered_ms = s->now_ms;
		return;
	}
	if (!pod->refuses && age_ms >= DRAIN_HEARD_MS)
		pod->order = PLAN_NO_ORDER;
	else if (pod->connected && pod->refuses && !pod->used && age_ms >= DRAINED_MAX_MS &&
		 s->now_ms - pod->changed_ms >= DRAINED_MAX_MS)
		(void)plan_order(s, pod, PLAN_TO_DELETE, "stuck");
}

static void look_at_leaving(struct plan_step *s, struct plan_pod *pod)
{
	if (pod->facts.deleting || s->now_ms - pod->ordered_ms < ORDER_MAX_MS)
		return;
	pod->order = PLAN_NO_ORDER;
	s->plan->relist = true;
}

/* pool: NULL where it is not known. */
void plan_look(struct plan_step *s, struct plan_pool *pool, struct plan_pod *pod)
{
	switch (plan_state_of(pod)) {
	case PLAN_STARTING:
		look_at_starting(s, pool, pod);
		return;
	case PLAN_LOST:
		look_at_lost(s, pool, pod);
		return;
	case PLAN_DRAINING:
		look_at_draining(s, pod);
		return;
	case PLAN_LEAVING:
		look_at_leaving(s, pod);
		return;
	case PLAN_ENDED:
		look_at_ended(s, pool, pod);
		return;
	default:
		return;
	}
}

void plan_look_expected(struct plan_step *s)
{
	const struct plan_expected *x;

	LIST_FOREACH (x, &s->plan->expected, link)
		if (!x->under_way && s->now_ms - x->asked_ms >= EXPECTED_MAX_MS)
			s->plan->relist = true;
}
