/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cmd.h"

#include "cmd/start.h"

const char cmd_scheduler_usage[] =
	"usage: kiln scheduler --store URL --queue URL --cache URL [--pods URL] [--KEY=VALUE...]\n"
	"\n"
	"Takes tasks from the queues and has them run. Any number may be started, on any\n"
	"machines; tasks of one that is lost are run by the others.\n"
	"\n"
	"  --store URL         postgresql://USER:PASSWORD@HOST:PORT/DATABASE\n"
	"  --queue URL         amqp://USER:PASSWORD@HOST:PORT/VHOST\n"
	"  --cache URL         redis://HOST:PORT/DB\n"
	"  --pods local:       runners of its own, on this machine (default)\n"
	"  --pods runners:NAME@HOST:PORT,...\n"
	"                      runners that listen (kiln-runner --listen); shared with other\n"
	"                      schedulers. runners:file=PATH reads such a list, one on a line,\n"
	"                      and again when it changes\n"
	"  --pods kubernetes:NAMESPACE\n"
	"                      pods that are made by demand from the PodTemplates there that have\n"
	"                      the label kiln/standby\n"
	"  --cluster-secret-file FILE\n"
	"                      the secret that their keys are made from (kiln runner-key)\n"
	"  --slots N           of local runners: tasks at one time (default: the number of CPUs)\n"
	"  --metrics-listen ADDR:PORT\n"
	"                      /healthz, /readyz and /metrics (default: 127.0.0.1:9465)\n"
	"  --config FILE       a YAML file with any of the keys\n"
	"\n"
	"Every key can be given in the file, as KILN_KEY in the environment, or as a flag, in\n"
	"rising order: `kiln config --keys`. Started as root, everything but the part that starts\n"
	"local runners gives up root. SIGTERM and Ctrl-C let tasks finish that run, for drain_ms,\n"
	"and hand the others back.\n";

int cmd_scheduler(int argc, char **argv)
{
	static const struct start how = {
		.roles = ROLE_SCHEDULER, .name = "scheduler", .apart = true};

	return start_process(&how, argc, argv);
}
