/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/lanes.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>

enum { STRIDE_ONE = 1 << 20 };

struct class_lanes {
	struct list *lanes; /* by language */
	size_t count;
	size_t turn;	 /* language after the one that went last */
	uint64_t pass;	 /* how far the class has come */
	uint64_t stride; /* STRIDE_ONE / weight */
};

struct lanes {
	size_t n_languages;
	uint64_t now; /* pass of the class that went last */
	struct class_lanes classes[_TASK_CLASS_MAX];
};

int lanes_new(size_t n_languages, const unsigned weights[_TASK_CLASS_MAX], struct lanes **ret_lanes)
{
	struct lanes *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	l->n_languages = n_languages;
	for (int c = 0; c < _TASK_CLASS_MAX; c++) {
		struct class_lanes *class = &l->classes[c];

		class->stride = STRIDE_ONE / (weights[c] ? weights[c] : 1);
		class->lanes = calloc(n_languages + 1, sizeof *class->lanes);
		if (!class->lanes) {
			lanes_free(l);
			return -ENOMEM;
		}
		for (size_t i = 0; i < n_languages; i++)
			list_init(&class->lanes[i]);
	}
	*ret_lanes = l;
	return 0;
}

void lanes_free(struct lanes *l)
{
	if (!l)
		return;
	for (int c = 0; c < _TASK_CLASS_MAX; c++)
		free(l->classes[c].lanes);
	free(l);
}

static struct list *lane_for_push(struct lanes *l, size_t language, enum task_class class)
{
	struct class_lanes *cl = &l->classes[class];

	if (!cl->count++ && cl->pass < l->now)
		cl->pass = l->now;
	return &cl->lanes[language];
}

void lanes_push(struct lanes *l, size_t language, enum task_class class, struct lane_item *item)
{
	list_push_back(lane_for_push(l, language, class), &item->link);
}

void lanes_push_front(struct lanes *l, size_t language, enum task_class class,
		      struct lane_item *item)
{
	list_push_front(lane_for_push(l, language, class), &item->link);
}

/* The language of this class whose turn it is; -1 when none of them can be run. */
static ssize_t next_language(const struct lanes *l, const struct class_lanes *class,
			     bool (*may_run)(void *ctx, size_t language), void *ctx)
{
	for (size_t i = 0; i < l->n_languages; i++) {
		size_t language = (class->turn + i) % l->n_languages;

		if (!list_empty(&class->lanes[language]) && may_run(ctx, language))
			return (ssize_t)language;
	}
	return -1;
}

struct lane_item *lanes_take(struct lanes *l, bool (*may_run)(void *ctx, size_t language),
			     void *ctx)
{
	struct class_lanes *best = NULL;
	struct lane_item *item;
	ssize_t best_language = -1;

	for (int c = 0; c < _TASK_CLASS_MAX; c++) {
		struct class_lanes *class = &l->classes[c];
		ssize_t language;

		if (!class->count || (best && best->pass <= class->pass))
			continue;
		language = next_language(l, class, may_run, ctx);
		if (language < 0)
			continue;
		best = class;
		best_language = language;
	}
	if (!best)
		return NULL;
	item = container_of(best->lanes[best_language].next, struct lane_item, link);
	list_unlink(&item->link);
	best->count--;
	best->turn = (size_t)best_language + 1;
	l->now = best->pass;
	best->pass += best->stride;
	return item;
}

void lanes_remove(struct lanes *l, enum task_class class, struct lane_item *item)
{
	l->classes[class].count--;
	list_unlink(&item->link);
}

size_t lanes_count(const struct lanes *l)
{
	size_t n = 0;

	for (int c = 0; c < _TASK_CLASS_MAX; c++)
		n += l->classes[c].count;
	return n;
}
