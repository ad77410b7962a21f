/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A submission made from options and files: what `kiln run` and `kiln submit` send.
 */

#include "cmd/client.h"

#include <stdbool.h>

struct submission {
	const char *language; /* NULL: by the extension of the file, as the server tells */
	const char *stdin_path;
	const char *priority, *deadline;
	const char *cpu, *wall, *memory, *processes, *output; /* limits */
	struct option_list files;			      /* further files, PATH or NAME=PATH */
	bool stdin_passed; /* our own standard input is the program's */
};

#define SUBMISSION_OPTION_ROWS(s)                                                                  \
	{.name = "language", .text = &(s)->language}, {.name = "stdin", .text = &(s)->stdin_path}, \
		{.name = "priority", .text = &(s)->priority},                                      \
		{.name = "deadline", .text = &(s)->deadline}, {.name = "cpu", .text = &(s)->cpu},  \
		{.name = "wall", .text = &(s)->wall}, {.name = "memory", .text = &(s)->memory},    \
		{.name = "processes", .text = &(s)->processes},                                    \
		{.name = "output", .text = &(s)->output},                                          \
	{                                                                                          \
		.name = "file", .list = &(s)->files                                                \
	}

#define SUBMISSION_USAGE                                                                           \
	"  --language NAME     instead of the one that the file's extension means\n"               \
	"  --file PATH         a further file of the program; NAME=PATH gives it another name\n"   \
	"  --stdin PATH        standard input of the program\n"                                    \
	"  --cpu 2s  --wall 5s  --memory 256MiB  --processes 64  --output 1MiB\n"                  \
	"                      limits; above the server's ceilings they are refused\n"             \
	"  --priority WORD     high, normal or low\n"                                              \
	"  --deadline 60s      not to be started any later than this from now\n"

/* Reads the files and makes the JSON text; path "-" is our standard input. The text is the
 * caller's. Asks the server for its languages. */
int submission_make(const struct submission *s, struct client *c, const char *path,
		    char *const *args, size_t n_args, char **ret_json, struct err *e);

/* Sends it under a fresh Idempotency-Key; wait_s is passed on. Returns the HTTP status. */
int submission_send(struct client *c, const char *json, int wait_s, json_t **ret_task,
		    struct buf *ret_text, struct err *e);

/* Text as a JSON string where it is UTF-8 without NUL, else as base64: sets name, and
 * name_encoding where it is base64. */
int submission_set_bytes(json_t *object, const char *name, const char *encoding_name,
			 const void *bytes, size_t len);
