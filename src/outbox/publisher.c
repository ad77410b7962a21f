/* SPDX-License-Identifier: Apache-2.0 */
#include "outbox/private.h"

#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"
#include "trace/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	FLUSH_MS = 20,
	DONE_BATCH = 128,
	DONE_MAX = 100000, /* kept while the store is away; more are published once more */
};

/* ---- notes that are done with ---- */

static int ids_add(struct ids *ids, const struct uuid *id)
{
	if (ids->n == ids->cap) {
		size_t cap = ids->cap ? ids->cap * 2 : DONE_BATCH;
		struct uuid *at = cap <= DONE_MAX ? realloc(ids->at, cap * sizeof *at) : NULL;

		if (!at)
			return -ENOMEM;
		ids->at = at;
		ids->cap = cap;
	}
	ids->at[ids->n++] = *id;
	return 0;
}

static void on_flush_timer(uv_timer_t *timer);

static void flush_soon(struct publisher *p)
{
	if (!uv_is_active((uv_handle_t *)&p->flush_timer) && !p->closing)
		(void)uv_timer_start(&p->flush_timer, on_flush_timer, FLUSH_MS, 0);
}

static void flush_done(struct publisher *p);

static void note_removed(struct publisher *p, const struct uuid *id)
{
	struct publication *pub = map_get(&p->known, id, sizeof *id);

	if (pub)
		pub->removed = pub->state == PUB_CONFIRMED;
}

static void on_done(struct store_req *req, int code)
{
	struct publisher *p = req->ctx;

	p->done_in_flight = false;
	p->n_requests--;
	for (size_t i = 0; i < p->doing.n; i++) {
		if (code < 0)
			(void)ids_add(&p->done, &p->doing.at[i]);
		else
			note_removed(p, &p->doing.at[i]);
	}
	p->doing.n = 0;
	if (code == 0 && (p->closing || p->done.n >= DONE_BATCH))
		flush_done(p);
	else if (p->done.n)
		flush_soon(p);
	publisher_check_closed(p);
}

static void flush_done(struct publisher *p)
{
	struct ids swap = p->doing;

	if (p->done_in_flight || !p->done.n)
		return;
	p->doing = p->done;
	p->done = swap;
	if (p->doing.n > STORE_SWEEP_MAX) {
		for (size_t i = STORE_SWEEP_MAX; i < p->doing.n; i++)
			(void)ids_add(&p->done, &p->doing.at[i]);
		p->doing.n = STORE_SWEEP_MAX;
	}
	p->done_in_flight = true;
	p->n_requests++;
	p->done_request = (struct store_outbox_done){
		.req = {.done = on_done, .ctx = p}, .ids = p->doing.at, .n = p->doing.n};
	store_outbox_done(p->cfg.store, &p->done_request);
}

/* What is sent in batches, so that a burst costs one message and one statement. */
static void flush(struct publisher *p)
{
	static const struct uuid none = {0};

	if (p->nudge_due)
		bus_publish(p->cfg.bus, BUS_OUTBOX, &none, NULL, 0);
	p->nudge_due = false;
	flush_done(p);
}

static void on_flush_timer(uv_timer_t *timer)
{
	flush(timer->data);
}

void publisher_done(struct publisher *p, const struct uuid *id)
{
	if (!p->has_outbox)
		return;
	(void)ids_add(&p->done, id);
	if (p->closing || p->done.n >= DONE_BATCH)
		flush_done(p);
	else
		flush_soon(p);
}

void publisher_forget(struct publisher *p, const struct uuid *id)
{
	publisher_done(p, id);
}

void publisher_nudge(struct publisher *p)
{
	p->nudge_due = true;
	flush_soon(p);
}

/* ---- to the queue ---- */

struct publication *publication_new(struct publisher *p, const struct queue_message *m)
{
	struct publication *pub = calloc(1, sizeof *pub);

	if (!pub)
		return NULL;
	pub->publisher = p;
	pub->request.message = *m;
	list_init(&pub->link);
	return pub;
}

static const char *result_of(int code)
{
	return code == 0 ? "confirmed" : code == -EAGAIN ? "unavailable" : "refused";
}

