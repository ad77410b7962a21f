/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/standby.h"

#include "base/list.h"
#include "fake_spawner.h"
#include "sandbox/archive.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BOXES = 12, PER_LANGUAGE = 3, MAX = 4, COST = 10 << 20, QUIET_TURNS_MS = 150 };

static char word[] = "/bin/true", entry[] = "main.x", name_a[] = "a", name_b[] = "b";
static char *argv[] = {word, NULL}, *produces[] = {entry, NULL};

struct fixture {
	uv_loop_t loop;
	struct sandbox_client *spawner;
	struct box_pool *boxes;
	struct standby_pool *pool;
	struct language a, b;
	struct task_program program;
	struct task_limits limits;
	bool busy; /* no slot is free */
	/* Of a step that was taken. */
	struct step *step;
	bool ended, unused;
	size_t output;
};

/* ---- the world ---- */

static void on_lost(void *ctx, const char *message)
{
	(void)ctx;
	fail_msg("the fake was lost: %s", message);
}

static bool is_idle(void *ctx)
{
	return !((struct fixture *)ctx)->busy;
}

static struct language make_language(char *name)
{
	const struct language_standby standby = {.argv = argv, .memory_bytes = COST, .args = true};

	return (struct language){
		.name = name,
		.source = entry,
		.compile = {.argv = argv, .produces = produces, .standby = standby},
		.run = {.argv = argv, .standby = standby}};
}

static int setup(void **state)
{
	const struct box_pool_config boxes = {.boxes = BOXES, .standbys = 2, .lost = on_lost};
	struct fixture *f = calloc(1, sizeof(*f));
	struct err e;

	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->spawner = fake_spawner_new();
	f->spawner->stands_by = true;
	f->a = make_language(name_a);
	f->b = make_language(name_b);
	f->program.entry = entry;
	f->limits = (struct task_limits){.cpu_ms = 1000,
					 .wall_ms = 2000,
					 .memory_bytes = 64 << 20,
					 .processes = 8,
					 .output_bytes = 1000};
	assert_int_equal(box_pool_new(&f->loop, f->spawner, &boxes, &f->boxes, &e), 0);
	*state = f;
	return 0;
}

static void pool_new(struct fixture *f, uint64_t budget_bytes, unsigned max, int64_t idle_ms)
{
	const struct standby_config cfg = {.max = max,
					   .max_language = PER_LANGUAGE,
					   .budget_bytes = budget_bytes,
					   .idle_ms = idle_ms,
					   .idle = is_idle,
					   .ctx = f};
	struct err e;

	assert_int_equal(standby_pool_new(&f->loop, f->boxes, &cfg, &f->pool, &e), 0);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	step_free(f->step);
	standby_pool_free(f->pool);
	box_pool_free(f->boxes);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	fake_spawner_free(f->spawner);
	free(f);
	return 0;
}

/* ---- what happens ---- */

/* Until the number is reached; a test that hangs is ended by its runner. */
static void until(struct fixture *f, const unsigned *number, unsigned want)
{
	while (*number < want)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
}

