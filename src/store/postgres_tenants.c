/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include <errno.h>
#include <stdlib.h>

/* Columns 1 and on are the limits, in the order of enum tenant_limit. */

static int bind_tenant_set(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			   const char **ret_text)
{
	const struct store_tenant *t = &container_of(req, struct store_tenant_set, req)->tenant;

	(void)ret_text;
	pg_add_text(p, t->name);
	for (int i = 0; i < _TENANT_LIMIT_MAX; i++)
		pg_add_i64(p, t->limits[i]);
	*ret_sql = PG_SQL_TENANT_SET;
	return 0;
}

static int read_nothing(struct store_req *req, const PGresult *res)
{
	(void)req;
	(void)res;
	return 0;
}

const struct pg_verb pg_verb_tenant_set = {PG_WRITE, NULL, bind_tenant_set, read_nothing, NULL};

static int bind_tenant_list(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			    const char **ret_text)
{
	(void)req;
	(void)p;
	(void)ret_text;
	*ret_sql = PG_SQL_TENANT_LIST;
	return 0;
}

static int read_tenant(const PGresult *res, int row, struct store_tenant *t)
{
	if (pg_text(res, row, 0, t->name, sizeof t->name) < 0)
		return -EIO;
	for (int i = 0; i < _TENANT_LIMIT_MAX; i++)
		t->limits[i] = pg_number(res, row, 1 + i);
	return 0;
}

static int read_tenant_list(struct store_req *req, const PGresult *res)
{
	struct store_tenant_list *r = container_of(req, struct store_tenant_list, req);
	int n = PQntuples(res);
	AUTO_FREE struct store_tenant *tenants = NULL;

	if (n == 0)
		return 0;
	tenants = calloc((size_t)n, sizeof *tenants);
	if (!tenants)
		return -ENOMEM;
	for (int i = 0; i < n; i++)
		if (read_tenant(res, i, &tenants[i]) < 0)
			return -EIO;
	r->tenants = TAKE_PTR(tenants);
	r->n = (size_t)n;
	return 0;
}

static void drop_tenant_list(struct store_req *req)
{
	struct store_tenant_list *r = container_of(req, struct store_tenant_list, req);

	free(r->tenants);
	r->tenants = NULL;
	r->n = 0;
}

const struct pg_verb pg_verb_tenant_list = {PG_READ, NULL, bind_tenant_list, read_tenant_list,
					    drop_tenant_list};

static int bind_count_queued(struct store_req *req, struct pg_params *p, enum pg_sql *ret_sql,
			     const char **ret_text)
{
	const struct store_count_queued *r = container_of(req, struct store_count_queued, req);

	(void)ret_text;
	pg_add_text(p, r->tenant);
	pg_add_i64(p, (int64_t)r->limit);
	*ret_sql = PG_SQL_COUNT_QUEUED;
	return 0;
}

static int read_count_queued(struct store_req *req, const PGresult *res)
{
	container_of(req, struct store_count_queued, req)->n = (size_t)pg_number(res, 0, 0);
	return 0;
}

const struct pg_verb pg_verb_count_queued = {PG_READ, NULL, bind_count_queued, read_count_queued,
					     NULL};
