/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The Kubernetes parts alone, driven by a test over standard input, one command a line, and telling
 * what happens on standard output, one JSON object a line. At the end of the input it closes what
 * it has and ends; under AddressSanitizer that tells of what was left.
 */

#include "base/buf.h"
#include "pods/kube/lines.h"

#include <uv.h>

struct harness {
	uv_loop_t loop;
	uv_pipe_t input;
	struct kube_lines lines;
	char chunk[4096];
	void (*command)(struct harness *h, char *line);
	void (*end)(struct harness *h);
	void *mode; /* the mode's own */
};

/* Cuts the next word off, which may be "". */
char *harness_word(char **line);

/* Prints {"event":"...",...}: fmt is the rest, JSON, begun with a comma, or "". */
void harness_say(const char *event, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A text as JSON; valid until the next but three calls. */
const char *harness_quote(const char *text);

/* The modes. Each sets command and end, and returns 0 or prints why not. */
int harness_calls(struct harness *h, int argc, char **argv);
int harness_reflect(struct harness *h, int argc, char **argv);
int harness_pods(struct harness *h, int argc, char **argv);
