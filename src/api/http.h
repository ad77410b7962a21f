/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The HTTP/1.1 server, which hides libmicrohttpd: a listening socket, a table of routes, requests
 * and replies. It runs inside the caller's loop and starts no thread.
 *
 * A request passes in this order: syntax that proxies and servers may read differently (400), the
 * guard (foreign web pages), the route (404, 405), the key, the query, the body (400, 413, 415).
 * What a request fails on is answered before its body is kept. Then the route's handler is called,
 * once; it answers with http_reply at once or later, exactly once. A request lives until its reply
 * was sent: a client that leaves while a handler works is noticed when the reply is written.
 *
 * Bounds: connections, bytes of a head (32 KiB), of a body, of all bodies in memory together, of
 * all replies; and time, for a head, for a body and for reading a reply, each at a least rate.
 * Where memory is short, clients that are slow and hold the most are cut off for those who hold
 * less.
 *
 * Pointers that requests hand out (path, query, headers, body) hold until http_reply.
 */

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct http_server;
struct http_request;

enum { HTTP_TENANT_MAX = 64 };

enum http_method { HTTP_GET, HTTP_POST, HTTP_DELETE, _HTTP_METHOD_MAX };

/* The headers that anybody here reads. One that comes twice is refused. */
enum http_header {
	HTTP_HOST,
	HTTP_ORIGIN,
	HTTP_SEC_FETCH_SITE,
	HTTP_SEC_FETCH_MODE,
	HTTP_AUTHORIZATION,
	HTTP_CONTENT_TYPE,
	HTTP_CONTENT_LENGTH,
	HTTP_TRANSFER_ENCODING,
	HTTP_EXPECT,
	HTTP_IDEMPOTENCY_KEY,
	HTTP_TRACEPARENT,
	_HTTP_HEADER_MAX
};

typedef void (*http_handler)(struct http_request *r, void *ctx);

struct http_route {
	enum http_method method; /* GET answers HEAD too */
	const char *pattern;	 /* "/result/{task_id}"; one name in braces, at the end or none */
	http_handler handle;
	bool open;		  /* needs no key */
	bool body;		  /* takes JSON */
	const char *const *query; /* the parameters it knows, up to NULL; or NULL: none */
};

struct http_config {
	const char *listen;
	unsigned connections_max;
	unsigned connections_per_address; /* 0: as many as in all */
	size_t body_max_bytes;
	size_t held_max_bytes;		 /* bodies in memory at one time, and so replies */
	const struct http_route *routes; /* each also below /v1 */
	size_t n_routes;
	void *ctx; /* of handlers and hooks */

	/* May answer with a problem, after which the request goes no further. */
	void (*guard)(struct http_request *r, void *ctx);
	/* Finds the tenant of a request to a route that is not open. Asked once the head is known:
	 * 1 known, 0 cannot know without waiting, negative refused and answered. After 0 admit is
	 * asked once the body is there: it answers, or calls http_go_on, now or later. */
	int (*recognise)(struct http_request *r, void *ctx);
	void (*admit)(struct http_request *r, void *ctx);
};

int http_server_new(uv_loop_t *loop, const struct http_config *cfg, struct http_server **ret_server,
		    struct err *e);

/* The address that it listens on, with the port that was found for port 0. */
const struct sockaddr_storage *http_server_address(const struct http_server *s);

/* Stops to listen, lets what is under way end (clients that do not read get five seconds), closes
 * all connections, then calls closed from the loop and frees. Handlers must answer what they have.
 */
void http_server_close(struct http_server *s, void (*closed)(void *ctx), void *ctx);

struct http_stats {
	size_t connections, requests;
	size_t held_bytes;
};
void http_server_get_stats(const struct http_server *s, struct http_stats *ret_stats);

/* ---- a request ---- */

const char *http_path_arg(const struct http_request *r);		/* "" where there is none */
const char *http_query(const struct http_request *r, const char *name); /* NULL: not given */
const char *http_header(const struct http_request *r, enum http_header h);
const struct buf *http_body(const struct http_request *r);

/* Who asks, as the hooks found; "default" unless set. */
void http_set_tenant(struct http_request *r, const char *tenant);
const char *http_tenant(const struct http_request *r);

/* From admit, now or later: calls the handler. */
void http_go_on(struct http_request *r);

/* ---- its reply ---- */

/* Takes the bytes out of body. A body that failed (memory, its maximum) becomes a 500, one for
 * which there is no room a 503. */
void http_reply(struct http_request *r, int status, const char *content_type, struct buf *body);

/* Whether there is room for a reply of so many bytes now; what was reserved for it before is let
 * go. */
bool http_reply_fits(struct http_request *r, size_t len);

/* The same, and keeps that room for the reply, which may be larger or smaller in the end. */
bool http_reply_reserve(struct http_request *r, size_t len);

/* For bytes that live as long as the program. */
void http_reply_static(struct http_request *r, int status, const char *content_type,
		       const void *bytes, size_t len);

/* Adds a header to the reply that was just given. */
void http_reply_header(struct http_request *r, const char *name, const char *value);

/* The connection is not used again after this reply. */
void http_reply_last(struct http_request *r);
