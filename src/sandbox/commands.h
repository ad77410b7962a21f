/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Subcommands of kiln-sandbox for people and scripts. Each returns the exit code. */

/* The one that argv[1] names, or help. */
int command(int argc, char **argv);

/* `run`: one program in a sandbox of its own, through the same spawner and client as the runner. */
int command_run(int argc, char **argv);
/* `probe`: what this host offers, as key=value lines, and what each missing part costs. */
int command_probe(int argc, char **argv);
/* Path of this program. */
const char *command_self(void);
