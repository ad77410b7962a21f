/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/codec.h"
#include "wire/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* One end of a socket pair is a connection, the other is written to and read by hand, or is a
 * connection too. */
struct end {
	struct wire_conn *conn;
	size_t frames;
	size_t bytes;
	int closed; /* times */
	int code;
	bool drained;
	bool close_in_frame;
	bool pause_in_frame;
};

static void on_frame(void *ctx, const Kiln__Frame *f)
{
	struct end *e = ctx;

	e->frames++;
	if (f->kind_case == KILN__FRAME__KIND_OUTPUT)
		e->bytes += f->output->bytes.len;
	if (e->pause_in_frame)
		wire_conn_pause(e->conn);
	if (e->close_in_frame) {
		wire_conn_close(e->conn);
		e->conn = NULL;
	}
}

static void on_closed(void *ctx, int code, const char *message)
{
	struct end *e = ctx;

	assert_non_null(message);
	e->closed++;
	e->code = code;
}

static void on_drained(void *ctx)
{
	((struct end *)ctx)->drained = true;
}

static const struct wire_conn_ops ops = {
	.frame = on_frame, .closed = on_closed, .drained = on_drained};

static uv_loop_t loop;

static int setup(void **state)
{
	(void)state;
	return uv_loop_init(&loop);
}

static int teardown(void **state)
{
	(void)state;
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

static void open_pair(struct end *e, int *ret_fd)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(wire_conn_open_consume(&loop, pair[0], NULL, &ops, e, &e->conn, NULL), 0);
	*ret_fd = pair[1];
}

static void turn(int times)
{
	for (int i = 0; i < times; i++)
		(void)uv_run(&loop, UV_RUN_NOWAIT);
}

static size_t frame_bytes(char *dst, size_t payload)
{
	Kiln__Frame f = KILN__FRAME__INIT;
	Kiln__Output m = KILN__OUTPUT__INIT;
	uint32_t header;
	size_t len;

	m.bytes.len = payload;
	m.bytes.data = calloc(1, payload + 1);
	f.kind_case = KILN__FRAME__KIND_OUTPUT;
	f.output = &m;
	len = kiln__frame__pack(&f, (uint8_t *)dst + 4);
	free(m.bytes.data);
	header = htonl((uint32_t)len);
	memcpy(dst, &header, 4);
	return len + 4;
}

static void conn_frame_in_single_bytes_arrives_once(void **state)
{
	struct end e = {0};
	char bytes[256];
	size_t n = frame_bytes(bytes, 100);
	int fd;

	(void)state;
	open_pair(&e, &fd);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(e.frames, 0);
		assert_int_equal(write(fd, bytes + i, 1), 1);
		turn(2);
	}
	assert_int_equal(e.frames, 1);
	assert_int_equal(e.bytes, 100);
	(void)close(fd);
	turn(2);
	assert_int_equal(e.closed, 1);
	assert_int_equal(e.code, 0);
	wire_conn_close(e.conn);
}

static void conn_length_over_the_maximum_ends_it(void **state)
{
	struct end e = {0};
	uint32_t header = htonl(WIRE_FRAME_MAX + 1);
	int fd;

	(void)state;
	open_pair(&e, &fd);
	assert_int_equal(write(fd, &header, 4), 4);
	turn(2);
	assert_int_equal(e.closed, 1);
	assert_int_equal(e.code, -EMSGSIZE);
	wire_conn_close(e.conn);
	(void)close(fd);
}

static void conn_bytes_that_are_no_frame_end_it(void **state)
{
	static const char *const cases[] = {"\0\0\0\4\xff\xff\xff\xff", "\0\0\0\0"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct end e = {0};
		int fd;

		open_pair(&e, &fd);
		assert_int_equal(write(fd, cases[i], i ? 4 : 8), i ? 4 : 8);
		turn(2);
		assert_int_equal(e.closed, 1);
		assert_int_equal(e.code, -EBADMSG);
		wire_conn_close(e.conn);
		(void)close(fd);
	}
}

static void conn_closed_from_inside_a_frame_is_safe(void **state)
{
	struct end e = {.close_in_frame = true};
	char bytes[512];
	size_t n = frame_bytes(bytes, 10);
	int fd;

	(void)state;
	n += frame_bytes(bytes + n, 10);
	open_pair(&e, &fd);
	assert_int_equal(write(fd, bytes, n), n);
	turn(3);
	assert_int_equal(e.frames, 1); /* the second one was not handed out */
	assert_int_equal(e.closed, 0);
	(void)close(fd);
}

