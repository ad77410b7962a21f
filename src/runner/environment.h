/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The environment of a step: a few fixed variables and those of the language, which may replace
 * them. Nothing of the runner's own environment goes in.
 */

#include "base/err.h"
#include "task/language.h"

/* "NAME=value" texts and NULL at the end; the caller's, by environment_free. */
int environment_new(const struct language *l, char ***ret_envp, struct err *e);
/* One more; 0 or -ENOMEM, and then it is as it was. */
int environment_add(char ***envp, const char *name, const char *value);
void environment_free(char **envp); /* accepts NULL */
