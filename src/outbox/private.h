/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of the publisher share. A publication is one task on its way:
 *
 *	ADMITTED --> SENT --> CONFIRMED --> (gone, once the task is final)
 *	   '---> LEFT, kept for the newest of each stream only
 *
 * SENT and CONFIRMED ones, and those ADMITTED to be sent, count for their stream.
 */

#include "base/list.h"
#include "base/map.h"
#include "loop/defer.h"
#include "outbox/publisher.h"
#include "store/outbox.h"

enum publication_state { PUB_ADMITTED, PUB_SENT, PUB_CONFIRMED, PUB_LEFT };

struct stream;

struct publication {
	enum publication_state state;
	struct publisher *publisher;
	struct stream *stream; /* NULL without an outbox, and when the task is final */
	struct list link;   /* in publisher->checks while it counts, the longest unchecked first */
	int64_t checked_us; /* monotonic */
	bool left;
	bool known;	 /* by its id, in publisher->known */
	bool removed;	 /* CONFIRMED, and its note is gone: another one is a new one */
	int64_t sent_us; /* wall */
	struct queue_publish request;
};

/* Exists while something of it counts or it has a backlog. */
struct stream {
	char tenant[TASK_TENANT_MAX];
	char language[TASK_LANGUAGE_MAX];
	enum task_class class;
	char key[TASK_TENANT_MAX + TASK_LANGUAGE_MAX + 2];
	size_t key_len;
	size_t n;		  /* that count */
	bool backlog;		  /* older ones are in the outbox: newer ones must go there too */
	int64_t left_us;	  /* monotonic: when one was left last */
	struct publication *left; /* the newest that was left here; may be NULL */
	size_t room, taken;	  /* of the take that is in flight */
};

struct ids {
	struct uuid *at;
	size_t n, cap;
};

struct publisher {
	struct publisher_config cfg;
	bool has_outbox;
	struct defer *defer;
	struct map streams; /* by key */
	struct map known;   /* publications by id */
	struct list checks;
	size_t n_requests; /* publishes and requests of the store in flight */

	struct ids done, doing; /* confirmed: to be removed from the outbox, being removed */
	struct store_outbox_done done_request;
	bool done_in_flight;
	bool nudge_due;
	uv_timer_t flush_timer;

	bool sweeping;
	bool nudged, room_freed;
	bool taking;
	int64_t take_at_us; /* monotonic: at the latest */
	int64_t asked_us;   /* monotonic: the take in flight */
	struct store_outbox_take take;
	struct store_room *rooms;
	struct deferred sweep_soon;
	uv_timer_t tick_timer;

	int64_t upkeep_at_us; /* monotonic */
	bool counting;
	struct store_outbox_count count;
	size_t counted;	     /* in the outbox, as of the last count */
	size_t left_counted; /* n_left as of then */
	size_t left_asked;   /* n_left as of the count in flight */
	size_t n_left;	     /* left here, ever */
	bool checking;
	struct store_live check;
	struct uuid *check_ids;

	bool closing;
	int open_handles;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* ---- streams.c ---- */
struct stream *stream_get(struct publisher *p, const struct queue_message *m); /* NULL: no memory */
void stream_drop_if_idle(struct publisher *p, struct stream *s);
void stream_set_backlog(struct publisher *p, struct stream *s, struct publication *newest);
void stream_clear_backlog(struct publisher *p, struct stream *s);

/* Counts a publication for its stream, and makes it known by its id. -ENOMEM, -EEXIST. */
int publication_count_in(struct publication *pub, struct stream *s);
void publication_count_out(struct publication *pub);
void publication_free(struct publication *pub);

void on_task_finished(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		      size_t len);

/* ---- publisher.c ---- */
struct publication *publication_new(struct publisher *p, const struct queue_message *m);
void publication_send(struct publication *pub);
void publisher_done(struct publisher *p, const struct uuid *id);
void publisher_set_outside(struct publisher *p);
void publisher_check_closed(struct publisher *p);

/* ---- sweep.c ---- */
void on_outbox_nudged(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		      size_t len);
void sweep_init(struct publisher *p);
void sweep_start(struct publisher *p); /* the clock of what has an outbox */
void sweep_room_freed(struct publisher *p, const struct stream *s);
