/* SPDX-License-Identifier: Apache-2.0 */
#include "observe/metrics.h"

#include "base/cleanup.h"
#include "base/list.h"
#include "base/map.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum kind { COUNTER, GAUGE, HISTOGRAM };

/* LABELS_MAX bounds the table; SERIES_MAX what a metric keeps, so that no label value that comes
 * from outside can fill the memory: what is above it is not counted. */
enum { LABELS_MAX = 4, BUCKETS = 20, SERIES_MAX = 4096, KEY_MAX = 512 };

/* What Kiln does itself: a dispatch, a commit, a turn of the loop. */
static const double fine[BUCKETS] = {
	0.00005, 0.0001, 0.00015, 0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.0025, 0.005,
	0.01,	 0.025,	 0.05,	  0.1,	   0.25,   0.5,	    1,	   2.5,	   5,	   10,
};

/* What users' programs and waiting are part of. */
static const double wide[BUCKETS] = {
	0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05,
	0.1,	0.2,   0.35,  0.5,   1,	    2,	    5,	  10,	 30,	60,
};

struct metric_def {
	const char *name;
	const char *help;
	enum kind kind;
	const char *labels[LABELS_MAX];
	const double *buckets; /* BUCKETS of them */
};

#define ROW(kind_, name_, help_, buckets_, ...)                                                    \
	{                                                                                          \
		.name = (name_), .help = (help_), .kind = (kind_), .buckets = (buckets_),          \
		.labels = {__VA_ARGS__},                                                           \
	}
#define COUNTS(name, help, ...)		ROW(COUNTER, name, help, NULL, ##__VA_ARGS__)
#define GAUGES(name, help, ...)		ROW(GAUGE, name, help, NULL, ##__VA_ARGS__)
#define TIMES(name, help, buckets, ...) ROW(HISTOGRAM, name, help, buckets, ##__VA_ARGS__)

