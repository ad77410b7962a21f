/* SPDX-License-Identifier: Apache-2.0 */
#include "redis/private.h"

#include "base/clock.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { HELLO_MAX = 8192 };

/* Outlives the attempt where the resolver takes longer: then redis is NULL. */
struct resolve {
	uv_getaddrinfo_t req;
	struct redis *redis;
};

int redis_blame(struct redis *c, int code, const char *what)
{
	return err_errno(&c->why, code, "%s %s", what, c->peer);
}

static void report(struct redis *c)
{
	if (c->closing || c->reported_code == c->why_code)
		return;
	c->reported_code = c->why_code;
	if (c->cfg.changed)
		c->cfg.changed(c->cfg.ctx, c->why_code == 0, c->why.msg);
}

/* ---- the end of an attempt or a connection ---- */

static void on_poll_closed(uv_handle_t *handle)
{
	struct redis_socket *s = handle->data;
	struct redis *c = s->redis;

	free(s);
	redis_on_handle_closed(c);
}

void redis_leave_socket(struct redis *c)
{
	struct redis_socket *s = c->socket;

	if (c->resolve) {
		c->resolve->redis = NULL;
		(void)uv_cancel((uv_req_t *)&c->resolve->req);
		c->resolve = NULL;
	}
	redis_reader_free(c->reader);
	c->reader = NULL;
	buf_clear(&c->out);
	c->blocked = false;
	if (!s)
		return;
	c->socket = NULL;
	uv_close((uv_handle_t *)&s->poll, on_poll_closed);
	(void)close(s->fd);
}

/* With several hosts, the wait comes after the last of them. */
void redis_fail(struct redis *c, int code)
{
	bool was_up = c->state == REDIS_UP;
	uint64_t wait_ms = 0;

	if (c->state == REDIS_ENDED || c->state == REDIS_WAITING)
		return;
	c->state = REDIS_WAITING;
	c->why_code = code;
	c->doom = 0;
	c->misses = 0;
	metric_set(METRIC_REDIS_UP, 0, c->cfg.use);
	redis_leave_socket(c);
	c->host = (c->host + 1) % c->address.n_hosts;
	if (c->host == 0)
		wait_ms = backoff_next_ms(&c->backoff);
	if (c->host == 0 || was_up)
		report(c);
	if (c->closing)
		defer_call(c->defer, &c->ending);
	else
		(void)uv_timer_start(&c->pace, redis_on_pace, wait_ms, 0);
	redis_end_calls(c);
}

/* ---- greeting ---- */

static const char *const refusals[] = {
	[STEP_AUTH] = "does not accept the user or password",
	[STEP_SELECT] = "refuses the number of the database",
	[STEP_SUBSCRIBE] = "refuses a subscription",
	[STEP_PING] = "is not ready",
};

/* What a server says goes into logs: one line of plain text. */
static int refuse(struct redis *c, int code, const char *what, const struct redisReply *reply)
{
	char text[160] = "";
	size_t len = reply->str ? reply->len : 0;

	for (size_t i = 0; i < len && i < sizeof text - 1; i++)
		text[i] = reply->str[i] >= ' ' && reply->str[i] <= '~' ? reply->str[i] : '?';
	return err_set(&c->why, code, "%s %s: %s", c->peer, what, text);
}

static bool begins_with(const struct redisReply *reply, const char *word)
{
	return reply->len >= strlen(word) && memcmp(reply->str, word, strlen(word)) == 0;
}

static int judge_error(struct redis *c, enum redis_step step, const struct redisReply *reply)
{
	/* Where the role may not be asked for, it is taken for the right one. */
	if (step == STEP_ROLE)
		return 0;
	if (begins_with(reply, "NOAUTH") && !c->address.password[0])
		return err_set(&c->why, -EACCES, "%s wants a password, and its address has none",
			       c->peer);
	return refuse(c, step == STEP_PING ? -EAGAIN : -EACCES, refusals[step], reply);
}