/* Its part of the way, for those who follow the task by its trace. */
static void tell_trace(const struct publication *pub, int code)
{
	const struct queue_message *m = &pub->request.message;
	struct trace_context above;
	const struct trace_attribute about[] = {
		{"kiln.language", m->language, 0},
		{"kiln.priority", task_class_name(m->class), 0},
	};
	struct trace_span s = {
		.name = "publish",
		.kind = TRACE_PRODUCER,
		.parent = above.span,
		.start_us = pub->sent_us,
		.end_us = store_now_us(pub->publisher->cfg.store),
		.error = code < 0 ? err_text(code) : NULL,
		.task = &m->id,
		.attributes = about,
		.n_attributes = ARRAY_SIZE(about),
	};

	if (!trace_continue(m->traceparent, &above))
		return;
	trace_below(&above, &s.context);
	trace_emit(&s);
}

static void on_published(struct queue_publish *r, int code)
{
	struct publication *pub = r->ctx;
	struct publisher *p = pub->publisher;

	p->n_requests--;
	metric_add(METRIC_QUEUE_PUBLISHED, 1, result_of(code));
	tell_trace(pub, code);
	if (code == 0) {
		publisher_done(p, &r->message.id);
		pub->state = PUB_CONFIRMED;
	} else if (!p->has_outbox || code != -EAGAIN) {
		log_warn("outbox", "could not publish a task", LOG_TASK(&r->message.id),
			 LOG_TRACE(r->message.traceparent), LOG_STR("reason", err_text(code)));
	}
	/* Not there, or nobody knows: its note is still in the outbox. */
	if (code < 0 || !pub->stream)
		publication_free(pub);
	publisher_check_closed(p);
}

void publication_send(struct publication *pub)
{
	struct publisher *p = pub->publisher;

	pub->state = PUB_SENT;
	pub->removed = false;
	pub->sent_us = store_now_us(p->cfg.store);
	pub->request.done = on_published;
	pub->request.ctx = pub;
	p->n_requests++;
	queue_publish(p->cfg.queue, &pub->request);
}

/* ---- admission ---- */

/* What waits in the outbox: as was counted last, and what was left here since. */
static size_t outside(const struct publisher *p)
{
	return p->counted + (p->n_left - p->left_counted);
}

void publisher_set_outside(struct publisher *p)
{
	queue_set_outside(p->cfg.queue, outside(p));
}

/* Room in the broker at once, for a stream that is not at its bound; else in the outbox, whose
 * tasks count for the queue's bound as well. */
static int take_room(struct publisher *p, struct publication *pub, const struct stream *s)
{
	const struct queue_message *m = &pub->request.message;
	int r = queue_reserve(p->cfg.queue, m->language, m->class);

	if (r == 0 && (!s || (!s->backlog && s->n < p->cfg.admit_max))) {
		pub->request.reserved = true;
		return 0;
	}
	if (r == 0)
		queue_unreserve(p->cfg.queue, m->language, m->class);
	else if (r != -ENOTCONN || !p->has_outbox)
		return r;
	else if (outside(p) >= p->cfg.queue_max)
		return -EAGAIN;
	pub->left = true;
	return 0;
}

int publisher_admit(struct publisher *p, const struct queue_message *m,
		    struct publication **ret_publication)
{
	struct publication *pub = publication_new(p, m);
	struct stream *s = p->has_outbox ? stream_get(p, m) : NULL;
	int r = pub && (s || !p->has_outbox) ? take_room(p, pub, s) : -ENOMEM;

	if (r == 0 && s && !pub->left)
		r = publication_count_in(pub, s);
	if (r == 0 && pub->left) {
		p->n_left++;
		publisher_set_outside(p);
	}
	if (r < 0 && pub)
		publisher_give_back(p, pub);
	if (s)
		stream_drop_if_idle(p, s);
	if (r == 0)
		*ret_publication = pub;
	return r;
}

int publisher_retry_after(const struct publisher *p)
{
	return queue_retry_after(p->cfg.queue);
}

size_t publisher_queue_max(const struct publisher *p)
{
	return p->cfg.queue_max;
}

