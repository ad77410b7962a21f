/* SPDX-License-Identifier: Apache-2.0 */
#include "plan_world.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int world_setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);

	assert_non_null(w);
	plan_init(&w->plan, 0, 7);
	w->now_ms = 1000000;
	*state = w;
	return 0;
}

int world_teardown(void **state)
{
	struct world *w = *state;

	plan_fini(&w->plan);
	free(w);
	return 0;
}

void world_template(struct world *w, const char *name, const char *image, const char *notes)
{
	char text[2048];
	struct kube_pool def;
	struct err e = {""};
	json_t *object;

	(void)snprintf(text, sizeof text,
		       "{\"metadata\":{\"name\":\"%s\",\"uid\":\"u-%s\",\"annotations\":{%s}},"
		       "\"template\":{\"spec\":{\"restartPolicy\":\"Never\",\"containers\":"
		       "[{\"name\":\"runner\",\"image\":\"%s\"}]}}}",
		       name, name, notes, image);
	object = json_loads(text, 0, NULL);
	assert_non_null(object);
	if (kube_pool_read(object, &def, &e) < 0)
		fail_msg("%s", e.msg);
	json_decref(object);
	assert_int_equal(plan_put_pool(&w->plan, &def), 0);
	kube_pool_fini(&def);
}

static void see(struct world *w, struct kube_pod *facts)
{
	struct plan_pod *pod;
	bool is_new;

	(void)snprintf(facts->version, sizeof facts->version, "%u", ++w->versions);
	assert_int_equal(plan_seen(&w->plan, facts, w->now_ms, &pod, &is_new), 0);
}

static void create(struct world *w, const struct plan_action *a)
{
	struct kube_pod facts = {.phase = KUBE_PENDING};

	if (w->hold)
		return;
	if (w->refuse > 0) {
		w->refuse--;
		plan_create_failed(&w->plan, a->pool->def.name, a->name, false, w->now_ms);
		return;
	}
	assert_null(plan_find(&w->plan, a->name));
	(void)str_copy(facts.name, sizeof facts.name, a->name);
	(void)snprintf(facts.uid, sizeof facts.uid, "uid-%u", w->versions);
	(void)str_copy(facts.pool, sizeof facts.pool, a->pool->def.name);
	(void)str_copy(facts.revision, sizeof facts.revision, a->pool->def.revision);
	see(w, &facts);
	plan_created(&w->plan, a->pool->def.name, a->name);
}

/* What no step may ever ask for. */
static void check_deletion(const struct plan_pod *pod, const char *why)
{
	bool ended = pod->facts.phase == KUBE_SUCCEEDED || pod->facts.phase == KUBE_FAILED;

	if (!ended && (pod->used || (pod->served && !str_eq(why, "stuck"))))
		fail_msg("%s is deleted (%s): served %d, used %u", pod->facts.name, why,
			 pod->served, pod->used);
}

static void end_if_drained(struct world *w, struct plan_pod *pod)
{
	if (!pod->refuses || pod->used)
		return;
	plan_lost(pod, w->now_ms);
	world_phase(w, pod, KUBE_SUCCEEDED);
}

static void obey(struct world *w, const struct plan_action *a)
{
	struct plan_pod *pod = plan_find(&w->plan, a->name);

	switch (a->verb) {
	case PLAN_CREATE:
		create(w, a);
		return;
	case PLAN_DELETE:
		check_deletion(pod, a->why);
		plan_deleted(&w->plan, a->name);
		return;
	case PLAN_DRAIN:
		assert_true(pod->connected);
		(void)plan_heard(&w->plan, pod, 0, pod->used, pod->tasks, w->now_ms);
		end_if_drained(w, pod);
		return;
	case PLAN_LABEL:
		plan_labelled(&w->plan, a->name);
		pod->facts.labelled_busy = a->busy;
		return;
	}
}

static bool on_waiting(void *ctx, const struct kube_pool *pool, uint64_t *ret_waiting)
{
	const struct world *w = ctx;

	(void)pool;
	*ret_waiting = w->waiting;
	return !w->blind;
}

void world_step(struct world *w)
{
	w->n = plan_step(&w->plan, w->now_ms, on_waiting, w, w->actions);
	for (size_t i = 0; i < w->n; i++) {
		w->counts[w->actions[i].verb]++;
		obey(w, &w->actions[i]);
	}
}

void world_run(struct world *w, int n)
{
	while (n--) {
		w->now_ms += 1000;
		world_step(w);
	}
}

void world_start_all(struct world *w, uint32_t slots)
{
	struct plan_pod *pod;

	while ((pod = world_any(w, PLAN_STARTING))) {
		world_phase(w, pod, KUBE_RUNNING);
		(void)plan_heard(&w->plan, pod, slots, 0, 0, w->now_ms);
	}
}

void world_phase(struct world *w, struct plan_pod *pod, enum kube_phase phase)
{
	struct kube_pod facts = pod->facts;

	facts.phase = phase;
	facts.scheduled = true;
	facts.unschedulable = false;
	see(w, &facts);
}

void world_use(struct world *w, struct plan_pod *pod, uint32_t used)
{
	(void)plan_heard(&w->plan, pod, pod->refuses ? 0 : pod->slots, used, pod->tasks, w->now_ms);
}

void world_finish(struct world *w, struct plan_pod *pod)
{
	(void)plan_heard(&w->plan, pod, pod->refuses ? 0 : pod->slots, pod->used - 1,
			 pod->tasks + 1, w->now_ms);
	end_if_drained(w, pod);
}

size_t world_count(struct world *w, enum plan_state state)
{
	struct plan_pod *pod;
	size_t n = 0, cursor;

	MAP_FOREACH (pod, cursor, &w->plan.pods)
		n += plan_state_of(pod) == state;
	return n;
}

struct plan_pod *world_any(struct world *w, enum plan_state state)
{
	struct plan_pod *pod;
	size_t cursor;

	MAP_FOREACH (pod, cursor, &w->plan.pods)
		if (plan_state_of(pod) == state)
			return pod;
	return NULL;
}

size_t world_revision(struct world *w, const char *pool)
{
	const struct plan_pool *p = plan_find_pool(&w->plan, pool);
	struct plan_pod *pod;
	size_t n = 0, cursor;

	MAP_FOREACH (pod, cursor, &w->plan.pods)
		n += str_eq(pod->facts.revision, p->def.revision);
	return n;
}

size_t world_asked(const struct world *w, enum plan_verb verb)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		n += w->actions[i].verb == verb;
	return n;
}
