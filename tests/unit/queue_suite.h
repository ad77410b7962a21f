/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The tests that every queue has to pass. The test program gives the URL of an empty one. */

#include "unit.h"

struct queue_backend {
	const char *(*fresh)(void);
};

extern const struct queue_backend *queue_backend; /* to be set before the table is run */
extern const struct CMUnitTest queue_suite[];
extern const size_t queue_suite_count;
