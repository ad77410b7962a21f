/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What stands between a task and the machine, held against what the operator demands. */

#include "base/err.h"
#include "runner/runner.h"
#include "sandbox/protocol.h"

/* -EPERM naming what is missing of the walls wanted (enum runner_wall). */
int walls_check(const struct sandbox_reply_configured *in_force, unsigned wanted, struct err *e);
