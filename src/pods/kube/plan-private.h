/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the plan share. */

#include "pods/kube/plan.h"

/* A create that no event has shown yet. */
struct plan_expected {
	struct list link;
	char name[KUBE_POD_NAME_MAX];
	char pool[KUBE_POD_NAME_MAX];
	int64_t asked_ms;
	bool under_way;	  /* the server has not answered */
	bool seen;	  /* the watch was faster than the answer */
	bool before_list; /* answered before the list that is under way was begun */
};

void plan_note_failure(struct plan_pool *pool, int64_t now_ms);

void plan_nodes_fini(struct plan *p);
void plan_place_pod(const struct plan *p, struct plan_pod *pod);
/* What is wrong with the node of a pod, or NULL. */
const char *plan_node_trouble(const struct plan_pod *pod);

/* For a connection to come, or to come back. */
enum { PLAN_LOST_GRACE_MS = 15 * 1000 };

struct plan_step {
	struct plan *plan;
	int64_t now_ms;
	struct plan_action *actions;
	size_t n;
};

/* NULL where there is no room for one more in this step. */
struct plan_action *plan_add(struct plan_step *s, enum plan_verb verb, const char *name,
			     const char *why);
bool plan_order(struct plan_step *s, struct plan_pod *pod, enum plan_order what, const char *why);

/* pool: NULL where it is not known. */
void plan_look(struct plan_step *s, struct plan_pool *pool, struct plan_pod *pod);
void plan_look_expected(struct plan_step *s);
