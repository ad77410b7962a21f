/* SPDX-License-Identifier: Apache-2.0 */
#include "api/reads.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>

/* The reads of one tenant that wait. There is one as long as any does. */
struct read_turn {
	struct list link;
	char tenant[TASK_TENANT_MAX];
	struct list waiting;
};

struct reads {
	struct store *store;
	unsigned under_way;
	struct list turns; /* whose is next */
};

int reads_new(struct store *store, struct reads **ret_reads)
{
	struct reads *r = calloc(1, sizeof *r);

	if (!r)
		return -ENOMEM;
	r->store = store;
	list_init(&r->turns);
	*ret_reads = r;
	return 0;
}

void reads_free(struct reads *r)
{
	free(r);
}

static void on_read(struct store_req *req, int code)
{
	struct read *r = req->ctx;

	r->done(r, code);
}

static void begin(struct reads *reads, struct read *r)
{
	reads->under_way++;
	r->get.req = (struct store_req){.done = on_read, .ctx = r};
	store_get(reads->store, &r->get);
}

/* Those of one tenant in their order, one of each tenant in turn. */
static void begin_next(struct reads *reads)
{
	struct read_turn *t = LIST_FIRST(&reads->turns, struct read_turn, link);
	struct read *r = t ? LIST_FIRST(&t->waiting, struct read, link) : NULL;

	if (!r)
		return;
	list_unlink(&r->link);
	list_unlink(&t->link);
	if (list_empty(&t->waiting))
		free(t);
	else
		list_push_back(&reads->turns, &t->link);
	begin(reads, r);
}

static struct read_turn *find_turn(struct reads *reads, const char *tenant)
{
	struct read_turn *t;

	LIST_FOREACH (t, &reads->turns, link)
		if (str_eq(t->tenant, tenant))
			return t;
	t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	(void)str_copy(t->tenant, sizeof t->tenant, tenant);
	list_init(&t->waiting);
	list_push_back(&reads->turns, &t->link);
	return t;
}

void reads_get(struct reads *reads, struct read *r)
{
	struct read_turn *t;

	r->reads = reads;
	list_init(&r->link);
	/* For want of memory out of turn. */
	t = reads->under_way < READS_AT_ONCE ? NULL : find_turn(reads, r->get.tenant);
	if (t)
		list_push_back(&t->waiting, &r->link);
	else
		begin(reads, r);
}

void reads_end(struct read *r)
{
	struct reads *reads = r->reads;

	reads->under_way--;
	if (reads->under_way < READS_AT_ONCE)
		begin_next(reads);
}
