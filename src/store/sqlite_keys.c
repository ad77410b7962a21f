/* SPDX-License-Identifier: Apache-2.0 */
#include "store/sqlite-private.h"

#include "base/str.h"

#include <errno.h>
#include <string.h>

int sqlite_key_add(struct sqlite_conn *c, struct store_req *req)
{
	struct store_key_add *r = container_of(req, struct store_key_add, req);
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_KEY_ADD);
	int rc;

	if (!st)
		return c->failed;
	bind_text(st, 1, r->key.name);
	bind_text(st, 2, r->key.tenant);
	bind_bytes(st, 3, r->key.hash, sizeof r->key.hash);
	bind_int(st, 4, r->key.created_us);
	bind_int(st, 5, r->key.revoked_us);
	rc = conn_step(c, st);
	if (rc < 0)
		return rc;
	return sqlite3_changes(c->db) ? 0 : -EEXIST;
}

int sqlite_key_revoke(struct sqlite_conn *c, struct store_req *req)
{
	struct store_key_revoke *r = container_of(req, struct store_key_revoke, req);
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_KEY_REVOKE);
	int rc;

	if (!st)
		return c->failed;
	bind_text(st, 1, r->name);
	bind_int(st, 2, r->now_us);
	rc = conn_step(c, st);
	if (rc < 0)
		return rc;
	return sqlite3_changes(c->db) ? 0 : -ENOENT;
}

/* The writer's transaction keeps others from adding one in between. */
int sqlite_key_forget(struct sqlite_conn *c, struct store_req *req)
{
	AUTO_STMT sqlite3_stmt *in_force = conn_stmt(c, SQL_KEY_IN_FORCE);
	AUTO_STMT sqlite3_stmt *forget = conn_stmt(c, SQL_KEY_FORGET);
	int rc;

	(void)req;
	if (!in_force || !forget)
		return c->failed;
	rc = conn_step(c, in_force);
	if (rc != 0)
		return rc < 0 ? rc : -EBUSY;
	return conn_step(c, forget);
}

static int read_key(sqlite3_stmt *st, struct store_key *k)
{
	const char *name = (const char *)sqlite3_column_text(st, 0);
	const char *tenant = (const char *)sqlite3_column_text(st, 1);
	const void *hash = sqlite3_column_blob(st, 2);

	if (!name || !tenant || !hash || sqlite3_column_bytes(st, 2) != STORE_HASH_SIZE)
		return -EIO;
	(void)str_copy(k->name, sizeof k->name, name);
	(void)str_copy(k->tenant, sizeof k->tenant, tenant);
	memcpy(k->hash, hash, STORE_HASH_SIZE);
	k->created_us = sqlite3_column_int64(st, 3);
	k->revoked_us = sqlite3_column_int64(st, 4);
	return 0;
}

int sqlite_key_list(struct sqlite_conn *c, struct store_req *req)
{
	struct store_key_list *r = container_of(req, struct store_key_list, req);
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_KEY_LIST);
	int rc;

	if (!st)
		return c->failed;
	while ((rc = conn_step(c, st)) > 0) {
		struct store_key *k = array_place((void **)&r->keys, r->n, sizeof *k);

		rc = k ? read_key(st, k) : -ENOMEM;
		if (rc < 0)
			break;
		r->n++;
	}
	if (rc == 0)
		return 0;
	free(r->keys);
	r->keys = NULL;
	r->n = 0;
	return rc;
}

int sqlite_probe(struct sqlite_conn *c, struct store_req *req)
{
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_PROBE);

	(void)req;
	if (!st)
		return c->failed;
	bind_int(st, 1, STORE_PROBE_BYTES);
	return conn_step(c, st);
}
