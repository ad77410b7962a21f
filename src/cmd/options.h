/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Options of the client commands, by a table: "--name value", "--name=value", and "--flag". "--"
 * ends them. Names that are not in the table are errors with a near one.
 */

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { OPTION_LIST_MAX = 100 };

struct option_list {
	const char *items[OPTION_LIST_MAX];
	size_t n;
};

/* Exactly one of the pointers is set. */
struct option_row {
	const char *name; /* without the dashes */
	const char **text;
	bool *flag;
	struct option_list *list; /* may be given several times */
};

enum option_order {
	OPTIONS_ANYWHERE, /* between the other arguments too */
	OPTIONS_FIRST,	  /* up to the first other argument */
};

/* Moves what is no option to the front of argv (from argv[1]) and returns how many there are. */
int options_parse(int argc, char **argv, const struct option_row *rows, size_t n,
		  enum option_order order, struct err *e);