static void wake(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

/* Longer than anything that may be about to happen. */
static void rest(struct fixture *f)
{
	bool over = false;
	uv_timer_t timer;

	(void)uv_timer_init(&f->loop, &timer);
	timer.data = &over;
	(void)uv_timer_start(&timer, wake, QUIET_TURNS_MS, 0);
	while (!over)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	(void)uv_run(&f->loop, UV_RUN_NOWAIT);
}

static struct standby_wish wish_of(struct fixture *f, struct language *l)
{
	return (struct standby_wish){
		.language = l, .step = &l->run, .program = &f->program, .limits = &f->limits};
}

static struct step *ask(struct fixture *f, struct language *l)
{
	const struct standby_wish w = wish_of(f, l);

	return standby_take(f->pool, &w);
}

static void say(struct fixture *f, unsigned box, const char *sign)
{
	assert_int_equal(write(f->spawner->fds[box][STEP_READY_FD], sign, 1), 1);
}

/* The n-th that was started becomes ready. */
static void boot(struct fixture *f, unsigned nth)
{
	unsigned before;

	until(f, &f->spawner->starts, nth);
	before = standby_ready(f->pool);
	say(f, f->spawner->last_box, "w");
	while (standby_ready(f->pool) == before)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
}

/* One stands by for l; there was none. */
static void stand_by(struct fixture *f, struct language *l)
{
	assert_null(ask(f, l));
	boot(f, f->spawner->starts + 1);
}

/* ---- how many ---- */

static void standby_pool_unasked_starts_none(void **state)
{
	struct fixture *f = *state;

	pool_new(f, UINT64_MAX, MAX, 0);
	standby_poke(f->pool);
	rest(f);
	assert_int_equal(f->spawner->starts, 0);
}

static void standby_take_ready_one_is_the_callers(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	f->step = ask(f, &f->a);
	assert_non_null(f->step);
	assert_int_equal(standby_ready(f->pool), 0);
	assert_int_equal(f->spawner->kills, 0);
	/* The budget is free again. */
	until(f, &f->spawner->starts, 2);
}

static void standby_take_booting_one_stays(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	assert_null(ask(f, &f->a));
	until(f, &f->spawner->starts, 1);
	assert_null(ask(f, &f->a));
	say(f, f->spawner->last_box, "w");
	rest(f);
	assert_int_equal(standby_ready(f->pool), 1);
	assert_int_equal(f->spawner->starts, 1);
}

static void standby_pool_much_asked_is_bounded_per_language(void **state)
{
	struct fixture *f = *state;

	pool_new(f, UINT64_MAX, MAX, 0);
	for (int i = 0; i < 8; i++)
		assert_null(ask(f, &f->a));
	for (unsigned i = 1; i <= PER_LANGUAGE; i++)
		boot(f, i);
	rest(f);
	assert_int_equal(f->spawner->starts, PER_LANGUAGE);
}

/* Each is looked for again when one got ready; seldom asked for, one more than was asked for. */
static void standby_pool_asked_once_has_at_most_two(void **state)
{
	struct fixture *f = *state;

	pool_new(f, UINT64_MAX, MAX, 0);
	stand_by(f, &f->a);
	rest(f);
	assert_in_range(f->spawner->starts, 1, 2);
}

static void standby_pool_keeps_its_budget(void **state)
{
	struct fixture *f = *state;

	pool_new(f, 2 * COST + COST / 2, MAX, 0);
	for (int i = 0; i < 8; i++)
		assert_null(ask(f, &f->a));
	boot(f, 1);
	boot(f, 2);
	rest(f);
	assert_int_equal(f->spawner->starts, 2);
}

static void standby_pool_budget_below_one_starts_none(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST - 1, MAX, 0);
	assert_null(ask(f, &f->a));
	rest(f);
	assert_int_equal(f->spawner->starts, 0);
}

static void standby_pool_full_makes_room_for_the_later_language(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	assert_null(ask(f, &f->b));
	until(f, &f->spawner->kills, 1);
	boot(f, 2);
	f->step = ask(f, &f->b);
	assert_non_null(f->step);
	/* The first one is not given room while the other was asked for later. */
	assert_int_equal(standby_ready(f->pool), 0);
}

/* A language without one gets one, and no more than that at the cost of another. */
static void standby_pool_full_shares_by_language(void **state)
{
	struct fixture *f = *state;

	pool_new(f, UINT64_MAX, 2, 0);
	stand_by(f, &f->a);
	boot(f, 2);
	for (int i = 0; i < 4; i++)
		assert_null(ask(f, &f->b));
	boot(f, 3);
	rest(f);
	assert_int_equal(f->spawner->kills, 1);
	assert_int_equal(f->spawner->starts, 3);
	assert_int_equal(standby_ready(f->pool), 2);
}

static void standby_pool_busy_waits_for_a_slot(void **state)
{
	struct fixture *f = *state;

	pool_new(f, UINT64_MAX, MAX, 0);
	f->busy = true;
	assert_null(ask(f, &f->a));
	standby_poke(f->pool);
	rest(f);
	assert_int_equal(f->spawner->starts, 0);
	f->busy = false;
	standby_poke(f->pool);
	until(f, &f->spawner->starts, 1);
}

static void standby_pool_unused_for_long_ends_them(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 400);
	assert_null(ask(f, &f->a));
	until(f, &f->spawner->starts, 1);
	say(f, f->spawner->last_box, "w");
	until(f, &f->spawner->kills, 1);
	assert_int_equal(standby_ready(f->pool), 0);
	rest(f);
	assert_int_equal(f->spawner->starts, 1);
	/* Asked for again, there is one again. */
	while (f->spawner->starts < 2) {
		assert_null(ask(f, &f->a));
		rest(f);
	}
}

