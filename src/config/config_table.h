/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The table of keys, and values from text by its rows. */

#include "config/config.h"

#include <stddef.h>

enum { CONFIG_ORIGIN_MAX = 160 };

struct config_origin {
	char text[CONFIG_ORIGIN_MAX];
};

enum config_kind {
	CONFIG_TEXT,	/* char * */
	CONFIG_LIST,	/* char **; in flags and environment with commas between */
	CONFIG_CHOICE,	/* char *, one of the words in choices */
	CONFIG_BOOL,	/* bool */
	CONFIG_INT,	/* int64_t */
	CONFIG_BYTES,	/* int64_t */
	CONFIG_MS,	/* int64_t */
	CONFIG_LOGLEVEL /* enum log_level */
};

struct config_key {
	const char *name; /* dots between the levels of the file */
	enum config_kind kind;
	size_t offset;
	int64_t min, max;
	const char *preset; /* as text; NULL: found out at start, see help */
	const char *help;
	bool address;	     /* may hold a password; a list: of headers */
	const char *choices; /* words with blanks between */
};

extern const struct config_key config_keys[];
extern const size_t config_keys_count;

/* Sets the field of a key. The message has no place in it: the caller wraps it. */
int config_set(struct config *c, const struct config_key *k, const char *text, struct err *e);
/* Copies, for CONFIG_LIST; items ends with NULL. */
int config_set_list(struct config *c, const struct config_key *k, char *const *items,
		    struct err *e);

void config_fini_key(struct config *c, const struct config_key *k);
