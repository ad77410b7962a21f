/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of the RabbitMQ queue share.
 *
 * Two sides. The loop's side (rabbitmq.c) answers the verbs and never touches librabbitmq; the
 * thread's side (all other files) owns two connections and waits on their sockets and an eventfd.
 * What passes between them is a struct rabbit_item, through two locked lists, each with an eventfd:
 * a publish goes to the thread and comes back with its code; a delivery comes to the loop, goes
 * back with an acknowledgement or to be handed back, and is freed by the thread or, after a hand
 * back, by the loop. The state of the connection is under the same lock.
 *
 * One connection publishes, the other does the rest: a broker that is short of memory stops reading
 * from connections that publish, and acknowledgements must get through all the same. They live and
 * die together, as one session. Nothing of a session is worth anything in the next one: delivery
 * tags, deliveries, publishes in flight.
 *
 * Nothing on the thread may wait for the broker without bound. Requests that have an answer
 * (declare, consume, cancel) are made one at a time with a time-out; all else is written only where
 * the socket has room, and read by a pump that takes what there is.
 */

#include "queue/message.h"
#include "queue/queue-private.h"
#include "queue/rate.h"

#include "base/map.h"
#include "loop/backoff.h"

#include <amqp.h>
#include <pthread.h>

enum {
	RABBIT_HOSTS_MAX = 8,
	RABBIT_NAME_MAX = 256, /* AMQP's short string, with a NUL */
	RABBIT_PREFIX_MAX = 64,
	RABBIT_WINDOW = 512,	 /* publishes that wait for their confirm at one time */
	RABBIT_SEND_BATCH = 32,	 /* frames between two looks at whether the socket has room */
	RABBIT_HOLD_OFF_MS = 20, /* between a hand back and the copy */
	RABBIT_CONFIRM_MS = 5000,
	RABBIT_RPC_MS = 5000,
	RABBIT_CONNECT_MS = 3000,
	RABBIT_DRAIN_MS = 3000, /* at close, for what is in flight */
	RABBIT_CHANNELS_MAX = 1024,
};

struct rabbit_url {
	struct {
		char name[RABBIT_NAME_MAX];
		int port;
	} hosts[RABBIT_HOSTS_MAX];
	size_t n_hosts;
	char user[RABBIT_NAME_MAX];
	char password[RABBIT_NAME_MAX];
	char vhost[RABBIT_NAME_MAX];
	char prefix[RABBIT_PREFIX_MAX];
	int heartbeat_s;
};

/* rest is what stands behind "amqp:". Messages never have the password in them. */
int rabbit_url_parse(const char *rest, struct rabbit_url *ret_url, struct err *e);

enum rabbit_content_kind { CONTENT_NONE, CONTENT_DELIVERY, CONTENT_RETURN };

/* One message of several frames, being put together. */
struct rabbit_content {
	enum rabbit_content_kind kind;
	bool has_header, too_large;
	uint64_t tag;
	uint64_t left; /* bytes of the body that are still to come */
	size_t len;
	uint8_t body[QUEUE_MESSAGE_BYTES_MAX];
	char message_id[UUID_TEXT_MAX];
	char traceparent[QUEUE_TRACEPARENT_MAX];
};

/* One queue at the broker. Made by the loop, freed by it when the thread has ended. */
struct rabbit_lane {
	/* Never changes. */
	char language[TASK_LANGUAGE_MAX];
	enum task_class class;
	char queue[RABBIT_NAME_MAX]; /* "kiln.python.normal" */
	char key[RABBIT_NAME_MAX];   /* "python.normal", also the key of the map */
	bool is_dead;		     /* the dead letters: only counted, and in no map */

	/* The loop's. n_in and n_out count all messages that this process saw enter and leave. */
	struct list waiting; /* deliveries beyond the prefetch */
	size_t n_waiting, n_unacked;
	size_t n_handing; /* handed back, and the broker has not said yes */
	size_t prefetch;
	uint64_t n_in, n_out;
	int64_t ready_base; /* the broker's count less n_in plus n_out as of then */
	int64_t last_delivered_us, first_published_us; /* wall clock, of enqueued_us; 0: none */
	int64_t heard_us; /* monotonic: when a count of this session came last; 0: none yet */
	struct deferred deliver;
	struct rabbit *owner;

	/* The thread's. */
	struct list link; /* in thread.lanes once it knows the lane */
	uint64_t seen_in, seen_out;
	bool declared;
	int64_t broken_until_us; /* monotonic: its last declaration failed */
	int hung_ms; /* it does not answer: the pause before it is tried again; 0: it does */
	/* Monotonic; stalled: a publish was not confirmed, while others were. */
	int64_t hung_until_us, stalled_until_us;
	size_t wanted;		/* prefetch */
	size_t consuming;	/* prefetch of the consumer; 0: there is none */
	amqp_channel_t channel; /* of its consumer; 0: none yet */
	bool open;		/* the channel is, in this session */
	char tag[16];		/* of that consumer */
	bool followed;		/* counted each second, whatever is wanted */
	struct rabbit_content content;
	int64_t counted_us;		/* monotonic: when its count was asked for last */
	uint64_t sample_in, sample_out; /* seen_in and seen_out when it was asked */

