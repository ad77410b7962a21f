/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * kiln-zygote.so: a spawner inside of an interpreter. An interpreter that has started, and imported
 * what programs import, loads this and calls kiln_zygote_serve, which is `kiln-sandbox serve` with
 * one difference: a task does not execute its command, it goes on as the interpreter. So every box
 * is prepared with an interpreter that has started in it.
 *
 * It is to be loaded where it has no right on the host: see keeper.h.
 */

#include <stddef.h>

struct zygote_program {
	const char **argv; /* the whole command; NULL-terminated, like the next */
	const char **envp;
};

/* Called once, with one thread, in a process that holds nothing but descriptors 0, 1, 2 and the
 * control socket, which protocol.h describes. It returns in the task of a box: inside all walls,
 * in the work directory that has the program's files, with the signals' actions all default. */
void kiln_zygote_serve(int control_fd, struct zygote_program *ret_program);

/* For Python, which tells nobody how a program ends: from here on it is noted that a SystemExit was
 * made, or sys.exit called, which is given. 0, or -1 where that cannot be. */
int kiln_zygote_watch(void *exit);
int kiln_zygote_exits(void); /* how often that was */

/* Ends the process with code 0, and writes out what libc holds back. */
_Noreturn void kiln_zygote_leave(void);
