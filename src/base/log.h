/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The log: one JSON object per line on standard error, written with one write(2), so that lines
 * of several processes do not mix. Only roles log, and each failure once, where it is handled;
 * library code returns errors instead.
 *
 *	log_info("runner", "runner is connected", LOG_STR("pod", name), LOG_INT("slots", n));
 *
 * Never logged: source, stdin, output, keys. Levels below the set one cost a comparison.
 */

#include "base/uuid7.h"

#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, _LOG_LEVEL_MAX };

enum log_field_kind { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_ID, LOG_FIELD_TRACE };

struct log_field {
	const char *key;
	enum log_field_kind kind;
	const char *text;
	int64_t number;
	const struct uuid *id;
};

#define LOG_STR(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_STR, .text = (v)})
#define LOG_INT(k, v)                                                                              \
	((struct log_field){.key = (k), .kind = LOG_FIELD_INT, .number = (int64_t)(v)})
#define LOG_TASK(v) ((struct log_field){.key = "task_id", .kind = LOG_FIELD_ID, .id = (v)})
/* The trace of a W3C traceparent; nothing is written where it is none, or NULL. */
#define LOG_TRACE(v) ((struct log_field){.key = "trace_id", .kind = LOG_FIELD_TRACE, .text = (v)})

void log_set_level(enum log_level level);

/* "debug", "info", "warn", "error"; -EINVAL for another. */
int log_level_parse(const char *text, enum log_level *ret_level);
const char *log_level_name(enum log_level level);

void log_write(enum log_level level, const char *component, const char *message,
	       const struct log_field *fields, size_t n);

#define LOG_AT(level, component, message, ...)                                                     \
	do {                                                                                       \
		const struct log_field fields_[] = {{0}, ##__VA_ARGS__};                           \
		log_write(level, component, message, fields_ + 1,                                  \
			  sizeof fields_ / sizeof *fields_ - 1);                                   \
	} while (0)

#define log_debug(...) LOG_AT(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  LOG_AT(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  LOG_AT(LOG_WARN, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_ERROR, __VA_ARGS__)
