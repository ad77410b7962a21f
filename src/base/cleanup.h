/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Ownership by scope. A variable declared with one of these releases what it holds when it goes
 * out of scope; ownership leaves through TAKE_PTR or TAKE_FD. Every cleanup keeps errno.
 *
 *	AUTO_FREE char *name = NULL;
 *	AUTO_FD int fd = -EBADF;
 *
 * DEFINE_CLEANUP(struct x, x_free) makes AUTO(x_free) usable for "struct x *".
 */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(f) __attribute__((cleanup(f)))

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

/* Closes *fd when it is one, keeps errno, and leaves -EBADF. */
static inline void cleanup_close(int *fd)
{
	int saved = errno;

	/* errno is not written in vain: in a process that was just forked that copies a page. */
	if (*fd >= 0 && close(*fd) < 0)
		errno = saved;
	*fd = -EBADF;
}

#define AUTO_FREE CLEANUP(cleanup_free)
#define AUTO_FD	  CLEANUP(cleanup_close)

#define DEFINE_CLEANUP(type, func)                                                                 \
	static inline void func##p(type **p)                                                       \
	{                                                                                          \
		if (*p)                                                                            \
			func(*p);                                                                  \
	}                                                                                          \
	struct cleanup_needs_semicolon
#define AUTO(func) CLEANUP(func##p)

#define TAKE_PTR(p)                                                                                \
	({                                                                                         \
		__typeof__(p) taken_ = (p);                                                        \
		(p) = NULL;                                                                        \
		taken_;                                                                            \
	})
#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int taken_ = (fd);                                                                 \
		(fd) = -EBADF;                                                                     \
		taken_;                                                                            \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member)                                                            \
	((type *)(void *)((char *)(ptr) - __builtin_offsetof(type, member)))
