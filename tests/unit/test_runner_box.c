/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/box.h"

#include "fake_spawner.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { BOXES = 6, STANDBYS = 2 };

struct fixture {
	uv_loop_t loop;
	struct sandbox_client *spawner;
	struct box_pool *pool;
	int lost;
	int job_fd;
};

struct use {
	struct box_use u;
	int started, exited, gone, failed;
	char message[ERR_MSG_MAX];
	struct box_pool *leave_pool; /* leaves from inside its callbacks where set */
};

static struct use *use_of(struct box_use *u)
{
	return container_of(u, struct use, u);
}

static void maybe_leave(struct use *s)
{
	if (s->leave_pool)
		box_leave(s->leave_pool, &s->u);
}

static void on_started(struct box_use *u)
{
	use_of(u)->started++;
}

static void on_exited(struct box_use *u, const struct sandbox_event_exited *x)
{
	(void)x;
	use_of(u)->exited++;
	maybe_leave(use_of(u));
}

static void on_gone(struct box_use *u)
{
	use_of(u)->gone++;
}

static void on_failed(struct box_use *u, const char *message)
{
	use_of(u)->failed++;
	(void)snprintf(use_of(u)->message, sizeof(use_of(u)->message), "%s", message);
	maybe_leave(use_of(u));
}

static const struct box_ops ops = {
	.started = on_started,
	.exited = on_exited,
	.gone = on_gone,
	.failed = on_failed,
};

static void on_lost(void *ctx, const char *message)
{
	struct fixture *f = ctx;

	(void)message;
	f->lost++;
}

static void turn(struct fixture *f)
{
	for (int i = 0; i < 20; i++)
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
}

/* Until the count is reached, or for two seconds. */
static void turn_until(struct fixture *f, const unsigned *count, unsigned want)
{
	for (uint64_t end = uv_hrtime() + 2000000000u; *count < want && uv_hrtime() < end;)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
}

