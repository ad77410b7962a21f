/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/metrics.h"

#include "base/cleanup.h"

#include "unit.h"

#include <errno.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int reset(void **state)
{
	(void)state;
	metrics_reset();
	return 0;
}

/* The exposition; to be freed. */
static char *scrape(void)
{
	struct buf b;
	char *text;

	buf_init(&b, 1 << 20);
	assert_int_equal(metrics_write(&b), 0);
	text = buf_steal(&b, NULL);
	assert_non_null(text);
	return text;
}

static void assert_line(const char *text, const char *line)
{
	size_t len = strlen(line);

	for (const char *p = text; (p = strstr(p, line)); p++)
		if ((p == text || p[-1] == '\n') && p[len] == '\n')
			return;
	fail_msg("no line \"%s\" in:\n%s", line, text);
}

static void nothing_touched_writes_nothing(void **state)
{
	char *text = scrape();

	(void)state;
	assert_string_equal(text, "");
	free(text);
}

static void counter_adds_by_label(void **state)
{
	char *text;

	(void)state;
	metric_add(METRIC_TASKS_FINISHED, 1, "python", "ok");
	metric_add(METRIC_TASKS_FINISHED, 2, "python", "ok");
	metric_add(METRIC_TASKS_FINISHED, 1, "c", "ok");
	metric_add(METRIC_STORE_COMMITS, 5);
	text = scrape();
	assert_line(text, "# TYPE kiln_tasks_finished_total counter");
	assert_line(text, "kiln_tasks_finished_total{language=\"python\",outcome=\"ok\"} 3");
	assert_line(text, "kiln_tasks_finished_total{language=\"c\",outcome=\"ok\"} 1");
	assert_line(text, "kiln_store_commits_total 5");
	free(text);
}

static void gauge_sets_and_moves_both_ways(void **state)
{
	char *text;

	(void)state;
	metric_set(METRIC_RUNNER_SLOTS, 7.5, "busy");
	metric_add(METRIC_RUNNER_SLOTS, -9, "busy");
	metric_set(METRIC_CACHE_BYTES, 123456789012.0);
	text = scrape();
	assert_line(text, "# TYPE kiln_runner_slots gauge");
	assert_line(text, "kiln_runner_slots{state=\"busy\"} -1.5");
	assert_line(text, "kiln_cache_bytes 123456789012");
	free(text);
}

static void histogram_cumulates(void **state)
{
	char *text;

	(void)state;
	metric_observe(METRIC_TASK_TOTAL_SECONDS, 0.0005, "python"); /* on a bound */
	metric_observe(METRIC_TASK_TOTAL_SECONDS, 0.25, "python");
	metric_observe(METRIC_TASK_TOTAL_SECONDS, 100, "python"); /* above all bounds */
	text = scrape();
	assert_line(text, "# TYPE kiln_task_total_seconds histogram");
	assert_line(text, "kiln_task_total_seconds_bucket{language=\"python\",le=\"0.0005\"} 1");
	assert_line(text, "kiln_task_total_seconds_bucket{language=\"python\",le=\"0.2\"} 1");
	assert_line(text, "kiln_task_total_seconds_bucket{language=\"python\",le=\"0.35\"} 2");
	assert_line(text, "kiln_task_total_seconds_bucket{language=\"python\",le=\"60\"} 2");
	assert_line(text, "kiln_task_total_seconds_bucket{language=\"python\",le=\"+Inf\"} 3");
	assert_line(text, "kiln_task_total_seconds_sum{language=\"python\"} 100.2505");
	assert_line(text, "kiln_task_total_seconds_count{language=\"python\"} 3");
	free(text);
}

static void histogram_without_labels_has_only_le(void **state)
{
	char *text;

	(void)state;
	metric_observe(METRIC_LOOP_LAG_SECONDS, 0.0002);
	text = scrape();
	assert_line(text, "kiln_loop_lag_seconds_bucket{le=\"0.00015\"} 0");
	assert_line(text, "kiln_loop_lag_seconds_bucket{le=\"0.00025\"} 1");
	assert_line(text, "kiln_loop_lag_seconds_sum 0.0002");
	assert_line(text, "kiln_loop_lag_seconds_count 1");
	free(text);
}

