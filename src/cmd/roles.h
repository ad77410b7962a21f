/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The roles that a process has, put together on one loop: store, queue, cache and bus for all of
 * them, the scheduler with its pods, the API, or a monitor where there is no API. Opened in an
 * order in which each finds what it uses, and closed in the opposite one.
 */

#include "base/err.h"
#include "config/config.h"
#include "task/language.h"

enum role { ROLE_API = 1 << 0, ROLE_SCHEDULER = 1 << 1 };

struct roles_config {
	const struct config *cfg;
	unsigned roles; /* enum role, at least one */
	struct language_registry *languages;
	const void *secret; /* the cluster's, for pods that are remote */
	size_t secret_len;
	int keeper_fd; /* for pods that are local, else negative; taken */
};

/* Serves until told to end by SIGTERM or SIGINT; blocks. 0 after an orderly end. */
int roles_run(const struct roles_config *cfg, struct err *e);
