/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The roles of "kiln serve" in one process: store, queue, cache, bus, scheduler, pods and API on
 * one loop, opened in that order and closed in the opposite one. Runs in the child that the keeper
 * made, without privileges.
 */

#include "base/err.h"
#include "config/config.h"
#include "task/language.h"

/* Serves until told to end by SIGTERM or SIGINT; blocks. 0 after an orderly end. keeper_fd is
 * taken. */
int server_run(const struct config *cfg, struct language_registry *languages, int keeper_fd,
	       struct err *e);
