/* SPDX-License-Identifier: Apache-2.0 */
#include "store_suite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- claim ---- */

static void claim_gives_first_attempt(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	AUTO(task_free) struct task *t = NULL;

	assert_int_equal(claim(f, &id), 1);
	t = get_task(f, &id, STORE_META);
	assert_int_equal(t->state, TASK_RUNNING);
	assert_int_equal(t->attempt, 1);
	assert_true(t->started_us == NOW_US);
	assert_null(t->result);
}

static void claim_of_what_is_not_queued_refused(void **state)
{
	struct fixture *f = *state;
	struct store_claim r = {.owner = 8, .now_us = NOW_US, .lease_until_us = NOW_US + 1};
	struct store_cancel_task cancel = {.now_us = NOW_US};

	uuid7_new(&r.id);
	assert_int_equal(RUN(claim, f, &r), -ENOENT);
	r.id = add_task(f);
	r.owner = 0;
	assert_int_equal(RUN(claim, f, &r), -EINVAL);
	r.owner = 8;
	(void)claim(f, &r.id);
	assert_int_equal(RUN(claim, f, &r), -ESTALE);
	assert_int_equal(r.state, TASK_RUNNING);
	assert_int_equal(finish(f, &r.id, 1, TASK_DONE, NULL), 0);
	assert_int_equal(RUN(claim, f, &r), -ESTALE);
	assert_int_equal(r.state, TASK_DONE);
	cancel.id = r.id = add_task(f);
	assert_int_equal(RUN(cancel_task, f, &cancel), 0);
	assert_int_equal(RUN(claim, f, &r), -ESTALE);
	assert_int_equal(r.state, TASK_CANCELLED);
}

static void claim_at_once_won_by_one(void **state)
{
	enum { MANY = 30 };
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	struct store_claim r[MANY];
	struct waiter w = {0};
	int won = 0;

	for (uint64_t i = 0; i < MANY; i++) {
		r[i] = (struct store_claim){
			.id = id, .owner = i + 1, .now_us = NOW_US, .lease_until_us = NOW_US + 1};
		BEGIN(claim, f, &w, &r[i]);
	}
	(void)wait_all(f, &w);
	for (int i = 0; i < MANY; i++) {
		won += r[i].req.code == 0;
		assert_true(r[i].req.code == 0 || r[i].req.code == -ESTALE);
	}
	assert_int_equal(won, 1);
}

static void claim_past_deadline_expires(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task_with(f, &(struct spec_options){.deadline_us = NOW_US});
	struct store_claim r = {
		.id = id, .owner = 7, .now_us = NOW_US + 1, .lease_until_us = NOW_US + 9};
	AUTO(task_free) struct task *t = NULL;

	assert_int_equal(RUN(claim, f, &r), -ESTALE);
	assert_int_equal(r.state, TASK_EXPIRED);
	t = get_task(f, &id, STORE_RESULT);
	assert_int_equal(t->state, TASK_EXPIRED);
	assert_int_equal(t->attempt, 0);
	assert_true(t->finished_us == NOW_US + 1 && t->started_us == 0);
	assert_null(t->result);
}

static void claim_at_deadline_still_works(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task_with(f, &(struct spec_options){.deadline_us = NOW_US});

	assert_int_equal(claim(f, &id), 1);
}

/* ---- finish ---- */

static void finish_keeps_the_result(void **state)
{
	static const size_t sizes[] = {0, 5, 200 * 1024};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct uuid id = add_task(f);
		struct task_result result;
		struct task *t;

		make_result(&result, TASK_OUTCOME_RUNTIME_ERROR, sizes[i]);
		assert_int_equal(finish(f, &id, claim(f, &id), TASK_DONE, &result), 0);
		t = get_task(f, &id, STORE_RESULT);
		assert_int_equal(t->state, TASK_DONE);
		assert_true(t->started_us == NOW_US + 10 && t->finished_us == NOW_US + 20);
		assert_int_equal(t->result->outcome, TASK_OUTCOME_RUNTIME_ERROR);
		assert_int_equal(t->result->n_runs, 1);
		assert_int_equal(t->result->runs[0].exit_code, 3);
		assert_int_equal(t->result->runs[0].output[TASK_STDOUT].len, sizes[i]);
		assert_memory_equal(t->result->runs[0].output[TASK_STDERR].data, "e\0e", 3);
		assert_true(t->result->runs[0].truncated[TASK_STDERR]);
		assert_true(t->result->runs[0].usage.memory_bytes == -1);
		assert_string_equal(t->result->compile.output.data, "warning");
		assert_string_equal(t->result->pod, "pod-1");
		assert_int_equal(t->result->isolation.landlock, 4);
		task_free(t);

		t = get_task(f, &id, STORE_META);
		assert_int_equal(t->result->outcome, TASK_OUTCOME_RUNTIME_ERROR);
		assert_int_equal(t->result->runs[0].exit_code, 3);
		assert_null(t->result->runs[0].output[TASK_STDOUT].data);
		assert_null(t->result->runs[0].output[TASK_STDERR].data);
		assert_null(t->result->compile.output.data);
		task_free(t);
		task_result_fini(&result);
	}
}