static void label_values_escaped(void **state)
{
	char *text;

	(void)state;
	metric_set(METRIC_BUILD_INFO, 1, "a\"b\\c\nd");
	text = scrape();
	assert_line(text, "kiln_build_info{version=\"a\\\"b\\\\c\\nd\"} 1");
	free(text);
}

/* A first label that ends as the second begins must not be taken for another series. */
static void label_values_do_not_run_together(void **state)
{
	char *text;

	(void)state;
	metric_add(METRIC_TASKS_FINISHED, 1, "ab", "c");
	metric_add(METRIC_TASKS_FINISHED, 2, "a", "bc");
	metric_add(METRIC_TASKS_FINISHED, 4, "", "abc");
	text = scrape();
	assert_line(text, "kiln_tasks_finished_total{language=\"ab\",outcome=\"c\"} 1");
	assert_line(text, "kiln_tasks_finished_total{language=\"a\",outcome=\"bc\"} 2");
	assert_line(text, "kiln_tasks_finished_total{language=\"\",outcome=\"abc\"} 4");
	free(text);
}

static void series_are_bounded(void **state)
{
	char name[32], *text;
	size_t lines = 0;

	(void)state;
	for (int i = 0; i < 6000; i++) {
		(void)snprintf(name, sizeof name, "l%d", i);
		metric_add(METRIC_TASK_ATTEMPTS, 1, name);
	}
	metric_add(METRIC_TASK_ATTEMPTS, 1, "l0");
	text = scrape();
	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	assert_int_equal(lines, 4096 + 2);
	assert_line(text, "kiln_task_attempts_total{language=\"l0\"} 2");
	free(text);
}

static void label_too_long_not_counted(void **state)
{
	char name[1000], *text;

	(void)state;
	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	metric_add(METRIC_TASK_ATTEMPTS, 1, name);
	text = scrape();
	assert_string_equal(text, "");
	free(text);
}

static void write_into_too_small_a_buffer_says_so(void **state)
{
	struct buf b;

	(void)state;
	metric_add(METRIC_STORE_COMMITS, 1);
	buf_init(&b, 10);
	assert_int_equal(metrics_write(&b), -ENOBUFS);
	buf_fini(&b);
}

/* Touches every metric, so that all of the table is well-formed: each family has its help, its type
 * and a sample, and counters, and only they, end in _total. */
