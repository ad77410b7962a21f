/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cmd.h"

#include "cmd/start.h"

const char cmd_api_usage[] =
	"usage: kiln api --store URL --queue URL --cache URL [--listen ADDR:PORT] "
	"[--KEY=VALUE...]\n"
	"\n"
	"Serves the HTTP API and nothing else: tasks that it accepts are run by the schedulers\n"
	"(`kiln scheduler`) that use the same store, queue and cache. Any number may be started;\n"
	"each answers for all tasks.\n"
	"\n"
	"  --store URL         postgresql://USER:PASSWORD@HOST:PORT/DATABASE\n"
	"  --queue URL         amqp://USER:PASSWORD@HOST:PORT/VHOST\n"
	"  --cache URL         redis://HOST:PORT/DB\n"
	"  --listen ADDR:PORT  where to serve the API (default: 127.0.0.1:8080)\n"
	"  --config FILE       a YAML file with any of the keys\n"
	"\n"
	"Every key can be given in the file, as KILN_KEY in the environment, or as a flag, in\n"
	"rising order: `kiln config --keys`. Started as root, it becomes another user before it\n"
	"listens. SIGTERM and Ctrl-C end it once what was asked is answered.\n";

int cmd_api(int argc, char **argv)
{
	static const struct start how = {.roles = ROLE_API, .name = "api", .apart = true};

	return start_process(&how, argc, argv);
}
