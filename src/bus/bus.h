/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The bus tells others at once what they would otherwise find out later: that a task is final, that
 * one is to be cancelled. Every subscriber of every process hears every message. Delivery is not
 * guaranteed (rows and leases are the safety net), and never comes from inside bus_publish.
 */

#include "base/buf.h"
#include "base/err.h"
#include "base/uuid7.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct bus;

enum bus_topic {
	BUS_FINISHED,  /* the task is final and can be read; payload: one byte, the state */
	BUS_CANCEL,    /* a running task is to be cancelled; no payload */
	BUS_QUEUED,    /* a task was put back to queued by someone else; no payload */
	BUS_LANGUAGES, /* a scheduler's languages; id: the scheduler, payload: a LanguageReport */
	BUS_OUTBOX,    /* a task was left in the outbox; no id, no payload */
	BUS_WAITING,   /* a scheduler's tasks without a runner; id: it, payload: a WaitingReport */
	_BUS_TOPIC_MAX
};

enum { BUS_PAYLOAD_MAX = 4096 };

typedef void (*bus_cb)(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		       size_t len);

/* "memory:", or "redis://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/DB" for all processes that name
 * the same. */
int bus_open(uv_loop_t *loop, const char *url, struct bus **ret_bus, struct err *e);
void bus_close(struct bus *b, void (*closed)(void *ctx), void *ctx);

/* At most 8 subscribers per topic and process. -ENOSPC. */
int bus_subscribe(struct bus *b, enum bus_topic topic, bus_cb cb, void *ctx);
void bus_unsubscribe(struct bus *b, enum bus_topic topic, bus_cb cb, void *ctx);

void bus_publish(struct bus *b, enum bus_topic topic, const struct uuid *id, const void *payload,
		 size_t len);

/* Whether other processes are heard, and hear, at the moment. Where not, rows and leases have to be
 * looked at, and why gets the reason; it may be NULL. */
bool bus_is_up(const struct bus *b, struct buf *why);

/* Called from the loop each time that changes, or its reason does. At most 4 watchers; -ENOSPC. */
typedef void (*bus_watch_cb)(void *ctx, bool up, const char *text);
int bus_watch(struct bus *b, bus_watch_cb cb, void *ctx);
void bus_unwatch(struct bus *b, bus_watch_cb cb, void *ctx);
