/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Between the structures of task/ and their bytes (kiln.proto). Decoding takes foreign bytes: what
 * is out of range (an enum, an id of the wrong length, a size that does not match) is -EBADMSG.
 */

#include "base/buf.h"
#include "base/err.h"
#include "kiln.pb-c.h"
#include "task/task.h"

/* Appends to b, which must be empty or hold what shall go before. 0, -ENOMEM or -ENOBUFS. */
int codec_pack_spec(const struct task_spec *s, struct buf *b);
int codec_pack_result(const struct task_result *r, struct buf *b);
int codec_pack_task(const struct task *t, struct buf *b); /* without contents of files and stdin */

/* The heads of both, for lists: without contents of files and stdin, and without outputs. */
int codec_pack_spec_head(const struct task_spec *s, struct buf *b);
int codec_pack_result_head(const struct task_result *r, struct buf *b);

int codec_unpack_spec(const void *bytes, size_t len, struct task_spec **ret_spec, struct err *e);
int codec_unpack_result(const void *bytes, size_t len, struct task_result **ret_result,
			struct err *e);
int codec_unpack_task(const void *bytes, size_t len, struct task **ret_task, struct err *e);

/* From messages already unpacked, for those who handle frames. Outputs are copied. */
int codec_get_program(const Kiln__Program *m, struct task_program *ret_program, struct err *e);
int codec_get_run(const Kiln__Run *m, struct task_run *ret_run, struct err *e);
int codec_get_compile_result(const Kiln__CompileResult *m, struct task_compile_result *ret_result,
			     struct err *e);
int codec_get_run_result(const Kiln__RunResult *m, struct task_run_result *ret_result,
			 struct err *e);
int codec_get_isolation(const Kiln__Isolation *m, struct task_isolation *ret_isolation);
int codec_get_id(const ProtobufCBinaryData *m, struct uuid *ret_id);

/* Into messages that borrow from the structure, which must outlive their use. */
void codec_put_limits(const struct task_limits *l, Kiln__Limits *m);
void codec_put_usage(const struct task_usage *u, Kiln__Usage *m);
void codec_put_compile_result(const struct task_compile_result *r, Kiln__CompileResult *m,
			      Kiln__Usage *usage);
void codec_put_run_result(const struct task_run_result *r, Kiln__RunResult *m, Kiln__Usage *usage);
void codec_put_isolation(const struct task_isolation *i, Kiln__Isolation *m);
void codec_put_id(const struct uuid *id, ProtobufCBinaryData *m);
