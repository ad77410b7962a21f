/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/lanes.h"

#include "base/map.h"
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { STRIDE_ONE = 1 << 20 };

/* What waits of one tenant in one language and class. */
struct lane {
	struct list items;
	struct list turn; /* in class_lanes.turns[language] while there are items */
	struct lane_tenant *tenant;
};

/* Exists while it has items, waiting or not. */
struct lane_tenant {
	char name[TASK_TENANT_MAX];
	size_t items;
	size_t running;
	size_t running_max;
	struct lane lanes[]; /* by language and class */
};

struct class_lanes {
	struct list *turns; /* by language: its lanes, the next one first */
	size_t count;
	size_t turn;	 /* language after the one that went last */
	uint64_t pass;	 /* how far the class has come */
	uint64_t stride; /* STRIDE_ONE / weight */
};

struct lanes {
	size_t n_languages;
	struct lanes_limit limit;
	uint64_t now; /* pass of the class that went last */
	struct map tenants;
	struct class_lanes classes[_TASK_CLASS_MAX];
};

int lanes_new(size_t n_languages, const unsigned weights[_TASK_CLASS_MAX],
	      const struct lanes_limit *limit, struct lanes **ret_lanes)
{
	struct lanes *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	l->n_languages = n_languages;
	l->limit = *limit;
	map_init(&l->tenants);
	for (int c = 0; c < _TASK_CLASS_MAX; c++) {
		struct class_lanes *class = &l->classes[c];

		class->stride = STRIDE_ONE / (weights[c] ? weights[c] : 1);
		class->turns = calloc(n_languages + 1, sizeof *class->turns);
		if (!class->turns) {
			lanes_free(l);
			return -ENOMEM;
		}
		for (size_t i = 0; i < n_languages; i++)
			list_init(&class->turns[i]);
	}
	*ret_lanes = l;
	return 0;
}

void lanes_free(struct lanes *l)
{
	if (!l)
		return;
	for (int c = 0; c < _TASK_CLASS_MAX; c++)
		free(l->classes[c].turns);
	map_fini(&l->tenants);
	free(l);
}

/* ---- tenants ---- */

static struct lane_tenant *tenant_new(struct lanes *l, const char *name)
{
	size_t n = l->n_languages * _TASK_CLASS_MAX;
	struct lane_tenant *t = calloc(1, sizeof *t + n * sizeof t->lanes[0]);

	if (!t)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		t->lanes[i].tenant = t;
		list_init(&t->lanes[i].items);
		list_init(&t->lanes[i].turn);
	}
	if (!str_copy(t->name, sizeof t->name, name) ||
	    map_put(&l->tenants, t->name, strlen(t->name), t) < 0) {
		free(t);
		return NULL;
	}
	t->running_max = l->limit.running_max(l->limit.ctx, t->name);
	return t;
}

void lanes_refresh(struct lanes *l)
{
	struct lane_tenant *t;
	size_t cursor = 0;

	MAP_FOREACH (t, cursor, &l->tenants)
		t->running_max = l->limit.running_max(l->limit.ctx, t->name);
}

int lanes_enter(struct lanes *l, const char *tenant, size_t language, enum task_class class,
		struct lane_item *item)
{
	struct lane_tenant *t = map_get(&l->tenants, tenant, strlen(tenant));

	if (!t)
		t = tenant_new(l, tenant);
	if (!t)
		return -ENOMEM;
	t->items++;
	*item = (struct lane_item){.tenant = t, .language = language, .class = class};
	list_init(&item->link);
	return 0;
}

void lanes_leave(struct lanes *l, struct lane_item *item)
{
	struct lane_tenant *t = item->tenant;

	if (!t)
		return;
	lanes_ended(item);
	item->tenant = NULL;
	if (--t->items)
		return;
	(void)map_remove(&l->tenants, t->name, strlen(t->name));
	free(t);
}

void lanes_started(struct lane_item *item)
{
	item->tenant->running += !item->running;
	item->running = true;
}

void lanes_ended(struct lane_item *item)
{
	item->tenant->running -= item->running;
	item->running = false;
}

/* ---- waiting ---- */

static struct lane *lane_of(const struct lane_item *item)
{
	return &item->tenant->lanes[item->language * _TASK_CLASS_MAX + item->class];
}

static struct list *turns_of(struct lanes *l, const struct lane_item *item)
{
	return &l->classes[item->class].turns[item->language];
}

static void count_in(struct lanes *l, enum task_class class)
{
	struct class_lanes *cl = &l->classes[class];

	if (!cl->count++ && cl->pass < l->now)
		cl->pass = l->now;
}

void lanes_push(struct lanes *l, struct lane_item *item)
{
	struct lane *lane = lane_of(item);

	count_in(l, item->class);
	list_push_back(&lane->items, &item->link);
	if (list_empty(&lane->turn))
		list_push_back(turns_of(l, item), &lane->turn);
}

void lanes_push_front(struct lanes *l, struct lane_item *item)
{
	struct lane *lane = lane_of(item);

	count_in(l, item->class);
	list_push_front(&lane->items, &item->link);
	if (list_empty(&lane->turn))
		list_push_front(turns_of(l, item), &lane->turn);
}

void lanes_remove(struct lanes *l, struct lane_item *item)
{
	struct lane *lane = lane_of(item);

	l->classes[item->class].count--;
	list_unlink(&item->link);
	if (list_empty(&lane->items))
		list_unlink(&lane->turn);
}

/* ---- taking ---- */

static bool has_room(const struct lane_tenant *t)
{
	return !t->running_max || t->running < t->running_max;
}

/* The lane of this class whose turn it is; NULL when none of them can be run. */
static struct lane *next_lane(const struct lanes *l, const struct class_lanes *class,
			      bool (*may_run)(void *ctx, size_t language), void *ctx)
{
	for (size_t i = 0; i < l->n_languages; i++) {
		size_t language = (class->turn + i) % l->n_languages;
		struct lane *lane;

		if (list_empty(&class->turns[language]) || !may_run(ctx, language))
			continue;
		LIST_FOREACH (lane, &class->turns[language], turn)
			if (has_room(lane->tenant))
				return lane;
	}
	return NULL;
}

struct lane_item *lanes_take(struct lanes *l, bool (*may_run)(void *ctx, size_t language),
			     void *ctx)
{
	struct class_lanes *best = NULL;
	struct lane *best_lane = NULL;
	struct lane_item *item;

	for (int c = 0; c < _TASK_CLASS_MAX; c++) {
		struct class_lanes *class = &l->classes[c];
		struct lane *lane;

		if (!class->count || (best && best->pass <= class->pass))
			continue;
		lane = next_lane(l, class, may_run, ctx);
		if (!lane)
			continue;
		best = class;
		best_lane = lane;
	}
	if (!best)
		return NULL;
	item = container_of(best_lane->items.next, struct lane_item, link);
	lanes_remove(l, item);
	if (!list_empty(&best_lane->items)) {
		list_unlink(&best_lane->turn);
		list_push_back(turns_of(l, item), &best_lane->turn);
	}
	best->turn = item->language + 1;
	l->now = best->pass;
	best->pass += best->stride;
	return item;
}

size_t lanes_count(const struct lanes *l)
{
	size_t n = 0;

	for (int c = 0; c < _TASK_CLASS_MAX; c++)
		n += l->classes[c].count;
	return n;
}
