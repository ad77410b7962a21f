/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The tests that every store has to pass. A test program gives a URL of an empty store for each
 * test and runs the two tables; the suite knows nothing of what is behind the URL.
 */

#include "store/access.h"
#include "store/store.h"
#include "unit.h"

struct store_backend {
	/* The URL of a store that is empty; valid until the next call. */
	const char *(*fresh)(void);
};

/* To be set before the tables are run. */
extern const struct store_backend *store_backend;

extern const struct CMUnitTest store_suite_tasks[];
extern const size_t store_suite_tasks_count;
extern const struct CMUnitTest store_suite_moves[];
extern const size_t store_suite_moves_count;

/* ---- for tests ---- */

struct fixture {
	uv_loop_t loop;
	struct store *store;
	const char *url;
};

/* cmocka setup and teardown: *state is a struct fixture with an open, empty store. */
int store_setup(void **state);
int store_teardown(void **state);

void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);

/* Counts the done callbacks of requests, and keeps the code of the last. */
struct waiter {
	size_t pending;
	int code;
};

void waiter_done(struct store_req *req, int code);
int wait_all(struct fixture *f, struct waiter *w);

#define BEGIN(verb, f, w, r)                                                                       \
	do {                                                                                       \
		(w)->pending++;                                                                    \
		(r)->req.done = waiter_done;                                                       \
		(r)->req.ctx = (w);                                                                \
		store_##verb((f)->store, (r));                                                     \
	} while (0)

/* Runs one request to its end and gives its code. The callback must not come from the verb. */
#define RUN(verb, f, r)                                                                            \
	({                                                                                         \
		struct waiter w_ = {0};                                                            \
		BEGIN(verb, (f), &w_, (r));                                                        \
		assert_int_equal(w_.pending, 1);                                                   \
		wait_all((f), &w_);                                                                \
	})

/* A moment that tests take as the present; ids and rows get their times from it. */
#define NOW_US INT64_C(1800000000000000)

struct spec_options {
	const char *tenant;   /* NULL: "acme" */
	const char *language; /* NULL: "python" */
	const char *code;     /* NULL: "print(1)\n" */
	size_t code_len;      /* 0: the length of the text */
	const char *stdin_text;
	enum task_class class;
	int64_t deadline_us;
};

/* A complete spec with a new id; to be ended with task_spec_fini. */
void make_spec(struct task_spec *ret_spec, const struct spec_options *o);

/* Inserts a task and returns its id. */
struct uuid add_task_with(struct fixture *f, const struct spec_options *o);
struct uuid add_task(struct fixture *f);

enum { OWNER_OF_CLAIMS = 7 };

/* Claims for OWNER_OF_CLAIMS with a lease until NOW_US + 1000; asserts that it works. Gives the
 * attempt. */
int claim(struct fixture *f, const struct uuid *id);

/* Reads a task that must be there. */
struct task *get_task(struct fixture *f, const struct uuid *id, unsigned parts);
void assert_state(struct fixture *f, const struct uuid *id, enum task_state state, int attempt);

/* A result with one run; outputs of out_len bytes. To be ended with task_result_fini. */
void make_result(struct task_result *ret_result, enum task_outcome outcome, size_t out_len);
int finish(struct fixture *f, const struct uuid *id, int attempt, enum task_state state,
	   const struct task_result *result);

#define CASE(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
