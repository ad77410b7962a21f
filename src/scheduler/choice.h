/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which runner gets a task, found without looking at all of them: the cost of a choice does not
 * grow with their number.
 *
 * Runners with the same languages are a group, of which there are about as many as pools. In a
 * group those that can take a task lie in lists by how much of their slots is taken, in sixteenths;
 * the last list has those that look full, since others have the rest of their slots. Where it does
 * not matter which runner it is, the one of the lowest list that was used last is taken: what is
 * idle stays idle, and can be given up.
 *
 * For compiled programs all runners of a group have places on a ring (Karger and others,
 * "Consistent Hashing and Random Trees", 1997), by their names alone: every scheduler finds the
 * same runner for the same program, so that its compile cache is hit, and only its share moves when
 * a runner goes.
 */

#include "base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct runner;
struct task_spec;
struct choice;

enum { CHOICE_LEVELS = 16 };

/* What of a runner is kept by the choice. */
struct choice_place {
	struct list link;
	struct choice_group *group; /* NULL: in none */
	int level;		    /* -1: it can take nothing */
	unsigned slots;		    /* as they are counted in the group; 0: not */
};

int choice_new(size_t languages, struct choice **ret_choice);
void choice_free(struct choice *c); /* no runner may be left in it */

/* One that has said which languages it has. -ENOMEM. */
int choice_add(struct choice *c, struct runner *r);
void choice_remove(struct choice *c, struct runner *r);
/* Its slots, its load or its willingness may have changed. Nothing where it was not added. */
void choice_update(struct choice *c, struct runner *r);

bool choice_any(const struct choice *c); /* can take something */
bool choice_can_run(const struct choice *c, size_t language);
/* Of runners that take tasks, also where all are taken. */
size_t choice_slots(const struct choice *c, size_t language);
bool choice_has(const struct choice *c,
		size_t language); /* some runner has it, also one that ends */

/* NULL: none can take it. spec: of a compiled program; NULL where it does not matter. */
struct runner *choice_find(const struct choice *c, size_t language, const struct task_spec *spec);
