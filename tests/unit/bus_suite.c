/* SPDX-License-Identifier: Apache-2.0 */
#include "bus_suite.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "bus/bus.h"
#include "loop_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct bus_backend *bus_backend;

struct fixture {
	uv_loop_t loop;
	struct bus *bus;
	bool closed;
};

struct ear {
	struct fixture *f;
	size_t heard;
	enum bus_topic topic;
	struct uuid id;
	char payload[BUS_PAYLOAD_MAX];
	size_t len;
	bool inside;
	struct ear *leave; /* unsubscribes this one when it hears something */
	bool answer, close;
};

static void on_message(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		       size_t len)
{
	struct ear *e = ctx;

	assert_false(e->inside);
	assert_true(len <= sizeof e->payload);
	e->heard++;
	e->topic = topic;
	e->id = *id;
	e->len = len;
	if (len)
		memcpy(e->payload, payload, len);
	if (e->leave)
		bus_unsubscribe(e->f->bus, topic, on_message, e->leave);
	if (e->answer && e->heard < 3) {
		e->inside = true;
		bus_publish(e->f->bus, topic, id, NULL, 0);
		e->inside = false;
	}
	if (e->close)
		bus_close(e->f->bus, loop_on_closed, &e->f->closed);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct err e = {""};

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	if (bus_open(&f->loop, bus_backend->fresh(), &f->bus, &e) < 0)
		fail_msg("%s", e.msg);
	while (!bus_is_up(f->bus, NULL))
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (!f->closed) {
		bus_close(f->bus, loop_on_closed, &f->closed);
		assert_false(f->closed);
		loop_run_until(&f->loop, &f->closed);
	}
	loop_end(&f->loop);
	free(f);
	return 0;
}

static void hear(struct fixture *f, struct ear *e, enum bus_topic topic)
{
	e->f = f;
	assert_int_equal(bus_subscribe(f->bus, topic, on_message, e), 0);
}

static void say(struct fixture *f, struct ear *e, enum bus_topic topic, const struct uuid *id)
{
	e->inside = true;
	bus_publish(f->bus, topic, id, "x", 1);
	e->inside = false;
}

static void expect_heard(struct fixture *f, const struct ear *e, size_t n)
{
	int64_t end_us = clock_monotonic_us() + 2000000;

	while (e->heard < n && clock_monotonic_us() < end_us)
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	loop_turn(&f->loop);
	assert_int_equal(e->heard, n);
}

static void message_comes_as_it_was_sent(void **state)
{
	static const size_t sizes[] = {0, 1, BUS_PAYLOAD_MAX};
	struct fixture *f = *state;
	char payload[BUS_PAYLOAD_MAX];
	struct ear e = {0};
	struct uuid id;

	memset(payload, 'p', sizeof payload);
	hear(f, &e, BUS_FINISHED);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uuid7_new(&id);
		bus_publish(f->bus, BUS_FINISHED, &id, sizes[i] ? payload : NULL, sizes[i]);
		expect_heard(f, &e, i + 1);
		assert_int_equal(e.topic, BUS_FINISHED);
		assert_true(uuid_eq(&e.id, &id));
		assert_int_equal(e.len, sizes[i]);
		assert_memory_equal(e.payload, payload, sizes[i]);
	}
}

static void message_never_comes_from_inside_publish(void **state)
{
	struct fixture *f = *state;
	struct ear e = {0};
	struct uuid id;

	uuid7_new(&id);
	hear(f, &e, BUS_CANCEL);
	say(f, &e, BUS_CANCEL, &id);
	assert_int_equal(e.heard, 0);
	expect_heard(f, &e, 1);
}

static void message_too_large_is_not_sent(void **state)
{
	static char payload[BUS_PAYLOAD_MAX + 1];
	struct fixture *f = *state;
	struct ear e = {0};
	struct uuid id;

	uuid7_new(&id);
	hear(f, &e, BUS_FINISHED);
	bus_publish(f->bus, BUS_FINISHED, &id, payload, sizeof payload);
	expect_heard(f, &e, 0);
}

static void topics_are_apart(void **state)
{
	struct fixture *f = *state;
	struct ear ears[_BUS_TOPIC_MAX] = {0};
	struct uuid id;

	uuid7_new(&id);
	for (int t = 0; t < _BUS_TOPIC_MAX; t++)
		hear(f, &ears[t], (enum bus_topic)t);
	say(f, &ears[BUS_QUEUED], BUS_QUEUED, &id);
	expect_heard(f, &ears[BUS_QUEUED], 1);
	expect_heard(f, &ears[BUS_FINISHED], 0);
	expect_heard(f, &ears[BUS_CANCEL], 0);
}

