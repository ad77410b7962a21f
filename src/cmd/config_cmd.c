/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "cmd/cmd.h"
#include "config/config.h"

#include <stdio.h>
#include <unistd.h>

const char cmd_config_usage[] =
	"usage: kiln config [OPTIONS]\n"
	"       kiln config --keys\n\n"
	"Prints the configuration that `kiln serve` with the same options would have: one YAML "
	"file\n"
	"(--config or KILN_CONFIG), the environment (KILN_LIMITS_CPU_MS=2s), options\n"
	"(--limits.cpu_ms=2s), the later over the earlier, each value with where it is from.\n"
	"--keys lists all keys with their meaning.\n";

int cmd_config(int argc, char **argv)
{
	AUTO(config_free) struct config *c = NULL;
	struct err e = {""};

	if (argc == 2 && str_eq(argv[1], "--keys")) {
		config_print_keys(stdout);
		return EXIT_OK;
	}
	if (config_load(argc, argv, environ, &c, &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	config_print(c, stdout);
	return EXIT_OK;
}
