/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/plan.h"

#include "base/str.h"
#include "pods/kube/plan-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Creates of all pools together; what is above waits for the next second. */
#define CREATE_RATE  10.0
#define CREATE_BURST 30.0

enum { WINDOW_MAX = 32 };

void plan_init(struct plan *p, uint32_t max_pods, uint64_t salt)
{
	*p = (struct plan){.max_pods = max_pods,
			   .salt = salt,
			   .tokens = {.rate = CREATE_RATE, .burst = CREATE_BURST}};
	map_init(&p->pods);
	map_init(&p->nodes);
	list_init(&p->expected);
}

static void free_expected(struct plan *p, struct plan_expected *x)
{
	list_unlink(&x->link);
	p->n_expected--;
	free(x);
}

static void free_pool(struct plan_pool *pool)
{
	kube_pool_fini(&pool->def);
	free(pool);
}

void plan_fini(struct plan *p)
{
	struct plan_expected *x, *tmp;
	struct plan_pod *pod;
	size_t cursor = 0;

	MAP_FOREACH (pod, cursor, &p->pods)
		free(pod);
	map_fini(&p->pods);
	plan_nodes_fini(p);
	for (size_t i = 0; i < p->n_pools; i++)
		free_pool(p->pools[i]);
	free(p->pools);
	LIST_FOREACH_SAFE (x, tmp, &p->expected, link)
		free_expected(p, x);
}

/* ---- pools ---- */

struct plan_pool *plan_find_pool(struct plan *p, const char *name)
{
	for (size_t i = 0; i < p->n_pools; i++)
		if (str_eq(p->pools[i]->def.name, name))
			return p->pools[i];
	return NULL;
}

static struct plan_pool *add_pool(struct plan *p)
{
	struct plan_pool **grown = realloc(p->pools, (p->n_pools + 1) * sizeof *grown);
	struct plan_pool *pool = grown ? calloc(1, sizeof *pool) : NULL;

	if (grown)
		p->pools = grown;
	if (!pool)
		return NULL;
	pool->window = 1;
	p->pools[p->n_pools++] = pool;
	return pool;
}

int plan_put_pool(struct plan *p, struct kube_pool *def_take)
{
	struct plan_pool *pool = plan_find_pool(p, def_take->name);

	if (!pool)
		pool = add_pool(p);
	if (!pool)
		return -ENOMEM;
	/* Another template deserves tries of its own. */
	if (!str_eq(pool->def.revision, def_take->revision)) {
		pool->failures = 0;
		pool->window = 1;
		pool->slots = 0;
	}
	kube_pool_fini(&pool->def);
	pool->def = *def_take;
	def_take->template = NULL;
	pool->gone = false;
	pool->listed = true;
	return 0;
}

void plan_pools_begin(struct plan *p)
{
	for (size_t i = 0; i < p->n_pools; i++)
		p->pools[i]->listed = false;
}

void plan_keep_pool(struct plan *p, const char *name)
{
	struct plan_pool *pool = plan_find_pool(p, name);

	if (pool)
		pool->listed = true;
}

void plan_drop_pool(struct plan *p, const char *name)
{
	struct plan_pool *pool = plan_find_pool(p, name);

	if (pool)
		pool->gone = true;
}

/* ---- pods, as the API server has them ---- */

struct plan_pod *plan_find(struct plan *p, const char *name)
{
	return map_get(&p->pods, name, strlen(name));
}

static void forget(struct plan *p, struct plan_pod *pod)
{
	(void)map_remove(&p->pods, pod->facts.name, strlen(pod->facts.name));
	free(pod);
}

static struct plan_expected *find_expected(struct plan *p, const char *name)
{
	struct plan_expected *x;

	LIST_FOREACH (x, &p->expected, link)
		if (str_eq(x->name, name))
			return x;
	return NULL;
}

static bool has_ended(const struct kube_pod *facts)
{
	return facts->phase == KUBE_SUCCEEDED || facts->phase == KUBE_FAILED;
}

