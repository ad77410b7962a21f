/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The beginning of every process that serves: configuration, what is checked and prepared with the
 * rights that it was started with, the keeper where runners are local, then roles_run with those
 * rights given up.
 */

#include "cmd/roles.h"

struct start {
	const char *name; /* of the subcommand */
	unsigned roles;	  /* enum role */
	bool apart;	  /* others have the other roles: nothing may be kept in this process */
};

/* As the run of a command: argv[0] is its name, and the exit status is returned. */
int start_process(const struct start *how, int argc, char **argv);
