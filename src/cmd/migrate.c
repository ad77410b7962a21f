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
	"Makes the tables of a PostgreSQL store, or brings them up to what this program knows;\n"
	"nothing else does. Servers refuse a database without them, and an older version of\n"
	"them; servers of the version before go on while they are brought up. Several may be\n"
	"started at once. The options are those of `kiln serve` that say where its store is:\n"
	"--store, --config.\n\n"
	"exit status: 0 where servers of this version can use the store now, also where it is\n"
	"newer and left as it is; 1 where it is too new for them, could not be reached or\n"
	"changed, or is not PostgreSQL; 64 for wrong options.\n";

int cmd_migrate(int argc, char **argv)
{
	AUTO(config_free) struct config *c = NULL;
	struct err e = {""};
	int from = 0, to = 0;

	if (config_load(argc, argv, environ, &c, &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	if (store_migrate(c->store, &from, &to, &e) < 0)
		return cmd_fail(EXIT_FAILED, &e);
	if (from > to)
		(void)printf(
			"The schema is at version %d, which is newer than this program's %d and "
			"can be used by it: nothing to do.\n",
			from, to);
	else if (from == to)
		(void)printf("The schema is at version %d: nothing to do.\n", to);
	else if (from == 0)
		(void)printf("Made the schema, version %d.\n", to);
	else
		(void)printf("Brought the schema from version %d to %d.\n", from, to);
	return EXIT_OK;
}