static void finish_in_each_final_state(void **state)
{
	static const enum task_state ends[] = {TASK_DONE, TASK_CANCELLED, TASK_FAILED};
	static const enum task_state never[] = {TASK_QUEUED, TASK_RUNNING, TASK_EXPIRED};
	struct fixture *f = *state;
	struct uuid id = add_task(f);

	(void)claim(f, &id);
	for (size_t i = 0; i < ARRAY_SIZE(never); i++)
		assert_int_equal(finish(f, &id, 1, never[i], NULL), -EINVAL);
	assert_state(f, &id, TASK_RUNNING, 1);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		id = add_task(f);
		assert_int_equal(finish(f, &id, claim(f, &id), ends[i], NULL), 0);
		assert_state(f, &id, ends[i], 1);
	}
}

static void finish_of_another_attempt_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f), unknown;
	struct store_release release = {.id = id,
					.attempt = 1,
					.counts = true,
					.now_us = NOW_US,
					.error_code = "c",
					.error_message = "m"};
	struct task_result result;

	make_result(&result, TASK_OUTCOME_OK, 10);
	uuid7_new(&unknown);
	assert_int_equal(finish(f, &unknown, 1, TASK_DONE, &result), -ESTALE);
	assert_int_equal(finish(f, &id, 0, TASK_DONE, &result), -ESTALE);
	assert_int_equal(claim(f, &id), 1);
	assert_int_equal(finish(f, &id, 0, TASK_DONE, &result), -ESTALE);
	assert_int_equal(finish(f, &id, 2, TASK_DONE, &result), -ESTALE);
	assert_int_equal(RUN(release, f, &release), 0);
	assert_int_equal(finish(f, &id, 1, TASK_DONE, &result), -ESTALE);
	assert_int_equal(finish(f, &id, 1, TASK_CANCELLED, NULL), -ESTALE);
	assert_int_equal(claim(f, &id), 2);
	assert_int_equal(finish(f, &id, 1, TASK_DONE, &result), -ESTALE);
	assert_state(f, &id, TASK_RUNNING, 2);
	assert_int_equal(finish(f, &id, 2, TASK_DONE, &result), 0);
	assert_int_equal(finish(f, &id, 2, TASK_FAILED, NULL), -ESTALE);
	assert_state(f, &id, TASK_DONE, 2);
	task_result_fini(&result);
}

static void finish_that_claims_is_one_write(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	struct store_finish r = {
		.id = id,
		.claim_owner = 7,
		.state = TASK_DONE,
		.started_us = NOW_US,
		.finished_us = NOW_US + 1,
	};

	assert_int_equal(RUN(finish, f, &r), 0);
	assert_int_equal(r.attempt, 1);
	assert_state(f, &id, TASK_DONE, 1);
	/* A second one finds it final. */
	r.state = TASK_FAILED;
	assert_int_equal(RUN(finish, f, &r), -ESTALE);
	assert_int_equal(r.found, TASK_DONE);
	assert_state(f, &id, TASK_DONE, 1);
}

static void finish_that_claims_refused_unless_queued_in_time(void **state)
{
	struct fixture *f = *state;
	struct uuid cancelled = add_task(f), running = add_task(f);
	struct uuid late = add_task_with(f, &(struct spec_options){.deadline_us = NOW_US});
	struct store_cancel_task cancel = {.id = cancelled, .now_us = NOW_US};
	const struct {
		struct uuid id;
		enum task_state found;
		int attempt;
	} cases[] = {{cancelled, TASK_CANCELLED, 0},
		     {running, TASK_RUNNING, 1},
		     {late, TASK_EXPIRED, 0}};

	assert_int_equal(RUN(cancel_task, f, &cancel), 0);
	(void)claim(f, &running);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct store_finish r = {
			.id = cases[i].id,
			.claim_owner = 7,
			.state = TASK_DONE,
			.started_us = NOW_US + 1,
			.finished_us = NOW_US + 2,
		};

		assert_int_equal(RUN(finish, f, &r), -ESTALE);
		assert_int_equal(r.found, cases[i].found);
		assert_state(f, &cases[i].id, cases[i].found, cases[i].attempt);
	}
}

