/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which task is next. Tasks wait in lanes, one per language, priority class and tenant. Classes
 * share by weight (stride scheduling: Waldspurger and Weihl, "Stride Scheduling", 1995): each
 * taking of a task moves its class on by 1/weight, and the class that is least far goes next; so no
 * class with tasks ever waits for ever. Within a class the languages take turns, within a language
 * the tenants do, and within a lane the oldest goes first. A lane whose language no runner can take
 * at this moment is passed over, and so is one whose tenant runs as many tasks as it may; neither
 * loses its turn. A class that was empty starts where the others are: it saves up no credit.
 *
 * No clock, no I/O: the order is a function of the calls.
 */

#include "base/err.h"
#include "base/list.h"
#include "task/task.h"

#include <stdbool.h>
#include <stddef.h>

struct lanes;
struct lane_tenant;

/* The part of a waiting task that lanes need; embedded in the owner's structure. */
struct lane_item {
	struct list link;
	struct lane_tenant *tenant; /* from lanes_enter to lanes_leave */
	size_t language;
	enum task_class class;
	bool running;
};

/* How many tasks of a tenant may run at one time; 0: as many as there are. */
struct lanes_limit {
	size_t (*running_max)(void *ctx, const char *tenant);
	void *ctx;
};

int lanes_new(size_t n_languages, const unsigned weights[_TASK_CLASS_MAX],
	      const struct lanes_limit *limit, struct lanes **ret_lanes);
/* Asks for the limits of all tenants again. */
void lanes_refresh(struct lanes *l);
void lanes_free(struct lanes *l); /* all items have left */

/* Makes an item one of this tenant's; it does not wait yet. -ENOMEM. */
int lanes_enter(struct lanes *l, const char *tenant, size_t language, enum task_class class,
		struct lane_item *item);

/* The item is nobody's any more; it neither waits nor runs. */
void lanes_leave(struct lanes *l, struct lane_item *item);

void lanes_push(struct lanes *l, struct lane_item *item);

/* Back to the front: it had its turn, but could not be used. */
void lanes_push_front(struct lanes *l, struct lane_item *item);

/* Takes the next item among the languages for which may_run says yes; NULL when there is none. */
struct lane_item *lanes_take(struct lanes *l, bool (*may_run)(void *ctx, size_t language),
			     void *ctx);

/* Takes an item out that waits. */
void lanes_remove(struct lanes *l, struct lane_item *item);

/* Between these the item counts for its tenant's limit; each may be called twice. */
void lanes_started(struct lane_item *item);
void lanes_ended(struct lane_item *item);

size_t lanes_count(const struct lanes *l);
