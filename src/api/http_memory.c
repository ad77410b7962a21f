/* SPDX-License-Identifier: Apache-2.0 */
#include "api/http_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/*
 * Who may hold how much. While a pool is full, whoever asks for room gets it from the client that
 * holds the most, as long as that is not less than what the one who asks holds, and only from such
 * of its requests as have had their time. So a client that reads slowly, or many results at once,
 * costs the others no more than a second try.
 */

/* A request that is through within a moment, or moves at this rate, is left alone. */
enum { MOMENT_US = 2 * 1000000, SLOW_BYTES_PER_S = 4 * 1024 * 1024 };

/* A tenant; where there are no keys, an address. */
struct client {
	char kind;
	char name[HTTP_TENANT_MAX];
};

struct share {
	struct client client;
	size_t held;
	bool slow; /* has a request that may be cut */
};

static void name_address(int fd, struct client *c)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		struct sockaddr_storage room;
	} a = {0};
	socklen_t len = sizeof a;
	enum { V6_NETWORK = 8 }; /* bytes of an address that one customer is given */

	if (getpeername(fd, &a.any, &len) < 0)
		return;
	if (a.any.sa_family == AF_INET)
		memcpy(c->name, &a.v4.sin_addr, sizeof a.v4.sin_addr);
	else if (a.any.sa_family == AF_INET6)
		memcpy(c->name, &a.v6.sin6_addr, V6_NETWORK);
	c->kind = 'a';
}

/* All bytes of it count as the key of a map. */
static void name_client(const struct http_conn *c, struct client *ret)
{
	memset(ret, 0, sizeof *ret);
	if (c->request.recognised) {
		ret->kind = 't';
		memcpy(ret->name, c->request.tenant, strlen(c->request.tenant));
	} else {
		name_address(c->fd, ret);
	}
}

static bool is_in(const struct http_conn *c, enum http_memory pool)
{
	return c->request.active && c->request.held && c->request.pool == pool;
}

/* Whether it may be cut: it is the client's turn to send or read, and has been for long. */
static bool is_slow(const struct http_conn *c, int64_t now_us)
{
	const struct http_request *r = &c->request;
	int64_t fair_us = MOMENT_US + (int64_t)(r->held * 1000000 / SLOW_BYTES_PER_S);

	if (r->suspended || (r->pool == HTTP_BODIES && r->whole))
		return false;
	return now_us - (r->pool == HTTP_BODIES ? r->started_us : r->replied_us) > fair_us;
}

/* Adds up one connection. NULL when memory is gone, which leaves everybody alone. */
static struct share *add_share(struct map *shares, const struct http_conn *c)
{
	struct client client;
	struct share *s;

	name_client(c, &client);
	s = map_get(shares, &client, sizeof client);
	if (s)
		return s;
	s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->client = client;
	if (map_put(shares, &s->client, sizeof s->client, s) < 0) {
		free(s);
		return NULL;
	}
	return s;
}

static bool sum_up(const struct http_server *s, enum http_memory pool, struct map *shares)
{
	int64_t now_us = clock_monotonic_us();
	struct http_conn *c;

	LIST_FOREACH (c, &s->conns, link) {
		struct share *share;

		if (!is_in(c, pool))
			continue;
		share = add_share(shares, c);
		if (!share)
			return false;
		share->held += c->request.held;
		share->slow = share->slow || is_slow(c, now_us);
	}
	return true;
}

static const struct share *find_heaviest(const struct map *shares)
{
	const struct share *best = NULL, *s;
	size_t cursor;

	MAP_FOREACH (s, cursor, shares)
		if (s->slow && (!best || s->held > best->held))
			best = s;
	return best;
}

static size_t held_by(const struct map *shares, const struct http_conn *c)
{
	const struct share *s;
	struct client client;

	name_client(c, &client);
	s = map_get(shares, &client, sizeof client);
	return s ? s->held : 0;
}

static void cut(struct http_conn *c)
{
	log_info("api", "cut off a slow client to make room", LOG_STR("tenant", c->request.tenant),
		 LOG_INT("bytes", c->request.held));
	(void)shutdown(c->fd, SHUT_RDWR);
	http_hold(&c->request, c->request.pool, 0);
	/* The daemon frees it when it sees the end of the connection. */
	defer_call(c->server->defer, &c->server->run);
}

static bool is_of(const struct http_conn *c, const struct share *share)
{
	struct client client;

	name_client(c, &client);
	return memcmp(&client, &share->client, sizeof client) == 0;
}

static bool fits(const struct http_server *s, enum http_memory pool, size_t more)
{
	/* One that is larger than the pool has it for itself. */
	return !s->held[pool] || s->held[pool] + more <= s->cfg.held_max_bytes;
}

static void cut_slow_ones(struct http_request *r, const struct share *of, size_t more)
{
	struct http_server *s = r->server;
	enum http_memory pool = r->pool;
	int64_t now_us = clock_monotonic_us();
	struct http_conn *c;

	LIST_FOREACH (c, &s->conns, link) {
		if (fits(s, pool, more))
			return;
		if (&c->request != r && is_in(c, pool) && is_slow(c, now_us) && is_of(c, of))
			cut(c);
	}
}

static void free_shares(struct map *shares)
{
	struct share *s;
	size_t cursor;

	MAP_FOREACH (s, cursor, shares)
		free(s);
	map_fini(shares);
}

/* One round: true where another may make more room. */
static bool make_room_once(struct http_request *r, size_t more)
{
	struct http_server *s = r->server;
	struct http_conn *own = container_of(r, struct http_conn, request);
	size_t before = s->held[r->pool];
	const struct share *heaviest;
	struct map shares;

	map_init(&shares);
	if (sum_up(s, r->pool, &shares)) {
		heaviest = find_heaviest(&shares);
		if (heaviest && heaviest->held >= held_by(&shares, own))
			cut_slow_ones(r, heaviest, more);
	}
	free_shares(&shares);
	return s->held[r->pool] < before;
}

void http_hold(struct http_request *r, enum http_memory pool, size_t bytes)
{
	r->server->held[r->pool] -= r->held;
	r->pool = pool;
	r->held = bytes;
	r->server->held[pool] += bytes;
}

bool http_make_room(struct http_request *r, enum http_memory pool, size_t more)
{
	if (r->pool != pool)
		http_hold(r, pool, 0);
	while (!fits(r->server, pool, more))
		if (!make_room_once(r, more))
			return false;
	return true;
}