static void finish_twice_at_once_counts_once(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	struct store_finish r[2];
	struct waiter w = {0};

	(void)claim(f, &id);
	for (int i = 0; i < 2; i++) {
		r[i] = (struct store_finish){.id = id,
					     .attempt = 1,
					     .state = i ? TASK_FAILED : TASK_DONE,
					     .finished_us = NOW_US};
		BEGIN(finish, f, &w, &r[i]);
	}
	(void)wait_all(f, &w);
	assert_int_equal(r[0].req.code, 0);
	assert_int_equal(r[1].req.code, -ESTALE);
	assert_state(f, &id, TASK_DONE, 1);
}

/* ---- release ---- */

static int release(struct fixture *f, const struct uuid *id, int attempt, bool counts,
		   enum task_state *ret_state)
{
	struct store_release r = {
		.id = *id,
		.attempt = attempt,
		.counts = counts,
		.now_us = NOW_US + 30,
		.error_code = counts ? "runner_lost" : NULL,
		.error_message = counts ? "the runner was lost" : NULL,
	};
	int code = RUN(release, f, &r);

	*ret_state = r.state;
	return code;
}

static void release_that_counts_fails_after_three(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	enum task_state is = _TASK_STATE_MAX;
	AUTO(task_free) struct task *t = NULL;

	for (int attempt = 1; attempt <= TASK_ATTEMPTS_MAX; attempt++) {
		assert_int_equal(claim(f, &id), attempt);
		assert_int_equal(release(f, &id, attempt, true, &is), 0);
		assert_int_equal(is, attempt < TASK_ATTEMPTS_MAX ? TASK_QUEUED : TASK_FAILED);
		assert_state(f, &id, is, attempt);
	}
	t = get_task(f, &id, STORE_RESULT);
	assert_string_equal(t->result->error_code, "runner_lost");
	assert_string_equal(t->result->error_message, "the runner was lost");
	assert_int_equal(t->result->outcome, TASK_OUTCOME_NONE);
	assert_true(t->finished_us == NOW_US + 30);
	assert_int_equal(release(f, &id, TASK_ATTEMPTS_MAX, true, &is), -ESTALE);
}

static void release_without_counts_costs_nothing(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	enum task_state is = _TASK_STATE_MAX;

	for (int i = 0; i < 10; i++) {
		assert_int_equal(claim(f, &id), 1);
		assert_int_equal(release(f, &id, 1, false, &is), 0);
		assert_int_equal(is, TASK_QUEUED);
		assert_state(f, &id, TASK_QUEUED, 0);
	}
}

static void release_of_another_attempt_refused(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f), unknown;
	enum task_state is = _TASK_STATE_MAX;
	struct store_release bad = {.id = id, .attempt = 1, .counts = true, .now_us = NOW_US};

	uuid7_new(&unknown);
	assert_int_equal(release(f, &unknown, 1, true, &is), -ESTALE);
	assert_int_equal(release(f, &id, 0, true, &is), -ESTALE);
	(void)claim(f, &id);
	assert_int_equal(release(f, &id, 2, true, &is), -ESTALE);
	assert_int_equal(release(f, &id, 0, false, &is), -ESTALE);
	assert_int_equal(RUN(release, f, &bad), -EINVAL);
	assert_state(f, &id, TASK_RUNNING, 1);
}

static void release_for_an_owner_that_is_gone(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f), other = add_task(f);
	struct store_release r = {
		.id = id,
		.owner = OWNER_OF_CLAIMS + 1,
		.counts = true,
		.now_us = NOW_US + 30,
		.error_code = "scheduler_lost",
		.error_message = "the scheduler was lost",
	};

	assert_int_equal(RUN(release, f, &r), -ESTALE); /* nobody's yet */
	assert_int_equal(claim(f, &id), 1);
	assert_int_equal(RUN(release, f, &r), -ESTALE); /* another's */
	assert_state(f, &id, TASK_RUNNING, 1);
	assert_int_equal(claim(f, &other), 1);
	for (int attempt = 1; attempt <= TASK_ATTEMPTS_MAX; attempt++) {
		r.owner = OWNER_OF_CLAIMS;
		assert_int_equal(RUN(release, f, &r), 0);
		assert_int_equal(r.state, attempt < TASK_ATTEMPTS_MAX ? TASK_QUEUED : TASK_FAILED);
		assert_int_equal(RUN(release, f, &r), -ESTALE);
		if (attempt < TASK_ATTEMPTS_MAX)
			assert_int_equal(claim(f, &id), attempt + 1);
	}
	assert_state(f, &other, TASK_RUNNING, 1);
}

