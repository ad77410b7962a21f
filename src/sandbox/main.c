/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/box.h"
#include "sandbox/commands.h"
#include "sandbox/protocol.h"
#include "sandbox/spawner.h"

#include <string.h>

int main(int argc, char **argv)
{
	static struct spawner s = {.control = SANDBOX_CONTROL_FD};

	if (argc > 1 && strcmp(argv[1], "serve") == 0)
		return spawner_serve(&s);
	return command(argc, argv);
}