static void pool_new(struct fixture *f)
{
	const struct box_pool_config cfg = {
		.boxes = BOXES, .standbys = STANDBYS, .lost = on_lost, .ctx = f};
	struct err e;

	assert_int_equal(box_pool_new(&f->loop, f->spawner, &cfg, &f->pool, &e), 0);
	turn(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->spawner = fake_spawner_new();
	f->job_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	box_pool_free(f->pool);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	fake_spawner_free(f->spawner);
	(void)close(f->job_fd);
	free(f);
	return 0;
}

static void use_start(struct fixture *f, struct use *s)
{
	*s = (struct use){.u = {.ops = &ops, .task = {.job_fd = f->job_fd, .output_fd = -EBADF}}};
	box_run(f->pool, &s->u);
}

static unsigned ready(const struct fixture *f)
{
	struct box_pool_stats stats;

	box_pool_stats(f->pool, &stats);
	return stats.ready;
}

static void box_pool_keeps_standbys_ready(void **state)
{
	struct fixture *f = *state;

	pool_new(f);
	assert_int_equal(ready(f), STANDBYS);
	assert_int_equal(f->spawner->prepares, STANDBYS);
}

static void box_run_on_a_standby_starts_at_once(void **state)
{
	struct fixture *f = *state;
	struct use s;

	pool_new(f);
	use_start(f, &s);
	assert_int_equal(s.started, 1);
	assert_true(s.u.standby);
	turn(f);
	assert_int_equal(s.exited, 1);
	assert_int_equal(s.gone, 1);
	assert_int_equal(ready(f), STANDBYS);
	box_leave(f->pool, &s.u);
}

static void box_run_beyond_the_standbys_waits_in_order(void **state)
{
	struct fixture *f = *state;
	struct use s[4];

	pool_new(f);
	f->spawner->quiet = true;
	for (int i = 0; i < 4; i++)
		use_start(f, &s[i]);
	assert_int_equal(s[1].started, 1);
	assert_int_equal(s[2].started, 0);
	assert_false(s[2].u.standby);
	turn_until(f, &f->spawner->prepares, BOXES);
	fake_prepared(f->spawner, 2);
	turn(f);
	assert_int_equal(s[2].started, 1);
	assert_int_equal(s[3].started, 0);
	for (int i = 0; i < 4; i++)
		box_leave(f->pool, &s[i].u);
	assert_int_equal(f->spawner->kills, 3);
	turn(f);
	assert_int_equal(s[0].exited, 0);
}

static void box_use_that_leaves_from_its_callback_hears_nothing_more(void **state)
{
	struct fixture *f = *state;
	struct use s;

	pool_new(f);
	use_start(f, &s);
	s.leave_pool = f->pool;
	turn(f);
	assert_int_equal(s.exited, 1);
	assert_int_equal(s.gone, 0);
	assert_int_equal(f->spawner->kills, 0);
}

static void box_prepare_that_fails_is_told_after_some_tries(void **state)
{
	struct fixture *f = *state;
	struct use a;

	f->spawner->prepare_fails = true;
	pool_new(f);
	use_start(f, &a);
	turn_until(f, (unsigned *)(void *)&a.failed, 1);
	assert_int_equal(a.failed, 1);
	assert_non_null(strstr(a.message, "could not"));
	assert_true(f->spawner->prepares > STANDBYS && f->spawner->prepares < 20);
}

static void box_prepare_that_fails_once_is_told_to_nobody(void **state)
{
	struct fixture *f = *state;
	struct use a;

	f->spawner->prepare_fails = true;
	pool_new(f);
	use_start(f, &a);
	f->spawner->prepare_fails = false;
	turn_until(f, (unsigned *)(void *)&a.exited, 1);
	assert_int_equal(a.failed, 0);
	assert_int_equal(a.exited, 1);
	box_leave(f->pool, &a.u);
}

static void box_prepare_that_cannot_be_sent_is_told(void **state)
{
	struct fixture *f = *state;
	struct use a;

	f->spawner->prepare_result = -ENOBUFS;
	pool_new(f);
	use_start(f, &a);
	turn_until(f, (unsigned *)(void *)&a.failed, 1);
	assert_int_equal(a.failed, 1);
	assert_true(f->spawner->prepares < 10);
}

static void box_start_that_cannot_be_sent_is_told(void **state)
{
	struct fixture *f = *state;
	struct use a;

	pool_new(f);
	f->spawner->start_result = -ENOBUFS;
	use_start(f, &a);
	assert_int_equal(a.failed, 1);
	assert_int_equal(a.started, 0);
}

static void box_start_that_is_refused_is_told_and_the_box_given_back(void **state)
{
	struct fixture *f = *state;
	struct use a, b;

	pool_new(f);
	f->spawner->refuse_start = true;
	use_start(f, &a);
	turn(f);
	assert_int_equal(a.failed, 1);
	assert_int_equal(f->spawner->releases, 1);
	f->spawner->refuse_start = false;
	use_start(f, &b);
	turn(f);
	assert_int_equal(b.exited, 1);
	assert_int_equal(ready(f), STANDBYS);
	box_leave(f->pool, &b.u);
}

static void box_kill_of_one_that_waits_fails_it(void **state)
{
	struct fixture *f = *state;
	struct use s;

	f->spawner->quiet = true;
	pool_new(f);
	use_start(f, &s);
	box_kill(f->pool, &s.u, SANDBOX_LIMIT_REQUESTED);
	assert_int_equal(s.failed, 1);
	assert_int_equal(f->spawner->kills, 0);
	box_leave(f->pool, &s.u);
}

static void box_spawner_lost_fails_everything_and_all_that_follows(void **state)
{
	struct fixture *f = *state;
	struct use running, waiting[3], late;

	pool_new(f);
	f->spawner->quiet = true;
	use_start(f, &running);
	for (int i = 0; i < 3; i++)
		use_start(f, &waiting[i]);
	fake_lost(f->spawner);
	turn(f);
	assert_int_equal(f->lost, 1);
	assert_int_equal(running.failed, 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(waiting[i].failed, 1);
	use_start(f, &late);
	assert_int_equal(late.failed, 1);
}

static void box_standby_that_dies_is_replaced(void **state)
{
	struct fixture *f = *state;
	const struct sandbox_event_exited died = {.outcome = SANDBOX_FAILED,
						  .step = SANDBOX_STEP_INIT_DIED};

	pool_new(f);
	fake_exited(f->spawner, 0, &died);
	fake_released(f->spawner, 0);
	turn_until(f, &f->spawner->prepares, STANDBYS + 1);
	turn(f);
	assert_int_equal(ready(f), STANDBYS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
	TEST(box_pool_keeps_standbys_ready),
	TEST(box_run_on_a_standby_starts_at_once),
	TEST(box_run_beyond_the_standbys_waits_in_order),
	TEST(box_use_that_leaves_from_its_callback_hears_nothing_more),
	TEST(box_prepare_that_fails_is_told_after_some_tries),
	TEST(box_prepare_that_fails_once_is_told_to_nobody),
	TEST(box_prepare_that_cannot_be_sent_is_told),
	TEST(box_start_that_cannot_be_sent_is_told),
	TEST(box_start_that_is_refused_is_told_and_the_box_given_back),
	TEST(box_kill_of_one_that_waits_fails_it),
	TEST(box_spawner_lost_fails_everything_and_all_that_follows),
	TEST(box_standby_that_dies_is_replaced),
};

UNIT_MAIN(tests)
