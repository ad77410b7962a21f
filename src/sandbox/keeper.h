/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * `kiln-sandbox keep`: starts interpreters that are spawners (zygote.h), for a runner that has no
 * right to any more. It is started with the rights of a spawner and gives them up before it starts
 * one: it enters a user namespace to which a range of host ids is mapped, and a network namespace
 * of that. There it is root, and may make what boxes need; on the host it is an id without rights.
 * Where there is no range it was started by an ordinary user, and stays one.
 *
 * SOCK_SEQPACKET on descriptor 3: one KEEPER_ENTER, whose answer is one byte when it wants its ids
 * mapped (which takes one byte to go on) and one byte when it is ready; then any number of
 * KEEPER_START, which are not answered: an interpreter that could not be started closes its socket.
 * At the end of file it ends, and removes the empty groups in those that came with ENTER; what it
 * started has sockets of its own.
 */

#include <stddef.h>
#include <stdint.h>

enum { KEEPER_ENTER = 1, KEEPER_START = 2 };
enum { KEEPER_TEXT_MAX = 4000, KEEPER_WORDS_MAX = 64, KEEPER_GROUPS_MAX = 4 };

struct keeper_order {
	uint32_t type;
	uint32_t maps; /* ENTER: whether ids are going to be mapped; with groups, if any */
	uint32_t argc, envc;
	/* START, with the interpreter's control socket: that many texts, each with its NUL. */
	char text[KEEPER_TEXT_MAX];
};

/* The command; returns the exit code. */
int command_keep(int argc, char **argv);
