/* SPDX-License-Identifier: Apache-2.0 */
#include "queue_suite.h"

#include "base/str.h"
#include "loop_fixture.h"
#include "queue/queue.h"

#include <stdlib.h>
#include <string.h>

static const char *fresh(void)
{
	return "memory:";
}

static const struct queue_backend backend = {
	.fresh = fresh, .hand_back_front = true, .exact = true};

/* ---- tenants ---- */

enum { MANY = 50, FEW = 3, PREFETCH = 2 };

struct taker {
	uv_loop_t loop;
	struct queue *queue;
	struct queue_publish publishes[MANY + FEW];
	struct queue_delivery *held[MANY + FEW];
	size_t n;
	bool closed;
};

static void on_published(struct queue_publish *r, int code)
{
	(void)r;
	assert_int_equal(code, 0);
}

static void on_delivered(void *ctx, struct queue_delivery *d)
{
	struct taker *t = ctx;

	t->held[t->n++] = d;
}

static void publish(struct taker *t, size_t i, const char *tenant)
{
	struct queue_publish *r = &t->publishes[i];

	*r = (struct queue_publish){.done = on_published};
	r->message.class = TASK_CLASS_NORMAL;
	r->message.enqueued_us = (int64_t)i + 1;
	(void)str_copy(r->message.language, TASK_LANGUAGE_MAX, "python");
	(void)str_copy(r->message.tenant, TASK_TENANT_MAX, tenant);
	queue_publish(t->queue, r);
}

static void expect(const struct taker *t, size_t i, const char *tenant, int64_t enqueued_us)
{
	assert_true(i < t->n);
	assert_string_equal(t->held[i]->message.tenant, tenant);
	assert_int_equal(t->held[i]->message.enqueued_us, enqueued_us);
}

/* One with many messages fills only its own prefetch, and waits for its own turn. */
static void tenants_take_turns(void **state)
{
	static const struct queue_consumer_ops consumer = {.delivered = on_delivered};
	struct queue_config cfg = {.url = "memory:", .max_tasks = MANY + FEW};
	struct taker *t = calloc(1, sizeof *t);
	struct queue_depth depth;

	(void)state;
	assert_non_null(t);
	assert_int_equal(uv_loop_init(&t->loop), 0);
	assert_int_equal(queue_open(&t->loop, &cfg, &t->queue, NULL), 0);
	queue_set_consumer(t->queue, &consumer, t);
	for (size_t i = 0; i < MANY; i++)
		publish(t, i, "many");
	assert_int_equal(queue_consume(t->queue, "python", PREFETCH, NULL), 0);
	loop_turn(&t->loop);
	assert_int_equal(t->n, PREFETCH);
	for (size_t i = 0; i < FEW; i++)
		publish(t, MANY + i, "few");
	loop_turn(&t->loop);
	assert_int_equal(t->n, 2 * PREFETCH);
	expect(t, 2, "few", MANY + 1);
	expect(t, 3, "few", MANY + 2);

	queue_ack(t->queue, t->held[2]);
	queue_ack(t->queue, t->held[0]);
	loop_turn(&t->loop);
	assert_int_equal(t->n, 2 * PREFETCH + 2);
	expect(t, 4, "few", MANY + 3);
	expect(t, 5, "many", 3);
	queue_hand_back(t->queue, t->held[4]);
	queue_get_depth(t->queue, "python", TASK_CLASS_NORMAL, &depth);
	assert_int_equal(depth.oldest_us, 4);
	assert_int_equal(depth.ready, MANY - 3 + 1);
	assert_int_equal(depth.unacked, 3);
	queue_close(t->queue, loop_on_closed, &t->closed);
	loop_run_until(&t->loop, &t->closed);
	loop_end(&t->loop);
	free(t);
}

int main(void)
{
	struct CMUnitTest tests[64] = {cmocka_unit_test(tenants_take_turns)};

	queue_backend = &backend;
	memcpy(tests + 1, queue_suite, queue_suite_count * sizeof tests[0]);
	return _cmocka_run_group_tests("queue in memory", tests, queue_suite_count + 1, NULL, NULL);
}
