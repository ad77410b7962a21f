/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How far tasks are kept from the machine and from each other: which kind of spawner this runner
 * has, chosen by its options or by what works. With "sandbox" each task has boxes of namespaces,
 * and any number run after each other. With "pod" there are none: the place itself is the wall
 * (sandbox/pod.h), so that it takes one task, and ends.
 */

#include "base/err.h"
#include "runner/runner.h"
#include "sandbox/client.h"
#include "task/language.h"
#include "task/task.h"

struct isolation {
	bool pod;
	unsigned slots; /* at most as many as wanted */
	struct sandbox_client *spawner;
};

/* Starts the spawner, and holds what is in force against what is demanded. For a pod gives up root
 * before. boxes: for so many slots. */
int isolation_start(const struct runner_options *o, const struct language_registry *languages,
		    const char *setup_dir, unsigned (*boxes)(const struct runner_options *o),
		    struct isolation *ret, struct err *e);

/* Gives up root for good. Nothing to do for who never was. */
int isolation_drop_privileges(const struct runner_options *o, struct err *e);

/* As results have it. The texts are constant. */
/* Boxes of an interpreter that tasks are forked of. */
unsigned isolation_place_boxes(const struct runner_options *o);

void isolation_describe(const struct isolation *i, struct task_isolation *ret);
