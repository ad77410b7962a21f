/* SPDX-License-Identifier: Apache-2.0 */
#include "queue_suite.h"

#include "base/clock.h"
#include "base/str.h"
#include "loop_fixture.h"
#include "queue/queue.h"

#include <errno.h>
#include <stdlib.h>

const struct queue_backend *queue_backend;

enum { ROOM = 100, HELD_MAX = 256, WAIT_MS = 10000, COUNT_MS = 5000 };

enum on_delivery { HOLD, ACK, HAND_BACK, CLOSE };

struct fixture {
	uv_loop_t loop;
	struct queue *queue;
	enum on_delivery on_delivery;
	struct queue_delivery *held[HELD_MAX];
	size_t n_held; /* deliveries so far; held keeps all of them in order */
	struct uuid last;
	bool inside; /* a verb is being called: nothing may come */
	bool closed;
};

static void on_delivered(void *ctx, struct queue_delivery *d)
{
	struct fixture *f = ctx;

	assert_false(f->inside);
	assert_true(f->n_held < HELD_MAX);
	f->held[f->n_held++] = d;
	f->last = d->message.id;
	if (f->on_delivery == ACK)
		queue_ack(f->queue, d);
	else if (f->on_delivery == HAND_BACK)
		queue_hand_back(f->queue, d);
	else if (f->on_delivery == CLOSE)
		queue_close(f->queue, loop_on_closed, &f->closed);
}

static const struct queue_consumer_ops consumer = {.delivered = on_delivered};

static int setup(void **state)
{
	struct queue_config cfg = {.url = queue_backend->fresh(), .max_tasks = ROOM};
	struct fixture *f = calloc(1, sizeof *f);
	struct err e = {""};

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	if (queue_open(&f->loop, &cfg, &f->queue, &e) < 0)
		fail_msg("%s", e.msg);
	queue_set_consumer(f->queue, &consumer, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (!f->closed) {
		queue_close(f->queue, loop_on_closed, &f->closed);
		assert_false(f->closed);
		loop_run_until(&f->loop, &f->closed);
	}
	loop_end(&f->loop);
	free(f);
	if (queue_backend->drop)
		queue_backend->drop();
	return 0;
}

/* ---- helpers ---- */

/* Long enough for something to come that must not. */
static void settle(struct fixture *f)
{
	int64_t end_us = clock_monotonic_us() + queue_backend->settle_ms * 1000;

	do {
		loop_turn(&f->loop);
	} while (clock_monotonic_us() < end_us);
}

struct publishing {
	struct queue_publish r;
	bool done;
};

static void on_published(struct queue_publish *r, int code)
{
	struct publishing *p = r->ctx;

	assert_int_equal(code, 0);
	p->done = true;
}

static struct uuid publish_to(struct fixture *f, const char *language, enum task_class class,
			      bool reserved)
{
	struct publishing p = {.r = {.reserved = reserved, .done = on_published, .ctx = &p}};

	uuid7_new(&p.r.message.id);
	p.r.message.class = class;
	p.r.message.enqueued_us = clock_wall_us();
	(void)str_copy(p.r.message.language, sizeof p.r.message.language, language);
	(void)str_copy(p.r.message.tenant, sizeof p.r.message.tenant, "acme");
	f->inside = true;
	queue_publish(f->queue, &p.r);
	f->inside = false;
	assert_false(p.done);
	loop_run_until(&f->loop, &p.done);
	return p.r.message.id;
}

static struct uuid publish(struct fixture *f)
{
	return publish_to(f, "python", TASK_CLASS_NORMAL, false);
}

static void consume(struct fixture *f, const char *language, size_t prefetch)
{
	f->inside = true;
	assert_int_equal(queue_consume(f->queue, language, prefetch, NULL), 0);
	f->inside = false;
}

/* Turns the loop until n deliveries have come, and a little longer for one too many. */
static void expect_deliveries(struct fixture *f, size_t n)
{
	int64_t end_us = clock_monotonic_us() + WAIT_MS * 1000;

	while (f->n_held < n && clock_monotonic_us() < end_us)
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	settle(f);
	assert_int_equal(f->n_held, n);
}

static struct queue_depth depth(struct fixture *f, const char *language, enum task_class class)
{
	struct queue_depth d;

	queue_get_depth(f->queue, language, class, &d);
	return d;
}

/* Turns the loop until a count that need not be exact at once is what it should be. */
static void expect_ready(struct fixture *f, const char *language, enum task_class class, size_t n)
{
	int64_t end_us = clock_monotonic_us() + COUNT_MS * 1000;

	while (!queue_backend->exact && depth(f, language, class).ready != n &&
	       clock_monotonic_us() < end_us)
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(depth(f, language, class).ready, n);
}

static void expect_reserve(struct fixture *f, const char *language, enum task_class class, int code)
{
	int64_t end_us = clock_monotonic_us() + COUNT_MS * 1000;
	int r = queue_reserve(f->queue, language, class);

	while (!queue_backend->exact && r != code && clock_monotonic_us() < end_us) {
		if (r == 0)
			queue_unreserve(f->queue, language, class);
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
		r = queue_reserve(f->queue, language, class);
	}
	assert_int_equal(r, code);
}

/* ---- tests ---- */

static void messages_come_in_order(void **state)
{
	struct fixture *f = *state;
	struct uuid ids[20];

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		ids[i] = publish(f);
	consume(f, "python", ARRAY_SIZE(ids));
	expect_deliveries(f, ARRAY_SIZE(ids));
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		assert_true(uuid_eq(&f->held[i]->message.id, &ids[i]));
		assert_string_equal(f->held[i]->message.language, "python");
		assert_string_equal(f->held[i]->message.tenant, "acme");
		assert_int_equal(f->held[i]->message.class, TASK_CLASS_NORMAL);
		queue_ack(f->queue, f->held[i]);
	}
}

