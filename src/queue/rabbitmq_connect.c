/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include "base/str.h"

#include <amqp_tcp_socket.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

enum {
	FRAME_MAX = 131072,
	/* The library waits without bound where a socket has no room; so it is only ever given as
	 * much as fits into what poll calls room, a third of this. */
	SEND_BUFFER_BYTES = 1024 * 1024,
	/* Bytes that the peer's kernel does not take: longer than any heartbeat says nothing. */
	USER_TIMEOUT_MS = 30000,
};

static amqp_bytes_t bytes(const char *text)
{
	return amqp_cstring_bytes(text);
}

/* ---- errors ---- */

int rabbit_status(int status, struct err *e)
{
	return err_set(e, -ENOTCONN, "%s", amqp_error_string2(status));
}

/* What the broker gives as the reason of a close, as an errno and for people. */
int rabbit_close_reason(uint16_t code, amqp_bytes_t text, struct err *e)
{
	static const struct {
		uint16_t code;
		int error;
	} codes[] = {
		{AMQP_ACCESS_REFUSED, -EACCES},	     {AMQP_NOT_FOUND, -ENOENT},
		{AMQP_PRECONDITION_FAILED, -EEXIST}, {AMQP_NOT_ALLOWED, -ENOENT},
		{AMQP_RESOURCE_LOCKED, -EBUSY},
	};
	int len = text.len < ERR_MSG_MAX ? (int)text.len : ERR_MSG_MAX;
	int r = -EPROTO;

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (codes[i].code == code)
			r = codes[i].error;
	return err_set(e, r, "the broker says: %.*s", len, (const char *)text.bytes);
}

static int reopen_channel(struct rabbit_conn *c, amqp_channel_t channel)
{
	amqp_channel_close_ok_t ok = {0};

	if (amqp_send_method(c->c, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok) < 0 ||
	    !amqp_channel_open(c->c, channel))
		return -ENOTCONN;
	return 0;
}

int rabbit_reply(struct rabbit_conn *c, amqp_channel_t channel, struct err *e)
{
	amqp_rpc_reply_t reply = amqp_get_rpc_reply(c->c);
	const amqp_channel_close_t *channel_close = reply.reply.decoded;
	const amqp_connection_close_t *close = reply.reply.decoded;
	int r;

	switch (reply.reply_type) {
	case AMQP_RESPONSE_NORMAL:
		return 0;
	case AMQP_RESPONSE_LIBRARY_EXCEPTION:
		return rabbit_status(reply.library_error, e);
	case AMQP_RESPONSE_SERVER_EXCEPTION:
		if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
			r = rabbit_close_reason(channel_close->reply_code,
						channel_close->reply_text, e);
			return reopen_channel(c, channel) < 0 ? -ENOTCONN : r;
		}
		(void)rabbit_close_reason(close->reply_code, close->reply_text, e);
		return -ENOTCONN;
	case AMQP_RESPONSE_NONE:
		break;
	}
	return err_set(e, -ENOTCONN, "the connection ended");
}

int rabbit_open_channel(struct rabbit_conn *c, amqp_channel_t channel, struct err *e)
{
	(void)amqp_channel_open(c->c, channel);
	return rabbit_reply(c, channel, e);
}

bool rabbit_has_room(const struct rabbit_conn *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLOUT};

	return poll(&p, 1, 0) > 0;
}

/* ---- connecting ---- */

