/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One step: count, size, act. Per pool
 *
 *	look		its pods by state; what ended, never came or overstays its order
 *	choose		pods to be replaced: of an older template, or used for long enough
 *	want		how many it should have (sizing.h), after the share of all pools
 *	act		creates and retirements at the pace of sizing.h; replaced pods drain once
 *			there is somebody in their place
 */

#include "base/str.h"
#include "pods/kube/plan-private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	BUSY_LABEL_MS = 2 * 1000, /* a label is for what lasts */
	IDLE_LABEL_MS = 30 * 1000,
	SURGE_DIVISOR = 4, /* of a pool that are replaced at a time */
	STEP_LABELS = 32,
	UNHEARD_MS = 3 * 1000, /* a runner tells of a task long before */
};

/* Of one pool, during one step. */
struct view {
	struct plan_pool *pool;
	struct plan_pod **pods; /* all that are not gone */
	size_t n;
	struct plan_pod **old; /* of those ready, to be replaced, in the order of their turn */
	size_t n_old;
	size_t n_replaced; /* of old, that are being replaced now */
	size_t n_draining;
	bool known; /* what waits */
};

/* ---- choose ---- */

/* A pod that briefly cannot be reached is still there, but not where its node is none. */
static bool is_missed(const struct plan_step *s, const struct plan_pod *pod)
{
	return pod->node < PLAN_NODE_NOT_READY && s->now_ms - pod->changed_ms < PLAN_LOST_GRACE_MS;
}

static void count(const struct plan_step *s, struct view *v)
{
	struct sizing_pods *c = &v->pool->count;
	const struct plan_expected *x;

	*c = (struct sizing_pods){.failures = v->pool->failures, .failed_ms = v->pool->failed_ms};
	v->pool->used = 0;
	for (size_t i = 0; i < v->n; i++) {
		const struct plan_pod *pod = v->pods[i];
		enum plan_state state = plan_state_of(pod);

		v->pool->used += pod->used;
		c->idle += state == PLAN_IDLE;
		c->busy += state == PLAN_BUSY;
		c->unschedulable += state == PLAN_UNSCHEDULABLE;
		v->n_draining += state == PLAN_DRAINING;
		/* Of a node that was removed nothing runs on; the cluster collects its pods. */
		if (state == PLAN_LOST && pod->node == PLAN_NODE_GONE)
			continue;
		if (state == PLAN_LOST && is_missed(s, pod))
			c->starting++;
		else if (state == PLAN_STARTING)
			c->starting++;
		else if (state == PLAN_LOST || state == PLAN_DRAINING || state == PLAN_LEAVING)
			c->leaving++;
	}
	LIST_FOREACH (x, &s->plan->expected, link)
		c->starting += !x->seen && str_eq(x->pool, v->pool->def.name);
}

static bool is_ready(const struct plan_pod *pod)
{
	enum plan_state state = plan_state_of(pod);

	return state == PLAN_IDLE || state == PLAN_BUSY;
}

static bool is_outdated(const struct view *v, const struct plan_pod *pod)
{
	return !str_eq(pod->facts.revision, v->pool->def.revision);
}

/* Why a pod that serves is to be replaced, or NULL. */
static const char *why_replace(const struct plan_step *s, const struct view *v,
			       const struct plan_pod *pod)
{
	const struct kube_pool *def = &v->pool->def;

	if (is_outdated(v, pod))
		return "outdated";
	if (pod->facts.unwanted)
		return "unwanted";
	if ((def->recycle_tasks && pod->tasks >= def->recycle_tasks) ||
	    s->now_ms - pod->seen_ms >= def->recycle_ms)
		return "used_up";
	return plan_node_trouble(pod);
}

/* Idle before busy, the least busy first, then the oldest. */
static int by_turn(const void *a, const void *b)
{
	const struct plan_pod *x = *(struct plan_pod *const *)a;
	const struct plan_pod *y = *(struct plan_pod *const *)b;

	if (x->used != y->used)
		return x->used < y->used ? -1 : 1;
	if (x->seen_ms != y->seen_ms)
		return x->seen_ms < y->seen_ms ? -1 : 1;
	return strcmp(x->facts.name, y->facts.name);
}

