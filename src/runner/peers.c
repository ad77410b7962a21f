/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/peers.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOG_EVERY_US = 1000000, HELLO_MS = 5000 };

struct peer {
	struct list link; /* in peers->all; those that got a slot last are at the end */
	struct peers *peers;
	struct connection *connection;
	bool open;    /* greeted, and so proved to hold the key */
	bool refused; /* was told BUSY, and not yet that there is a slot again */
};

struct peers {
	struct peers_config cfg;
	struct list all;
	size_t n, n_greeting;
	int64_t logged_us; /* monotonic: of the last stranger in the log */
};

static struct connection_counters count(struct peers *p)
{
	struct connection_counters now;

	p->cfg.count(p->cfg.ctx, &now);
	return now;
}

static void remove_peer(struct peer *peer)
{
	struct peers *p = peer->peers;

	list_unlink(&peer->link);
	p->n--;
	if (!peer->open)
		p->n_greeting--;
	connection_free(peer->connection);
	free(peer);
}

/* Strangers may come as often as they like; the log is not theirs to fill. */
static void log_stranger(struct peers *p, const char *message)
{
	int64_t now_us = clock_monotonic_us();

	if (p->logged_us && now_us - p->logged_us < LOG_EVERY_US)
		return;
	p->logged_us = now_us;
	log_warn("runner", "a connection failed before it was greeted", LOG_STR("reason", message));
}

/* ---- slots ---- */

static bool take_slot(void *ctx)
{
	struct peer *peer = ctx;
	struct peers *p = peer->peers;

	if (!p->cfg.take_slot(p->cfg.ctx)) {
		peer->refused = true;
		return false;
	}
	list_unlink(&peer->link);
	list_push_back(&p->all, &peer->link);
	return true;
}

static void give_slot(void *ctx)
{
	struct peers *p = ((struct peer *)ctx)->peers;
	struct connection_counters now;
	struct peer *peer;

	p->cfg.give_slot(p->cfg.ctx);
	now = count(p);
	LIST_FOREACH (peer, &p->all, link) {
		if (!peer->refused)
			continue;
		peer->refused = false;
		connection_heartbeat(peer->connection, &now);
	}
}

/* ---- what a connection tells ---- */

static void on_opened(void *ctx)
{
	struct peer *peer = ctx;
	struct connection_counters now = count(peer->peers);

	peer->open = true;
	peer->peers->n_greeting--;
	connection_heartbeat(peer->connection, &now);
}

static void on_drain(void *ctx)
{
	struct peers *p = ((struct peer *)ctx)->peers;

	p->cfg.drain(p->cfg.ctx);
}

static void on_orphaned(void *ctx, const struct uuid *task, uint64_t owner)
{
	const struct peer *from = ctx;
	struct peer *peer;

	LIST_FOREACH (peer, &from->peers->all, link) {
		if (peer != from && peer->open &&
		    connection_tell_orphaned(peer->connection, task, owner))
			return;
	}
}

static void on_ended(void *ctx, struct connection *c, const char *message)
{
	struct peer *peer = ctx;
	struct peers *p = peer->peers;

	(void)c;
	if (peer->open || !p->cfg.psk)
		log_info("runner", "a connection ended", LOG_STR("reason", message));
	else
		log_stranger(p, message);
	remove_peer(peer);
	p->cfg.ended(p->cfg.ctx, p->n, message);
}

/* ---- life ---- */

int peers_new(const struct peers_config *cfg, struct peers **ret_peers)
{
	struct peers *p = calloc(1, sizeof *p);

	if (!p)
		return -ENOMEM;
	p->cfg = *cfg;
	p->cfg.connection.psk = cfg->psk;
	p->cfg.connection.hello_ms = cfg->psk ? HELLO_MS : 0;
	p->cfg.connection.take_slot = take_slot;
	p->cfg.connection.give_slot = give_slot;
	p->cfg.connection.opened = on_opened;
	p->cfg.connection.drain = on_drain;
	p->cfg.connection.orphaned = on_orphaned;
	p->cfg.connection.ended = on_ended;
	list_init(&p->all);
	*ret_peers = p;
	return 0;
}

void peers_free(struct peers *p)
{
	struct peer *peer, *tmp;

	if (!p)
		return;
	LIST_FOREACH_SAFE (peer, tmp, &p->all, link)
		remove_peer(peer);
	free(p);
}

static void drop_oldest_greeting(struct peers *p)
{
	struct peer *peer;

	LIST_FOREACH (peer, &p->all, link) {
		if (peer->open)
			continue;
		log_stranger(p, "others came meanwhile");
		remove_peer(peer);
		return;
	}
}

int peers_add_consume(struct peers *p, int fd, struct err *e)
{
	struct connection_config cfg = p->cfg.connection;
	AUTO_FD int owned = fd;
	struct peer *peer;
	int r;

	if (p->n - p->n_greeting >= PEERS_MAX)
		return err_set(e, -EUSERS, "there are %d schedulers already", PEERS_MAX);
	if (p->n_greeting >= PEERS_GREETING_MAX)
		drop_oldest_greeting(p);
	peer = calloc(1, sizeof *peer);
	if (!peer)
		return err_set(e, -ENOMEM, "out of memory");
	peer->peers = p;
	cfg.ctx = peer;
	r = connection_open_consume(p->cfg.loop, TAKE_FD(owned), &cfg, &peer->connection, e);
	if (r < 0) {
		free(peer);
		return r;
	}
	list_init(&peer->link);
	list_push_back(&p->all, &peer->link);
	p->n++;
	p->n_greeting++;
	return 0;
}

/* ---- all of them ---- */

void peers_heartbeat(struct peers *p)
{
	struct connection_counters now = count(p);
	struct peer *peer;

	LIST_FOREACH (peer, &p->all, link) {
		peer->refused = peer->refused && now.busy >= now.slots;
		connection_heartbeat(peer->connection, &now);
	}
}

void peers_drop_silent(struct peers *p)
{
	struct peer *peer;

	LIST_FOREACH (peer, &p->all, link)
		if (p->cfg.psk && peer->open)
			connection_end_silent(peer->connection);
}

void peers_fail_tasks(struct peers *p, const char *code, const char *message)
{
	struct peer *peer;

	LIST_FOREACH (peer, &p->all, link)
		connection_fail_tasks(peer->connection, code, message);
}

bool peers_flushed(const struct peers *p)
{
	struct peer *peer;

	LIST_FOREACH (peer, &p->all, link)
		if (!connection_flushed(peer->connection))
			return false;
	return true;
}
