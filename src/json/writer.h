/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Writes JSON text straight into a buffer, without a tree. Commas are the writer's; that begins
 * and ends match, and that every name has a value, is the caller's. Failures (memory, the
 * buffer's maximum) stay in the buffer and are asked for once, at the end, with buf_error.
 *
 * What is written is UTF-8 always. Bytes of unknown origin go through json_write_bytes, which
 * writes nothing where they are not UTF-8, so that the caller can say so and send base64; our own
 * messages, which may quote anything, go through json_write_text, which never fails.
 */

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_writer {
	struct buf *out;
	bool comma; /* the next value or name has one before it */
};

void json_writer_init(struct json_writer *w, struct buf *out);

void json_write_begin_object(struct json_writer *w);
void json_write_end_object(struct json_writer *w);
void json_write_begin_array(struct json_writer *w);
void json_write_end_array(struct json_writer *w);

/* name is ours: it is written as it is, and must need no escapes. */
void json_write_name(struct json_writer *w, const char *name);

void json_write_null(struct json_writer *w);
void json_write_bool(struct json_writer *w, bool value);
void json_write_int(struct json_writer *w, int64_t value);

/* A string; null for NULL. Sequences that are not UTF-8 are replaced by U+FFFD. */
void json_write_text(struct json_writer *w, const char *text);

/* A string of these bytes; -EILSEQ, and nothing is written, where they are not UTF-8. */
int json_write_bytes(struct json_writer *w, const void *bytes, size_t len);

/* A string of their base64. */
void json_write_base64(struct json_writer *w, const void *bytes, size_t len);

/* Name and value in one. */
void json_write_null_field(struct json_writer *w, const char *name);
void json_write_bool_field(struct json_writer *w, const char *name, bool value);
void json_write_int_field(struct json_writer *w, const char *name, int64_t value);
void json_write_text_field(struct json_writer *w, const char *name, const char *text);
