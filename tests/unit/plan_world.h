/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A small cluster around a plan: steps are made, and what they ask for happens at once or when the
 * test lets it. Times are milliseconds; nothing waits.
 */

#include "pods/kube/plan.h"
#include "unit.h"

struct world {
	struct plan plan;
	int64_t now_ms;
	uint64_t waiting; /* tasks, of every pool */
	bool blind;	  /* what waits cannot be asked */
	bool hold;	  /* creates are not answered and not seen */
	int refuse;	  /* that many creates are refused */
	unsigned versions;
	struct plan_action actions[PLAN_ACTIONS_MAX];
	size_t n;	    /* of the last step */
	unsigned counts[4]; /* actions ever, by verb */
};

int world_setup(void **state);
int world_teardown(void **state);

/* A PodTemplate; image makes the revision. notes: `"kiln/max":"5",...`. */
void world_template(struct world *w, const char *name, const char *image, const char *notes);

/* A step, and what it asks for: creates are answered and seen as pending pods, drained runners say
 * that they refuse and end where they have no task, deleted pods are gone. */
void world_step(struct world *w);

/* n steps, a second apart. */
void world_run(struct world *w, int n);

/* All pods that start become ready and connected, with so many slots. */
void world_start_all(struct world *w, uint32_t slots);
void world_phase(struct world *w, struct plan_pod *pod, enum kube_phase phase);
void world_use(struct world *w, struct plan_pod *pod, uint32_t used);

/* One more ended task; where it was the last of a pod that drains, the pod ends. */
void world_finish(struct world *w, struct plan_pod *pod);

size_t world_count(struct world *w, enum plan_state state);
struct plan_pod *world_any(struct world *w, enum plan_state state); /* NULL: none */
size_t world_revision(struct world *w, const char *pool);	    /* pods of the pool's newest */
size_t world_asked(const struct world *w, enum plan_verb verb);	    /* in the last step */