static const struct metric_def defs[_METRIC_MAX] = {
	[METRIC_BUILD_INFO] =
		GAUGES("kiln_build_info", "Version of this process, always 1.", "version"),
	[METRIC_HTTP_REQUEST_SECONDS] = TIMES(
		"kiln_http_request_duration_seconds",
		"Time from a request's first byte to its answer's last.", wide, "route", "code"),
	[METRIC_HTTP_CONNECTIONS] = GAUGES("kiln_http_connections", "Open HTTP connections."),
	[METRIC_HTTP_WAITERS] =
		GAUGES("kiln_http_waiters", "HTTP requests that wait for a task to finish."),
	[METRIC_SUBMISSIONS_REFUSED] =
		COUNTS("kiln_submissions_refused_total",
		       "Submissions refused for a limit of their tenant.", "reason"),
	[METRIC_TASKS_ACCEPTED] =
		COUNTS("kiln_tasks_accepted_total", "Tasks that were stored as queued.", "language",
		       "priority"),
	[METRIC_TASKS_FINISHED] =
		COUNTS("kiln_tasks_finished_total", "Tasks whose final state was stored.",
		       "language", "outcome"),
	[METRIC_TASK_ATTEMPTS] = COUNTS("kiln_task_attempts_total", "Claims of tasks.", "language"),
	[METRIC_TASK_DUPLICATES_DROPPED] =
		COUNTS("kiln_task_duplicates_dropped_total",
		       "Deliveries and results that an attempt number refused."),
	[METRIC_TASK_QUEUE_WAIT_SECONDS] =
		TIMES("kiln_task_queue_wait_seconds",
		      "Time from submission until a scheduler took the task.", wide, "language",
		      "priority"),
	[METRIC_TASK_DISPATCH_SECONDS] =
		TIMES("kiln_task_dispatch_seconds",
		      "Time from taking a task until a runner accepted it.", fine, "language"),
	[METRIC_TASK_RUN_SECONDS] =
		TIMES("kiln_task_run_seconds", "Time from acceptance until the runner was done.",
		      wide, "language"),
	[METRIC_TASK_RESULT_COMMIT_SECONDS] =
		TIMES("kiln_task_result_commit_seconds", "Time to store a result.", fine),
	[METRIC_TASK_TOTAL_SECONDS] =
		TIMES("kiln_task_total_seconds",
		      "Time from submission until the result was stored.", wide, "language"),
	[METRIC_QUEUE_MESSAGES] = GAUGES("kiln_queue_messages", "Tasks in the queues.", "language",
					 "priority", "state"),
	[METRIC_QUEUE_OLDEST_SECONDS] =
		GAUGES("kiln_queue_oldest_task_age_seconds", "Age of the task that waits longest.",
		       "language", "priority"),
	[METRIC_QUEUE_PUBLISHED] = COUNTS("kiln_queue_published_total",
					  "Messages to the queue by how they ended.", "result"),
	[METRIC_OUTBOX_TASKS] =
		GAUGES("kiln_outbox_tasks",
		       "Tasks in the outbox; counted to one more than the queue's bound."),
	[METRIC_OUTBOX_OLDEST_SECONDS] =
		GAUGES("kiln_outbox_oldest_age_seconds",
		       "Time since the oldest task in the outbox was submitted."),
	[METRIC_OUTBOX_SWEPT] =
		COUNTS("kiln_outbox_swept_total", "Tasks that this process took from the outbox."),
	[METRIC_TASKS_FOUND_LOST] = COUNTS(
		"kiln_tasks_found_lost_total",
		"Queued tasks that no queue had any more, and that were queued again.", "where"),
	[METRIC_RUNNER_SLOTS] = GAUGES("kiln_runner_slots", "Slots of connected runners.", "state"),
	[METRIC_RUNNERS] = GAUGES("kiln_runners", "Connected runners."),
	[METRIC_RUNNER_RESTARTS] =
		COUNTS("kiln_runner_restarts_total", "Runner processes that were started again."),
	[METRIC_STANDBYS] =
		GAUGES("kiln_standbys",
		       "Interpreters and compilers that were started beforehand and wait.",
		       "language", "step"),
	[METRIC_STANDBY_MEMORY_BYTES] =
		GAUGES("kiln_standby_memory_bytes",
		       "Memory of those that wait: what their control groups are charged with, or, "
		       "where these do not count it, what the language's file says.",
		       "language", "step", "source"),
	[METRIC_STANDBY_BUDGET_BYTES] =
		GAUGES("kiln_standby_budget_bytes",
		       "The runners' standby_bytes, and what of it is used, by what languages' "
		       "files say.",
		       "state"),
	[METRIC_COMPILE_CACHE_BYTES] =
		GAUGES("kiln_compile_cache_bytes", "Size of the compile caches."),
	[METRIC_COMPILE_CACHE_REQUESTS] = COUNTS("kiln_compile_cache_requests_total",
						 "Look-ups in the compile caches.", "result"),
	[METRIC_CACHE_REQUESTS] =
		COUNTS("kiln_cache_requests_total", "Look-ups in the result cache.", "result"),
	[METRIC_CACHE_BYTES] = GAUGES("kiln_cache_bytes", "Size of the result cache."),
	[METRIC_REDIS_UP] = GAUGES("kiln_redis_up", "Whether the connection is in use.", "use"),
	[METRIC_REDIS_CALLS] =
		COUNTS("kiln_redis_calls_total", "Commands by how they ended.", "use", "result"),
	[METRIC_STORE_COMMITS] = COUNTS("kiln_store_commits_total", "Transactions of the store."),
	[METRIC_STORE_ERRORS] =
		COUNTS("kiln_store_errors_total", "Requests that the store failed.", "kind"),
	[METRIC_TRACE_SPANS] =
		COUNTS("kiln_trace_spans_total",
		       "Spans that a collector took, and that were dropped.", "result"),
	[METRIC_KUBE_REQUESTS] =
		COUNTS("kiln_kube_requests_total", "Requests to the API server of Kubernetes.",
		       "verb", "code"),
	[METRIC_KUBE_REQUEST_SECONDS] =
		TIMES("kiln_kube_request_duration_seconds",
		      "Time of requests to the API server, watches apart.", wide, "verb"),
	[METRIC_KUBE_WATCH_RESTARTS] =
		COUNTS("kiln_kube_watch_restarts_total",
		       "Watches of the API server that ended, by why.", "resource", "reason"),
	[METRIC_KUBE_LAST_EVENT] =
		GAUGES("kiln_kube_watch_last_event_timestamp_seconds",
		       "When the API server last said something about a resource.", "resource"),
	[METRIC_LEADER] =
		GAUGES("kiln_leader", "Whether this process decides the sizes of the pools."),
	[METRIC_POOL_PODS] = GAUGES("kiln_pool_pods", "Pods by what they do.", "pool", "state"),
	[METRIC_POOL_WANT] =
		GAUGES("kiln_pool_want_pods", "Pods that a pool should have now.", "pool"),
	[METRIC_POOL_UNSATISFIED] =
		GAUGES("kiln_pool_unsatisfied_pods",
		       "Pods that a pool would need beyond its maximum or its share.", "pool"),
	[METRIC_POOL_STARTS] = COUNTS("kiln_pool_pod_starts_total",
				      "Starts of pods by how they ended.", "pool", "result"),
	[METRIC_POOL_ENDS] = COUNTS("kiln_pool_pod_ends_total",
				    "Pods that served and ended, by why.", "pool", "reason"),
	[METRIC_POD_READY_SECONDS] = TIMES(
		"kiln_pool_pod_ready_seconds",
		"Time from the creation of a pod until its runner was connected.", wide, "pool"),
	[METRIC_LOOP_LAG_SECONDS] =
		TIMES("kiln_loop_lag_seconds", "Delay of a timer of the event loop.", fine),
	[METRIC_ISOLATION_INFO] = GAUGES("kiln_isolation_info", "The walls around tasks, always 1.",
					 "level", "limits", "seccomp", "landlock"),
};

