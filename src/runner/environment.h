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
void environment_free(char **envp); /* accepts NULL */
