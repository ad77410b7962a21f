/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Between language.c (the registry) and language_load.c (the reading of one file). */

#include "task/language.h"

/* Reads one file. The language is empty but allocated; on failure it is to be freed all the same.
 */
int language_load_file(const char *path, struct language *l, struct err *e);
void language_free(struct language *l);
DEFINE_CLEANUP(struct language, language_free);
