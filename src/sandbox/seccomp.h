/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The system call policy of a sandbox. Compiled once at start by the client (never in the spawner,
 * which only installs what it is handed) into classic BPF, from one table per kind in seccomp.c.
 *
 * A deny list: what namespaces do not isolate, large interfaces of the kernel that a program which
 * runs once has no use for, and everything newer than the table. Denied calls give ENOSYS ("this
 * kernel does not have it") where runtimes have a fallback for that, EPERM or EAFNOSUPPORT where
 * programs expect those. A foreign ABI (i386 and x32 on x86-64) is killed with SIGSYS. It is the
 * second of three walls, behind the namespaces and before Landlock.
 *
 * Written by hand rather than with libseccomp: the bound on newer numbers and the exact 32-bit
 * comparisons cannot be said there, and it needs no library.
 */

#include "base/err.h"

#include <linux/filter.h>
#include <stddef.h>

/* In a pod's boxes, which have no namespaces, some more is denied. */
enum sandbox_place { SANDBOX_IN_NAMESPACES, SANDBOX_IN_POD };

/* Into a sealed memfd of struct sock_filter[], for sandbox_client_options.seccomp_fd. Caller
 * closes. */
int sandbox_seccomp_compile(enum sandbox_place place, int *ret_fd, struct err *e);
/* Into an array of room max. Returns the length or -E2BIG. For tests. */
int sandbox_seccomp_program(enum sandbox_place place, struct sock_filter *program, size_t max);
