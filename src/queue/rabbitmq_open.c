/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>

static void free_rabbit(struct rabbit *q)
{
	struct rabbit_lane *lane;
	size_t cursor;

	rabbit_free_items(&q->held);
	rabbit_free_items(&q->shared.to_thread);
	rabbit_free_items(&q->shared.to_loop);
	MAP_FOREACH (lane, cursor, &q->lanes) {
		rabbit_free_items(&lane->waiting);
		free(lane);
	}
	free(q->dead);
	map_fini(&q->lanes);
	map_fini(&q->thread.by_tag);
	(void)pthread_mutex_destroy(&q->lock);
	cleanup_close(&q->thread_fd);
	cleanup_close(&q->loop_fd);
	free(q);
}

/* The thread has said that it ends, so the join is short. */
void rabbit_on_closed(uv_handle_t *handle)
{
	struct rabbit *q = handle->data;
	void (*closed)(void *) = q->closed;
	void *ctx = q->closed_ctx;

	(void)pthread_join(q->id, NULL);
	defer_close(q->defer);
	free_rabbit(q);
	if (closed)
		closed(ctx);
}

void rabbit_close(struct queue *base, void (*closed)(void *ctx), void *ctx)
{
	struct rabbit *q = container_of(base, struct rabbit, base);

	q->consumer = NULL;
	q->closing = true;
	q->closed = closed;
	q->closed_ctx = ctx;
	rabbit_order(q, &q->close_order);
}

static void init_lists(struct rabbit *q)
{
	struct rabbit_thread *t = &q->thread;
	struct list *lists[] = {
		&q->held,      &q->tell.link,	    &q->shared.to_thread, &t->lanes,
		&t->to_send,   &q->shared.to_loop,  &t->to_settle,	  &t->handed,
		&t->in_flight, &q->close_order.link};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		list_init(lists[i]);
}

static struct rabbit *rabbit_new(const struct queue_config *cfg)
{
	struct rabbit *q = calloc(1, sizeof *q);

	if (!q)
		return NULL;
	q->max_tasks = cfg->max_tasks;
	q->thread.q = q;
	q->wake.data = q;
	q->tell.call = rabbit_on_tell;
	map_init(&q->lanes);
	map_init(&q->thread.by_tag);
	init_lists(q);
	q->close_order.kind = RABBIT_CLOSE;
	(void)pthread_mutex_init(&q->lock, NULL);
	q->thread_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->loop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return q;
}

/* Signals are the loop's affair: the thread starts with all of them blocked. */
static int start_thread(struct rabbit *q)
{
	sigset_t all, old;
	int r;

	if (q->thread_fd < 0 || q->loop_fd < 0)
		return -EMFILE;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&q->id, NULL, rabbit_thread_main, &q->thread);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0)
		(void)pthread_setname_np(q->id, "kiln-rabbitmq");
	return r;
}

/* What a broker refuses is said at once, so opening waits for it; but one that is silent holds
 * nobody up for longer than this. */
enum { START_WAIT_MS = 3000 };

/* Takes over what the thread has found out so far; true once it has tried to connect. */
static bool has_started(struct rabbit *q, int *ret_code, struct err *e)
{
	eventfd_t count;
	bool started;

	(void)eventfd_read(q->loop_fd, &count);
	(void)pthread_mutex_lock(&q->lock);
	started = q->shared.started;
	*ret_code = q->shared.start_code;
	if (started && *ret_code < 0)
		*e = q->shared.reason;
	q->up = q->shared.up;
	q->session = q->shared.session;
	(void)pthread_mutex_unlock(&q->lock);
	return started;
}

/* The thread is on its own from here: it tries again whatever the broker says. True where it has
 * tried by now after all. */
static bool stop_waiting(struct rabbit *q)
{
	bool started;

	(void)pthread_mutex_lock(&q->lock);
	started = q->shared.started;
	q->shared.waiting_no_more = !started;
	if (!started && !q->shared.has_reason) {
		(void)err_set(&q->shared.reason, -ENOTCONN, "RabbitMQ has not answered yet");
		q->shared.has_reason = true;
	}
	(void)pthread_mutex_unlock(&q->lock);
	return started;
}

/* Until the thread has tried to connect for the first time, or that takes too long. */
static int wait_started(struct rabbit *q, struct err *e)
{
	int64_t until_us = clock_monotonic_us() + START_WAIT_MS * INT64_C(1000);
	struct pollfd p = {.fd = q->loop_fd, .events = POLLIN};
	int r = 0;

	while (!has_started(q, &r, e)) {
		int64_t left_us = until_us - clock_monotonic_us();

		if (left_us <= 0 && !stop_waiting(q)) {
			r = -ENOTCONN;
			break;
		}
		(void)poll(&p, 1, left_us > 0 ? (int)(left_us / 1000) + 1 : 0);
	}
	(void)eventfd_write(q->loop_fd, 1);
	return r;
}

int rabbit_open(uv_loop_t *loop, const struct queue_config *cfg, const char *rest,
		struct queue **ret_queue, struct err *e)
{
	struct rabbit_url url;
	struct rabbit *q;
	struct err why;
	int r = rabbit_url_parse(rest, &url, e);

	if (r < 0)
		return r;
	if (!cfg->max_tasks)
		return err_set(e, -EINVAL, "a queue must have room for at least one task");
	q = rabbit_new(cfg);
	if (!q)
		return err_set(e, -ENOMEM, "out of memory");
	q->url = url;
	r = start_thread(q);
	if (r < 0) {
		free_rabbit(q);
		return err_errno(e, r, "could not start a thread");
	}
	r = wait_started(q, &why);
	/* Not there is not an error, it is tried again. */
	if (r < 0 && !rabbit_may_pass(r)) {
		(void)pthread_join(q->id, NULL);
		free_rabbit(q);
		return err_set(e, r, "%s", why.msg);
	}
	r = defer_new(loop, &q->defer);
	if (r == 0)
		r = uv_poll_init(loop, &q->wake, q->loop_fd);
	if (r == 0)
		r = uv_poll_start(&q->wake, UV_READABLE, rabbit_on_wake);
	if (r < 0) {
		rabbit_order(q, &q->close_order);
		(void)pthread_join(q->id, NULL);
		defer_close(q->defer);
		free_rabbit(q);
		return err_errno(e, r, "could not open the queue");
	}
	*ret_queue = &q->base;
	return 0;
}