static void choose_old(const struct plan_step *s, struct view *v)
{
	struct sizing_pods *c = &v->pool->count;
	size_t surge = (c->idle + c->busy) / SURGE_DIVISOR;

	for (size_t i = 0; i < v->n; i++)
		if (is_ready(v->pods[i]) && why_replace(s, v, v->pods[i]))
			v->old[v->n_old++] = v->pods[i];
	qsort(v->old, v->n_old, sizeof *v->old, by_turn);
	if (!v->known)
		return; /* while demand is not known the pool stays as it is */
	surge = surge ? surge : 1;
	surge = surge > v->n_draining ? surge - v->n_draining : 0;
	v->n_replaced = v->n_old < surge ? v->n_old : surge;
	/* They are not counted on any more, so that others come in their place. */
	for (size_t i = 0; i < v->n_replaced; i++) {
		c->busy -= v->old[i]->used > 0;
		c->idle -= !v->old[i]->used;
		c->leaving++;
	}
}

/* ---- want ---- */

/* What came is what ended, and what there is more of than before. Less than nothing came where
 * tasks were given to runners: these tell of them a moment later, which is no arrival then; or
 * where tasks were cancelled, of which nobody tells. */
static uint64_t arrivals(const struct plan_step *s, struct plan_pool *pool, int64_t more)
{
	int64_t came = (int64_t)pool->finished + more;

	if (s->now_ms - pool->unheard_ms >= UNHEARD_MS)
		pool->unheard = 0;
	came -= pool->unheard;
	if (-came > pool->unheard)
		pool->unheard_ms = s->now_ms;
	pool->unheard = came < 0 ? -came : 0;
	return came > 0 ? (uint64_t)came : 0;
}

static void measure(struct plan_step *s, struct view *v, uint64_t waiting, uint32_t used_before)
{
	struct plan_pool *pool = v->pool;
	int64_t more =
		(int64_t)pool->used - used_before + (int64_t)waiting - (int64_t)pool->waiting;

	if (!v->known)
		waiting = pool->waiting;
	sizing_meter_add(&pool->meter, s->now_ms, v->known ? arrivals(s, pool, more) : 0,
			 pool->finished, pool->used);
	pool->finished = 0;
	pool->waiting = waiting;
}

static void want(struct plan_step *s, struct view *v, plan_waiting_cb waiting_cb, void *ctx)
{
	struct plan_pool *pool = v->pool;
	uint32_t used_before = pool->used;
	uint64_t waiting = 0;
	struct sizing_pool size = pool->def.size;
	struct sizing_demand d;

	v->known = waiting_cb(ctx, &pool->def, &waiting);
	count(s, v);
	choose_old(s, v);
	measure(s, v, waiting, used_before);
	d = (struct sizing_demand){
		.known = v->known,
		.backlog = waiting,
		.used_slots = pool->used,
		.quiet_ms = waiting ? 0 : s->now_ms - pool->meter.last_use_ms,
		.start_ms = plan_start_ms(pool),
	};
	sizing_meter_tell(&pool->meter, &d);
	/* A runner may have fewer slots than was wished for: it knows what its host allows. */
	size.slots = pool->slots ? pool->slots : size.slots;
	sizing_want(&size, &d, &pool->count, s->now_ms, &pool->state, &pool->verdict);
}

static void share(struct plan_step *s, struct view *views, size_t n)
{
	struct sizing_claim *claims;

	if (!s->plan->max_pods || !n)
		return;
	claims = calloc(n, sizeof *claims);
	if (!claims)
		return;
	for (size_t i = 0; i < n; i++)
		claims[i] = (struct sizing_claim){.want = views[i].pool->verdict.want,
						  .weight = views[i].pool->def.weight,
						  .cost = 1};
	(void)sizing_share(claims, n, s->plan->max_pods);
	for (size_t i = 0; i < n; i++)
		sizing_grant(&views[i].pool->verdict, claims[i].granted);
	free(claims);
}

