/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The thread that posts spans. Private to this folder.
 */

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct export;

/* endpoint without /v1/traces; headers as in trace_config; resource: the OTLP Resource as JSON. All
 * are copied. */
int export_open(const char *endpoint, char *const *headers, const char *resource,
		struct export **ret_export, struct err *e);
void export_close(struct export *x); /* sends what is there, within two seconds */

/* Takes one span as JSON; false where there is no room. */
bool export_put(struct export *x, const struct buf *span);

struct export_counts {
	uint64_t exported, dropped; /* ever */
};
struct export_counts export_counts(struct export *x);
