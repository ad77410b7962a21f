/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/backoff.h"
#include "loop/defer.h"
#include "loop/worker.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- deferred calls ---- */

struct call {
	struct deferred deferred;
	struct defer *defer;
	int *log;
	int *n;
	int number;
	struct call *next; /* put off from inside the call */
};

static void on_call(struct deferred *d)
{
	struct call *c = container_of(d, struct call, deferred);

	c->log[(*c->n)++] = c->number;
	if (c->next)
		defer_call(c->defer, &c->next->deferred);
}

static void defer_runs_in_order_and_never_inside(void **state)
{
	uv_loop_t loop;
	struct defer *d = NULL;
	struct call calls[3];
	int log[8], n = 0;

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(defer_new(&loop, &d), 0);
	for (int i = 0; i < 3; i++) {
		calls[i] = (struct call){.defer = d, .log = log, .n = &n, .number = i};
		calls[i].deferred.call = on_call;
		list_init(&calls[i].deferred.link);
	}
	calls[0].next = &calls[2];
	defer_call(d, &calls[0].deferred);
	defer_call(d, &calls[1].deferred);
	defer_call(d, &calls[1].deferred); /* queued already: once */
	assert_int_equal(n, 0);
	(void)uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(n, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(log[i], i);
	defer_close(d);
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void defer_cancelled_call_does_not_run(void **state)
{
	uv_loop_t loop;
	struct defer *d = NULL;
	int log[2], n = 0;
	struct call c = {.log = log, .n = &n};

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(defer_new(&loop, &d), 0);
	c.deferred.call = on_call;
	list_init(&c.deferred.link);
	defer_call(d, &c.deferred);
	defer_cancel(&c.deferred);
	(void)uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(n, 0);
	defer_close(d);
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- worker ---- */

enum { REQUESTS = 1000 };

struct counter {
	size_t batches; /* thread */
	size_t seen;	/* thread */
	bool in_order;	/* thread */
	size_t done;	/* loop */
	bool stopped;	/* thread, read after the join */
	bool freed;
};

struct request {
	struct work work;
	size_t number;
};

static void on_batch(void *ctx, struct list *batch)
{
	struct counter *c = ctx;
	struct work *w;

	c->batches++;
	LIST_FOREACH (w, batch, link) {
		c->in_order =
			c->in_order && container_of(w, struct request, work)->number == c->seen;
		c->seen++;
	}
}

static void on_done(void *ctx, struct work *w)
{
	struct counter *c = ctx;

	assert_int_equal(container_of(w, struct request, work)->number, c->done);
	c->done++;
}

static void on_stop(void *ctx)
{
	((struct counter *)ctx)->stopped = true;
}

static void on_freed(void *ctx)
{
	((struct counter *)ctx)->freed = true;
}

static void worker_batches_keep_order_and_close_finishes_all(void **state)
{
	static const struct worker_ops ops = {.batch = on_batch, .stop = on_stop, .done = on_done};
	struct request *requests = calloc(REQUESTS, sizeof *requests);
	struct counter c = {.in_order = true};
	struct worker *w = NULL;
	uv_loop_t loop;

	(void)state;
	assert_non_null(requests);
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(worker_new(&loop, "test", &ops, &c, &w, NULL), 0);
	for (size_t i = 0; i < REQUESTS; i++) {
		requests[i].number = i;
		worker_submit(w, &requests[i].work);
		if (i == REQUESTS / 2)
			while (c.done < REQUESTS / 4)
				(void)uv_run(&loop, UV_RUN_ONCE);
	}
	worker_close(w, on_freed);
	assert_int_equal(c.done, REQUESTS);
	assert_true(c.in_order);
	assert_true(c.stopped);
	assert_false(c.freed);
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(c.freed);
	assert_int_equal(uv_loop_close(&loop), 0);
	free(requests);
}

static int start_fails(void *ctx, struct err *e)
{
	(void)ctx;
	return err_set(e, -EACCES, "no entry");
}

static void worker_start_failure_is_returned(void **state)
{
	static const struct worker_ops ops = {
		.start = start_fails, .batch = on_batch, .done = on_done};
	struct counter c = {0};
	struct worker *w = NULL;
	struct err e = {0};
	uv_loop_t loop;

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(worker_new(&loop, "test", &ops, &c, &w, &e), -EACCES);
	assert_string_equal(e.msg, "no entry");
	assert_null(w);
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void backoff_doubles_up_to_its_maximum_with_a_spread(void **state)
{
	struct backoff b;
	uint64_t expected = 100;

	(void)state;
	backoff_init(&b, 100, 1000);
	for (int i = 0; i < 8; i++) {
		uint64_t wait = backoff_next_ms(&b);

		assert_in_range(wait, expected, expected + expected / 4);
		expected = expected * 2 < 1000 ? expected * 2 : 1000;
	}
	backoff_reset(&b);
	assert_in_range(backoff_next_ms(&b), 100, 125);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defer_runs_in_order_and_never_inside),
		cmocka_unit_test(defer_cancelled_call_does_not_run),
		cmocka_unit_test(worker_batches_keep_order_and_close_finishes_all),
		cmocka_unit_test(worker_start_failure_is_returned),
		cmocka_unit_test(backoff_doubles_up_to_its_maximum_with_a_spread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
