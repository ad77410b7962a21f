/* SPDX-License-Identifier: Apache-2.0 */
#include "redis/private.h"

#include "base/clock.h"
#include "observe/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum {
	RECEIVE_ROUNDS = 16,	 /* of a chunk each, before others have their turn */
	PATIENT_RESERVE = 65536, /* above unsent_max, for commands that somebody waits for */
	OUT_KEEP_MAX = 256 * 1024,
};

bool redis_is_up(const struct redis *c)
{
	return c->state == REDIS_UP;
}

unsigned redis_db(const struct redis *c)
{
	return c->address.db;
}

const char *redis_text(const struct redis *c)
{
	return c->why.msg;
}

bool redis_reply_is(const struct redisReply *reply, const char *word)
{
	return (reply->type == REDIS_REPLY_STATUS || reply->type == REDIS_REPLY_STRING) &&
	       reply->len == strlen(word) && memcmp(reply->str, word, reply->len) == 0;
}

/* ---- commands ---- */

int redis_append(struct buf *b, const struct redis_arg *args, size_t n)
{
	size_t total = 16;

	for (size_t i = 0; i < n; i++)
		total += args[i].len + 32;
	/* All or nothing: half a command would be the beginning of something else. */
	if (buf_reserve(b, total) < 0)
		return -ENOBUFS;
	(void)buf_printf(b, "*%zu\r\n", n);
	for (size_t i = 0; i < n; i++) {
		(void)buf_printf(b, "$%zu\r\n", args[i].len);
		(void)buf_append(b, args[i].bytes, args[i].len);
		(void)buf_append(b, "\r\n", 2);
	}
	return 0;
}

static void free_call(struct redis *c, struct redis_call *call)
{
	list_unlink(&call->link);
	list_unlink(&call->patience);
	c->n_calls--;
	free(call);
}

/* Tells who waits, once, that there is no answer. */
static void disappoint(struct redis_call *call)
{
	redis_done done = call->done;

	list_unlink(&call->patience);
	call->late = done != NULL;
	call->done = NULL;
	if (done)
		done(call->ctx, NULL);
}

void redis_end_calls(struct redis *c)
{
	struct list ended;
	struct redis_call *call;

	list_init(&ended);
	list_move_all(&ended, &c->calls);
	while ((call = LIST_FIRST(&ended, struct redis_call, link))) {
		disappoint(call);
		free_call(c, call);
	}
}

void redis_cancel(struct redis_call *call)
{
	list_unlink(&call->patience);
	call->done = NULL;
}

static void on_patience(uv_timer_t *timer);

static void arm_patience(struct redis *c)
{
	const struct redis_call *first = LIST_FIRST(&c->patient, struct redis_call, patience);
	int64_t left_us;

	if (!first || uv_is_active((uv_handle_t *)&c->patience))
		return;
	left_us = first->since_us + (int64_t)c->cfg.call_ms * 1000 - clock_monotonic_us();
	(void)uv_timer_start(&c->patience, on_patience,
			     left_us > 0 ? (uint64_t)(left_us + 999) / 1000 : 0, 0);
}

/* What has come meanwhile is taken first: a loop that was busy elsewhere is not Redis' fault. */
static void on_patience(uv_timer_t *timer)
{
	struct redis *c = timer->data;
	int64_t before_us = clock_monotonic_us() - (int64_t)c->cfg.call_ms * 1000;
	struct redis_call *call;

	if (c->state == REDIS_UP)
		redis_receive(c);
	while ((call = LIST_FIRST(&c->patient, struct redis_call, patience)) &&
	       call->since_us <= before_us) {
		metric_add(METRIC_REDIS_CALLS, 1, c->cfg.use, "timeout");
		c->misses++;
		disappoint(call);
	}
	arm_patience(c);
	if (c->misses >= REDIS_MISSES_MAX && c->state == REDIS_UP)
		redis_fail(c, err_set(&c->why, -ETIMEDOUT,
				      "%s left %u requests in a row without an answer for %u ms",
				      c->peer, c->misses, c->cfg.call_ms));
}