/* ---- which fits ---- */

static void standby_take_other_limits_fit_once_usual(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	f->limits.memory_bytes *= 2;
	assert_null(ask(f, &f->a));
	assert_int_equal(standby_ready(f->pool), 1);
	assert_null(ask(f, &f->a));
	assert_int_equal(standby_ready(f->pool), 0);
	boot(f, 2);
	f->step = ask(f, &f->a);
	assert_non_null(f->step);
}

static void standby_take_odd_limits_between_change_nothing(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	for (int i = 0; i < 3; i++) {
		f->limits.processes = 99;
		assert_null(ask(f, &f->a));
		f->limits.processes = 8;
		f->step = ask(f, &f->a);
		assert_non_null(f->step);
		step_free(f->step);
		f->step = NULL;
		boot(f, f->spawner->starts + 1);
	}
}

static void standby_take_other_output_fits(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	f->limits.output_bytes = 1;
	f->step = ask(f, &f->a);
	assert_non_null(f->step);
}

static void standby_take_other_entry_starts_cold(void **state)
{
	struct fixture *f = *state;
	char other[] = "other.x";

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	f->program.entry = other;
	assert_null(ask(f, &f->a));
	assert_int_equal(standby_ready(f->pool), 1);
}

static void standby_take_compiler_fits_other_entry_and_arguments(void **state)
{
	struct fixture *f = *state;
	struct standby_wish w = wish_of(f, &f->a);
	char other[] = "other.x";

	pool_new(f, COST, MAX, 0);
	w.step = &f->a.compile;
	assert_null(standby_take(f->pool, &w));
	boot(f, 1);
	f->program.entry = other;
	w.n_args = 3;
	f->step = standby_take(f->pool, &w);
	assert_non_null(f->step);
}

/* One that stands by for runs is none for compiling. */
static void standby_take_other_step_has_its_own(void **state)
{
	struct fixture *f = *state;
	struct standby_wish w = wish_of(f, &f->a);

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	w.step = &f->a.compile;
	assert_null(standby_take(f->pool, &w));
}

static void standby_take_arguments_fit_who_takes_them(void **state)
{
	struct fixture *f = *state;
	struct standby_wish w = wish_of(f, &f->a);

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	w.n_args = 1;
	f->a.run.standby.args = false;
	assert_null(standby_take(f->pool, &w));
	f->a.run.standby.args = true;
	f->step = standby_take(f->pool, &w);
	assert_non_null(f->step);
}

static void standby_take_with_other_setup_starts_anew(void **state)
{
	struct fixture *f = *state;
	struct standby_wish w = wish_of(f, &f->a);

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	w.setup = "/setup/a-2";
	assert_null(standby_take(f->pool, &w));
	until(f, &f->spawner->kills, 1);
	boot(f, 2);
	f->step = standby_take(f->pool, &w);
	assert_non_null(f->step);
}

/* ---- those that fail ---- */

static void fail_boot(struct fixture *f, unsigned nth)
{
	const struct sandbox_event_exited x = {.outcome = SANDBOX_EXITED, .code = 1};

	until(f, &f->spawner->starts, nth);
	fake_exited(f->spawner, f->spawner->last_box, &x);
	fake_released(f->spawner, f->spawner->last_box);
}

static void standby_pool_failing_language_is_given_up(void **state)
{
	struct fixture *f = *state;
	struct standby_wish w = wish_of(f, &f->a);

	pool_new(f, COST, MAX, 0);
	assert_null(ask(f, &f->a));
	for (unsigned i = 1; i <= 3; i++)
		fail_boot(f, i);
	rest(f);
	assert_null(ask(f, &f->a));
	rest(f);
	assert_int_equal(f->spawner->starts, 3);
	/* Not so with other files from beforehand. */
	w.setup = "/setup/a-2";
	assert_null(standby_take(f->pool, &w));
	boot(f, 4);
}

static void standby_pool_one_success_forgets_failures(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	assert_null(ask(f, &f->a));
	fail_boot(f, 1);
	fail_boot(f, 2);
	boot(f, 3);
	for (unsigned i = 4; i < 6; i++) {
		step_free(ask(f, &f->a));
		fail_boot(f, i);
	}
	until(f, &f->spawner->starts, 6);
}

