/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/conn.h"

#include "base/buf.h"
#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_SIZE = 4, READ_STEP = 64 * 1024, KEEP_MAX = 4096 };

/* Of all connections of a thread: what was read is moved on before anything else is, and a
 * scheduler has thousands of connections that are idle. */
static _Thread_local char read_bytes[READ_STEP], plain_bytes[READ_STEP];

struct wire_conn {
	uv_pipe_t stream;
	const struct wire_conn_ops *ops;
	void *ctx;
	struct buf rx;	      /* plaintext */
	struct tls *tls;      /* NULL: plain */
	struct buf encrypted; /* what tls wants sent */
	size_t queued;	      /* bytes handed to libuv and not yet written */
	bool ended;	      /* closed was called, or will be */
	bool closing;
	bool paused;
	bool in_frames; /* frames are being handed out: guards against re-entry and freeing */
};

/* A frame on its way out that the socket did not take at once. */
struct send {
	uv_write_t req;
	struct wire_conn *conn;
	size_t len;
	char bytes[];
};

static void on_freed(uv_handle_t *handle)
{
	struct wire_conn *c = handle->data;

	tls_free(c->tls);
	buf_fini(&c->encrypted);
	buf_fini(&c->rx);
	free(c);
}

/* One big frame must not keep a megabyte with every idle connection. */
static void trim(struct buf *b)
{
	if (!b->len && b->cap > KEEP_MAX)
		buf_fini(b);
}

/* Ends the connection once, and tells the owner. */
static void end(struct wire_conn *c, int code, const char *message)
{
	if (c->ended || c->closing)
		return;
	c->ended = true;
	(void)uv_read_stop((uv_stream_t *)&c->stream);
	c->ops->closed(c->ctx, code, message);
}

static int hand_frame(struct wire_conn *c, const void *bytes, size_t len)
{
	Kiln__Frame *frame = kiln__frame__unpack(NULL, len, bytes);
	int r = 0;

	if (!frame)
		return -EBADMSG;
	if (frame->kind_case == KILN__FRAME__KIND__NOT_SET)
		r = -EBADMSG;
	else
		c->ops->frame(c->ctx, frame);
	kiln__frame__free_unpacked(frame, NULL);
	return r;
}

/* Hands out all whole frames. The owner may pause or close from inside. False when the connection
 * may not be touched any more. */
static bool hand_frames(struct wire_conn *c)
{
	size_t at = 0;
	uint32_t len;
	int r = 0;

	c->in_frames = true;
	while (!c->paused && !c->ended && !c->closing && c->rx.len - at >= HEADER_SIZE) {
		memcpy(&len, c->rx.data + at, sizeof len);
		len = ntohl(len);
		if (len > WIRE_FRAME_MAX) {
			r = -EMSGSIZE;
			break;
		}
		if (c->rx.len - at - HEADER_SIZE < len)
			break;
		r = hand_frame(c, c->rx.data + at + HEADER_SIZE, len);
		if (r < 0)
			break;
		at += HEADER_SIZE + len;
	}
	c->in_frames = false;
	if (c->closing) {
		uv_close((uv_handle_t *)&c->stream, on_freed);
		return false;
	}
	buf_consume(&c->rx, at);
	trim(&c->rx);
	if (r < 0)
		end(c, r,
		    r == -EMSGSIZE ? "the peer sent a frame that is too long"
				   : "the peer sent bytes that are no frame");
	return r >= 0;
}

static int send_encrypted(struct wire_conn *c);

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	(void)handle;
	(void)suggested;
	*ret = uv_buf_init(read_bytes, sizeof read_bytes);
}

/* Moves decrypted bytes into rx. 1: there may be more than rx takes now. */
static int decrypt(struct wire_conn *c)
{
	ssize_t n;

	while (c->rx.len < HEADER_SIZE + WIRE_FRAME_MAX) {
		n = tls_read(c->tls, plain_bytes, sizeof plain_bytes);
		if (n == -EAGAIN)
			return 0;
		if (n <= 0)
			return n < 0 ? (int)n : -EPIPE;
		if (buf_append(&c->rx, plain_bytes, (size_t)n) < 0)
			return -ENOMEM;
	}
	return 1;
}

/* Frame by frame as they are decrypted, so that no more than one waits in rx. */
static void take_decrypted(struct wire_conn *c)
{
	int r = 1;

	while (r > 0 && !c->ended && !c->closing && !c->paused) {
		r = decrypt(c);
		if (r >= 0 && !hand_frames(c))
			return;
	}
	if (r < 0)
		end(c, r == -EPIPE ? 0 : r,
		    r == -EPIPE ? "the peer closed the connection" : "the peer broke TLS");
}

static void take_ciphertext(struct wire_conn *c, size_t n)
{
	struct err e = {0};
	int r = tls_feed(c->tls, read_bytes, n, &e);

	if (send_encrypted(c) < 0 || r < 0) {
		end(c, r < 0 ? r : -EPIPE, r < 0 ? e.msg : "the connection is broken");
		return;
	}
	take_decrypted(c);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct wire_conn *c = stream->data;

	(void)buf;
	if (n == 0)
		return;
	if (n < 0) {
		end(c, n == UV_EOF ? 0 : (int)n,
		    n == UV_EOF ? "the peer closed the connection" : uv_strerror((int)n));
		return;
	}
	if (c->tls) {
		take_ciphertext(c, (size_t)n);
		return;
	}
	if (buf_append(&c->rx, read_bytes, (size_t)n) < 0)
		end(c, -ENOMEM, "out of memory");
	else
		(void)hand_frames(c);
}