static int take_call(struct redis *c, const struct redis_arg *args, size_t n, redis_done done,
		     void *ctx, struct redis_call **ret_call)
{
	size_t room = c->cfg.unsent_max + (done ? PATIENT_RESERVE : 0);
	size_t size = c->out.len;
	struct redis_call *call;
	int r;

	for (size_t i = 0; i < n; i++)
		size += args[i].len;
	if (c->closing || c->state != REDIS_UP)
		return -ENOTCONN;
	if (size > room || c->n_calls >= REDIS_CALLS_MAX)
		return -ENOBUFS;
	call = calloc(1, sizeof *call);
	if (!call)
		return -ENOMEM;
	r = redis_append(&c->out, args, n);
	if (r < 0) {
		free(call);
		return r;
	}
	*call = (struct redis_call){.done = done, .ctx = ctx, .since_us = clock_monotonic_us()};
	list_init(&call->patience);
	list_push_back(&c->calls, &call->link);
	c->n_calls++;
	if (done)
		list_push_back(&c->patient, &call->patience);
	if (ret_call)
		*ret_call = call;
	return 0;
}

int redis_command(struct redis *c, const struct redis_arg *args, size_t n, redis_done done,
		  void *ctx, struct redis_call **ret_call)
{
	int r = take_call(c, args, n, done, ctx, ret_call);

	if (r < 0) {
		metric_add(METRIC_REDIS_CALLS, 1, c->cfg.use,
			   r == -ENOTCONN ? "unavailable" : "dropped");
		return r;
	}
	arm_patience(c);
	/* At the end of the turn: what is asked in one turn goes out together. */
	if (!c->blocked)
		defer_call(c->defer, &c->flushing);
	return 0;
}

/* ---- the socket ---- */

void redis_on_poll(uv_poll_t *poll, int status, int events)
{
	struct redis_socket *s = poll->data;
	struct redis *c = s->redis;

	/* What status says, the next read or write says better. */
	if ((events & UV_READABLE) || status < 0)
		redis_receive(c);
	if (c->socket == s && (events & UV_WRITABLE))
		redis_flush(c);
}

static void poll_for(struct redis *c, bool writable)
{
	c->blocked = writable;
	(void)uv_poll_start(&c->socket->poll, UV_READABLE | (writable ? UV_WRITABLE : 0),
			    redis_on_poll);
}

void redis_flush(struct redis *c)
{
	ssize_t n;

	if (c->state != REDIS_UP || c->out.len == 0)
		return;
	n = send(c->socket->fd, c->out.data, c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		redis_fail(c, redis_blame(c, -errno, "could not write to"));
		return;
	}
	if (n > 0)
		buf_consume(&c->out, (size_t)n);
	if (c->blocked != (c->out.len > 0))
		poll_for(c, c->out.len > 0);
	if (c->out.len == 0 && c->out.cap > OUT_KEEP_MAX) {
		size_t max = c->out.max;

		buf_fini(&c->out);
		buf_init(&c->out, max);
	}
}

static void on_flushing(struct deferred *d)
{
	redis_flush(container_of(d, struct redis, flushing));
}

/* A message to a subscriber comes between the answers to its commands. */
static bool is_message(const struct redis *c, const struct redisReply *reply)
{
	return c->cfg.channels && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
	       redis_reply_is(reply->element[0], "message");
}

static void hand_message(struct redis *c, const struct redisReply *reply)
{
	const struct redisReply *payload = reply->element[2];

	if (payload->type != REDIS_REPLY_STRING)
		return;
	for (size_t i = 0; c->cfg.channels[i]; i++) {
		if (redis_reply_is(reply->element[1], c->cfg.channels[i])) {
			c->cfg.message(c->cfg.ctx, i, payload->str, payload->len);
			return;
		}
	}
}