static void conn_paused_takes_no_frames_until_resumed(void **state)
{
	struct end e = {.pause_in_frame = true};
	char bytes[512];
	size_t n = frame_bytes(bytes, 10);
	int fd;

	(void)state;
	n += frame_bytes(bytes + n, 20);
	open_pair(&e, &fd);
	assert_int_equal(write(fd, bytes, n), n);
	turn(3);
	assert_int_equal(e.frames, 1);
	e.pause_in_frame = false;
	wire_conn_resume(e.conn);
	assert_int_equal(e.frames, 2);
	wire_conn_close(e.conn);
	(void)close(fd);
}

static void conn_peer_that_does_not_read_gives_queued_then_drained(void **state)
{
	struct end a = {0}, b = {0};
	Kiln__Frame f = KILN__FRAME__INIT;
	Kiln__Output m = KILN__OUTPUT__INIT;
	static uint8_t chunk[WIRE_CHUNK_MAX];
	int pair[2], r = 0, sent = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(wire_conn_open_consume(&loop, pair[0], NULL, &ops, &a, &a.conn, NULL), 0);
	m.bytes.data = chunk;
	m.bytes.len = sizeof chunk;
	f.kind_case = KILN__FRAME__KIND_OUTPUT;
	f.output = &m;
	while (r >= 0) {
		r = wire_conn_send(a.conn, &f);
		sent += r >= 0;
	}
	assert_int_equal(r, -ENOBUFS);
	assert_in_range(wire_conn_queued(a.conn), WIRE_SEND_QUEUE_MAX / 2, WIRE_SEND_QUEUE_MAX);
	assert_int_equal(wire_conn_open_consume(&loop, pair[1], NULL, &ops, &b, &b.conn, NULL), 0);
	for (int i = 0; i < 100000 && !a.drained; i++)
		turn(1);
	assert_true(a.drained);
	turn(100);
	assert_int_equal(b.frames, sent);
	assert_int_equal(b.bytes, (size_t)sent * sizeof chunk);
	wire_conn_close(a.conn);
	wire_conn_close(b.conn);
}

static void conn_frame_that_is_too_long_is_not_sent(void **state)
{
	struct end e = {0};
	Kiln__Frame f = KILN__FRAME__INIT;
	Kiln__Output m = KILN__OUTPUT__INIT;
	int fd;

	(void)state;
	open_pair(&e, &fd);
	m.bytes.len = WIRE_FRAME_MAX;
	m.bytes.data = calloc(1, m.bytes.len);
	f.kind_case = KILN__FRAME__KIND_OUTPUT;
	f.output = &m;
	assert_int_equal(wire_conn_send(e.conn, &f), -EMSGSIZE);
	free(m.bytes.data);
	wire_conn_close(e.conn);
	(void)close(fd);
}

/* ---- TLS ---- */

static void make_psk(struct tls_psk *psk, bool server, const char *secret, const char *identity)
{
	*psk = (struct tls_psk){.server = server};
	(void)snprintf(psk->identity, sizeof psk->identity, "%s", identity);
	assert_int_equal(tls_derive_key(secret, strlen(secret), identity, psk->key, NULL), 0);
}

static void open_tls_pair(struct end *client, const struct tls_psk *cp, struct end *server,
			  const struct tls_psk *sp)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(
		wire_conn_open_consume(&loop, pair[0], cp, &ops, client, &client->conn, NULL), 0);
	assert_int_equal(
		wire_conn_open_consume(&loop, pair[1], sp, &ops, server, &server->conn, NULL), 0);
}

static int send_output(struct end *e, size_t len)
{
	static uint8_t chunk[WIRE_CHUNK_MAX];
	Kiln__Frame f = KILN__FRAME__INIT;
	Kiln__Output m = KILN__OUTPUT__INIT;

	m.bytes.data = chunk;
	m.bytes.len = len;
	f.kind_case = KILN__FRAME__KIND_OUTPUT;
	f.output = &m;
	return wire_conn_send(e->conn, &f);
}