	/* Under the lock: the newest count of the broker, and what had been seen by then. */
	bool fresh;
	uint64_t count, count_in, count_out;
};

enum rabbit_kind {
	RABBIT_PUBLISH,	  /* to the thread, and back with code */
	RABBIT_DELIVERY,  /* to the loop */
	RABBIT_ACK,	  /* to the thread, which frees it */
	RABBIT_HAND_BACK, /* to the thread, and back with code: 0, or -ENOTCONN where it was lost */
	RABBIT_REJECT,	  /* the thread's own: back into the queue as it is */
	RABBIT_DISCARD,	  /* the thread's own: to the dead letters */
	RABBIT_CONSUME,	  /* to the thread, which frees it; as is */
	RABBIT_FOLLOW,	  /* prefetch 0: not any more */
	RABBIT_CLOSE,	  /* to the thread */
};

struct rabbit_item {
	struct list link;
	enum rabbit_kind kind;
	struct rabbit_lane *lane;
	int code;

	/* PUBLISH; and HAND_BACK while its copy is under way. */
	struct queue_publish *request;
	struct list flight_link; /* while it waits for its confirm, by tag */
	uint64_t confirm_tag;
	int64_t deadline_us; /* monotonic */
	bool returned;	     /* the broker had no queue for it */
	bool answered;	     /* timed out: nobody waits for the confirm any more */

	/* A delivery. */
	struct queue_delivery delivery;
	uint64_t tag;
	uint64_t session;
	int64_t due_us; /* HAND_BACK: when the copy is to be made */
	bool handing;	/* an ACK or REJECT that ends a hand back */

	size_t prefetch; /* CONSUME */
};

struct rabbit_conn {
	amqp_connection_state_t c;
	int fd;
	char peer[RABBIT_NAME_MAX + 8]; /* "host:port" */
};

/* What the thread alone uses. */
struct rabbit_thread {
	struct rabbit *q;
	struct rabbit_conn in, out;
	bool up;
	uint64_t session;
	size_t host; /* the one to try next */
	struct backoff backoff;
	int64_t retry_at_us;
	int64_t dead_hung_until_us; /* monotonic */
	struct list lanes;
	struct rabbit_lane *channels[RABBIT_CHANNELS_MAX]; /* of the in connection */
	amqp_channel_t n_channels;
	unsigned consumers; /* made so far */

	struct list to_send;   /* publishes and copies, in order */
	struct list to_settle; /* acks and rejects, in order */
	struct list handed;    /* to be copied when they are due, in order */
	struct list in_flight; /* rabbit_item.flight_link, by tag */
	struct map by_tag;     /* the same */
	uint64_t next_tag;
	bool blocked, stalled;
	int64_t confirmed_us; /* monotonic: the last of all */
	size_t n_ghosts;      /* in flight, and answered already */
	struct rabbit_content returned;
	struct rabbit_lane *asked; /* whose count was asked for and has not come */

	bool closing;
	int64_t close_by_us;
};

struct rabbit {
	struct queue base;
	struct rabbit_url url;
	size_t max_tasks;

	/* The loop's. */
	struct defer *defer;
	uv_poll_t wake;
	struct map lanes;
	struct rabbit_lane *dead;
	struct list held; /* deliveries that the consumer has */
	const struct queue_consumer_ops *consumer;
	void *consumer_ctx;
	size_t n_reserved, n_publishing;
	struct queue_rate rate;
	bool up, blocked, closing;
	bool told_away; /* the consumer knows */
	uint64_t session;
	struct deferred tell;
	void (*closed)(void *ctx);
	void *closed_ctx;
	struct rabbit_item close_order; /* a close must not fail for want of memory */

	pthread_t id;
	int thread_fd, loop_fd; /* eventfds that wake them */

	pthread_mutex_t lock;
	struct {
		struct list to_thread, to_loop;
		bool up, blocked, fresh, ended;
		uint64_t session;	       /* of the present session, or the last */
		bool started, waiting_no_more; /* the opener went on before it was */
		int start_code;
		bool has_reason;
		struct err reason; /* of being away; or what is wrong with a lane */
	} shared;

	struct rabbit_thread thread;
};

int64_t rabbit_now_us(void);
/* Whether a failure to connect is about the broker's not being there, and not for a person. */
bool rabbit_may_pass(int r);

/* ---- rabbitmq.c ---- */
struct rabbit_lane *rabbit_lane_new(struct rabbit *q, const char *key);
void rabbit_order(struct rabbit *q, struct rabbit_item *item); /* to the thread */
void rabbit_on_wake(uv_poll_t *wake, int status, int events);
void rabbit_on_tell(struct deferred *d);
void rabbit_free_items(struct list *items);

/* ---- rabbitmq_open.c ---- */
int rabbit_open(uv_loop_t *loop, const struct queue_config *cfg, const char *rest,
		struct queue **ret_queue, struct err *e);
