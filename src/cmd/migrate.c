/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "cmd/cmd.h"
#include "config/config.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

const char cmd_migrate_usage[] =
	"usage: kiln migrate [OPTIONS]\n\n"
	"Brings the schema of a PostgreSQL store up to what this program knows. Servers refuse one "
	"that\n"
	"is older; those of the version before go on while it is brought up. Several may be "
	"started "
	"at\n"
	"once. The options are those of `kiln serve` that say where its store is: --store, "
	"--config.\n";

int cmd_migrate(int argc, char **argv)
{
	AUTO(config_free) struct config *c = NULL;
	struct err e = {""};
	int from = 0, to = 0;

	if (config_load(argc, argv, environ, &c, &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	if (store_migrate(c->store, &from, &to, &e) < 0)
		return cmd_fail(EXIT_FAILED, &e);
	if (from == to)
		(void)printf("The schema is at version %d: nothing to do.\n", to);
	else if (from == 0)
		(void)printf("Made the schema, version %d.\n", to);
	else
		(void)printf("Brought the schema from version %d to %d.\n", from, to);
	return EXIT_OK;
}