static void every_metric_is_well_formed(void **state)
{
	static const char *const values[] = {"a", "b", "c", "d", NULL};
	size_t families = 0, samples = 0;
	char *text, *line, *save;

	(void)state;
	metric_set(METRIC_BUILD_INFO, 1, "v");
	metric_observe(METRIC_HTTP_REQUEST_SECONDS, 1, "/submit", "201");
	metric_set(METRIC_HTTP_CONNECTIONS, 1);
	metric_set(METRIC_HTTP_WAITERS, 1);
	metric_add(METRIC_SUBMISSIONS_REFUSED, 1, "rate");
	metric_add(METRIC_TASKS_ACCEPTED, 1, "c", "high");
	metric_add(METRIC_TASKS_FINISHED, 1, "c", "ok");
	metric_add(METRIC_TASK_ATTEMPTS, 1, "c");
	metric_add(METRIC_TASK_DUPLICATES_DROPPED, 1);
	metric_observe(METRIC_TASK_QUEUE_WAIT_SECONDS, 1, "c", "high");
	metric_observe(METRIC_TASK_DISPATCH_SECONDS, 1, "c");
	metric_observe(METRIC_TASK_RUN_SECONDS, 1, "c");
	metric_observe(METRIC_TASK_RESULT_COMMIT_SECONDS, 1);
	metric_observe(METRIC_TASK_TOTAL_SECONDS, 1, "c");
	metric_set(METRIC_QUEUE_MESSAGES, 1, "c", "high", "ready");
	metric_set(METRIC_QUEUE_OLDEST_SECONDS, 1, "c", "high");
	metric_add(METRIC_QUEUE_PUBLISHED, 1, "confirmed");
	metric_set(METRIC_OUTBOX_TASKS, 1);
	metric_set(METRIC_OUTBOX_OLDEST_SECONDS, 1);
	metric_add(METRIC_OUTBOX_SWEPT, 1);
	metric_add(METRIC_TASKS_FOUND_LOST, 1, "queue");
	metric_set(METRIC_RUNNER_SLOTS, 1, "busy");
	metric_set(METRIC_RUNNERS, 1);
	metric_add(METRIC_RUNNER_RESTARTS, 1);
	metric_set(METRIC_COMPILE_CACHE_BYTES, 1);
	metric_add(METRIC_COMPILE_CACHE_REQUESTS, 1, "hit");
	metric_add(METRIC_CACHE_REQUESTS, 1, "hit");
	metric_set(METRIC_CACHE_BYTES, 1);
	metric_add(METRIC_STORE_COMMITS, 1);
	metric_add(METRIC_STORE_ERRORS, 1, "full");
	metric_set(METRIC_REDIS_UP, 1, "cache");
	metric_add(METRIC_REDIS_CALLS, 1, "cache", "ok");
	metric_add(METRIC_TRACE_SPANS, 1, "exported");
	metric_add(METRIC_KUBE_REQUESTS, 1, "list", "200");
	metric_observe(METRIC_KUBE_REQUEST_SECONDS, 1, "list");
	metric_add(METRIC_KUBE_WATCH_RESTARTS, 1, "pods", "end");
	metric_set(METRIC_KUBE_LAST_EVENT, 1, "pods");
	metric_set(METRIC_LEADER, 1);
	metric_set(METRIC_POOL_PODS, 1, "c", "idle");
	metric_set(METRIC_POOL_WANT, 1, "c");
	metric_set(METRIC_POOL_UNSATISFIED, 1, "c");
	metric_add(METRIC_POOL_STARTS, 1, "c", "ready");
	metric_add(METRIC_POOL_ENDS, 1, "c", "drained");
	metric_observe(METRIC_POD_READY_SECONDS, 1, "c");
	metric_set(METRIC_STANDBYS, 1, "c", "run");
	metric_set(METRIC_STANDBY_MEMORY_BYTES, 1, "c", "run", "cgroup");
	metric_set(METRIC_STANDBY_BUDGET_BYTES, 1, "free");
	metric_observe(METRIC_LOOP_LAG_SECONDS, 1);
	metric_set_(METRIC_ISOLATION_INFO, 1, values);
	text = scrape();
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *space = strchr(line, ' ');

		if (strncmp(line, "# HELP kiln_", 12) == 0) {
			families++;
			assert_true(strlen(line) > 30 && line[strlen(line) - 1] == '.');
			continue;
		}
		if (strncmp(line, "# TYPE kiln_", 12) == 0) {
			assert_int_equal(strstr(line, "_total ") != NULL,
					 strstr(line, " counter") != NULL);
			continue;
		}
		samples++;
		assert_int_equal(strncmp(line, "kiln_", 5), 0);
		assert_non_null(space);
	}
	free(text);
	assert_int_equal(families, _METRIC_MAX);
	assert_int_equal(samples, (_METRIC_MAX - 9) + 9 * 23);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, reset, reset)

static const struct CMUnitTest tests[] = {
	CASE(nothing_touched_writes_nothing),	    CASE(counter_adds_by_label),
	CASE(gauge_sets_and_moves_both_ways),	    CASE(histogram_cumulates),
	CASE(histogram_without_labels_has_only_le), CASE(label_values_escaped),
	CASE(label_values_do_not_run_together),	    CASE(series_are_bounded),
	CASE(label_too_long_not_counted),	    CASE(write_into_too_small_a_buffer_says_so),
	CASE(every_metric_is_well_formed),
};

UNIT_MAIN(tests)
