/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * System calls that glibc 2.36 does not wrap, or that headers of Debian 12 know only in part.
 * Numbers are the same on every architecture since they are newer than 5.1. Each returns what the
 * kernel returns through errno, like its neighbours in libc. Manual pages: section 2.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Landlock rights newer than the headers here (ABI 3 and 5). */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif
/* Linux 6.13, of files 6.15. */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

static inline pid_t sys_clone3(struct clone_args *args)
{
	return (pid_t)syscall(SYS_clone3, args, sizeof(*args));
}

static inline int sys_openat2(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned int)flags, .mode = mode, .resolve = resolve};

	return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
}

static inline int sys_pivot_root(const char *new_root, const char *put_old)
{
	return (int)syscall(SYS_pivot_root, new_root, put_old);
}

static inline int sys_close_range(unsigned int first, unsigned int last, unsigned int flags)
{
	return (int)syscall(SYS_close_range, first, last, flags);
}

static inline int sys_pidfd_send_signal(int pidfd, int sig)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0u);
}

static inline int sys_seccomp(unsigned int operation, unsigned int flags, void *args)
{
	return (int)syscall(SYS_seccomp, operation, flags, args);
}

static inline int sys_landlock_create_ruleset(const void *attr, size_t size, uint32_t flags)
{
	return (int)syscall(SYS_landlock_create_ruleset, attr, size, flags);
}

static inline int sys_landlock_add_rule(int ruleset, unsigned int type, const void *attr)
{
	return (int)syscall(SYS_landlock_add_rule, ruleset, type, attr, 0u);
}

static inline int sys_landlock_restrict_self(int ruleset)
{
	return (int)syscall(SYS_landlock_restrict_self, ruleset, 0u);
}

/* Has fork copy the page tables of the mapping around an unused page, as it does for one that ever
 * had a guard page, where otherwise each child fills its own. Older kernels know no such pages, and
 * nothing changes. */
static inline void sys_copy_tables_on_fork(uintptr_t page)
{
	if (madvise((void *)page, 4096, MADV_GUARD_INSTALL) == 0)
		(void)madvise((void *)page, 4096, MADV_GUARD_REMOVE);
}

/* Empties the page tables of the program's code. Only what is executed from here on is mapped
 * again, by faults of 64 KiB each, and what is not need neither be copied for a child nor taken
 * apart. */
static inline void sys_unmap_code(void)
{
	/* Only a program has the first; what an interpreter loads has not. */
	extern const char __executable_start[] __attribute__((weak, visibility("hidden"))), etext[];

	if (__executable_start)
		(void)madvise((void *)(uintptr_t)__executable_start,
			      (size_t)(etext - __executable_start) & ~(size_t)4095, MADV_DONTNEED);
}
