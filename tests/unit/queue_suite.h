/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The tests that every queue has to pass. The test program gives the URL of an empty one. */

#include "unit.h"

#include <stdbool.h>

struct queue_backend {
	const char *(*fresh)(void);
	void (*drop)(void);   /* what the last fresh one left behind; may be NULL */
	bool hand_back_front; /* what is handed back comes again before all others */
	/* Counts are exact at once; otherwise within COUNT_MS of the suite. */
	bool exact;
	int settle_ms; /* how long to wait for what must not come */
};

extern const struct queue_backend *queue_backend; /* to be set before the table is run */
extern const struct CMUnitTest queue_suite[];
extern const size_t queue_suite_count;