static void set_socket(int fd)
{
	int size = SEND_BUFFER_BYTES, on = 1, ms = USER_TIMEOUT_MS;

	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

static int refused(const struct rabbit_url *url, const amqp_rpc_reply_t *reply, struct err *e)
{
	const amqp_connection_close_t *m = reply->reply.decoded;
	int r;

	if (reply->reply_type != AMQP_RESPONSE_SERVER_EXCEPTION)
		return rabbit_status(reply->library_error, e);
	if (reply->reply.id != AMQP_CONNECTION_CLOSE_METHOD)
		return err_set(e, -EPROTO, "the broker answered with something else");
	r = rabbit_close_reason(m->reply_code, m->reply_text, e);
	if (m->reply_code == AMQP_ACCESS_REFUSED)
		return err_wrap(e, r,
				"user \"%s\" is refused, see that it exists with this password",
				url->user);
	if (m->reply_code == AMQP_NOT_ALLOWED)
		return err_wrap(
			e, r,
			"user \"%s\" may not use the virtual host \"%s\", see that it exists "
			"and that the user has permissions there",
			url->user, url->vhost);
	/* A broker that shuts down, or is short of something. */
	return -ENOTCONN;
}

static int login(const struct rabbit_url *url, const char *role, struct rabbit_conn *c,
		 struct err *e)
{
	static const char *const names[] = {"consumer_cancel_notify", "connection.blocked",
					    "publisher_confirms", "basic.nack"};
	amqp_table_entry_t can[ARRAY_SIZE(names)], properties[3];
	const amqp_table_t all = {.num_entries = ARRAY_SIZE(properties), .entries = properties};
	amqp_rpc_reply_t reply;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		can[i].key = bytes(names[i]);
		can[i].value.kind = AMQP_FIELD_KIND_BOOLEAN;
		can[i].value.value.boolean = 1;
	}
	properties[0].key = bytes("capabilities");
	properties[0].value.kind = AMQP_FIELD_KIND_TABLE;
	properties[0].value.value.table.num_entries = ARRAY_SIZE(can);
	properties[0].value.value.table.entries = can;
	properties[1].key = bytes("product");
	properties[1].value.kind = AMQP_FIELD_KIND_UTF8;
	properties[1].value.value.bytes = bytes("kiln " KILN_VERSION);
	properties[2].key = bytes("connection_name");
	properties[2].value.kind = AMQP_FIELD_KIND_UTF8;
	properties[2].value.value.bytes = bytes(role);
	reply = amqp_login_with_properties(c->c, url->vhost, 0, FRAME_MAX, url->heartbeat_s, &all,
					   AMQP_SASL_METHOD_PLAIN, url->user, url->password);
	return reply.reply_type == AMQP_RESPONSE_NORMAL ? 0 : refused(url, &reply, e);
}

/* To one address, with a time-out. The fd, or a negative errno. */
static int connect_to(const struct addrinfo *to)
{
	AUTO_FD int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(int);
	int reason = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, to->ai_addr, to->ai_addrlen) == 0)
		return TAKE_FD(fd);
	if (errno != EINPROGRESS)
		return -errno;
	if (poll(&p, 1, RABBIT_CONNECT_MS) <= 0)
		return -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &len) < 0)
		return -errno;
	return reason ? -reason : TAKE_FD(fd);
}

/* The library's own way to connect does not tell why it could not. */
static int connect_host(const char *host, int port, struct err *e)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *list = NULL;
	int r = -EHOSTUNREACH, problem;
	char service[8];

	(void)snprintf(service, sizeof service, "%d", port);
	problem = getaddrinfo(host, service, &hints, &list);
	if (problem)
		return err_set(e, -ENOTCONN, "%s", gai_strerror(problem));
	for (const struct addrinfo *to = list; to && r < 0; to = to->ai_next)
		r = connect_to(to);
	freeaddrinfo(list);
	return r < 0 ? err_set(e, -ENOTCONN, "%s", err_text(r)) : r;
}

static int open_socket(const struct rabbit_url *url, size_t host, struct rabbit_conn *c,
		       struct err *e)
{
	const struct timeval rpc_time = {.tv_sec = RABBIT_RPC_MS / 1000};
	amqp_socket_t *s;

	c->c = amqp_new_connection();
	s = c->c ? amqp_tcp_socket_new(c->c) : NULL;
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	c->fd = connect_host(url->hosts[host].name, url->hosts[host].port, e);
	if (c->fd < 0)
		return c->fd;
	set_socket(c->fd);
	amqp_tcp_socket_set_sockfd(s, c->fd); /* which now owns it */
	if (amqp_set_rpc_timeout(c->c, &rpc_time) < 0 ||
	    amqp_set_handshake_timeout(c->c, &rpc_time) < 0)
		return err_set(e, -EINVAL, "the library takes no time-outs");
	return 0;
}

int rabbit_connect(const struct rabbit_url *url, size_t host, const char *role,
		   struct rabbit_conn *ret_conn, struct err *e)
{
	struct rabbit_conn c = {.fd = -1};
	int r;

	(void)snprintf(c.peer, sizeof c.peer, "%s:%d", url->hosts[host].name,
		       url->hosts[host].port);
	r = open_socket(url, host, &c, e);
	if (r == 0)
		r = login(url, role, &c, e);
	if (r < 0) {
		if (c.c)
			(void)amqp_destroy_connection(c.c);
		return err_wrap(e, r, "could not connect to RabbitMQ at %s", c.peer);
	}
	*ret_conn = c;
	return 0;
}

void rabbit_disconnect(struct rabbit_conn *c, bool orderly)
{
	const struct timeval time = {.tv_sec = 1};

	if (!c->c)
		return;
	if (orderly && amqp_set_rpc_timeout(c->c, &time) == 0)
		(void)amqp_connection_close(c->c, AMQP_REPLY_SUCCESS);
	(void)amqp_destroy_connection(c->c);
	*c = (struct rabbit_conn){.fd = -1};
}