struct series {
	struct list link;
	char *key;    /* the label values, each with its NUL */
	double value; /* of a histogram: the sum */
	uint64_t count;
	uint64_t buckets[]; /* not cumulated; BUCKETS of them for a histogram, else none */
};

static struct family {
	struct map by_key;
	struct list series; /* in order of their first touch */
	bool ready;
} families[_METRIC_MAX];

static size_t label_count(const struct metric_def *def)
{
	size_t n = 0;

	while (n < LABELS_MAX && def->labels[n])
		n++;
	return n;
}

/* The label values one behind the other. 0 where they do not fit, which no real label does. */
static size_t make_key(const struct metric_def *def, const char *const *labels, char key[KEY_MAX])
{
	size_t len = 1, n = label_count(def);

	/* A first byte, for a key of no labels is a key too. */
	key[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		size_t size;

		assert(labels[i]);
		size = strlen(labels[i]) + 1;
		if (size > KEY_MAX - len)
			return 0;
		memcpy(key + len, labels[i], size);
		len += size;
	}
	assert(!labels[n]);
	return len;
}

static struct series *add_series(struct family *f, const struct metric_def *def, const char *key,
				 size_t len)
{
	size_t n = def->kind == HISTOGRAM ? BUCKETS : 0;
	struct series *s = calloc(1, sizeof *s + n * sizeof s->buckets[0]);

	if (!s)
		return NULL;
	s->key = malloc(len);
	if (!s->key) {
		free(s);
		return NULL;
	}
	memcpy(s->key, key, len);
	if (map_put(&f->by_key, s->key, len, s) < 0) {
		free(s->key);
		free(s);
		return NULL;
	}
	list_push_back(&f->series, &s->link);
	return s;
}

/* NULL where memory or the bound does not allow another series: metrics never fail their caller. */
static struct series *touch(enum metric m, const char *const *labels)
{
	struct family *f = &families[m];
	char key[KEY_MAX];
	struct series *s;
	size_t len;

	if (!f->ready) {
		map_init(&f->by_key);
		list_init(&f->series);
		f->ready = true;
	}
	len = make_key(&defs[m], labels, key);
	if (!len)
		return NULL;
	s = map_get(&f->by_key, key, len);
	if (!s && map_count(&f->by_key) < SERIES_MAX)
		s = add_series(f, &defs[m], key, len);
	return s;
}