/* Errors after which this server is of no more use: it became a replica, or lost its trust. */
static int judge_answer(struct redis *c, const struct redisReply *reply)
{
	static const struct {
		const char *word, *what;
		int code;
	} ends[] = {
		{"READONLY", "became a replica", -EROFS},
		{"NOAUTH", "does not accept the password any more", -EACCES},
		{"LOADING", "is not ready", -EAGAIN},
	};

	if (reply->type != REDIS_REPLY_ERROR)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		if (reply->len >= strlen(ends[i].word) &&
		    memcmp(reply->str, ends[i].word, strlen(ends[i].word)) == 0)
			return err_set(&c->why, ends[i].code, "%s %s", c->peer, ends[i].what);
	}
	return 0;
}

static void answer(struct redis *c, const struct redisReply *reply)
{
	struct redis_call *call = LIST_FIRST(&c->calls, struct redis_call, link);
	bool is_error = reply->type == REDIS_REPLY_ERROR;

	if (!call) {
		c->doom =
			err_set(&c->why, -EPROTO, "%s sent a reply that nobody asked for", c->peer);
		return;
	}
	c->doom = judge_answer(c, reply);
	if (!call->late)
		metric_add(METRIC_REDIS_CALLS, 1, c->cfg.use, is_error ? "error" : "ok");
	if (call->done) {
		redis_done done = call->done;

		call->done = NULL;
		c->misses = 0;
		done(call->ctx, reply);
	}
	free_call(c, call);
}

static void handle(struct redis *c, const struct redisReply *reply)
{
	c->heard_us = clock_monotonic_us();
	if (is_message(c, reply)) {
		if (!c->closing)
			hand_message(c, reply);
	} else if (c->state == REDIS_GREETING) {
		redis_greeted(c, reply);
	} else {
		answer(c, reply);
	}
}

/* No callback of a reply ends the connection from inside: that is put off. */
static int take_replies(struct redis *c, size_t len)
{
	struct redisReply *reply = NULL;
	int r = redis_reader_feed(c->reader, c->chunk, len, &c->why);

	while (r == 0 && c->doom == 0) {
		r = redis_reader_next(c->reader, &reply, &c->why);
		if (r <= 0)
			break;
		handle(c, reply);
		freeReplyObject(reply);
		r = 0;
	}
	if (c->doom)
		return c->doom;
	if (r < 0)
		return err_wrap(&c->why, r, "%s sent what no Redis sends", c->peer);
	return 0;
}

void redis_receive(struct redis *c)
{
	for (int i = 0; i < RECEIVE_ROUNDS; i++) {
		ssize_t n = recv(c->socket->fd, c->chunk, sizeof c->chunk, MSG_DONTWAIT);
		int r;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < 0) {
			redis_fail(c, redis_blame(c, -errno, "lost the connection to"));
			return;
		}
		if (n == 0) {
			redis_fail(c, err_set(&c->why, -ECONNRESET, "%s closed the connection",
					      c->peer));
			return;
		}
		r = take_replies(c, (size_t)n);
		if (r < 0) {
			redis_fail(c, r);
			return;
		}
		if ((size_t)n < sizeof c->chunk)
			break;
	}
	if (c->closing && list_empty(&c->calls))
		defer_call(c->defer, &c->ending);
}

/* ---- time ---- */

static void greet_in_vain(struct redis *c)
{
	int64_t took_ms;

	redis_receive(c);
	if (c->state != REDIS_GREETING)
		return;
	took_ms = (clock_monotonic_us() - c->up_us) / 1000;
	if (took_ms < c->cfg.call_ms)
		(void)uv_timer_start(&c->pace, redis_on_pace, c->cfg.call_ms - (uint64_t)took_ms,
				     0);
	else
		redis_fail(c, err_set(&c->why, -ETIMEDOUT, "%s gave no answer within %u ms",
				      c->peer, c->cfg.call_ms));
}

/* A connection on which nothing is asked may be dead without anybody knowing. */
static void tick(struct redis *c)
{
	static const struct redis_arg ping[] = {REDIS_WORD("PING")};
	const struct redis_call *first;
	int64_t now_us = clock_monotonic_us();

	redis_receive(c);
	if (c->state != REDIS_UP)
		return;
	if (now_us - c->up_us > REDIS_STALL_MS * 1000)
		backoff_reset(&c->backoff);
	first = LIST_FIRST(&c->calls, struct redis_call, link);
	if (first && now_us - first->since_us > REDIS_STALL_MS * 1000 &&
	    now_us - c->heard_us > REDIS_STALL_MS * 1000)
		redis_fail(c, err_set(&c->why, -ETIMEDOUT, "%s gave no answer for %d ms", c->peer,
				      REDIS_STALL_MS));
	else if (!first && now_us - c->heard_us > REDIS_STALL_MS * 1000)
		(void)redis_command(c, ping, 1, NULL, NULL, NULL);
}

