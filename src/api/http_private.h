/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of the HTTP server share: http.c (daemon and connections), http_request.c (the
 * course of a request, and its reply), http_head.c (reading and judging a head), http_memory.c (who
 * may hold how much), http_linger.c (closing without cutting off a reply).
 */

#include "api/http.h"
#include "base/list.h"
#include "loop/defer.h"

#include <microhttpd.h>

enum {
	HTTP_QUERY_MAX = 8,
	HTTP_AUTHORITY_MAX = 256,
	/* Replies up to this are given in any case: there are no more of them than connections. */
	HTTP_SMALL_MAX = 16 * 1024,
	/* A client that is to send or to read has half a minute, and more for what is long. The
	 * daemon's own time-out is of silence only: one byte now and then would hold it off for
	 * ever. */
	HTTP_PATIENCE_US = 30 * 1000000,
};

struct http_param {
	const char *name;
	const char *value; /* NULL: "?name" alone */
};

/* What is read of a request target before libmicrohttpd decodes it: "/path?query", or in absolute
 * form (RFC 9112, 3.2.2) "http://HOST:PORT/path?query", whose host then counts in place of Host. */
struct http_target {
	const char *bad;		    /* why it is refused, or NULL */
	size_t path_at;			    /* where the path begins: behind the authority */
	char authority[HTTP_AUTHORITY_MAX]; /* "": not in absolute form */
};

/* Each with a bound of its own, so that who reads slowly keeps nobody from submitting. */
enum http_memory { HTTP_BODIES, HTTP_REPLIES, _HTTP_MEMORY_MAX };

struct http_request {
	struct http_server *server;
	struct MHD_Connection *connection;
	const struct http_route *route; /* NULL: no such route */
	const char *path_arg;
	char tenant[HTTP_TENANT_MAX];
	const char *headers[_HTTP_HEADER_MAX];
	struct http_param query[HTTP_QUERY_MAX];
	size_t n_query;
	const char *repeated; /* a header or parameter that came twice, or held a NUL */
	bool too_many_params;
	bool recognised; /* the tenant is by a key */
	bool active;	 /* between its head and its completion */
	bool whole;	 /* the body has arrived, or is of no more interest */
	bool admitted;	 /* the tenant is known */
	bool suspended;	 /* the handler has not answered yet */
	bool last;	 /* nothing more comes on this connection */
	uint64_t length; /* announced body bytes */
	bool chunked;
	uint64_t received; /* body bytes, kept or not */
	size_t held;	   /* bytes of memory accounted to it, in this pool */
	enum http_memory pool;
	struct buf body;
	struct MHD_Response *response;
	int status;
	int64_t started_us; /* monotonic */
	int64_t replied_us; /* monotonic */
	int64_t reply_time_us;
};

struct http_conn {
	struct list link;
	struct http_server *server;
	int fd;
	int64_t deadline_us;	   /* monotonic: of what the client is expected to do now */
	bool linger;		   /* a reply was sent while the client may still be sending */
	struct http_target target; /* of the request whose head came last */
	struct http_request request;
};

struct http_linger;

struct http_server {
	uv_loop_t *loop;
	struct http_config cfg;
	struct sockaddr_storage address;
	struct MHD_Daemon *daemon;
	struct http_linger *linger;
	uv_poll_t poll;
	uv_timer_t timer; /* of the daemon */
	uv_timer_t sweep; /* of deadlines; runs while there are connections */
	struct defer *defer;
	struct deferred run;
	struct list conns;
	size_t n_conns, n_requests, n_suspended;
	size_t held[_HTTP_MEMORY_MAX];
	bool closing;
	int64_t close_by_us;
	int handles; /* still to be closed */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* What libmicrohttpd calls for a request: with its target, before anything is decoded (what that
 * returns is the first con_cls); for its head, its body and its end; and when it is over. cls is
 * the server. */
void *http_on_target(void *cls, const char *text, struct MHD_Connection *connection);
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *connection, const char *url,
				const char *method, const char *version, const char *upload,
				size_t *upload_size, void **con_cls);
void http_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
		       enum MHD_RequestTerminationCode why);

/* Reads a request target as it stands in the request line. */
void http_target_read(struct http_target *ret_target, const char *text);

/* Reads headers and query, and answers where the head alone is reason enough. url is the decoded
 * path, with the authority in front where target has one. */
void http_head_read(struct http_request *r, const struct http_target *target, const char *url,
		    const char *method, const char *version);

/* Accounts so many bytes in all to a request, whatever the bound is. */
void http_hold(struct http_request *r, enum http_memory pool, size_t bytes);

/* Whether this request may hold so many bytes more of its pool; other clients may be cut off for
 * it.
 */
bool http_make_room(struct http_request *r, size_t more);

/* Keeps a duplicate of fd open for a moment after the daemon has closed its own, and throws away
 * what still comes, so that the kernel does not answer it with a reset, which would take the
 * reply out of the client's hands. */
int http_linger_new(uv_loop_t *loop, struct http_linger **ret_linger);
void http_linger_start(struct http_linger *l, int fd);
void http_linger_free(struct http_linger *l);