static void every_subscriber_hears_up_to_eight(void **state)
{
	struct fixture *f = *state;
	static struct ear ears[9];
	struct uuid id;

	uuid7_new(&id);
	memset(ears, 0, sizeof ears);
	for (int i = 0; i < 8; i++)
		hear(f, &ears[i], BUS_FINISHED);
	assert_int_equal(bus_subscribe(f->bus, BUS_FINISHED, on_message, &ears[8]), -ENOSPC);
	assert_int_equal(bus_subscribe(f->bus, BUS_CANCEL, on_message, &ears[8]), 0);
	say(f, &ears[0], BUS_FINISHED, &id);
	for (int i = 0; i < 8; i++)
		expect_heard(f, &ears[i], 1);
	bus_unsubscribe(f->bus, BUS_FINISHED, on_message, &ears[3]);
	assert_int_equal(bus_subscribe(f->bus, BUS_FINISHED, on_message, &ears[8]), 0);
}

static void unsubscribed_hears_nothing_more(void **state)
{
	struct fixture *f = *state;
	struct ear gone = {0}, stays = {0};
	struct uuid id;

	uuid7_new(&id);
	hear(f, &gone, BUS_FINISHED);
	hear(f, &stays, BUS_FINISHED);
	say(f, &stays, BUS_FINISHED, &id);
	bus_unsubscribe(f->bus, BUS_FINISHED, on_message, &gone);
	bus_unsubscribe(f->bus, BUS_FINISHED, on_message, &gone);
	expect_heard(f, &stays, 1);
	assert_int_equal(gone.heard, 0);
}

static void unsubscribe_from_inside_a_message_works(void **state)
{
	struct fixture *f = *state;
	struct ear first = {0}, second = {0};
	struct uuid id;

	uuid7_new(&id);
	first.leave = &second;
	hear(f, &first, BUS_FINISHED);
	hear(f, &second, BUS_FINISHED);
	say(f, &first, BUS_FINISHED, &id);
	expect_heard(f, &first, 1);
	assert_int_equal(second.heard, 0);
	first.leave = &first;
	say(f, &first, BUS_FINISHED, &id);
	expect_heard(f, &first, 2);
	say(f, &first, BUS_FINISHED, &id);
	expect_heard(f, &first, 2);
}

static void publish_from_inside_a_message_works(void **state)
{
	struct fixture *f = *state;
	struct ear e = {.answer = true};
	struct uuid id;

	uuid7_new(&id);
	hear(f, &e, BUS_FINISHED);
	say(f, &e, BUS_FINISHED, &id);
	expect_heard(f, &e, 3);
}

static void close_from_inside_a_message_ends_it(void **state)
{
	struct fixture *f = *state;
	struct ear e = {.close = true};
	struct uuid id;

	uuid7_new(&id);
	hear(f, &e, BUS_FINISHED);
	for (int i = 0; i < 3; i++)
		say(f, &e, BUS_FINISHED, &id);
	loop_run_until(&f->loop, &f->closed);
	assert_int_equal(e.heard, 1);
}

static void close_with_messages_on_their_way_frees_them(void **state)
{
	struct fixture *f = *state;
	struct ear e = {0};
	struct uuid id;

	uuid7_new(&id);
	hear(f, &e, BUS_FINISHED);
	for (int i = 0; i < 3; i++)
		say(f, &e, BUS_FINISHED, &id);
}

static void open_of_unknown_refused(void **state)
{
	static const char *const bad[] = {"", "nothing:", "memory", "memory:x"};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct bus *b = NULL;
		struct err e = {""};

		assert_int_equal(bus_open(&f->loop, bad[i], &b, &e), -EINVAL);
		assert_null(b);
		assert_true(e.msg[0]);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

const struct CMUnitTest bus_suite[] = {
	CASE(message_comes_as_it_was_sent),
	CASE(message_never_comes_from_inside_publish),
	CASE(message_too_large_is_not_sent),
	CASE(topics_are_apart),
	CASE(every_subscriber_hears_up_to_eight),
	CASE(unsubscribed_hears_nothing_more),
	CASE(unsubscribe_from_inside_a_message_works),
	CASE(publish_from_inside_a_message_works),
	CASE(close_from_inside_a_message_ends_it),
	CASE(close_with_messages_on_their_way_frees_them),
	CASE(open_of_unknown_refused),
};
const size_t bus_suite_count = ARRAY_SIZE(bus_suite);