void metric_add_(enum metric m, double n, const char *const *labels)
{
	struct series *s = touch(m, labels);

	assert(defs[m].kind == GAUGE || (defs[m].kind == COUNTER && n >= 0));
	if (s)
		s->value += n;
}

void metric_set_(enum metric m, double value, const char *const *labels)
{
	struct series *s = touch(m, labels);

	assert(defs[m].kind == GAUGE);
	if (s)
		s->value = value;
}

void metric_observe_(enum metric m, double seconds, const char *const *labels)
{
	struct series *s = touch(m, labels);

	assert(defs[m].kind == HISTOGRAM);
	if (!s)
		return;
	s->count++;
	s->value += seconds;
	for (size_t i = 0; i < BUCKETS; i++) {
		if (seconds <= defs[m].buckets[i]) {
			s->buckets[i]++;
			return;
		}
	}
}

/* ---- the text format ---- */

static void put_number(struct buf *b, double value)
{
	if (isnan(value))
		(void)buf_append_str(b, "NaN");
	else if (isinf(value))
		(void)buf_append_str(b, value > 0 ? "+Inf" : "-Inf");
	else
		(void)buf_printf(b, "%.15g", value);
}

static void put_escaped(struct buf *b, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			(void)buf_append_str(b, "\\n");
		else if (*text == '\\' || *text == '"')
			(void)buf_printf(b, "\\%c", *text);
		else
			(void)buf_append_char(b, *text);
	}
}

/* NAME_SUFFIX{LABEL="VALUE",...}; le, where given, is the last label. */
static void put_name(struct buf *b, const struct metric_def *def, const char *suffix,
		     const struct series *s, const double *le)
{
	const char *value = s->key + 1;
	const char *sep = "{";

	(void)buf_printf(b, "%s%s", def->name, suffix);
	for (size_t i = 0; i < label_count(def); i++, value += strlen(value) + 1) {
		(void)buf_printf(b, "%s%s=\"", sep, def->labels[i]);
		put_escaped(b, value);
		(void)buf_append_char(b, '"');
		sep = ",";
	}
	if (le) {
		(void)buf_printf(b, "%sle=\"", sep);
		put_number(b, *le);
		(void)buf_append_char(b, '"');
		sep = ",";
	}
	(void)buf_append_str(b, *sep == ',' ? "} " : " ");
}

static void put_sample(struct buf *b, const struct metric_def *def, const char *suffix,
		       const struct series *s, const double *le, double value)
{
	put_name(b, def, suffix, s, le);
	put_number(b, value);
	(void)buf_append_char(b, '\n');
}

static void put_histogram(struct buf *b, const struct metric_def *def, const struct series *s)
{
	static const double infinity = (double)INFINITY;
	uint64_t sum = 0;

	for (size_t i = 0; i < BUCKETS; i++) {
		sum += s->buckets[i];
		put_sample(b, def, "_bucket", s, &def->buckets[i], (double)sum);
	}
	put_sample(b, def, "_bucket", s, &infinity, (double)s->count);
	put_sample(b, def, "_sum", s, NULL, s->value);
	put_sample(b, def, "_count", s, NULL, (double)s->count);
}

static void put_family(struct buf *b, const struct metric_def *def, const struct family *f)
{
	static const char *const types[] = {
		[COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram"};
	const struct series *s;

	(void)buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", def->name, def->help, def->name,
			 types[def->kind]);
	LIST_FOREACH (s, &f->series, link) {
		if (def->kind == HISTOGRAM)
			put_histogram(b, def, s);
		else
			put_sample(b, def, "", s, NULL, s->value);
	}
}

int metrics_write(struct buf *b)
{
	for (int m = 0; m < _METRIC_MAX; m++)
		if (families[m].ready && !list_empty(&families[m].series))
			put_family(b, &defs[m], &families[m]);
	return buf_error(b);
}

void metrics_reset(void)
{
	for (int m = 0; m < _METRIC_MAX; m++) {
		struct family *f = &families[m];
		struct series *s, *next;

		if (!f->ready)
			continue;
		LIST_FOREACH_SAFE (s, next, &f->series, link) {
			free(s->key);
			free(s);
		}
		map_fini(&f->by_key);
		f->ready = false;
	}
}
