/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The tests that every bus has to pass, where nothing goes wrong with its carrier. */

#include "unit.h"

struct bus_backend {
	const char *(*fresh)(void); /* the URL of a bus that nobody else uses */
};

extern const struct bus_backend *bus_backend; /* to be set before the table is run */
extern const struct CMUnitTest bus_suite[];
extern const size_t bus_suite_count;
