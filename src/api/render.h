/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Tasks as JSON. Which members hold in which state, and are null in the others, is the contract's
 * table (openapi.yaml, schema Task); this is its only implementation. A task may have several
 * runs; the API shows the first.
 */

#include "base/buf.h"
#include "task/task.h"
#include "json/writer.h"

/* Room that one task can need at most, escapes and base64 counted, where streams have at most so
 * many bytes each. */
size_t render_task_max(const struct task_limits *run, const struct task_limits *compile);

void render_task(struct json_writer *w, const struct task *t);

/* What a list shows of a task: no outputs. */
void render_summary(struct json_writer *w, const struct task *t);

/* "SIGSEGV"; for numbers without a name "SIG45". */
void render_signal_name(int number, char *dst, size_t size);
