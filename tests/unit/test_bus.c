/* SPDX-License-Identifier: Apache-2.0 */
#include "bus_suite.h"

static const char *fresh(void)
{
	return "memory:";
}

static const struct bus_backend backend = {.fresh = fresh};

int main(void)
{
	bus_backend = &backend;
	return _cmocka_run_group_tests("bus in one process", bus_suite, bus_suite_count, NULL,
				       NULL);
}