static void tls_frames_pass_both_ways_even_before_the_handshake(void **state)
{
	struct end client = {0}, server = {0};
	struct tls_psk cp, sp;

	(void)state;
	make_psk(&cp, false, "a secret of the cluster", "pod-1");
	make_psk(&sp, true, "a secret of the cluster", "pod-1");
	open_tls_pair(&client, &cp, &server, &sp);
	assert_true(send_output(&client, 100) >= 0);
	assert_true(send_output(&server, 7) >= 0);
	turn(10);
	for (int i = 0; i < 20; i++)
		assert_true(send_output(&client, WIRE_CHUNK_MAX) >= 0);
	for (int i = 0; i < 10000 && server.frames < 21; i++)
		turn(1);
	assert_int_equal(server.frames, 21);
	assert_int_equal(server.bytes, 100 + 20 * (size_t)WIRE_CHUNK_MAX);
	assert_int_equal(client.frames, 1);
	assert_int_equal(client.closed + server.closed, 0);
	wire_conn_close(client.conn);
	wire_conn_close(server.conn);
}

static void tls_of_another_secret_or_name_is_refused(void **state)
{
	static const char *const others[][2] = {
		{"another secret, no less long", "pod-1"},
		{"a secret of the cluster", "pod-2"},
	};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct end client = {0}, server = {0};
		struct tls_psk cp, sp;

		make_psk(&cp, false, others[i][0], others[i][1]);
		make_psk(&sp, true, "a secret of the cluster", "pod-1");
		open_tls_pair(&client, &cp, &server, &sp);
		assert_true(send_output(&client, 100) >= 0);
		for (int k = 0; k < 1000 && (!server.closed || !client.closed); k++)
			turn(1);
		assert_int_equal(server.closed, 1);
		assert_int_equal(client.closed, 1);
		assert_true(server.code < 0 && client.code < 0);
		assert_int_equal(server.frames, 0);
		wire_conn_close(client.conn);
		wire_conn_close(server.conn);
	}
}

static void tls_peer_without_it_is_refused(void **state)
{
	struct end client = {0}, server = {0};
	struct tls_psk sp;

	(void)state;
	make_psk(&sp, true, "a secret of the cluster", "pod-1");
	open_tls_pair(&client, NULL, &server, &sp);
	assert_true(send_output(&client, 100) >= 0);
	for (int k = 0; k < 1000 && !server.closed; k++)
		turn(1);
	assert_int_equal(server.closed, 1);
	assert_true(server.code < 0);
	assert_int_equal(server.frames, 0);
	wire_conn_close(client.conn);
	wire_conn_close(server.conn);
}

static void tls_paused_takes_no_frames_until_resumed(void **state)
{
	struct end client = {0}, server = {.pause_in_frame = true};
	struct tls_psk cp, sp;

	(void)state;
	make_psk(&cp, false, "a secret of the cluster", "pod-1");
	make_psk(&sp, true, "a secret of the cluster", "pod-1");
	open_tls_pair(&client, &cp, &server, &sp);
	for (int i = 0; i < 3; i++)
		assert_true(send_output(&client, 1000) >= 0);
	turn(50);
	assert_int_equal(server.frames, 1);
	server.pause_in_frame = false;
	wire_conn_resume(server.conn);
	turn(50);
	assert_int_equal(server.frames, 3);
	wire_conn_close(client.conn);
	wire_conn_close(server.conn);
}

static void tls_short_secret_is_refused(void **state)
{
	uint8_t key[TLS_KEY_SIZE];

	(void)state;
	assert_int_equal(tls_derive_key("short", 5, "pod-1", key, NULL), -EINVAL);
	assert_int_equal(tls_derive_key("a secret of the cluster", 23, "", key, NULL), -EINVAL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(conn_frame_in_single_bytes_arrives_once),
		TEST(conn_length_over_the_maximum_ends_it),
		TEST(conn_bytes_that_are_no_frame_end_it),
		TEST(conn_closed_from_inside_a_frame_is_safe),
		TEST(conn_paused_takes_no_frames_until_resumed),
		TEST(conn_peer_that_does_not_read_gives_queued_then_drained),
		TEST(conn_frame_that_is_too_long_is_not_sent),
		TEST(tls_frames_pass_both_ways_even_before_the_handshake),
		TEST(tls_of_another_secret_or_name_is_refused),
		TEST(tls_peer_without_it_is_refused),
		TEST(tls_paused_takes_no_frames_until_resumed),
		TEST(tls_short_secret_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
