#include "sandbox/commands.h"
int command_probe(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return 0;
}
