/* SPDX-License-Identifier: Apache-2.0 */
#include "store/sqlite-private.h"

#include "base/str.h"

#include <errno.h>

/* Columns 1 and on are the limits, in the order of enum tenant_limit. */

static bool is_unset(const struct store_tenant *t)
{
	for (int i = 0; i < _TENANT_LIMIT_MAX; i++)
		if (t->limits[i] != STORE_TENANT_UNSET)
			return false;
	return true;
}

int sqlite_tenant_set(struct sqlite_conn *c, struct store_req *req)
{
	const struct store_tenant *t = &container_of(req, struct store_tenant_set, req)->tenant;
	bool unset = is_unset(t);
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, unset ? SQL_TENANT_UNSET : SQL_TENANT_SET);

	if (!st)
		return c->failed;
	bind_text(st, 1, t->name);
	for (int i = 0; !unset && i < _TENANT_LIMIT_MAX; i++)
		bind_int(st, 2 + i, t->limits[i]);
	return conn_step(c, st);
}

static int read_tenant(sqlite3_stmt *st, struct store_tenant *t)
{
	const char *name = (const char *)sqlite3_column_text(st, 0);

	if (!name || !str_copy(t->name, sizeof t->name, name))
		return -EIO;
	for (int i = 0; i < _TENANT_LIMIT_MAX; i++)
		t->limits[i] = sqlite3_column_int64(st, 1 + i);
	return 0;
}

int sqlite_tenant_list(struct sqlite_conn *c, struct store_req *req)
{
	struct store_tenant_list *r = container_of(req, struct store_tenant_list, req);
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_TENANT_LIST);
	int rc;

	if (!st)
		return c->failed;
	while ((rc = conn_step(c, st)) > 0) {
		struct store_tenant *t = array_place((void **)&r->tenants, r->n, sizeof *t);

		rc = t ? read_tenant(st, t) : -ENOMEM;
		if (rc < 0)
			break;
		r->n++;
	}
	if (rc == 0)
		return 0;
	free(r->tenants);
	r->tenants = NULL;
	r->n = 0;
	return rc;
}

int sqlite_count_queued(struct sqlite_conn *c, struct store_req *req)
{
	struct store_count_queued *r = container_of(req, struct store_count_queued, req);
	AUTO_STMT sqlite3_stmt *st = conn_stmt(c, SQL_COUNT_QUEUED);
	int rc;

	if (!st)
		return c->failed;
	bind_text(st, 1, r->tenant);
	bind_int(st, 2, (int64_t)r->limit);
	rc = conn_step(c, st);
	if (rc > 0)
		r->n = (size_t)sqlite3_column_int64(st, 0);
	return rc < 0 ? rc : 0;
}
