/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Places for interpreters that are spawners (zygote.h): each has a range of host ids, groups, and a
 * number of boxes of its own. What needs rights happens beside the start of the runner's spawner
 * (sandbox_client_new); afterwards a runner without any starts interpreters in these places, one in
 * each at a time, by a keeper (keeper.h). None of them has rights on the host.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/client.h"

enum {
	NURSERY_PLACES_MAX = 8,
	/* What an interpreter starts with, and goes by in its forks: a task's default. */
	NURSERY_STACK_BYTES = 8 << 20,
	NURSERY_FILES_MIN = 16, /* with fewer descriptors a fork has none left */
};

struct nursery;

unsigned int nursery_places(const struct nursery *n);
unsigned int nursery_boxes(const struct nursery *n);

/* Starts an interpreter in a place that has none, and does not wait for it: its client hears
 * SANDBOX_REPLY_CONFIGURED, or SANDBOX_REPLY_ERROR, or the end. The client's
 * sandbox_client_in_force is empty. */
int nursery_start(struct nursery *n, unsigned int place, const char *const *argv,
		  const char *const *envp, struct sandbox_client **ret_client, struct err *e);
