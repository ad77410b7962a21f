/* SPDX-License-Identifier: Apache-2.0 */
#include "trace/trace.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "observe/metrics.h"
#include "trace/export.h"
#include "json/writer.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPAN_MAX_BYTES = 8 * 1024, STATUS_ERROR = 2 };

static struct {
	struct export *export; /* NULL: nothing is traced */
	unsigned percent;
	struct export_counts told; /* to the metrics */
	struct buf span;	   /* being written */
} tracing;

/* ---- JSON as OTLP has it ---- */

static void write_attribute(struct json_writer *w, const struct trace_attribute *a)
{
	json_write_begin_object(w);
	json_write_text_field(w, "key", a->key);
	json_write_name(w, "value");
	json_write_begin_object(w);
	if (a->text) {
		json_write_text_field(w, "stringValue", a->text);
	} else {
		char number[24]; /* 64 bits are text in protobuf's JSON */

		(void)snprintf(number, sizeof number, "%" PRId64, a->number);
		json_write_text_field(w, "intValue", number);
	}
	json_write_end_object(w);
	json_write_end_object(w);
}

static void write_attributes(struct json_writer *w, const struct trace_attribute *a, size_t n,
			     const struct uuid *task)
{
	json_write_name(w, "attributes");
	json_write_begin_array(w);
	if (task) {
		char id[UUID_TEXT_MAX];

		uuid_format(task, id);
		write_attribute(w, &(struct trace_attribute){"kiln.task_id", id, 0});
	}
	for (size_t i = 0; i < n; i++)
		write_attribute(w, &a[i]);
	json_write_end_array(w);
}

static void write_hex_field(struct json_writer *w, const char *name, const uint8_t *bytes,
			    size_t len)
{
	char text[2 * TRACE_ID_SIZE + 1];

	hex_encode(bytes, len, text);
	json_write_text_field(w, name, text);
}

static void write_time_field(struct json_writer *w, const char *name, int64_t us)
{
	char text[32];

	(void)snprintf(text, sizeof text, "%" PRId64 "000", us); /* nanoseconds */
	json_write_text_field(w, name, text);
}

static bool is_zero(const uint8_t id[SPAN_ID_SIZE])
{
	static const uint8_t zero[SPAN_ID_SIZE];

	return memcmp(id, zero, sizeof zero) == 0;
}

static void write_span(struct json_writer *w, const struct trace_span *s)
{
	json_write_begin_object(w);
	write_hex_field(w, "traceId", s->context.trace, sizeof s->context.trace);
	write_hex_field(w, "spanId", s->context.span, sizeof s->context.span);
	if (s->parent && !is_zero(s->parent))
		write_hex_field(w, "parentSpanId", s->parent, SPAN_ID_SIZE);
	json_write_text_field(w, "name", s->name);
	json_write_int_field(w, "kind", s->kind);
	write_time_field(w, "startTimeUnixNano", s->start_us);
	write_time_field(w, "endTimeUnixNano", s->end_us > s->start_us ? s->end_us : s->start_us);
	write_attributes(w, s->attributes, s->n_attributes, s->task);
	if (s->error) {
		json_write_name(w, "status");
		json_write_begin_object(w);
		json_write_int_field(w, "code", STATUS_ERROR);
		json_write_text_field(w, "message", s->error);
		json_write_end_object(w);
	}
	json_write_end_object(w);
}

static int write_resource(const struct trace_config *cfg, struct buf *b)
{
	const struct trace_attribute about[] = {
		{"service.name", cfg->service, 0},
		{"service.version", cfg->version, 0},
	};
	struct json_writer w;

	json_writer_init(&w, b);
	json_write_begin_object(&w);
	write_attributes(&w, about, ARRAY_SIZE(about), NULL);
	json_write_end_object(&w);
	return buf_error(b);
}

/* ---- life ---- */

int trace_open(const struct trace_config *cfg, struct err *e)
{
	CLEANUP(buf_fini) struct buf resource;
	int r;

	if (!*cfg->endpoint)
		return 0;
	buf_init(&resource, SPAN_MAX_BYTES);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return err_set(e, -ENOMEM, "could not begin to use libcurl");
	r = write_resource(cfg, &resource);
	if (r < 0)
		return err_set(e, r, "out of memory");
	r = export_open(cfg->endpoint, cfg->headers, resource.data, &tracing.export, e);
	if (r < 0)
		return r;
	tracing.percent = cfg->percent;
	buf_init(&tracing.span, SPAN_MAX_BYTES);
	trace_update_metrics();
	return 0;
}

void trace_close(void)
{
	if (!tracing.export)
		return;
	export_close(tracing.export);
	tracing.export = NULL;
	tracing.told = (struct export_counts){0};
	buf_fini(&tracing.span);
}

void trace_update_metrics(void)
{
	struct export_counts now;

	if (!tracing.export)
		return;
	now = export_counts(tracing.export);
	metric_add(METRIC_TRACE_SPANS, (double)(now.exported - tracing.told.exported), "exported");
	metric_add(METRIC_TRACE_SPANS, (double)(now.dropped - tracing.told.dropped), "dropped");
	tracing.told = now;
}

/* ---- spans ---- */

bool trace_begin(const char *incoming, struct trace_context *ret, uint8_t ret_parent[SPAN_ID_SIZE])
{
	struct trace_context c;

	if (!tracing.export)
		return false;
	memset(ret_parent, 0, SPAN_ID_SIZE);
	if (incoming && traceparent_read(incoming, strlen(incoming), &c)) {
		if (!(c.flags & TRACE_FLAG_SAMPLED))
			return false;
		memcpy(ret_parent, c.span, SPAN_ID_SIZE);
	} else {
		if (arc4random_uniform(100) >= tracing.percent)
			return false;
		arc4random_buf(c.trace, sizeof c.trace);
		c.flags = TRACE_FLAG_SAMPLED;
	}
	trace_below(&c, ret);
	return true;
}

bool trace_continue(const char *traceparent, struct trace_context *ret)
{
	return tracing.export && traceparent_read(traceparent, strlen(traceparent), ret) &&
	       (ret->flags & TRACE_FLAG_SAMPLED);
}

void trace_below(const struct trace_context *c, struct trace_context *ret)
{
	*ret = *c;
	arc4random_buf(ret->span, sizeof ret->span);
}

void trace_emit(const struct trace_span *s)
{
	struct json_writer w;

	if (!tracing.export)
		return;
	buf_clear(&tracing.span);
	json_writer_init(&w, &tracing.span);
	write_span(&w, s);
	if (buf_error(&tracing.span) == 0)
		(void)export_put(tracing.export, &tracing.span);
}