static void released_task_has_no_start(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	enum task_state is;
	AUTO(task_free) struct task *t = NULL;

	(void)claim(f, &id);
	assert_int_equal(release(f, &id, 1, true, &is), 0);
	t = get_task(f, &id, STORE_META);
	assert_true(t->started_us == 0 && t->finished_us == 0);
	assert_null(t->result);
}

/* ---- cancel ---- */

static int cancel(struct fixture *f, const struct uuid *id, const char *tenant,
		  enum task_state *ret_state)
{
	struct store_cancel_task r = {.id = *id, .tenant = tenant, .now_us = NOW_US + 5};
	int code = RUN(cancel_task, f, &r);

	*ret_state = r.state;
	return code;
}

static void cancel_of_queued_ends_it(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	enum task_state is;
	AUTO(task_free) struct task *t = NULL;

	assert_int_equal(cancel(f, &id, "other", &is), -ENOENT);
	assert_state(f, &id, TASK_QUEUED, 0);
	assert_int_equal(cancel(f, &id, "acme", &is), 0);
	assert_int_equal(is, TASK_CANCELLED);
	t = get_task(f, &id, STORE_META);
	assert_true(t->finished_us == NOW_US + 5);
	assert_false(t->cancelling);
}

static void cancel_of_running_marks_it(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	enum task_state is;
	struct task *t;

	(void)claim(f, &id);
	assert_int_equal(cancel(f, &id, "other", &is), -ENOENT);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(cancel(f, &id, NULL, &is), 0);
		assert_int_equal(is, TASK_RUNNING);
	}
	t = get_task(f, &id, STORE_META);
	assert_int_equal(t->state, TASK_RUNNING);
	assert_true(t->cancelling);
	task_free(t);
	assert_int_equal(finish(f, &id, 1, TASK_CANCELLED, NULL), 0);
	t = get_task(f, &id, STORE_META);
	assert_false(t->cancelling);
	task_free(t);
}

static void cancel_of_final_refused(void **state)
{
	static const enum task_state ends[] = {TASK_DONE, TASK_CANCELLED, TASK_FAILED};
	struct fixture *f = *state;
	struct uuid id;
	enum task_state is;

	uuid7_new(&id);
	assert_int_equal(cancel(f, &id, NULL, &is), -ENOENT);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		id = add_task(f);
		assert_int_equal(finish(f, &id, claim(f, &id), ends[i], NULL), 0);
		assert_int_equal(cancel(f, &id, "other", &is), -ENOENT);
		assert_int_equal(cancel(f, &id, "acme", &is), -EALREADY);
		assert_int_equal(is, ends[i]);
	}
}

static void release_of_cancelling_ends_it(void **state)
{
	struct fixture *f = *state;
	enum task_state is;

	for (int counts = 0; counts < 2; counts++) {
		struct uuid id = add_task(f);

		(void)claim(f, &id);
		assert_int_equal(cancel(f, &id, NULL, &is), 0);
		assert_int_equal(release(f, &id, 1, counts, &is), 0);
		assert_int_equal(is, TASK_CANCELLED);
		assert_state(f, &id, TASK_CANCELLED, counts);
	}
}

/* ---- renew ---- */

static void sweep(struct fixture *f, struct store_sweep *r)
{
	r->error_code = "lease_lost";
	r->error_message = "the scheduler was lost";
	if (!r->limit)
		r->limit = 100;
	assert_int_equal(RUN(sweep, f, r), 0);
}