/* 0 where the step went well. */
static int judge(struct redis *c, enum redis_step step, const struct redisReply *reply)
{
	bool fits = false;

	if (reply->type == REDIS_REPLY_ERROR)
		return judge_error(c, step, reply);
	switch (step) {
	case STEP_AUTH:
	case STEP_SELECT:
		fits = redis_reply_is(reply, "OK");
		break;
	case STEP_ROLE:
		fits = reply->type == REDIS_REPLY_STRING;
		if (fits && strstr(reply->str, "role:slave"))
			return err_set(&c->why, -EROFS, "%s is a replica", c->peer);
		break;
	case STEP_SUBSCRIBE:
		fits = reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
		       redis_reply_is(reply->element[0], "subscribe");
		break;
	case STEP_PING: /* to a subscriber it answers with an array */
		fits = redis_reply_is(reply, "PONG") ||
		       (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
			redis_reply_is(reply->element[0], "pong"));
		break;
	}
	return fits ? 0 : err_set(&c->why, -EPROTO, "%s does not answer as a Redis does", c->peer);
}

static void come_up(struct redis *c)
{
	c->state = REDIS_UP;
	c->why_code = 0;
	c->misses = 0;
	c->up_us = c->heard_us = clock_monotonic_us();
	(void)err_set(&c->why, -EISCONN, "connected to %s", c->peer);
	metric_set(METRIC_REDIS_UP, 1, c->cfg.use);
	(void)uv_timer_start(&c->pace, redis_on_pace, REDIS_TICK_MS, REDIS_TICK_MS);
	report(c);
}

void redis_greeted(struct redis *c, const struct redisReply *reply)
{
	int r = judge(c, c->steps[c->answered], reply);

	if (r < 0)
		c->doom = r;
	else if (++c->answered == c->n_steps)
		come_up(c);
}

static void add_step(struct redis *c, struct buf *hello, enum redis_step step,
		     const struct redis_arg *args, size_t n)
{
	(void)redis_append(hello, args, n);
	c->steps[c->n_steps++] = step;
}

static struct redis_arg word(const char *text)
{
	return (struct redis_arg){text, strlen(text)};
}

static void write_hello(struct redis *c, struct buf *hello)
{
	const struct redis_address *a = &c->address;
	char db[16];

	c->n_steps = c->answered = 0;
	if (a->password[0]) {
		const struct redis_arg args[] = {word("AUTH"), word(a->user), word(a->password)};
		const struct redis_arg old[] = {word("AUTH"), word(a->password)};

		if (a->user[0])
			add_step(c, hello, STEP_AUTH, args, ARRAY_SIZE(args));
		else
			add_step(c, hello, STEP_AUTH, old, ARRAY_SIZE(old));
	}
	(void)snprintf(db, sizeof db, "%u", a->db);
	add_step(c, hello, STEP_SELECT, (struct redis_arg[]){word("SELECT"), word(db)}, 2);
	add_step(c, hello, STEP_ROLE, (struct redis_arg[]){word("INFO"), word("replication")}, 2);
	for (const char *const *channel = c->cfg.channels; channel && *channel; channel++)
		add_step(c, hello, STEP_SUBSCRIBE,
			 (struct redis_arg[]){word("SUBSCRIBE"), word(*channel)}, 2);
	add_step(c, hello, STEP_PING, (struct redis_arg[]){word("PING")}, 1);
}

/* All at once: one round trip. A fresh socket takes it whole. */
static int greet(struct redis *c)
{
	struct buf hello;
	ssize_t n;
	int r;

	buf_init(&hello, HELLO_MAX);
	/* At its full size from the start: growing would leave copies of the password. */
	(void)buf_reserve(&hello, HELLO_MAX);
	write_hello(c, &hello);
	r = buf_error(&hello);
	if (r == 0) {
		n = send(c->socket->fd, hello.data, hello.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		r = n < 0 ? -errno : (size_t)n < hello.len ? -EAGAIN : 0;
	}
	if (hello.len)
		explicit_bzero(hello.data, hello.len);
	buf_fini(&hello);
	return r;
}

/* ---- connecting ---- */

static void on_connected(uv_poll_t *poll, int status, int events)
{
	struct redis_socket *s = poll->data;
	struct redis *c = s->redis;
	socklen_t len = sizeof(int);
	int r = 0;

	(void)events;
	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &r, &len) < 0)
		r = errno;
	r = r ? -r : status;
	c->reader = redis_reader_new(c->cfg.reply_max);
	if (r == 0 && !c->reader)
		r = -ENOMEM;
	if (r == 0)
		r = greet(c);
	if (r < 0) {
		redis_fail(c, redis_blame(c, r, "could not connect to"));
		return;
	}
	c->state = REDIS_GREETING;
	c->up_us = clock_monotonic_us();
	(void)uv_timer_start(&c->pace, redis_on_pace, c->cfg.call_ms, 0);
	(void)uv_poll_start(&s->poll, UV_READABLE, redis_on_poll);
}

