/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/commands.h"

#include "base/cleanup.h"
#include "sandbox/keeper.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
	"kiln-sandbox runs programs that are not to be trusted.\n"
	"\n"
	"  kiln-sandbox run [limits] -- PROGRAM [ARGUMENT...]   one program, now\n"
	"  kiln-sandbox probe                                   what this host offers\n"
	"  kiln-sandbox serve                                   spawner for kiln-runner (on fd 3)\n"
	"  kiln-sandbox keep                                    starts interpreters for it (on fd "
	"3)\n"
	"\n"
	"`kiln-sandbox run --help` lists the limits. Try:\n"
	"\n"
	"  kiln-sandbox run --cpu 1s --memory 64MiB -- /usr/bin/python3 -c 'print(6 * 7)'\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {{"run", command_run}, {"probe", command_probe}, {"keep", command_keep}};

const char *command_self(void)
{
	return "/proc/self/exe";
}

int command(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		(void)fputs(help, stdout);
		return 0;
	}
	if (argc > 1)
		(void)fprintf(stderr, "kiln-sandbox: there is no command \"%s\"\n\n", argv[1]);
	(void)fputs(help, stderr);
	return 2;
}
