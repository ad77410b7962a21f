/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* `kiln languages check`: the check programs of the language files, through a server. */

#include "cmd/client.h"

struct check_options {
	const struct client_options *client; /* a server that is named here or by KILN_SERVER is
						used; else one is started */
	const char *languages_dir;	     /* NULL: those of this installation */
	char *const *names;
	size_t n_names; /* 0: all */
};

/* Prints a table. Returns how many languages failed, or a negative errno. */
int check_languages(const struct check_options *o, struct err *e);
