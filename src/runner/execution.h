/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One task on its way: its contents arrive, it is compiled or found in the cache, its runs follow
 * one after the other, each step in a fresh box. What happens is told through execution_ops, in
 *order:
 *
 *	[compiled] { output... run_done }... done
 *
 * Output is not kept here: chunks pass through under the credit that the other side gave, and where
 * there is none the program waits.
 */

#include "base/err.h"
#include "runner/box.h"
#include "runner/cache.h"
#include "runner/intake.h"
#include "runner/probe.h"
#include "runner/residents.h"
#include "runner/setup.h"
#include "runner/standby.h"
#include "runner/zygote.h"
#include "task/language.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct execution;

/* What executions share; outlives them. */
struct execution_env {
	uv_loop_t *loop;
	struct box_pool *boxes;
	struct cache *cache;
	struct language_registry *languages;
	struct probe *probe;
	struct setup *setup;	      /* NULL: languages make nothing beforehand */
	struct standby_pool *standby; /* NULL: none, as the next */
	struct zygotes *zygotes;
	struct residents *residents;
	bool share_cache; /* builds are shared between tenants */
};

struct execution_chunk {
	unsigned run;
	enum task_stream stream;
	uint64_t sequence; /* over both streams and all runs of the task, from 0 */
	const void *bytes;
	size_t len;
};

struct execution_end {
	bool cancelled;
	const char *error_code; /* NULL: the runs say what came of it */
	const char *error_message;
	const char *standby; /* the word for the result's isolation */
};

struct execution_ops {
	/* Whether output can be taken now; execution_resume when it can again. */
	bool (*writable)(void *ctx);
	void (*output)(void *ctx, const struct execution *x, const struct execution_chunk *chunk);
	void (*compiled)(void *ctx, const struct execution *x, const struct task_compile_result *r);
	void (*run_done)(void *ctx, const struct execution *x, unsigned run,
			 const struct task_run_result *r);
	/* The last word; the execution is to be freed, here or later. */
	void (*done)(void *ctx, struct execution *x, const struct execution_end *end);
};

/* Takes the intake's contents, leaving it empty, on success and on failure alike. */
int execution_new_consume(const struct execution_env *env, struct intake *in, uint64_t credit_bytes,
			  const struct execution_ops *ops, void *ctx,
			  struct execution **ret_execution, struct err *e);
/* Kills what runs; nothing is told. */
void execution_free(struct execution *x);

/* Begins when all contents are there; call once after execution_new_consume. */
void execution_begin(struct execution *x);

const struct uuid *execution_id(const struct execution *x);

/* What the connection passes on; a negative result is a frame that the state forbids. */
int execution_content(struct execution *x, const Kiln__Content *m, struct err *e);
void execution_add_credit(struct execution *x, uint64_t bytes);
void execution_resume(struct execution *x);
void execution_cancel(struct execution *x);
/* Ends it as cancel does, but as a failure of Kiln with this code. */
void execution_fail(struct execution *x, const char *code, const char *message);
bool execution_failing(const struct execution *x);
