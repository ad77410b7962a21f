/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A loop for the suites of interfaces that answer from it. */

#include "unit.h"

#include <stdbool.h>
#include <uv.h>

static inline void loop_run_until(uv_loop_t *loop, const bool *done)
{
	while (!*done)
		(void)uv_run(loop, UV_RUN_ONCE);
}

/* A few turns, for what must not happen. */
static inline void loop_turn(uv_loop_t *loop)
{
	for (int i = 0; i < 5; i++)
		(void)uv_run(loop, UV_RUN_NOWAIT);
}

static inline void loop_on_closed(void *ctx)
{
	*(bool *)ctx = true;
}

static inline void loop_end(uv_loop_t *loop)
{
	(void)uv_run(loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(loop), 0);
}