static void renew_prolongs_own_leases_only(void **state)
{
	struct fixture *f = *state;
	struct uuid own = add_task(f), foreign = add_task(f);
	struct store_claim other = {
		.id = foreign, .owner = 8, .now_us = NOW_US, .lease_until_us = NOW_US + 1000};
	const uint64_t owners[] = {OWNER_OF_CLAIMS + 5, OWNER_OF_CLAIMS};
	struct store_renew renew = {
		.owners = owners, .n_owners = 2, .lease_until_us = NOW_US + 5000};
	struct store_renew bad = {.owners = owners, .lease_until_us = 1};
	struct store_sweep r = {.now_us = NOW_US + 2000};

	(void)claim(f, &own);
	assert_int_equal(RUN(claim, f, &other), 0);
	assert_int_equal(RUN(renew, f, &bad), -EINVAL);
	assert_int_equal(RUN(renew, f, &renew), 0);
	assert_int_equal(renew.n, 0);
	sweep(f, &r);
	assert_int_equal(r.n, 1);
	assert_true(uuid_eq(&r.tickets[0].id, &foreign));
	free(r.tickets);
	assert_state(f, &own, TASK_RUNNING, 1);
}

static void renew_tells_what_is_to_be_cancelled(void **state)
{
	enum { MANY = 40 };
	struct fixture *f = *state;
	struct uuid ids[MANY];
	const uint64_t ours = OWNER_OF_CLAIMS, others = OWNER_OF_CLAIMS + 1;
	struct store_renew renew = {
		.owners = &ours, .n_owners = 1, .lease_until_us = NOW_US + 5000};
	struct store_renew other = {
		.owners = &others, .n_owners = 1, .lease_until_us = NOW_US + 5000};
	enum task_state is;
	size_t found = 0;

	for (size_t i = 0; i < MANY; i++) {
		ids[i] = add_task(f);
		(void)claim(f, &ids[i]);
		if (i % 2)
			assert_int_equal(cancel(f, &ids[i], NULL, &is), 0);
	}
	assert_int_equal(RUN(renew, f, &renew), 0);
	assert_int_equal(renew.n, MANY / 2);
	for (size_t i = 0; i < MANY; i++)
		for (size_t k = 0; k < renew.n; k++)
			if (uuid_eq(&ids[i], &renew.cancelling[k]))
				found += i % 2;
	assert_int_equal(found, MANY / 2);
	free(renew.cancelling);
	assert_int_equal(RUN(renew, f, &other), 0);
	assert_int_equal(other.n, 0);
}

/* ---- sweep ---- */

static void sweep_expires_past_deadlines(void **state)
{
	struct fixture *f = *state;
	struct spec_options o = {.deadline_us = NOW_US, .class = TASK_CLASS_LOW, .language = "c"};
	struct uuid late = add_task_with(f, &o);
	struct uuid in_time, without = add_task(f);
	struct store_sweep r = {.now_us = NOW_US + 1};

	o.deadline_us = NOW_US + 1;
	in_time = add_task_with(f, &o);
	sweep(f, &r);
	assert_int_equal(r.n, 1);
	assert_true(uuid_eq(&r.tickets[0].id, &late));
	assert_int_equal(r.tickets[0].state, TASK_EXPIRED);
	assert_int_equal(r.tickets[0].class, TASK_CLASS_LOW);
	assert_string_equal(r.tickets[0].language, "c");
	assert_string_equal(r.tickets[0].tenant, "acme");
	free(r.tickets);
	assert_state(f, &late, TASK_EXPIRED, 0);
	assert_state(f, &in_time, TASK_QUEUED, 0);
	assert_state(f, &without, TASK_QUEUED, 0);
}

static void sweep_requeues_lost_leases_three_times(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	AUTO(task_free) struct task *t = NULL;

	for (int attempt = 1; attempt <= TASK_ATTEMPTS_MAX; attempt++) {
		struct store_sweep early = {.now_us = NOW_US + 1000};
		struct store_sweep r = {.now_us = NOW_US + 1001};
		enum task_state want = attempt < TASK_ATTEMPTS_MAX ? TASK_QUEUED : TASK_FAILED;

		assert_int_equal(claim(f, &id), attempt);
		sweep(f, &early);
		assert_int_equal(early.n, 0);
		free(early.tickets);
		sweep(f, &r);
		assert_int_equal(r.n, 1);
		assert_int_equal(r.tickets[0].state, want);
		free(r.tickets);
		assert_state(f, &id, want, attempt);
	}
	t = get_task(f, &id, STORE_RESULT);
	assert_string_equal(t->result->error_code, "lease_lost");
	assert_string_equal(t->result->error_message, "the scheduler was lost");
}

