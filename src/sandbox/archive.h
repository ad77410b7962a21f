/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Files and jobs in a memfd: how a program gets into a sandbox and how its products come out.
 *
 * An archive is a header and entries, each entry a fixed head, the name (not terminated) and the
 * bytes, every part padded to 8. A job is a header, its strings (argv, envp, collect patterns, each
 * terminated) and an archive. Both are written by the runner and read only by unprivileged code
 * inside the sandbox; collected output is an archive too, written by that code, and must be taken
 * for what it is: bytes from user code in a format that the reader checks.
 *
 * Names are relative, with '/' between parts, no empty part, no "." and no "..", no NUL, at most
 * ARCHIVE_NAME_MAX bytes and ARCHIVE_DEPTH_MAX parts. Directories are made as needed.
 */

#include "base/cleanup.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	ARCHIVE_NAME_MAX = 1024,
	ARCHIVE_DEPTH_MAX = 16,
	ARCHIVE_FILES_MAX = 4096,
	JOB_STRINGS_MAX = 4096,
	JOB_STRINGS_BYTES_MAX = 1 << 20, /* argv and environment; the kernel has its own limit */
	JOB_COLLECT_MAX = 64,
	JOB_LISTS_MAX = 2 * (JOB_STRINGS_MAX + 1) + JOB_COLLECT_MAX + 1,
};

struct archive_entry {
	const char *name; /* not terminated */
	size_t name_len;
	uint32_t mode; /* permission bits, 0777 at most */
	const void *data;
	uint64_t size;
};

/* Reads. All pointers are into the given memory, which must not change meanwhile. */
struct archive_reader {
	const uint8_t *data;
	size_t len;
	size_t pos;
	uint32_t left;
};

int archive_open(struct archive_reader *r, const void *data, size_t len);
/* 1 with an entry, 0 at the end, -EBADMSG. */
int archive_next(struct archive_reader *r, struct archive_entry *ret_entry);
/* Whether a name keeps the rules above. */
bool archive_name_valid(const char *name, size_t len);

/* Writes an archive or a job into a growing memfd. */
struct archive_writer;

int archive_writer_new(struct archive_writer **ret_writer, struct err *e);
void archive_writer_free(struct archive_writer *w);
DEFINE_CLEANUP(struct archive_writer, archive_writer_free);
int archive_add(struct archive_writer *w, const char *name, uint32_t mode, const void *data,
		size_t size, struct err *e);
/* Seals and returns the memfd; w is empty after it and may be freed. */
int archive_finish(struct archive_writer *w, int *ret_fd, struct err *e);

struct job_spec {
	const char *const *argv; /* NULL-terminated; argv[0] is the path executed, "/" in it or not:
				  * without one it is looked for in the PATH of envp */
	const char *const *envp; /* NULL-terminated */
	const char *const
		*collect; /* fnmatch patterns over paths below the work directory; NULL: none */
};

/* Writes job and files at once. files may be NULL when count is 0. Caller closes the fd. */
int job_write(const struct job_spec *spec, const struct archive_entry *files, size_t count,
	      int *ret_fd, struct err *e);

/* A job, read: pointers into the mapped memory. */
struct job {
	uint32_t argc, envc, collectc;
	const char *strings; /* argc + envc + collectc terminated strings */
	size_t strings_len;
	struct archive_reader files;
};

/* 0 or -EBADMSG. */
int job_open(struct job *j, const void *data, size_t len);
/* Fills argv/envp/collect arrays (each with room for its count + 1). 0 or -EBADMSG. */
int job_strings(const struct job *j, const char **argv, const char **envp, const char **collect);

/* Seals a memfd that was collected into, so that it can be the input of another task, and maps it
 * for reading. Caller unmaps with munmap(ret_data, ret_len) when ret_len is not 0. */
int archive_map(int fd, const void **ret_data, size_t *ret_len, struct err *e);
/* An empty memfd for collecting. */
int archive_output_new(int *ret_fd, struct err *e);
