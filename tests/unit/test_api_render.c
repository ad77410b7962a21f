/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "api/render.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "json/reader.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct json_bounds bounds = {.depth = 8, .values = 1000};

static json_t *rendered(const struct task *t)
{
	struct json_writer w;
	json_t *value = NULL;
	struct err e = {""};
	struct buf b;

	buf_init(&b, 1024 * 1024);
	json_writer_init(&w, &b);
	render_task(&w, t);
	assert_int_equal(buf_error(&b), 0);
	if (json_decode(b.data, b.len, &bounds, &value, &e) < 0)
		fail_msg("%s: %s", e.msg, b.data);
	buf_fini(&b);
	return value;
}

/* One row of the contract's table: which members hold. */
struct row {
	enum task_state state;
	enum task_outcome outcome;
	bool compiled, ran;
	const char *holds;
};

static const char *const members[] = {"outcome", "exit_code", "signal", "stdout",   "stderr",
				      "usage",	 "compile",   "error",	"limit_hit"};

static const struct row rows[] = {
	{TASK_QUEUED, TASK_OUTCOME_NONE, false, false, ""},
	{TASK_RUNNING, TASK_OUTCOME_NONE, false, false, ""},
	{TASK_DONE, TASK_OUTCOME_OK, false, true, "outcome exit_code stdout stderr usage"},
	{TASK_DONE, TASK_OUTCOME_RUNTIME_ERROR, true, true,
	 "outcome exit_code stdout stderr usage compile"},
	{TASK_DONE, TASK_OUTCOME_COMPILE_ERROR, true, false, "outcome stdout stderr compile"},
	{TASK_DONE, TASK_OUTCOME_SIGNALLED, false, true, "outcome signal stdout stderr usage"},
	{TASK_DONE, TASK_OUTCOME_TIME_LIMIT, false, true, "outcome stdout stderr usage limit_hit"},
	{TASK_DONE, TASK_OUTCOME_MEMORY_LIMIT, true, true,
	 "outcome stdout stderr usage compile limit_hit"},
	{TASK_DONE, TASK_OUTCOME_OUTPUT_LIMIT, false, true,
	 "outcome stdout stderr usage limit_hit"},
	{TASK_CANCELLED, TASK_OUTCOME_NONE, false, false, ""},
	{TASK_CANCELLED, TASK_OUTCOME_NONE, true, true, "stdout stderr usage compile"},
	{TASK_EXPIRED, TASK_OUTCOME_NONE, false, false, ""},
	{TASK_FAILED, TASK_OUTCOME_NONE, true, true, "error"},
};

static bool has_word(const char *words, const char *word)
{
	const char *at = strstr(words, word);
	size_t len = strlen(word);

	return at && (at == words || at[-1] == ' ') && (at[len] == ' ' || !at[len]);
}

static enum task_limit limit_of(enum task_outcome outcome)
{
	switch (outcome) {
	case TASK_OUTCOME_TIME_LIMIT:
		return TASK_LIMIT_CPU;
	case TASK_OUTCOME_MEMORY_LIMIT:
		return TASK_LIMIT_MEMORY;
	case TASK_OUTCOME_OUTPUT_LIMIT:
		return TASK_LIMIT_OUTPUT;
	default:
		return TASK_LIMIT_NONE;
	}
}

static void task_members_hold_as_the_table_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];
		struct task_run_result run = {
			.outcome = row->outcome,
			.exit_code = 3,
			.signal = SIGSEGV,
			.limit_hit = limit_of(row->outcome),
		};
		struct task_result result = {
			.outcome = row->outcome,
			.ran = row->ran,
			.compile = {.ran = row->compiled},
			.runs = &run,
			.n_runs = 1,
		};
		struct task t = {
			.spec = {.created_us = 1, .program = {.language = (char[]){"c"}}},
			.state = row->state,
			.attempt = 1,
			.result = &result,
		};
		AUTO(json_cleanup) json_t *v = rendered(&t);

		for (size_t k = 0; k < ARRAY_SIZE(members); k++) {
			const json_t *member = json_object_get(v, members[k]);

			if (!member)
				fail_msg("row %zu: %s is missing", i, members[k]);
			if (!json_is_null(member) != has_word(row->holds, members[k]))
				fail_msg("row %zu: %s", i, members[k]);
		}
		assert_string_equal(json_string_value(json_object_get(v, "status")),
				    task_state_name(row->state));
	}
}

