/* SPDX-License-Identifier: Apache-2.0 */
#include "api/quota.h"

#include "api/private.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 *	the tenants' limits are known? --> its tasks that wait are counted? --> the rate
 *
 * Each question may have to be put to the store or to Redis; a request goes on when the answer is
 * there. Where the store cannot tell, nobody goes on: a limit that is not known is not waived.
 */

enum {
	COUNT_FRESH_US = 1000000,
	STATE_HELD_US = 10000000,
	STATES_MAX = 10000,
	REFRESH_MS = QUOTA_FRESH_MS / 2
};

/* Tenants whose waiting tasks are counted. */
struct quota_tenant {
	char name[TASK_TENANT_MAX];
	struct quota *quota;
	struct store_count_queued query;
	bool counting;
	int64_t counted_us; /* monotonic; 0: never */
	int64_t queued;	    /* as of then, and what was taken since */
	struct list pending;
};

struct quota {
	struct api *api;
	struct store_tenant_list query;
	bool reading;
	int64_t read_us; /* monotonic; 0: never */
	struct store_tenant *tenants;
	size_t n;
	struct map states;
	struct list pending; /* those who came before the limits were known */
};

int quota_new(struct api *a, struct quota **ret_quota)
{
	struct quota *q = calloc(1, sizeof *q);

	if (!q)
		return -ENOMEM;
	q->api = a;
	map_init(&q->states);
	list_init(&q->pending);
	*ret_quota = q;
	return 0;
}

void quota_free(struct quota *q)
{
	struct quota_tenant *t;
	size_t cursor = 0;

	if (!q)
		return;
	MAP_FOREACH (t, cursor, &q->states)
		free(t);
	map_fini(&q->states);
	free(q->tenants);
	free(q);
}

static int advance(struct quota_request *r);

/* Those of a list go on, or end with the store's failure; the list is emptied first, since they may
 * come back to it. */
static void go_on(struct list *pending, int failure)
{
	struct quota_request *r;
	struct list ready;

	list_init(&ready);
	list_move_all(&ready, pending);
	while ((r = LIST_FIRST(&ready, struct quota_request, link))) {
		int code;

		list_unlink(&r->link);
		code = failure < 0 ? failure : advance(r);
		if (code != -EINPROGRESS)
			r->done(r, code);
	}
}

/* ---- the limits ---- */

static void on_tenants(struct store_req *req, int code)
{
	struct quota *q = req->ctx;

	q->reading = false;
	if (code == 0) {
		q->read_us = clock_monotonic_us();
		free(q->tenants);
		q->tenants = TAKE_PTR(q->query.tenants);
		q->n = q->query.n;
	}
	go_on(&q->pending, code);
	api_end_operation(q->api);
}

static void read_tenants(struct quota *q)
{
	if (q->reading)
		return;
	q->reading = true;
	q->query = (struct store_tenant_list){.req = {.done = on_tenants, .ctx = q}};
	api_begin_operation(q->api);
	store_tenant_list(q->api->cfg.store, &q->query);
}

static int compare_name(const void *name, const void *tenant)
{
	return strcmp(name, ((const struct store_tenant *)tenant)->name);
}

static void find_limits(const struct quota *q, struct quota_request *r)
{
	const struct store_tenant *own =
		q->n ? bsearch(r->tenant, q->tenants, q->n, sizeof *own, compare_name) : NULL;

	for (int i = 0; i < _TENANT_LIMIT_MAX; i++)
		r->limits[i] = own && own->limits[i] != STORE_TENANT_UNSET
				       ? own->limits[i]
				       : q->api->cfg.tenant_limits[i];
}

/* ---- how many wait ---- */

static void on_counted(struct store_req *req, int code)
{
	struct quota_tenant *t = req->ctx;
	struct api *a = t->quota->api;

	t->counting = false;
	if (code == 0) {
		t->counted_us = clock_monotonic_us();
		t->queued = (int64_t)t->query.n;
	}
	go_on(&t->pending, code);
	api_end_operation(a);
}

static void count(struct quota_tenant *t, int64_t limit)
{
	t->counting = true;
	t->query = (struct store_count_queued){
		.req = {.done = on_counted, .ctx = t}, .tenant = t->name, .limit = (size_t)limit};
	api_begin_operation(t->quota->api);
	store_count_queued(t->quota->api->cfg.store, &t->query);
}