static void standby_pool_refused_start_is_given_up(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	f->spawner->start_result = -EMFILE;
	assert_null(ask(f, &f->a));
	until(f, &f->spawner->starts, 1);
	for (int i = 0; i < 8; i++) {
		assert_null(ask(f, &f->a));
		rest(f);
	}
	assert_int_equal(f->spawner->starts, 3);
}

/* Its end of the pipe closed without a sign: it will never be ready. */
static void standby_pool_sign_without_byte_is_the_end(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	assert_null(ask(f, &f->a));
	until(f, &f->spawner->starts, 1);
	(void)close(f->spawner->fds[f->spawner->last_box][STEP_READY_FD]);
	f->spawner->fds[f->spawner->last_box][STEP_READY_FD] = -1;
	until(f, &f->spawner->kills, 1);
	assert_int_equal(standby_ready(f->pool), 0);
}

static void standby_pool_waiting_one_that_dies_is_replaced(void **state)
{
	struct fixture *f = *state;
	const struct sandbox_event_exited x = {.outcome = SANDBOX_SIGNALLED, .signal = 9};

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	fake_exited(f->spawner, f->spawner->last_box, &x);
	fake_released(f->spawner, f->spawner->last_box);
	boot(f, 2);
	assert_int_equal(standby_ready(f->pool), 1);
}

/* ---- what is given to one ---- */

static size_t room(void *ctx)
{
	(void)ctx;
	return SIZE_MAX;
}

static void chunk(void *ctx, enum task_stream stream, const void *bytes, size_t len)
{
	(void)stream;
	(void)bytes;
	((struct fixture *)ctx)->output += len;
}

static void ended(void *ctx, struct step_end *end)
{
	struct fixture *f = ctx;

	f->ended = true;
	f->unused = end->unused;
}

static const struct step_ops taken_ops = {.room = room, .chunk = chunk, .ended = ended};

