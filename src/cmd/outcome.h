/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What came of a task, for people and for the shell.
 */

#include "base/buf.h"
#include "cmd/client.h"

#include <jansson.h>
#include <stdbool.h>

/* A text field of an object; "" where it is absent or no text. */
const char *outcome_text(const json_t *object, const char *name);

/* Bytes of "stdout" or "stderr" of a result, decoded, onto the end of b. */
int outcome_output(const json_t *task, const char *stream, struct buf *b);

bool outcome_is_final(const json_t *task);

/* Waits until the task is final, showing progress on a terminal; replaces *task and *text (which
 * may be NULL). wait_s < 0: as long as it takes. Returns 1 when final, 0 when the time was up. */
int outcome_wait(struct client *c, json_t **task, struct buf *text, double wait_s, struct err *e);

/* Writes the program's output to ours, byte for byte, and what else there is to say (compiler
 * messages, limits, signals) to standard error. */
int outcome_print(const json_t *task, struct err *e);

/* The exit status of `kiln run` for a final task. */
int outcome_exit_status(const json_t *task);