/* Those that nobody asked for lately: who asked holds a state for less than that. */
static void forget_states(struct quota *q)
{
	struct quota_tenant **idle = calloc(map_count(&q->states) + 1, sizeof *idle), *t;
	int64_t since_us = clock_monotonic_us() - STATE_HELD_US;
	size_t cursor = 0, n = 0;

	if (!idle)
		return;
	MAP_FOREACH (t, cursor, &q->states)
		if (!t->counting && list_empty(&t->pending) && t->counted_us < since_us)
			idle[n++] = t;
	for (size_t i = 0; i < n; i++) {
		(void)map_remove(&q->states, idle[i]->name, strlen(idle[i]->name));
		free(idle[i]);
	}
	free(idle);
}

static struct quota_tenant *find_state(struct quota *q, const char *name)
{
	struct quota_tenant *t = map_get(&q->states, name, strlen(name));

	if (t)
		return t;
	if (map_count(&q->states) >= STATES_MAX)
		forget_states(q);
	t = calloc(1, sizeof *t);
	if (!t || !str_copy(t->name, sizeof t->name, name) ||
	    map_put(&q->states, t->name, strlen(t->name), t) < 0) {
		free(t);
		return NULL;
	}
	t->quota = q;
	list_init(&t->pending);
	return t;
}

/* 0 where one more may wait; its place is taken later. */
static int check_queued(struct quota_request *r)
{
	int64_t max = r->limits[TENANT_QUEUED];
	struct quota_tenant *t = max ? find_state(r->quota, r->tenant) : NULL;

	r->state = t;
	if (!t)
		return 0;
	if (!t->counted_us || clock_monotonic_us() - t->counted_us >= COUNT_FRESH_US) {
		if (!t->counting)
			count(t, max);
		list_push_back(&t->pending, &r->link);
		return -EINPROGRESS;
	}
	if (t->queued < max)
		return 0;
	(void)problem_set(&r->problem, PROBLEM_QUOTA_EXCEEDED,
			  "tenant \"%s\" has %lld tasks waiting, which is as many as it may",
			  r->tenant, (long long)t->queued);
	metric_add(METRIC_SUBMISSIONS_REFUSED, 1, "queued");
	r->problem.ceiling = max;
	r->problem.retry_after_s = 1;
	return -EDQUOT;
}

/* ---- how often ---- */

static int judge_rate(struct quota_request *r)
{
	int64_t wait_us = r->take.wait_us;

	if (wait_us == 0) {
		if (r->state)
			r->state->queued++;
		return 0;
	}
	(void)problem_set(&r->problem, PROBLEM_RATE_LIMITED,
			  "tenant \"%s\" may submit %lld tasks a minute", r->tenant,
			  (long long)r->take.limit.per_minute);
	metric_add(METRIC_SUBMISSIONS_REFUSED, 1, "rate");
	r->problem.ceiling = r->take.limit.per_minute;
	r->problem.retry_after_s = (int)((wait_us + 999999) / 1000000);
	return -EDQUOT;
}

static void on_taken(struct rate_take *t)
{
	struct quota_request *r = t->ctx;
	struct api *a = r->quota->api;

	r->done(r, judge_rate(r));
	api_end_operation(a);
}

static int check_rate(struct quota_request *r)
{
	int64_t burst = r->limits[TENANT_BURST];

	r->take = (struct rate_take){.name = r->tenant, .done = on_taken, .ctx = r};
	if (!r->limits[TENANT_RATE] || !r->quota->api->cfg.rate)
		return judge_rate(r);
	r->take.limit = (struct rate_limit){r->limits[TENANT_RATE], burst ? burst : 1};
	api_begin_operation(r->quota->api);
	if (!rate_take(r->quota->api->cfg.rate, &r->take))
		return -EINPROGRESS;
	api_end_operation(r->quota->api);
	return judge_rate(r);
}

/* ---- all of it ---- */

/* From wherever the request is: those that waited look again, for the answer that they waited for
 * is there now. */
static int advance(struct quota_request *r)
{
	int code;

	find_limits(r->quota, r);
	code = check_queued(r);
	return code == 0 ? check_rate(r) : code;
}

int quota_ask(struct quota *q, struct quota_request *r)
{
	int64_t now_us = clock_monotonic_us();

	r->quota = q;
	list_init(&r->link);
	if (!q->read_us || now_us - q->read_us > REFRESH_MS * INT64_C(1000))
		read_tenants(q);
	if (!q->read_us || now_us - q->read_us > QUOTA_FRESH_MS * INT64_C(1000)) {
		list_push_back(&q->pending, &r->link);
		return -EINPROGRESS;
	}
	return advance(r);
}