static struct plan_pod *add_pod(struct plan *p, const struct kube_pod *facts, int64_t now_ms)
{
	struct plan_expected *x = find_expected(p, facts->name);
	struct plan_pod *pod = calloc(1, sizeof *pod);

	if (!pod)
		return NULL;
	pod->facts = *facts;
	pod->seen_ms = pod->changed_ms = now_ms;
	if (map_put(&p->pods, pod->facts.name, strlen(pod->facts.name), pod) < 0) {
		free(pod);
		return NULL;
	}
	if (x) {
		pod->created_ms = x->asked_ms;
		x->seen = true;
		if (!x->under_way)
			free_expected(p, x);
	}
	return pod;
}

int plan_seen(struct plan *p, const struct kube_pod *facts, int64_t now_ms,
	      struct plan_pod **ret_pod, bool *ret_new)
{
	struct plan_pod *pod = plan_find(p, facts->name);
	bool is_new = !pod || !str_eq(pod->facts.uid, facts->uid);

	if (pod && is_new)
		forget(p, pod);
	if (is_new)
		pod = add_pod(p, facts, now_ms);
	if (!pod)
		return -ENOMEM;
	if (has_ended(facts) && !has_ended(&pod->facts))
		pod->ended_ms = now_ms;
	if (facts->ready && !pod->served) {
		pod->served = true;
		pod->changed_ms = now_ms;
	}
	/* What it waits for a node says nothing of how long a start takes. */
	if (facts->unschedulable && !facts->scheduled)
		pod->created_ms = 0;
	pod->facts = *facts;
	pod->generation = p->generation;
	plan_place_pod(p, pod);
	*ret_pod = pod;
	*ret_new = is_new;
	return 0;
}

void plan_deleted(struct plan *p, const char *name)
{
	struct plan_pod *pod = plan_find(p, name);

	if (pod)
		forget(p, pod);
}

void plan_begin(struct plan *p)
{
	struct plan_expected *x;

	p->generation++;
	LIST_FOREACH (x, &p->expected, link)
		x->before_list = !x->under_way;
}

/* What was created before the list was begun and is not in it is not there. */
void plan_listed(struct plan *p, void (*gone)(void *ctx, struct plan_pod *pod), void *ctx)
{
	struct plan_expected *x, *tmp;
	struct plan_pod *pod;
	size_t cursor, n = 0;
	struct plan_pod **old = calloc(map_count(&p->pods) + 1, sizeof(struct plan_pod *));

	if (!old) {
		p->relist = true;
		return;
	}
	MAP_FOREACH (pod, cursor, &p->pods)
		if (pod->generation != p->generation)
			old[n++] = pod;
	for (size_t i = 0; i < n; i++) {
		if (gone)
			gone(ctx, old[i]);
		forget(p, old[i]);
	}
	free(old);
	LIST_FOREACH_SAFE (x, tmp, &p->expected, link)
		if (x->before_list)
			free_expected(p, x);
}

/* ---- pods, as their runners have them ---- */

static void note_start(struct plan_pool *pool, int64_t ms)
{
	pool->start_ms[pool->n_starts++ % PLAN_STARTS] = ms;
}

static int64_t first_heard(struct plan *p, struct plan_pod *pod, int64_t now_ms)
{
	struct plan_pool *pool = plan_find_pool(p, pod->facts.pool);
	int64_t took_ms = pod->created_ms ? now_ms - pod->created_ms : -1;

	if (!pool || !str_eq(pool->def.revision, pod->facts.revision))
		return -1;
	pool->failures = 0;
	pool->slots = pod->slots;
	if (took_ms >= 0)
		note_start(pool, took_ms);
	return took_ms;
}

int64_t plan_heard(struct plan *p, struct plan_pod *pod, uint32_t slots, uint32_t used,
		   uint64_t tasks, int64_t now_ms)
{
	struct plan_pool *pool = plan_find_pool(p, pod->facts.pool);
	bool first = !pod->slots; /* for good: what is lost keeps its slots */
	int64_t took_ms = -1;

	if (pool && !first && tasks > pod->tasks)
		pool->finished += tasks - pod->tasks;
	if (!pod->connected || (used > 0) != (pod->used > 0))
		pod->changed_ms = now_ms;
	pod->connected = pod->served = true;
	pod->refuses = !slots;
	pod->slots = slots ? slots : pod->slots;
	pod->used = used;
	pod->tasks = tasks;
	if (first && slots)
		took_ms = first_heard(p, pod, now_ms);
	return took_ms;
}

