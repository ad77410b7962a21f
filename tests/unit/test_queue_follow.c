/* SPDX-License-Identifier: Apache-2.0 */

/* What waits at a broker for a language that a process has nothing else to do with. */

#include "base/clock.h"
#include "base/str.h"
#include "loop_fixture.h"
#include "queue/queue.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uv_loop_t loop;

static struct queue *open_one(const char *url)
{
	const struct queue_config cfg = {.url = url, .max_tasks = 1000};
	struct queue *q = NULL;
	struct err e = {""};

	if (queue_open(&loop, &cfg, &q, &e) < 0)
		fail_msg("%s", e.msg);
	return q;
}

static void close_one(struct queue *q)
{
	bool closed = false;

	queue_close(q, loop_on_closed, &closed);
	loop_run_until(&loop, &closed);
}

static void on_published(struct queue_publish *r, int code)
{
	assert_int_equal(code, 0);
	*(bool *)r->ctx = true;
}

static void publish(struct queue *q)
{
	bool done = false;
	struct queue_publish r = {.done = on_published, .ctx = &done};

	uuid7_new(&r.message.id);
	r.message.class = TASK_CLASS_LOW;
	r.message.enqueued_us = clock_wall_us();
	(void)str_copy(r.message.language, TASK_LANGUAGE_MAX, "python");
	(void)str_copy(r.message.tenant, TASK_TENANT_MAX, "acme");
	queue_publish(q, &r);
	loop_run_until(&loop, &done);
}

/* Whether so many wait within the time. */
static bool waits(const struct queue *q, size_t n, int64_t ms)
{
	int64_t end_us = clock_monotonic_us() + ms * 1000;
	struct queue_depth d;

	do {
		(void)uv_run(&loop, UV_RUN_NOWAIT);
		(void)poll(NULL, 0, 5);
		queue_get_depth(q, "python", TASK_CLASS_LOW, &d);
	} while (d.ready != n && clock_monotonic_us() < end_us);
	return d.ready == n;
}

static void followed_language_is_counted_without_consuming(void **state)
{
	const char *base = getenv("KILN_TEST_RABBITMQ_URL");
	char url[1024];
	struct queue *api, *scheduler;

	(void)state;
	(void)snprintf(url, sizeof url, "%s%cprefix=follow%d", base, strchr(base, '?') ? '&' : '?',
		       (int)getpid());
	assert_int_equal(uv_loop_init(&loop), 0);
	scheduler = open_one(url);
	assert_int_equal(queue_follow(scheduler, "python", true), 0);
	api = open_one(url);
	publish(api);
	publish(api);
	assert_true(waits(scheduler, 2, 5000));
	publish(api);
	assert_true(waits(scheduler, 3, 5000));
	close_one(api);
	close_one(scheduler);
	loop_end(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(followed_language_is_counted_without_consuming),
	};

	if (!getenv("KILN_TEST_RABBITMQ_URL")) {
		(void)printf("1..0 # SKIP KILN_TEST_RABBITMQ_URL is not set (tools/stack.sh)\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
