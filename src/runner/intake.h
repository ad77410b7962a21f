/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A task as it comes in: ASSIGN, and CONTENT frames for what was too big for it. The sizes that
 * ASSIGN names are binding: contents must fill them exactly, in order.
 */

#include "base/err.h"
#include "base/traceparent.h"
#include "task/language.h"
#include "task/task.h"
#include "wire/codec.h"

#include <stddef.h>
#include <stdint.h>

enum {
	INTAKE_BYTES_MAX = 64 * 1024 * 1024, /* files and standard inputs of one task together */
};

struct intake {
	struct uuid id;
	char tenant[TASK_TENANT_MAX + 1];
	char traceparent[TRACEPARENT_LEN + 1]; /* "": none */
	struct task_program program;
	struct task_run *runs;
	size_t n_runs;
	size_t *file_sizes, *stdin_sizes; /* what each will hold */
	size_t missing;			  /* bytes that are still to come */
};

/* Fills a zeroed intake; intake_fini is right after a failure too. -EBADMSG: the frame is wrong. */
int intake_init(struct intake *in, const Kiln__Assign *m, struct err *e);
void intake_fini(struct intake *in);

/* Complete when missing is 0. -EBADMSG where nothing is missing there, or not as much. */
int intake_content(struct intake *in, const Kiln__Content *m, struct err *e);

/* What is said of a whole task: names of files, entry, limits. -EINVAL with a message for the
 * user of the task; fills unset limits from the language and from built-in defaults. */
int intake_check(struct intake *in, const struct language *l, struct err *e);