void redis_on_pace(uv_timer_t *timer)
{
	struct redis *c = timer->data;

	if (c->closing) {
		defer_call(c->defer, &c->ending);
		return;
	}
	switch (c->state) {
	case REDIS_WAITING:
		redis_attempt(c);
		break;
	case REDIS_RESOLVING:
	case REDIS_CONNECTING:
		redis_fail(c, redis_blame(c, -ETIMEDOUT, "could not connect to"));
		break;
	case REDIS_GREETING:
		greet_in_vain(c);
		break;
	case REDIS_UP:
		tick(c);
		break;
	case REDIS_ENDED:
		break;
	}
}

/* ---- life ---- */

void redis_on_handle_closed(struct redis *c)
{
	void (*closed)(void *) = c->closed;
	void *ctx = c->closed_ctx;

	if (--c->open_handles > 0)
		return;
	buf_fini(&c->out);
	explicit_bzero(&c->address, sizeof c->address);
	free(c);
	if (closed)
		closed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
	redis_on_handle_closed(handle->data);
}

static void on_ending(struct deferred *d)
{
	struct redis *c = container_of(d, struct redis, ending);

	if (c->state == REDIS_ENDED)
		return;
	c->state = REDIS_ENDED;
	redis_leave_socket(c);
	redis_end_calls(c);
	defer_cancel(&c->flushing);
	defer_close(c->defer);
	uv_close((uv_handle_t *)&c->pace, on_timer_closed);
	uv_close((uv_handle_t *)&c->patience, on_timer_closed);
}

void redis_close(struct redis *c, void (*closed)(void *ctx), void *ctx)
{
	c->closing = true;
	c->closed = closed;
	c->closed_ctx = ctx;
	if (c->state == REDIS_UP && !list_empty(&c->calls))
		(void)uv_timer_start(&c->pace, redis_on_pace, REDIS_CLOSE_MS, 0);
	else
		defer_call(c->defer, &c->ending);
}

int redis_open(uv_loop_t *loop, const char *url, const struct redis_config *cfg,
	       struct redis **ret_redis, struct err *e)
{
	struct redis *c = calloc(1, sizeof *c);
	int r = c ? redis_address_parse(url, &c->address, e) : err_set(e, -ENOMEM, "out of memory");

	if (r == 0) {
		r = defer_new(loop, &c->defer);
		if (r < 0)
			(void)err_errno(e, r, "could not open a connection to Redis");
	}
	if (r < 0) {
		free(c);
		return r;
	}
	c->loop = loop;
	c->cfg = *cfg;
	c->reported_code = 1;
	c->why_code = -EAGAIN;
	(void)err_set(&c->why, -EAGAIN, "has not connected yet");
	backoff_init(&c->backoff, REDIS_WAIT_MIN_MS, REDIS_WAIT_MAX_MS);
	buf_init(&c->out, cfg->unsent_max + (size_t)2 * PATIENT_RESERVE);
	list_init(&c->calls);
	list_init(&c->patient);
	list_init(&c->flushing.link);
	list_init(&c->ending.link);
	c->flushing.call = on_flushing;
	c->ending.call = on_ending;
	(void)uv_timer_init(loop, &c->pace);
	(void)uv_timer_init(loop, &c->patience);
	c->pace.data = c->patience.data = c;
	c->open_handles = 2;
	metric_set(METRIC_REDIS_UP, 0, cfg->use);
	/* From the loop: whoever opens has not yet got what changed will be told about. */
	(void)uv_timer_start(&c->pace, redis_on_pace, 0, 0);
	*ret_redis = c;
	return 0;
}
