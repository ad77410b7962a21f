/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Spans of tasks, sent by OTLP/HTTP in its JSON encoding
 * (https://opentelemetry.io/docs/specs/otlp/#otlphttp) to any collector that speaks it.
 *
 *	submit                 API: the request until the task is stored
 *	|- publish             API: until the broker has confirmed
 *	|- queue wait          scheduler: stored until taken from the queue
 *	`- task                scheduler: one attempt, taken until stored
 *	   |- dispatch         until a runner has accepted it
 *	   |- compile
 *	   |- run              one for each run
 *	   `- commit           the result on its way into the store
 *
 * The span that a client named in "traceparent" is the parent of submit, and its "sampled" flag
 * decides; of submissions without one, the configured share is traced. Every attempt that came to
 * an end at this scheduler has its task span; spans go out once, when that which they describe is
 * over.
 *
 * Nothing waits for the collector: a span is encoded into a bounded buffer, a thread posts what is
 * there. What finds no room, or was refused for good, is counted and gone. One for each process,
 * like the log; calls come from the thread of the loop.
 */

#include "base/err.h"
#include "base/traceparent.h"
#include "base/uuid7.h"

#include <stddef.h>

struct trace_config {
	const char
		*endpoint; /* "http://HOST:4318": /v1/traces is appended; "": nothing is traced */
	char *const *headers; /* "Name: value", NULL at the end; for credentials */
	const char *service;  /* service.name: "kiln-api", "kiln-scheduler", "kiln" */
	const char *version;
	unsigned percent; /* of submissions without a traceparent */
};

/* -EINVAL with what is wrong. Nothing is sent yet. */
int trace_open(const struct trace_config *cfg, struct err *e);

/* Sends what is there, within two seconds. Nothing happens where it was not opened. */
void trace_close(void);

/* The context of a new span: below incoming (a traceparent or NULL), or the first of a new trace.
 * *ret_parent is the span above, all zero where there is none. False where nothing is to be traced;
 * incoming is then to be passed on as it came. */
bool trace_begin(const char *incoming, struct trace_context *ret, uint8_t ret_parent[SPAN_ID_SIZE]);

/* The context that a task carries; false where it is not traced. */
bool trace_continue(const char *traceparent, struct trace_context *ret);

/* A new span below that of c, in the same trace. */
void trace_below(const struct trace_context *c, struct trace_context *ret);

/* As OTLP has them. */
enum trace_kind {
	TRACE_INTERNAL = 1,
	TRACE_SERVER = 2,
	TRACE_CLIENT = 3,
	TRACE_PRODUCER = 4,
	TRACE_CONSUMER = 5,
};

struct trace_attribute {
	const char *key;
	const char *text; /* NULL: the number */
	int64_t number;
};

struct trace_span {
	const char *name;
	enum trace_kind kind;
	struct trace_context context; /* its own */
	const uint8_t *parent;	  /* SPAN_ID_SIZE bytes; NULL or all zero: the first of its trace */
	int64_t start_us, end_us; /* wall */
	const char *error;	  /* NULL: nothing failed */
	const struct uuid *task;
	const struct trace_attribute *attributes;
	size_t n_attributes;
};

/* Nothing happens where nothing is traced. */
void trace_emit(const struct trace_span *s);

/* Brings the counts of spans into the metrics. */
void trace_update_metrics(void);