/* ---- act ---- */

/* Five characters that tell pods apart: the same letters that Kubernetes uses. */
static void make_name(struct plan *p, const struct kube_pool *def, char name[KUBE_POD_NAME_MAX])
{
	static const char letters[] = "bcdfghjklmnpqrstvwxz2456789";
	const uint64_t seed[2] = {p->salt, 0x6b696c6e};
	uint64_t h = map_hash(seed, &p->counter, sizeof p->counter);
	char suffix[6] = "";

	p->counter++;
	for (size_t i = 0; i < 5; i++, h /= sizeof letters - 1)
		suffix[i] = letters[h % (sizeof letters - 1)];
	(void)snprintf(name, KUBE_POD_NAME_MAX, "kiln-%.40s-%.8s-%s", def->name, def->revision,
		       suffix);
}

static bool create_one(struct plan_step *s, struct plan_pool *pool)
{
	struct plan_expected *x = calloc(1, sizeof *x);
	struct plan_action *a;

	if (!x)
		return false;
	make_name(s->plan, &pool->def, x->name);
	a = plan_add(s, PLAN_CREATE, x->name, sizing_reason_name(pool->verdict.reason));
	if (!a) {
		free(x);
		return false;
	}
	a->pool = pool;
	(void)str_copy(x->pool, sizeof x->pool, pool->def.name);
	x->asked_ms = s->now_ms;
	x->under_way = true;
	list_init(&x->link);
	list_push_back(&s->plan->expected, &x->link);
	s->plan->n_expected++;
	pool->under_way++;
	return true;
}

/* Slowly at first: what the server refuses once it will refuse many times. */
static void create(struct plan_step *s, struct plan_pool *pool)
{
	uint32_t done = 0;

	while (done < pool->verdict.create && pool->under_way < pool->window && create_one(s, pool))
		done++;
	s->plan->tokens.left += pool->verdict.create - done;
	pool->verdict.create = done;
}

/* The order in which pods are given up; -1: not at all. */
static int rank(const struct view *v, const struct plan_pod *pod)
{
	switch (plan_state_of(pod)) {
	case PLAN_UNSCHEDULABLE:
		return 0;
	case PLAN_STARTING:
		return 1;
	case PLAN_IDLE:
		return is_outdated(v, pod) ? 2 : 3;
	case PLAN_BUSY:
		return 4;
	default:
		return -1;
	}
}

static void retire(struct plan_step *s, struct view *v)
{
	uint32_t left = v->pool->verdict.retire;

	qsort(v->pods, v->n, sizeof *v->pods, by_turn);
	for (int now = 0; now <= 4; now++)
		for (size_t i = 0; i < v->n && left; i++)
			if (rank(v, v->pods[i]) == now)
				left -= plan_order(s, v->pods[i],
						   now < 2 ? PLAN_TO_DELETE : PLAN_TO_DRAIN,
						   "surplus");
}

/* Nobody can come first where there is no room for one more. */
static bool no_room(const struct plan_pool *pool)
{
	const struct sizing_verdict *v = &pool->verdict;

	return !pool->failures && !pool->count.starting && !v->create &&
	       (v->brake == SIZING_LEAVING || v->brake == SIZING_UNSCHEDULABLE);
}

static void replace(struct plan_step *s, struct view *v)
{
	const struct sizing_pods *c = &v->pool->count;
	bool in_place = c->idle + c->busy >= v->pool->verdict.want;

	if (!in_place && !(no_room(v->pool) && !v->n_draining))
		return;
	for (size_t i = 0; i < v->n_replaced; i++)
		/* Where there is no other node, one that is cordoned is better than none. */
		if (v->old[i]->order == PLAN_NO_ORDER &&
		    (in_place || !plan_node_trouble(v->old[i])))
			(void)plan_order(s, v->old[i], PLAN_TO_DRAIN, why_replace(s, v, v->old[i]));
}

