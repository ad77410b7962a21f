/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A spawner that makes no sandboxes: the functions of sandbox/client.h that the runner calls, in
 * front of the real ones at link time. Requests are answered as told, by events that the loop sees
 * as it sees the real spawner's.
 */

#include "sandbox/client.h"

#include <stdbool.h>

enum { FAKE_EVENTS_MAX = 256 };

struct sandbox_client {
	int pipe[2]; /* holds a byte for each event */
	union sandbox_event events[FAKE_EVENTS_MAX];
	unsigned first, count;
	bool lost; /* receive says so */

	/* What is answered. */
	int prepare_result, start_result; /* of the calls themselves */
	bool prepare_fails;		  /* EXITED with SANDBOX_FAILED, RELEASED */
	bool quiet;			  /* no event follows a PREPARE or a START by itself */
	bool refuse_start;		  /* an error instead of the task's end */
	bool stands_by;			  /* boxes go on until they are killed; fds are kept */
	struct sandbox_event_exited end;  /* what every task ends with */

	/* What was asked. */
	unsigned prepares, starts, kills, releases, limits;
	unsigned last_box; /* of START */
	int fds[SANDBOX_BOXES_MAX]
	       [SANDBOX_TARGET_FD_MAX]; /* with stands_by: by their numbers inside; or -1 */
	uint64_t cookies[SANDBOX_BOXES_MAX];
};

struct sandbox_client *fake_spawner_new(void);
void fake_spawner_free(struct sandbox_client *c);

void fake_prepared(struct sandbox_client *c, unsigned box);
void fake_exited(struct sandbox_client *c, unsigned box, const struct sandbox_event_exited *x);
void fake_released(struct sandbox_client *c, unsigned box);
void fake_lost(struct sandbox_client *c);