void plan_lost(struct plan_pod *pod, int64_t now_ms)
{
	if (pod->connected)
		pod->changed_ms = now_ms;
	pod->connected = false;
	pod->used = 0;
	/* Whether it has heard that it is to drain is not known; it is told again. */
	if (pod->order == PLAN_TO_DRAIN && !pod->refuses)
		pod->order = PLAN_NO_ORDER;
}

/* ---- answers ---- */

void plan_created(struct plan *p, const char *pool_name, const char *name)
{
	struct plan_pool *pool = plan_find_pool(p, pool_name);
	struct plan_expected *x = find_expected(p, name);

	if (pool) {
		pool->under_way--;
		if (pool->window < WINDOW_MAX)
			pool->window++;
	}
	if (!x)
		return;
	x->under_way = false;
	if (x->seen)
		free_expected(p, x);
}

void plan_create_failed(struct plan *p, const char *pool_name, const char *name, bool doubtful,
			int64_t now_ms)
{
	struct plan_pool *pool = plan_find_pool(p, pool_name);
	struct plan_expected *x = find_expected(p, name);

	if (pool) {
		pool->under_way--;
		pool->window = 1;
		if (!doubtful)
			plan_note_failure(pool, now_ms);
	}
	if (!x)
		return;
	x->under_way = false;
	if (!doubtful || x->seen)
		free_expected(p, x);
	else
		p->relist = true;
}

void plan_order_failed(struct plan *p, const char *name)
{
	struct plan_pod *pod = plan_find(p, name);

	if (pod)
		pod->order = PLAN_NO_ORDER;
}

void plan_labelled(struct plan *p, const char *name)
{
	struct plan_pod *pod = plan_find(p, name);

	if (pod)
		pod->labelling = false;
}

void plan_note_failure(struct plan_pool *pool, int64_t now_ms)
{
	pool->failures++;
	pool->failed_ms = now_ms;
}

/* ---- looks ---- */

enum plan_state plan_state_of(const struct plan_pod *pod)
{
	if (has_ended(&pod->facts))
		return PLAN_ENDED;
	if (pod->facts.deleting || pod->order == PLAN_TO_DELETE)
		return PLAN_LEAVING;
	if (pod->refuses || pod->order == PLAN_TO_DRAIN)
		return PLAN_DRAINING;
	if (pod->connected)
		return pod->used ? PLAN_BUSY : PLAN_IDLE;
	if (pod->served || pod->facts.phase == KUBE_PHASE_UNKNOWN)
		return PLAN_LOST;
	return pod->facts.unschedulable && !pod->facts.scheduled ? PLAN_UNSCHEDULABLE
								 : PLAN_STARTING;
}

const char *plan_state_name(enum plan_state s)
{
	static const char *const names[_PLAN_STATE_MAX] = {
		[PLAN_STARTING] = "starting", [PLAN_UNSCHEDULABLE] = "unschedulable",
		[PLAN_IDLE] = "idle",	      [PLAN_BUSY] = "busy",
		[PLAN_LOST] = "lost",	      [PLAN_DRAINING] = "draining",
		[PLAN_LEAVING] = "leaving",   [PLAN_ENDED] = "ended",
	};

	return names[s];
}

static int compare_ms(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int64_t plan_start_ms(const struct plan_pool *pool)
{
	size_t n = pool->n_starts < PLAN_STARTS ? pool->n_starts : PLAN_STARTS;
	int64_t sorted[PLAN_STARTS];

	if (!n)
		return 0;
	memcpy(sorted, pool->start_ms, sizeof sorted);
	qsort(sorted, n, sizeof *sorted, compare_ms);
	return sorted[(n * 95 + 99) / 100 - 1];
}
