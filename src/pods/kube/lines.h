/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Cuts a stream of bytes into lines, each of which has a bound of its own: an event of a watch is a
 * line, and a server that never ends one must not fill the memory.
 */

#include "base/buf.h"

struct kube_lines {
	struct buf rest; /* of the line that has no end yet */
};

/* text has a NUL behind it, and no newline. A negative result ends the feeding with it. */
typedef int (*kube_line_cb)(void *ctx, const char *text, size_t len);

void kube_lines_init(struct kube_lines *l, size_t line_max);
void kube_lines_fini(struct kube_lines *l);

/* Forgets what has no end yet, and lets go of its memory. */
void kube_lines_clear(struct kube_lines *l);

/* Lines that are empty are skipped. -EMSGSIZE where one is too long, -ENOMEM. */
int kube_lines_feed(struct kube_lines *l, const char *bytes, size_t len, kube_line_cb line,
		    void *ctx);