/* Takes one and gives it a message of one word, which has arrived. Returns its box. */
static unsigned give(struct fixture *f)
{
	static const struct bytes nothing, message = {.data = word, .len = sizeof(word)};
	const struct step_gift gift = {.ops = &taken_ops,
				       .ctx = f,
				       .limits = &f->limits,
				       .stdin_data = &nothing,
				       .message = &message};
	unsigned box = f->spawner->last_box;
	char got[sizeof(word) + 1];
	ssize_t n = 0;

	assert_true(fcntl(f->spawner->fds[box][STEP_GIVEN_FD], F_SETFL, O_NONBLOCK) == 0);
	f->busy = true; /* no other one meanwhile */
	f->step = ask(f, &f->a);
	assert_non_null(f->step);
	assert_int_equal(step_give(f->step, &gift, NULL), 0);
	until(f, &f->spawner->limits, 1);
	while (n < (ssize_t)sizeof(word)) {
		ssize_t k =
			read(f->spawner->fds[box][STEP_GIVEN_FD], got + n, sizeof(got) - (size_t)n);

		n += k > 0 ? k : 0;
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	assert_memory_equal(got, word, sizeof(word));
	return box;
}

static void end_box(struct fixture *f, unsigned box)
{
	const struct sandbox_event_exited x = {.outcome = SANDBOX_EXITED};

	fake_exited(f->spawner, box, &x);
	fake_released(f->spawner, box);
	while (!f->ended)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
}

static void step_give_signed_is_used(void **state)
{
	struct fixture *f = *state;
	unsigned box;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	box = give(f);
	say(f, box, "g");
	end_box(f, box);
	assert_false(f->unused);
}

static void step_give_without_sign_is_unused(void **state)
{
	struct fixture *f = *state;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	end_box(f, give(f));
	assert_true(f->unused);
}

/* By who opens /proc/self/fd/62: the sign is not there any more, and counts. */
static void step_give_sign_cannot_be_taken_back(void **state)
{
	struct fixture *f = *state;
	char path[64];
	unsigned box;
	char byte;
	int fd;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	box = give(f);
	say(f, box, "g");
	rest(f);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", f->spawner->fds[box][STEP_READY_FD]);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_true(read(fd, &byte, 1) < 0);
	(void)close(fd);
	end_box(f, box);
	assert_false(f->unused);
}

static void step_give_output_is_a_sign(void **state)
{
	struct fixture *f = *state;
	unsigned box;

	pool_new(f, COST, MAX, 0);
	stand_by(f, &f->a);
	box = give(f);
	assert_int_equal(write(f->spawner->fds[box][1], "said", 4), 4);
	while (f->output < 4)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	end_box(f, box);
	assert_false(f->unused);
}

static int make_archive(unsigned files, size_t size)
{
	struct archive_writer *w;
	void *content = calloc(1, size + 1);
	int fd;

	assert_int_equal(archive_writer_new(&w, NULL), 0);
	for (unsigned i = 0; i < files; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(archive_add(w, name, 0644, content, size, NULL), 0);
	}
	assert_int_equal(archive_finish(w, &fd, NULL), 0);
	archive_writer_free(w);
	free(content);
	return fd;
}

static int message_of(unsigned files, size_t size, struct bytes *ret_message)
{
	char one[] = "one", none[] = "";
	char *const args[] = {one, none};
	const int archive = make_archive(files, size);
	int r = standby_message(args, 2, &archive, 1, ret_message);

	(void)close(archive);
	return r;
}

static void standby_message_has_arguments_and_files(void **state)
{
	static const char want[] = "\0\0\0\2\0\0\0\3one\0\0\0\0"
				   "\0\0\0\1\0\0\0\2f0\0\0\1\244\0\0\0\3\0\0\0";
	struct bytes m;

	(void)state;
	assert_int_equal(message_of(1, 3, &m), 0);
	assert_int_equal(m.len, sizeof(want) - 1);
	assert_memory_equal(m.data, want, m.len);
	bytes_fini(&m);
}

static void standby_message_too_big_is_refused(void **state)
{
	struct bytes m;

	(void)state;
	assert_int_equal(message_of(STANDBY_FILES_MAX, 1, &m), 0);
	bytes_fini(&m);
	assert_int_equal(message_of(STANDBY_FILES_MAX + 1, 1, &m), -E2BIG);
	assert_int_equal(message_of(1, STANDBY_BYTES_MAX, &m), -E2BIG);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static const struct CMUnitTest tests[] = {
	IN_WORLD(standby_pool_unasked_starts_none),
	IN_WORLD(standby_take_ready_one_is_the_callers),
	IN_WORLD(standby_take_booting_one_stays),
	IN_WORLD(standby_pool_much_asked_is_bounded_per_language),
	IN_WORLD(standby_pool_asked_once_has_at_most_two),
	IN_WORLD(standby_pool_keeps_its_budget),
	IN_WORLD(standby_pool_budget_below_one_starts_none),
	IN_WORLD(standby_pool_full_makes_room_for_the_later_language),
	IN_WORLD(standby_pool_full_shares_by_language),
	IN_WORLD(standby_pool_busy_waits_for_a_slot),
	IN_WORLD(standby_pool_unused_for_long_ends_them),
	IN_WORLD(standby_take_other_limits_fit_once_usual),
	IN_WORLD(standby_take_odd_limits_between_change_nothing),
	IN_WORLD(standby_take_other_output_fits),
	IN_WORLD(standby_take_other_entry_starts_cold),
	IN_WORLD(standby_take_compiler_fits_other_entry_and_arguments),
	IN_WORLD(standby_take_other_step_has_its_own),
	IN_WORLD(standby_take_arguments_fit_who_takes_them),
	IN_WORLD(standby_take_with_other_setup_starts_anew),
	IN_WORLD(standby_pool_failing_language_is_given_up),
	IN_WORLD(standby_pool_one_success_forgets_failures),
	IN_WORLD(standby_pool_refused_start_is_given_up),
	IN_WORLD(standby_pool_sign_without_byte_is_the_end),
	IN_WORLD(standby_pool_waiting_one_that_dies_is_replaced),
	IN_WORLD(step_give_signed_is_used),
	IN_WORLD(step_give_without_sign_is_unused),
	IN_WORLD(step_give_sign_cannot_be_taken_back),
	IN_WORLD(step_give_output_is_a_sign),
	cmocka_unit_test(standby_message_has_arguments_and_files),
	cmocka_unit_test(standby_message_too_big_is_refused),
};

UNIT_MAIN(tests)