static void label(struct plan_step *s, struct view *v, size_t *left)
{
	for (size_t i = 0; i < v->n && *left; i++) {
		struct plan_pod *pod = v->pods[i];
		bool busy = pod->used > 0;
		struct plan_action *a;

		if (!pod->connected || pod->labelling || pod->facts.labelled_busy == busy ||
		    pod->facts.deleting ||
		    s->now_ms - pod->changed_ms < (busy ? BUSY_LABEL_MS : IDLE_LABEL_MS))
			continue;
		a = plan_add(s, PLAN_LABEL, pod->facts.name, "label");
		if (!a)
			return;
		a->busy = busy;
		pod->labelling = true;
		--*left;
	}
}

static void act(struct plan_step *s, struct view *v, size_t *labels)
{
	struct plan_pool *pool = v->pool;

	sizing_pace(&pool->def.size, &pool->count, s->now_ms, &pool->state, &s->plan->tokens,
		    &pool->verdict);
	if (pool->verdict.create)
		create(s, pool);
	else if (pool->verdict.retire)
		retire(s, v);
	replace(s, v);
	label(s, v, labels);
}

/* ---- the whole ---- */

/* A pod of no pool that is known has no use: its template is gone. */
static void let_go(struct plan_step *s, struct plan_pod *pod)
{
	switch (plan_state_of(pod)) {
	case PLAN_STARTING:
	case PLAN_UNSCHEDULABLE:
		(void)plan_order(s, pod, PLAN_TO_DELETE, "no_pool");
		return;
	case PLAN_IDLE:
	case PLAN_BUSY:
		(void)plan_order(s, pod, PLAN_TO_DRAIN, "no_pool");
		return;
	default:
		return;
	}
}

static struct view *find_view(struct view *views, size_t n, const char *pool)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(views[i].pool->def.name, pool))
			return &views[i];
	return NULL;
}

/* room: two times as many places as there are pods, cut up among the pools. */
static size_t make_views(struct plan_step *s, struct view *views, struct plan_pod **room)
{
	struct plan_pod *pod;
	size_t n = 0, cursor;

	for (size_t i = 0; i < s->plan->n_pools; i++)
		if (!s->plan->pools[i]->gone)
			views[n++].pool = s->plan->pools[i];
	for (size_t pass = 0; pass < 2; pass++) {
		MAP_FOREACH (pod, cursor, &s->plan->pods) {
			struct view *v = find_view(views, n, pod->facts.pool);

			if (v && pass)
				v->pods[v->n] = pod;
			if (v)
				v->n++;
		}
		for (size_t i = 0; i < n && !pass; i++) {
			views[i].pods = room;
			views[i].old = room + views[i].n;
			room += 2 * views[i].n;
			views[i].n = 0;
		}
	}
	return n;
}

static void look_at_all(struct plan_step *s, struct view *views, size_t n)
{
	struct plan_pod *pod;
	size_t cursor;

	MAP_FOREACH (pod, cursor, &s->plan->pods) {
		struct view *v = find_view(views, n, pod->facts.pool);

		plan_look(s, v ? v->pool : NULL, pod);
		if (!v)
			let_go(s, pod);
	}
	plan_look_expected(s);
}

size_t plan_step(struct plan *p, int64_t now_ms, plan_waiting_cb waiting, void *ctx,
		 struct plan_action actions[static PLAN_ACTIONS_MAX])
{
	struct plan_step s = {.plan = p, .now_ms = now_ms, .actions = actions};
	struct view *views = calloc(p->n_pools + 1, sizeof *views);
	struct plan_pod **room = calloc(2 * map_count(&p->pods) + 1, sizeof(struct plan_pod *));
	size_t n = 0, labels = STEP_LABELS;

	if (views && room) {
		n = make_views(&s, views, room);
		look_at_all(&s, views, n);
		for (size_t i = 0; i < n; i++)
			want(&s, &views[i], waiting, ctx);
		share(&s, views, n);
		for (size_t i = 0; i < n; i++)
			act(&s, &views[i], &labels);
	}
	free(views);
	free(room);
	return s.n;
}