bool publication_is_left(const struct publication *pub)
{
	return pub->left;
}

void publisher_give_back(struct publisher *p, struct publication *pub)
{
	const struct queue_message *m = &pub->request.message;

	if (pub->request.reserved)
		queue_unreserve(p->cfg.queue, m->language, m->class);
	publication_free(pub);
}

void publisher_publish_consume(struct publisher *p, struct publication *pub)
{
	struct stream *s;

	if (!pub->left) {
		publication_send(pub);
		return;
	}
	s = stream_get(p, &pub->request.message);
	if (s)
		stream_set_backlog(p, s, pub);
	else
		publication_free(pub);
	publisher_nudge(p);
}

void publisher_requeue(struct publisher *p, const struct store_ticket *t)
{
	struct queue_message m = {
		.id = t->id, .class = t->class, .enqueued_us = store_now_us(p->cfg.store)};
	struct publication *pub;

	if (p->has_outbox) {
		publisher_nudge(p);
		return;
	}
	(void)str_copy(m.language, sizeof m.language, t->language);
	(void)str_copy(m.tenant, sizeof m.tenant, t->tenant);
	pub = publication_new(p, &m);
	if (pub)
		publication_send(pub);
}

/* ---- life ---- */

int publisher_open(uv_loop_t *loop, const struct publisher_config *cfg,
		   struct publisher **ret_publisher, struct err *e)
{
	struct publisher *p = calloc(1, sizeof *p);

	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->cfg = *cfg;
	p->has_outbox = store_has_outbox(cfg->store);
	map_init(&p->streams);
	map_init(&p->known);
	list_init(&p->checks);
	sweep_init(p);
	if (defer_new(loop, &p->defer) < 0 ||
	    bus_subscribe(cfg->bus, BUS_FINISHED, on_task_finished, p) < 0 ||
	    bus_subscribe(cfg->bus, BUS_OUTBOX, on_outbox_nudged, p) < 0) {
		bus_unsubscribe(cfg->bus, BUS_FINISHED, on_task_finished, p);
		defer_close(p->defer);
		free(p);
		return err_set(e, -ENOMEM, "out of memory");
	}
	(void)uv_timer_init(loop, &p->flush_timer);
	(void)uv_timer_init(loop, &p->tick_timer);
	p->flush_timer.data = p->tick_timer.data = p;
	p->open_handles = 2;
	if (p->has_outbox)
		sweep_start(p);
	*ret_publisher = p;
	return 0;
}

static void free_publisher(struct publisher *p)
{
	struct publication *pub;
	struct stream *s;
	size_t cursor;

	MAP_FOREACH (pub, cursor, &p->known)
		free(pub);
	MAP_FOREACH (s, cursor, &p->streams)
		free(s);
	map_fini(&p->known);
	map_fini(&p->streams);
	free(p->done.at);
	free(p->doing.at);
	free(p);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct publisher *p = handle->data;
	void (*closed)(void *) = p->closed;
	void *ctx = p->closed_ctx;

	if (--p->open_handles)
		return;
	free_publisher(p);
	if (closed)
		closed(ctx);
}

void publisher_check_closed(struct publisher *p)
{
	if (!p->closing || p->n_requests || uv_is_closing((uv_handle_t *)&p->flush_timer))
		return;
	bus_unsubscribe(p->cfg.bus, BUS_FINISHED, on_task_finished, p);
	bus_unsubscribe(p->cfg.bus, BUS_OUTBOX, on_outbox_nudged, p);
	defer_cancel(&p->sweep_soon);
	defer_close(p->defer);
	uv_close((uv_handle_t *)&p->flush_timer, on_handle_closed);
	uv_close((uv_handle_t *)&p->tick_timer, on_handle_closed);
}

void publisher_close(struct publisher *p, void (*closed)(void *ctx), void *ctx)
{
	p->sweeping = false;
	p->closing = true;
	p->closed = closed;
	p->closed_ctx = ctx;
	(void)uv_timer_stop(&p->flush_timer);
	(void)uv_timer_stop(&p->tick_timer);
	flush(p);
	publisher_check_closed(p);
}