static int start_tls(struct wire_conn *c, const struct tls_psk *psk, struct err *e)
{
	int r;

	if (!psk)
		return 0;
	r = tls_new(psk, &c->encrypted, &c->tls, e);
	return r < 0 ? r : send_encrypted(c);
}

int wire_conn_open_consume(uv_loop_t *loop, int fd, const struct tls_psk *psk,
			   const struct wire_conn_ops *ops, void *ctx, struct wire_conn **ret_conn,
			   struct err *e)
{
	AUTO_FD int owned = fd;
	struct wire_conn *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	c->ops = ops;
	c->ctx = ctx;
	buf_init(&c->rx, HEADER_SIZE + WIRE_FRAME_MAX + READ_STEP);
	buf_init(&c->encrypted, WIRE_SEND_QUEUE_MAX);
	/* Any stream socket will do; libuv tells the kinds apart only where it makes them. */
	(void)uv_pipe_init(loop, &c->stream, 0);
	c->stream.data = c;
	r = uv_pipe_open(&c->stream, owned);
	if (r == 0) {
		(void)TAKE_FD(owned);
		r = uv_read_start((uv_stream_t *)&c->stream, on_alloc, on_read);
	}
	if (r < 0)
		(void)err_errno(e, r, "could not use the connection");
	else
		r = start_tls(c, psk, e);
	if (r < 0) {
		uv_close((uv_handle_t *)&c->stream, on_freed);
		return r;
	}
	*ret_conn = c;
	return 0;
}

static void on_written(uv_write_t *req, int status)
{
	struct send *s = container_of(req, struct send, req);
	struct wire_conn *c = s->conn;

	c->queued -= s->len;
	free(s);
	if (status < 0 && status != UV_ECANCELED)
		end(c, status, uv_strerror(status));
	else if (!c->queued && !c->ended && !c->closing && c->ops->drained)
		c->ops->drained(c->ctx);
}

/* Takes s, which holds len bytes: 0 written at once, 1 queued, negative errno. */
static int write_out(struct wire_conn *c, struct send *s, size_t len)
{
	size_t done = 0;
	uv_buf_t out;
	int r;

	if (!c->queued) {
		out = uv_buf_init(s->bytes, (unsigned)len);
		r = uv_try_write((uv_stream_t *)&c->stream, &out, 1);
		done = r > 0 ? (size_t)r : 0;
		if (done == len) {
			free(s);
			return 0;
		}
	}
	s->conn = c;
	s->len = len - done;
	out = uv_buf_init(s->bytes + done, (unsigned)s->len);
	r = uv_write(&s->req, (uv_stream_t *)&c->stream, &out, 1, on_written);
	if (r < 0) {
		free(s);
		return r;
	}
	c->queued += len - done;
	return 1;
}

static int send_encrypted(struct wire_conn *c)
{
	size_t len = c->encrypted.len;
	struct send *s;

	if (buf_error(&c->encrypted))
		return buf_error(&c->encrypted);
	if (!len)
		return 0;
	s = malloc(sizeof *s + len);
	if (!s)
		return -ENOMEM;
	memcpy(s->bytes, c->encrypted.data, len);
	buf_clear(&c->encrypted);
	trim(&c->encrypted);
	return write_out(c, s, len);
}

static int encrypt_and_send(struct wire_conn *c, struct send *s, size_t len)
{
	int r = tls_write(c->tls, s->bytes, len);

	free(s);
	return r < 0 ? r : send_encrypted(c);
}

int wire_conn_send(struct wire_conn *c, const Kiln__Frame *frame)
{
	size_t len = kiln__frame__get_packed_size(frame);
	uint32_t header = htonl((uint32_t)len);
	struct send *s;

	if (len > WIRE_FRAME_MAX)
		return -EMSGSIZE;
	if (c->ended || c->closing)
		return -EPIPE;
	if (c->queued + len > WIRE_SEND_QUEUE_MAX)
		return -ENOBUFS;
	s = malloc(sizeof *s + HEADER_SIZE + len);
	if (!s)
		return -ENOMEM;
	memcpy(s->bytes, &header, HEADER_SIZE);
	(void)kiln__frame__pack(frame, (uint8_t *)s->bytes + HEADER_SIZE);
	len += HEADER_SIZE;
	return c->tls ? encrypt_and_send(c, s, len) : write_out(c, s, len);
}

void wire_conn_pause(struct wire_conn *c)
{
	if (c->paused)
		return;
	c->paused = true;
	if (!c->ended)
		(void)uv_read_stop((uv_stream_t *)&c->stream);
}

void wire_conn_resume(struct wire_conn *c)
{
	if (!c->paused)
		return;
	c->paused = false;
	if (c->ended || c->closing)
		return;
	(void)uv_read_start((uv_stream_t *)&c->stream, on_alloc, on_read);
	if (c->in_frames)
		return;
	if (hand_frames(c) && c->tls)
		take_decrypted(c);
}

size_t wire_conn_queued(const struct wire_conn *c)
{
	return c->queued;
}

void wire_conn_close(struct wire_conn *c)
{
	if (!c || c->closing)
		return;
	c->closing = true;
	if (!c->in_frames)
		uv_close((uv_handle_t *)&c->stream, on_freed);
}