void rabbit_close(struct queue *base, void (*closed)(void *ctx), void *ctx);
void rabbit_on_closed(uv_handle_t *handle);

/* ---- rabbitmq_thread.c ---- */
void *rabbit_thread_main(void *arg);
/* To the loop. */
void rabbit_post(struct rabbit_thread *t, struct rabbit_item *item);
/* The session is over; what was under way is answered. Always returns -ENOTCONN. */
int rabbit_lose(struct rabbit_thread *t, struct err *e);
void rabbit_tell_blocked(struct rabbit_thread *t);
void rabbit_tell_reason(struct rabbit_thread *t, const struct err *e);

/* ---- rabbitmq_connect.c ---- */
int rabbit_connect(const struct rabbit_url *url, size_t host, const char *role,
		   struct rabbit_conn *ret_conn, struct err *e);
void rabbit_disconnect(struct rabbit_conn *c, bool orderly);
/* What came of the last request: 0; -ENOTCONN where the connection is gone, else what the broker
 * refused (-ENOENT, -EEXIST, -EACCES, -EPROTO), with the channel open again. */
int rabbit_reply(struct rabbit_conn *c, amqp_channel_t channel, struct err *e);
int rabbit_open_channel(struct rabbit_conn *c, amqp_channel_t channel, struct err *e);
int rabbit_status(int status, struct err *e);
int rabbit_close_reason(uint16_t code, amqp_bytes_t text, struct err *e);
bool rabbit_has_room(const struct rabbit_conn *c);

/* ---- rabbitmq_topology.c ---- */
enum { CHANNEL_TOPOLOGY = 1, CHANNEL_SAMPLES = 2, CHANNEL_LANES = 3, CHANNEL_PUBLISH = 1 };
void rabbit_name(const struct rabbit_url *url, const char *what, char dst[static RABBIT_NAME_MAX]);
int rabbit_declare_exchanges(struct rabbit_conn *c, const struct rabbit_url *url, struct err *e);
int rabbit_declare_dead(struct rabbit_conn *c, const struct rabbit_url *url, struct err *e);
int rabbit_declare_queue(struct rabbit_conn *c, const struct rabbit_url *url, const char *queue,
			 const char *key, struct err *e);
/* 0, -EAGAIN where it is broken or hung, -ENOTCONN where the session is over. */
int rabbit_declare_lane(struct rabbit_thread *t, struct rabbit_lane *lane);
int rabbit_retry_broken(struct rabbit_thread *t);
int rabbit_ask_counts(struct rabbit_thread *t);
void rabbit_counted(struct rabbit_thread *t, const amqp_queue_declare_ok_t *m);
int rabbit_samples_refused(struct rabbit_thread *t, uint16_t code); /* 0 or -ENOTCONN */
/* Its queue was deleted, or it is not bound any more. 0; -ENOTCONN, which ends the session, where
 * it is consumed from. */
int rabbit_lane_gone(struct rabbit_thread *t, struct rabbit_lane *lane);

/* ---- rabbitmq_hung.c ---- */
/* Ends the session for what was asked of l at that time. */
int rabbit_lose_by_lane(struct rabbit_thread *t, struct rabbit_lane *l, int64_t at, struct err *e);
void rabbit_try_hung(struct rabbit_thread *t);
int rabbit_declare_dead_once(struct rabbit_thread *t, struct err *e); /* as a session begins */

/* ---- rabbitmq_publish.c ---- */
int rabbit_send_publishes(struct rabbit_thread *t);
void rabbit_confirmed(struct rabbit_thread *t, uint64_t tag, bool multiple, bool ok);
int rabbit_returned(struct rabbit_thread *t, const char *message_id); /* 0 or -ENOTCONN */
int rabbit_expire_publishes(struct rabbit_thread *t);		      /* 0 or -ENOTCONN */
void rabbit_fail_publishes(struct rabbit_thread *t, bool in_flight);
int rabbit_write(struct rabbit_conn *c, const struct rabbit_url *url, const char *key,
		 const struct queue_message *m, struct err *e);

/* ---- rabbitmq_consume.c ---- */
int rabbit_consume_lanes(struct rabbit_thread *t);
int rabbit_settle(struct rabbit_thread *t);
void rabbit_release_handed(struct rabbit_thread *t);
void rabbit_delivered(struct rabbit_thread *t, struct rabbit_lane *lane);
void rabbit_drop_deliveries(struct rabbit_thread *t);

/* ---- rabbitmq_content.c ---- */
void rabbit_content_begin(struct rabbit_content *content, enum rabbit_content_kind kind,
			  uint64_t tag);
/* 1 where the message is complete, 0 where more is to come, -EPROTO for a frame out of order. */
int rabbit_content_header(struct rabbit_content *content, const amqp_frame_t *f);
int rabbit_content_body(struct rabbit_content *content, const amqp_frame_t *f);

/* ---- rabbitmq_pump.c: takes the frames. 0, 1 where more may be, or -ENOTCONN. ---- */
int rabbit_pump(struct rabbit_thread *t, struct rabbit_conn *c);
