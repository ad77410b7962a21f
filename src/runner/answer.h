/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a resident compiler answers, read: bytes from a process that has worked on what a user sent,
 * to be taken for no more than that. The form is in docs/LANGUAGES.md.
 */

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
	ANSWER_HEAD = 4,	/* its length, without these */
	ANSWER_MAX = 8 << 20,	/* the rest; a compiler that has more to say declines */
	ANSWER_FILES_MAX = 256, /* as many as a sandbox hands out */
	ANSWER_DECLINED = -1,	/* exit code: compile it by another */
};

struct answer {
	int32_t exit_code;
	uint64_t cpu_usec;
	const char *text; /* what the compiler said, in the bytes that were read */
	size_t text_len;
	const uint8_t *files; /* and the files, checked */
	size_t files_len;
	uint32_t n_files;
};

/* The length that a head tells. */
uint32_t answer_length(const void *head);

/* All that follows the head. 0, or -EBADMSG where a length leads beyond its end or not to it, or a
 * name is none that a product may have. */
int answer_read(const void *bytes, size_t len, struct answer *ret_answer);

/* A sealed archive of those files that one of the patterns matches. */
int answer_pack(const struct answer *a, char *const *produces, int *ret_fd, struct err *e);
