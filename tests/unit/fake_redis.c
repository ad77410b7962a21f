/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_redis.h"

#include "base/cleanup.h"
#include "redis/reader.h"
#include "unit.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct fake_peer {
	uv_tcp_t tcp;
	struct fake_redis *fake;
	struct fake_peer *next, **at;
	struct redis_reader *reader;
	char chunk[65536];
};

struct sending {
	uv_write_t req;
	uv_timer_t delay;
	struct fake_peer *peer; /* NULL: it is gone */
	uv_buf_t buf;
	struct sending *next;
};

static struct sending *delayed; /* those that wait for their time */

static void on_gone(uv_handle_t *handle)
{
	struct fake_peer *p = handle->data;

	redis_reader_free(p->reader);
	free(p);
}

static void drop(struct fake_peer *p)
{
	if (uv_is_closing((uv_handle_t *)&p->tcp))
		return;
	for (struct sending *s = delayed; s; s = s->next) {
		if (s->peer == p)
			s->peer = NULL;
	}
	*p->at = p->next;
	if (p->next)
		p->next->at = p->at;
	uv_close((uv_handle_t *)&p->tcp, on_gone);
}

static void on_sent(uv_write_t *req, int status)
{
	struct sending *s = container_of(req, struct sending, req);

	(void)status;
	free(s->buf.base);
	free(s);
}

static void on_delay_closed(uv_handle_t *handle)
{
	struct sending *s = handle->data;

	if (s->peer && uv_write(&s->req, (uv_stream_t *)&s->peer->tcp, &s->buf, 1, on_sent) == 0)
		return;
	free(s->buf.base);
	free(s);
}

static void on_delay(uv_timer_t *timer)
{
	struct sending *s = timer->data;

	for (struct sending **at = &delayed; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			break;
		}
	}
	uv_close((uv_handle_t *)timer, on_delay_closed);
}

static void send_to(struct fake_peer *p, const void *bytes, size_t len)
{
	struct sending *s = calloc(1, sizeof *s);
	char *copy = malloc(len + 1);

	assert_non_null(s);
	assert_non_null(copy);
	memcpy(copy, bytes, len);
	s->buf = uv_buf_init(copy, (unsigned)len);
	s->peer = p;
	if (!p->fake->delay_ms) {
		if (uv_write(&s->req, (uv_stream_t *)&p->tcp, &s->buf, 1, on_sent) == 0)
			return;
		free(copy);
		free(s);
		return;
	}
	s->next = delayed;
	delayed = s;
	s->delay.data = s;
	(void)uv_timer_init(p->tcp.loop, &s->delay);
	(void)uv_timer_start(&s->delay, on_delay, p->fake->delay_ms, 0);
}

static void answer(struct fake_peer *p, const redisReply *command)
{
	static const struct fake_answer usual[] = {
		{"AUTH", "+OK\r\n", 5},	  {"SELECT", "+OK\r\n", 5},
		{"SET", "+OK\r\n", 5},	  {"DEL", ":1\r\n", 4},
		{"PING", "+PONG\r\n", 7}, {"INFO", "$13\r\nrole:master\r\n\r\n", 20},
		{"GET", "$-1\r\n", 5},	  {"PUBLISH", ":1\r\n", 4},
	};
	const char *name = command->element[0]->str;
	char text[256];

	for (const struct fake_answer *a = p->fake->special; a->command; a++) {
		if (strcasecmp(a->command, name) == 0) {
			send_to(p, a->bytes, a->len);
			return;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(usual); i++) {
		if (strcasecmp(usual[i].command, name) == 0) {
			send_to(p, usual[i].bytes, usual[i].len);
			return;
		}
	}
	assert_string_equal(name, "SUBSCRIBE");
	(void)snprintf(text, sizeof text, "*3\r\n$9\r\nsubscribe\r\n$%zu\r\n%s\r\n:1\r\n",
		       command->element[1]->len, command->element[1]->str);
	send_to(p, text, strlen(text));
}

/* Requests have the form of a reply that is an array of strings. */
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct fake_peer *p = stream->data;
	struct fake_redis *f = p->fake;
	redisReply *command;

	if (n == 0)
		return;
	if (n < 0 || f->hangs_up) {
		drop(p);
		return;
	}
	f->bytes += (size_t)n;
	if (f->silent)
		return;
	assert_int_equal(redis_reader_feed(p->reader, buf->base, (size_t)n, NULL), 0);
	while (redis_reader_next(p->reader, &command, NULL) > 0) {
		f->received++;
		answer(p, command);
		freeReplyObject(command);
	}
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct fake_peer *p = handle->data;

	(void)suggested;
	*buf = uv_buf_init(p->chunk, sizeof p->chunk);
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct fake_redis *f = listener->data;
	struct fake_peer *p = calloc(1, sizeof *p);

	assert_int_equal(status, 0);
	assert_non_null(p);
	p->fake = f;
	p->reader = redis_reader_new(64 * 1024 * 1024);
	p->tcp.data = p;
	p->at = &f->peers;
	p->next = f->peers;
	if (p->next)
		p->next->at = &p->next;
	f->peers = p;
	f->accepted++;
	(void)uv_tcp_init(listener->loop, &p->tcp);
	assert_int_equal(uv_accept(listener, (uv_stream_t *)&p->tcp), 0);
	(void)uv_tcp_nodelay(&p->tcp, 1);
	(void)uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read);
}

void fake_redis_start(struct fake_redis *f, uv_loop_t *loop)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	int len = sizeof addr;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	f->listener.data = f;
	(void)uv_tcp_init(loop, &f->listener);
	assert_int_equal(uv_tcp_bind(&f->listener, (const struct sockaddr *)&addr, 0), 0);
	assert_int_equal(uv_listen((uv_stream_t *)&f->listener, 16, on_connection), 0);
	assert_int_equal(uv_tcp_getsockname(&f->listener, (struct sockaddr *)&addr, &len), 0);
	(void)snprintf(f->url, sizeof f->url, "redis://127.0.0.1:%u/0", ntohs(addr.sin_port));
}

void fake_redis_push(struct fake_redis *f, const void *bytes, size_t len)
{
	for (struct fake_peer *p = f->peers; p; p = p->next)
		send_to(p, bytes, len);
}

void fake_redis_cut(struct fake_redis *f)
{
	while (f->peers)
		drop(f->peers);
}

void fake_redis_stop(struct fake_redis *f)
{
	fake_redis_cut(f);
	uv_close((uv_handle_t *)&f->listener, NULL);
}
