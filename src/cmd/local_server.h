/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A server of one's own for as long as a command runs: `kiln serve` on a free port of 127.0.0.1,
 * with its data in a temporary folder.
 */

#include "base/cleanup.h"
#include "base/err.h"

struct local_server;

/* Starts it and waits until it can run tasks. Its messages are shown when it does not. */
int local_server_start(const char *languages_dir, struct local_server **ret_server, struct err *e);
/* Ends it and removes its data. */
void local_server_stop(struct local_server *s);
DEFINE_CLEANUP(struct local_server, local_server_stop);

const char *local_server_url(const struct local_server *s);