static void languages_are_apart(void **state)
{
	struct fixture *f = *state;
	struct uuid c;

	(void)publish(f);
	c = publish_to(f, "c", TASK_CLASS_NORMAL, false);
	consume(f, "c", 10);
	expect_deliveries(f, 1);
	assert_true(uuid_eq(&f->held[0]->message.id, &c));
	queue_ack(f->queue, f->held[0]);
	expect_ready(f, "python", TASK_CLASS_NORMAL, 1);
}

static void classes_have_a_prefetch_each(void **state)
{
	struct fixture *f = *state;

	for (int class = 0; class < _TASK_CLASS_MAX; class ++)
		for (int i = 0; i < 4; i++)
			(void)publish_to(f, "python", (enum task_class) class, false);
	consume(f, "python", 2);
	expect_deliveries(f, 2 * _TASK_CLASS_MAX);
	for (int class = 0; class < _TASK_CLASS_MAX; class ++) {
		expect_ready(f, "python", (enum task_class) class, 2);
		assert_int_equal(depth(f, "python", (enum task_class) class).unacked, 2);
	}
}

static void ack_lets_the_next_come(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++)
		(void)publish(f);
	consume(f, "python", 1);
	for (size_t n = 1; n <= 3; n++) {
		expect_deliveries(f, n);
		f->inside = true;
		queue_ack(f->queue, f->held[n - 1]);
		f->inside = false;
	}
	expect_deliveries(f, 3);
	expect_ready(f, "python", TASK_CLASS_NORMAL, 0);
	assert_int_equal(depth(f, "python", TASK_CLASS_NORMAL).unacked, 0);
}

static void ack_from_inside_a_delivery_works(void **state)
{
	struct fixture *f = *state;

	f->on_delivery = ACK;
	for (int i = 0; i < 50; i++)
		(void)publish(f);
	consume(f, "python", 1);
	expect_deliveries(f, 50);
	assert_int_equal(depth(f, "python", TASK_CLASS_NORMAL).unacked, 0);
}

static void prefetch_can_be_changed_and_stopped(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 10; i++)
		(void)publish(f);
	settle(f);
	assert_int_equal(f->n_held, 0);
	consume(f, "python", 2);
	expect_deliveries(f, 2);
	consume(f, "python", 5);
	expect_deliveries(f, 5);
	consume(f, "python", 0);
	for (size_t i = 0; i < 5; i++)
		queue_ack(f->queue, f->held[i]);
	expect_deliveries(f, 5);
	expect_ready(f, "python", TASK_CLASS_NORMAL, 5);
	consume(f, "python", 1);
	expect_deliveries(f, 6);
}

static void consumer_may_come_late(void **state)
{
	struct fixture *f = *state;

	queue_set_consumer(f->queue, NULL, NULL);
	consume(f, "python", 3);
	(void)publish(f);
	expect_deliveries(f, 0);
	queue_set_consumer(f->queue, &consumer, f);
	expect_deliveries(f, 1);
}

static void handed_back_comes_again(void **state)
{
	struct fixture *f = *state;
	struct uuid first = publish(f), second = publish(f);

	consume(f, "python", 1);
	expect_deliveries(f, 1);
	f->inside = true;
	queue_hand_back(f->queue, f->held[0]);
	f->inside = false;
	expect_ready(f, "python", TASK_CLASS_NORMAL, 2);
	/* A broker may have delivered the next one by now. */
	if (!queue_backend->settle_ms)
		assert_int_equal(depth(f, "python", TASK_CLASS_NORMAL).unacked, 0);
	expect_deliveries(f, 2);
	if (queue_backend->hand_back_front) {
		assert_true(uuid_eq(&f->last, &first));
		return;
	}
	assert_true(uuid_eq(&f->last, &second));
	queue_ack(f->queue, f->held[1]);
	expect_deliveries(f, 3);
	assert_true(uuid_eq(&f->last, &first));
}