static int open_socket(struct redis *c, const struct sockaddr *addr, socklen_t len)
{
	AUTO_FD int fd =
		socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	struct redis_socket *s;
	int r, on = 1;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(fd, addr, len) < 0 && errno != EINPROGRESS)
		return -errno;
	s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	r = uv_poll_init(c->loop, &s->poll, fd);
	if (r < 0) {
		free(s);
		return r;
	}
	s->poll.data = s;
	s->redis = c;
	s->fd = TAKE_FD(fd);
	c->socket = s;
	c->open_handles++;
	(void)uv_poll_start(&s->poll, UV_WRITABLE, on_connected);
	return 0;
}

static void connect_to(struct redis *c, const struct sockaddr *addr, socklen_t len)
{
	int r;

	c->state = REDIS_CONNECTING;
	r = open_socket(c, addr, len);
	if (r < 0)
		redis_fail(c, redis_blame(c, r, "could not connect to"));
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
	struct resolve *resolve = container_of(req, struct resolve, req);
	struct redis *c = resolve->redis;
	const struct addrinfo *at = list;
	size_t n = 0;

	free(resolve);
	if (!c) {
		uv_freeaddrinfo(list);
		return;
	}
	c->resolve = NULL;
	if (status < 0 || !list) {
		uv_freeaddrinfo(list);
		redis_fail(c, err_set(&c->why, -EHOSTUNREACH, "could not resolve %s: %s", c->peer,
				      uv_strerror(status)));
		return;
	}
	for (const struct addrinfo *a = list; a; a = a->ai_next)
		n++;
	/* One that does not answer is not tried twice in a row. */
	for (size_t i = (c->attempts / c->address.n_hosts) % n; i > 0; i--)
		at = at->ai_next;
	connect_to(c, at->ai_addr, at->ai_addrlen);
	uv_freeaddrinfo(list);
}

static void resolve_name(struct redis *c, const struct redis_host *host)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct resolve *resolve = calloc(1, sizeof *resolve);
	char port[8];
	int r = -ENOMEM;

	(void)snprintf(port, sizeof port, "%u", host->port);
	if (resolve) {
		resolve->redis = c;
		r = uv_getaddrinfo(c->loop, &resolve->req, on_resolved, host->name, port, &hints);
	}
	if (r < 0) {
		free(resolve);
		redis_fail(c, err_set(&c->why, r, "could not resolve %s", c->peer));
		return;
	}
	c->resolve = resolve;
}

void redis_attempt(struct redis *c)
{
	const struct redis_host *host = &c->address.hosts[c->host];
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(host->port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(host->port)};

	(void)snprintf(c->peer, sizeof c->peer, strchr(host->name, ':') ? "[%s]:%u" : "%s:%u",
		       host->name, host->port);
	c->state = REDIS_RESOLVING;
	(void)uv_timer_start(&c->pace, redis_on_pace, REDIS_CONNECT_MS, 0);
	if (inet_pton(AF_INET, host->name, &v4.sin_addr) == 1)
		connect_to(c, (const struct sockaddr *)&v4, sizeof v4);
	else if (inet_pton(AF_INET6, host->name, &v6.sin6_addr) == 1)
		connect_to(c, (const struct sockaddr *)&v6, sizeof v6);
	else
		resolve_name(c, host);
	c->attempts++;
}
