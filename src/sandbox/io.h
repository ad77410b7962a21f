/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Small files of the kernel (cgroupfs, /proc) read and written whole, without stdio or malloc.
 * 0 or positive is success, negative errno failure. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads at most size - 1 bytes and terminates; returns the length. */
int io_read_at(int dirfd, const char *name, char *buf, size_t size);
/* The same of an open file, from its start. */
int io_read_start(int fd, char *buf, size_t size);
int io_write_at(int dirfd, const char *name, const char *text, int extra_flags);
int io_write_u64_at(int dirfd, const char *name, uint64_t value, int extra_flags);
/* One unsigned number at the start of text; ret_end may be NULL. */
int io_parse_u64(const char *text, uint64_t *ret_value, const char **ret_end);
/* "key value" lines, as in cpu.stat and memory.events. -ENOENT when the key is not there. */
int io_find_u64(const char *text, const char *key, uint64_t *ret_value);
int io_read_u64_at(int dirfd, const char *name, uint64_t *ret_value);
uint64_t io_now_nsec(void); /* CLOCK_MONOTONIC */
/* Whether a negative errno says that the machine lacked something just now (memory, descriptors),
 * and nothing about what was asked for. */
bool io_is_shortage(int error);
