/* SPDX-License-Identifier: Apache-2.0 */
#include "queue_suite.h"

static const char *fresh(void)
{
	return "memory:";
}

static const struct queue_backend backend = {
	.fresh = fresh, .hand_back_front = true, .exact = true};

int main(void)
{
	queue_backend = &backend;
	return _cmocka_run_group_tests("queue in memory", queue_suite, queue_suite_count, NULL,
				       NULL);
}