static void sweep_of_every_lease_takes_the_valid_too(void **state)
{
	struct fixture *f = *state;
	struct uuid running = add_task(f), cancelling = add_task(f), queued = add_task(f);
	struct store_sweep r = {.now_us = NOW_US, .every_lease = true};
	enum task_state is;

	(void)claim(f, &running);
	(void)claim(f, &cancelling);
	assert_int_equal(cancel(f, &cancelling, NULL, &is), 0);
	sweep(f, &r);
	assert_int_equal(r.n, 2);
	free(r.tickets);
	assert_state(f, &running, TASK_QUEUED, 1);
	assert_state(f, &cancelling, TASK_CANCELLED, 1);
	assert_state(f, &queued, TASK_QUEUED, 0);
}

static void sweep_keeps_to_its_limit(void **state)
{
	enum { MANY = 50 };
	struct fixture *f = *state;
	struct store_sweep bad = {.now_us = NOW_US, .error_code = "", .error_message = ""};
	size_t moved = 0;

	for (size_t i = 0; i < MANY; i++) {
		struct uuid id =
			add_task_with(f, &(struct spec_options){.deadline_us = i % 2 ? 1 : 0});
		if (i % 2 == 0)
			(void)claim(f, &id);
	}
	for (int i = 0; i < 3; i++) {
		struct store_sweep r = {.now_us = NOW_US, .every_lease = true, .limit = 20};

		sweep(f, &r);
		assert_int_equal(r.n, i < 2 ? 20 : 10);
		moved += r.n;
		free(r.tickets);
	}
	assert_int_equal(moved, MANY);
	assert_int_equal(RUN(sweep, f, &bad), -EINVAL);
	bad.limit = STORE_SWEEP_MAX + 1;
	assert_int_equal(RUN(sweep, f, &bad), -EINVAL);
}

/* ---- scan ---- */

static void scan_pages_queued_tasks_in_order(void **state)
{
	enum { MANY = 25 };
	struct fixture *f = *state;
	struct uuid ids[MANY];
	struct store_scan r = {.limit = 4};
	struct store_scan bad = {0};
	size_t seen = 0;

	for (size_t i = 0; i < MANY; i++) {
		ids[i] = add_task_with(f, &(struct spec_options){.class = TASK_CLASS_NORMAL,
								 .tenant = "t",
								 .language = "go"});
		if (i % 5 == 4)
			(void)claim(f, &ids[i]);
	}
	do {
		assert_int_equal(RUN(scan, f, &r), 0);
		for (size_t i = 0; i < r.n; i++) {
			assert_true(uuid_eq(&r.tickets[i].id, &ids[seen]));
			assert_int_equal(r.tickets[i].state, TASK_QUEUED);
			assert_int_equal(r.tickets[i].class, TASK_CLASS_NORMAL);
			assert_string_equal(r.tickets[i].tenant, "t");
			assert_string_equal(r.tickets[i].language, "go");
			seen += seen % 5 == 3 ? 2 : 1;
		}
		if (r.n)
			r.after = r.tickets[r.n - 1].id;
		free(r.tickets);
	} while (r.n);
	assert_int_equal(seen, MANY);
	assert_int_equal(RUN(scan, f, &bad), -EINVAL);
}

const struct CMUnitTest store_suite_moves[] = {
	CASE(claim_gives_first_attempt),
	CASE(claim_of_what_is_not_queued_refused),
	CASE(claim_at_once_won_by_one),
	CASE(claim_past_deadline_expires),
	CASE(claim_at_deadline_still_works),
	CASE(finish_keeps_the_result),
	CASE(finish_in_each_final_state),
	CASE(finish_of_another_attempt_changes_nothing),
	CASE(finish_that_claims_is_one_write),
	CASE(finish_that_claims_refused_unless_queued_in_time),
	CASE(finish_twice_at_once_counts_once),
	CASE(release_that_counts_fails_after_three),
	CASE(release_without_counts_costs_nothing),
	CASE(release_of_another_attempt_refused),
	CASE(release_for_an_owner_that_is_gone),
	CASE(released_task_has_no_start),
	CASE(cancel_of_queued_ends_it),
	CASE(cancel_of_running_marks_it),
	CASE(cancel_of_final_refused),
	CASE(release_of_cancelling_ends_it),
	CASE(renew_prolongs_own_leases_only),
	CASE(renew_tells_what_is_to_be_cancelled),
	CASE(sweep_expires_past_deadlines),
	CASE(sweep_requeues_lost_leases_three_times),
	CASE(sweep_of_every_lease_takes_the_valid_too),
	CASE(sweep_keeps_to_its_limit),
	CASE(scan_pages_queued_tasks_in_order),
};
const size_t store_suite_moves_count = ARRAY_SIZE(store_suite_moves);
