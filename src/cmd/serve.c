/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cmd.h"

#include "cmd/start.h"

const char cmd_serve_usage[] =
	"usage: kiln serve [--listen ADDR:PORT] [--data-dir DIR] [--slots N] [--KEY=VALUE...]\n"
	"\n"
	"Starts a server on one machine: the HTTP API, the scheduler, a local runner with its\n"
	"sandboxes, and a store that survives a restart.\n"
	"\n"
	"  --listen ADDR:PORT  where to serve the API (default: 127.0.0.1:8080)\n"
	"  --data-dir DIR      where tasks and results are kept (default: /var/lib/kiln for\n"
	"                      root, else ~/.local/share/kiln)\n"
	"  --slots N           tasks that run at one time (default: the number of CPUs)\n"
	"  --config FILE       a YAML file with any of the keys\n"
	"  --open              serve other machines without API keys: anybody may run code\n"
	"\n"
	"Every key can be given in the file, as KILN_KEY in the environment, or as a flag, in\n"
	"rising order. `kiln config --keys` explains all keys, `kiln config` prints what is in\n"
	"force. Started as root, everything but the part that starts runners gives up root\n"
	"before it listens. SIGTERM and Ctrl-C let tasks finish that run.\n";

int cmd_serve(int argc, char **argv)
{
	static const struct start how = {.roles = ROLE_API | ROLE_SCHEDULER, .name = "serve"};

	return start_process(&how, argc, argv);
}