/* Who hands back all that comes must not make the loop spin in one turn. */
static void handed_back_inside_a_delivery_leaves_the_loop_free(void **state)
{
	struct fixture *f = *state;

	(void)publish(f);
	(void)publish(f);
	f->on_delivery = HAND_BACK;
	consume(f, "python", 2);
	while (!f->n_held)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	loop_turn(&f->loop);
	assert_true(f->n_held >= 1 && f->n_held < 10);
	f->on_delivery = ACK;
	while (depth(f, "python", TASK_CLASS_NORMAL).ready)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	settle(f);
	expect_ready(f, "python", TASK_CLASS_NORMAL, 0);
	assert_int_equal(depth(f, "python", TASK_CLASS_NORMAL).unacked, 0);
}

static void room_is_reserved_and_given_back(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < ROOM; i++)
		expect_reserve(f, "python", TASK_CLASS_NORMAL, 0);
	expect_reserve(f, "python", TASK_CLASS_NORMAL, -EAGAIN);
	expect_reserve(f, "c", TASK_CLASS_HIGH, -EAGAIN);
	queue_unreserve(f->queue, "python", TASK_CLASS_NORMAL);
	expect_reserve(f, "python", TASK_CLASS_NORMAL, 0);
	assert_true(queue_retry_after(f->queue) >= 1);
	/* A message takes the place of its reservation, and keeps it until it is acknowledged. */
	for (int i = 0; i < ROOM; i++)
		(void)publish_to(f, "python", TASK_CLASS_NORMAL, true);
	expect_reserve(f, "python", TASK_CLASS_NORMAL, -EAGAIN);
	consume(f, "python", 1);
	expect_deliveries(f, 1);
	expect_reserve(f, "python", TASK_CLASS_NORMAL, -EAGAIN);
	f->on_delivery = HOLD;
	queue_ack(f->queue, f->held[0]);
	expect_reserve(f, "python", TASK_CLASS_NORMAL, 0);
	expect_reserve(f, "python", TASK_CLASS_NORMAL, -EAGAIN);
}

static void publish_again_passes_the_bound(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < ROOM + 5; i++)
		(void)publish(f);
	expect_ready(f, "python", TASK_CLASS_NORMAL, ROOM + 5);
	expect_reserve(f, "python", TASK_CLASS_NORMAL, -EAGAIN);
}

static void retry_after_follows_the_rate(void **state)
{
	struct fixture *f = *state;
	int slow, fast;

	assert_int_equal(queue_retry_after(f->queue), 1);
	for (int i = 0; i < 2 * ROOM; i++)
		(void)publish(f);
	slow = queue_retry_after(f->queue);
	f->on_delivery = ACK;
	consume(f, "python", 1);
	while (f->n_held < ROOM - 1)
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	fast = queue_retry_after(f->queue);
	assert_true(slow >= 1 && slow <= 60);
	assert_true(fast >= 1 && fast < slow);
}

static void depth_tells_the_oldest(void **state)
{
	struct fixture *f = *state;
	int64_t before_us = clock_wall_us();
	struct queue_depth d = depth(f, "python", TASK_CLASS_NORMAL);

	assert_true(d.ready == 0 && d.unacked == 0 && d.oldest_us == 0);
	(void)publish(f);
	(void)publish(f);
	expect_ready(f, "python", TASK_CLASS_NORMAL, 2);
	d = depth(f, "python", TASK_CLASS_NORMAL);
	assert_true(d.oldest_us >= before_us && d.oldest_us <= clock_wall_us());
	d = depth(f, "python", TASK_CLASS_HIGH);
	assert_int_equal(d.ready, 0);
}

static void close_with_messages_leaves_nothing(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 10; i++)
		(void)publish(f);
	consume(f, "python", 4);
	expect_deliveries(f, 4);
}

static void close_from_inside_a_delivery_ends_it(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 10; i++)
		(void)publish(f);
	f->on_delivery = CLOSE;
	consume(f, "python", 4);
	loop_run_until(&f->loop, &f->closed);
	assert_int_equal(f->n_held, 1);
}

static void open_of_unknown_or_senseless_refused(void **state)
{
	static const struct queue_config bad[] = {
		{"", 1}, {"nothing:", 1}, {"memory", 1}, {"memory:x", 1}, {"memory:", 0}};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct queue *q = NULL;
		struct err e = {""};

		assert_int_equal(queue_open(&f->loop, &bad[i], &q, &e), -EINVAL);
		assert_null(q);
		assert_true(e.msg[0]);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

const struct CMUnitTest queue_suite[] = {
	CASE(messages_come_in_order),
	CASE(languages_are_apart),
	CASE(classes_have_a_prefetch_each),
	CASE(ack_lets_the_next_come),
	CASE(ack_from_inside_a_delivery_works),
	CASE(prefetch_can_be_changed_and_stopped),
	CASE(consumer_may_come_late),
	CASE(handed_back_comes_again),
	CASE(handed_back_inside_a_delivery_leaves_the_loop_free),
	CASE(room_is_reserved_and_given_back),
	CASE(publish_again_passes_the_bound),
	CASE(retry_after_follows_the_rate),
	CASE(depth_tells_the_oldest),
	CASE(close_with_messages_leaves_nothing),
	CASE(close_from_inside_a_delivery_ends_it),
	CASE(open_of_unknown_or_senseless_refused),
};
const size_t queue_suite_count = ARRAY_SIZE(queue_suite);