static void task_values_are_the_results(void **state)
{
	struct task_run_result run = {
		.outcome = TASK_OUTCOME_SIGNALLED,
		.signal = SIGKILL,
		.output = {{.data = (char[]){"a\"\n\x01"}, .len = 4},
			   {.data = (char[]){"\xff"}, .len = 1}},
		.truncated = {true, false},
		.usage = {.cpu_us = 1, .wall_us = 2000, .memory_bytes = -1},
	};
	struct task_result result = {
		.outcome = TASK_OUTCOME_SIGNALLED,
		.ran = true,
		.runs = &run,
		.n_runs = 1,
		.isolation = {.level = (char[]){"sandbox"},
			      .limits = (char[]){"rlimit"},
			      .seccomp = true,
			      .landlock = 3,
			      .standby = (char[]){"none"}},
		.pod = (char[]){"local-1"},
	};
	struct task t = {
		.spec = {.created_us = 1767323045678901,
			 .program = {.language = (char[]){"python"}}},
		.state = TASK_DONE,
		.attempt = 2,
		.finished_us = 1767323045678902,
		.result = &result,
	};
	AUTO(json_cleanup) json_t *v = rendered(&t);
	const json_t *usage = json_object_get(v, "usage");
	const json_t *timeline = json_object_get(v, "timeline");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(v, "signal")), "SIGKILL");
	assert_string_equal(json_string_value(json_object_get(v, "stdout")), "a\"\n\x01");
	assert_string_equal(json_string_value(json_object_get(v, "stdout_encoding")), "utf8");
	assert_string_equal(json_string_value(json_object_get(v, "stderr")), "/w==");
	assert_string_equal(json_string_value(json_object_get(v, "stderr_encoding")), "base64");
	assert_true(json_is_true(json_object_get(v, "stdout_truncated")));
	assert_true(json_is_false(json_object_get(v, "stderr_truncated")));
	assert_int_equal(json_integer_value(json_object_get(usage, "cpu_ms")), 1);
	assert_int_equal(json_integer_value(json_object_get(usage, "wall_ms")), 2);
	assert_true(json_is_null(json_object_get(usage, "memory_bytes")));
	assert_int_equal(json_integer_value(json_object_get(v, "attempt")), 2);
	assert_string_equal(json_string_value(json_object_get(timeline, "queued_at")),
			    "2026-01-02T03:04:05.678901Z");
	assert_true(json_is_null(json_object_get(timeline, "started_at")));
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(v, "isolation"), "limits")),
		"rlimit");
	assert_null(json_object_get(v, "cancelling"));
}

static void task_compiler_over_its_limit_says_which(void **state)
{
	struct task_result result = {
		.outcome = TASK_OUTCOME_COMPILE_ERROR,
		.compile = {.ran = true, .exit_code = -1, .limit_hit = TASK_LIMIT_MEMORY},
	};
	struct task t = {.spec = {.program = {.language = (char[]){"c"}}},
			 .state = TASK_DONE,
			 .result = &result};
	AUTO(json_cleanup) json_t *v = rendered(&t);

	(void)state;
	assert_string_equal(json_string_value(json_object_get(v, "limit_hit")), "memory_bytes");
	assert_true(json_is_null(json_object_get(json_object_get(v, "compile"), "exit_code")));
	assert_string_equal(json_string_value(json_object_get(v, "stdout")), "");
}

static void task_cancelling_is_shown_while_it_runs(void **state)
{
	struct task t = {.spec = {.program = {.language = (char[]){"c"}}},
			 .state = TASK_RUNNING,
			 .cancelling = true};
	AUTO(json_cleanup) json_t *v = rendered(&t);

	(void)state;
	assert_true(json_is_true(json_object_get(v, "cancelling")));
}

/* The worst that streams of the largest size can become still fits. */
static void task_of_the_largest_size_has_room(void **state)
{
	enum { SIZE = 100000 };
	struct task_limits limits = {.output_bytes = SIZE};
	char *bytes = malloc(SIZE + 1);
	struct task_run_result run = {.outcome = TASK_OUTCOME_OK};
	struct task_result result = {.ran = true,
				     .outcome = TASK_OUTCOME_OK,
				     .compile = {.ran = true},
				     .runs = &run,
				     .n_runs = 1};
	struct task t = {.spec = {.program = {.language = (char[]){"c"}}},
			 .state = TASK_DONE,
			 .result = &result};
	struct json_writer w;
	struct buf b;

	(void)state;
	assert_non_null(bytes);
	memset(bytes, 1, SIZE);
	bytes[SIZE] = '\0';
	run.output[0] = run.output[1] = result.compile.output =
		(struct bytes){.data = bytes, .len = SIZE};
	buf_init(&b, render_task_max(&limits, &limits));
	json_writer_init(&w, &b);
	render_task(&w, &t);
	assert_int_equal(buf_error(&b), 0);
	buf_fini(&b);
	free(bytes);
}

static void signal_names_are_the_systems(void **state)
{
	char name[24];

	(void)state;
	render_signal_name(SIGSEGV, name, sizeof name);
	assert_string_equal(name, "SIGSEGV");
	render_signal_name(SIGRTMIN + 3, name, sizeof name);
	assert_string_equal(name, "SIGRTMIN+3");
	render_signal_name(200, name, sizeof name);
	assert_string_equal(name, "SIG200");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(task_members_hold_as_the_table_says),
		cmocka_unit_test(task_values_are_the_results),
		cmocka_unit_test(task_compiler_over_its_limit_says_which),
		cmocka_unit_test(task_cancelling_is_shown_while_it_runs),
		cmocka_unit_test(task_of_the_largest_size_has_room),
		cmocka_unit_test(signal_names_are_the_systems),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
