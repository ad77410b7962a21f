/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/outcome.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"
#include "cmd/cmd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	OUTPUT_MAX = 64 * 1024 * 1024,
	POLL_S = 30,	     /* one request; below the server's most */
	POLL_TERMINAL_S = 1, /* so that the progress line moves */
	QUIET_US = 400000,   /* nothing is shown of what takes no longer */
};

const char *outcome_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static int64_t number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

bool outcome_is_final(const json_t *task)
{
	const char *status = outcome_text(task, "status");

	return !str_eq(status, "queued") && !str_eq(status, "running");
}

int outcome_output(const json_t *task, const char *stream, struct buf *b)
{
	const json_t *value = json_object_get(task, stream);
	const char *text = json_string_value(value);
	size_t len = json_string_length(value), decoded = 0;
	char encoding[32];
	int r;

	(void)snprintf(encoding, sizeof encoding, "%s_encoding", stream);
	if (!str_eq(outcome_text(task, encoding), "base64"))
		return text ? buf_append(b, text, len) : 0;
	r = buf_reserve(b, base64_decoded_max(len) + 1);
	if (r >= 0)
		r = base64_decode(text, len, b->data + b->len, &decoded);
	if (r < 0)
		return r;
	b->len += decoded;
	b->data[b->len] = '\0';
	return 0;
}

/* ---- waiting ---- */

static void show_progress(const json_t *task, int64_t since_us)
{
	int64_t waited = clock_monotonic_us() - since_us;

	if (waited >= QUIET_US)
		(void)fprintf(stderr, "\r\033[K%s, %lld s", outcome_text(task, "status"),
			      (long long)(waited / 1000000));
}

static int ask(struct client *c, const char *id, double wait_s, json_t **task, struct buf *text,
	       struct err *e)
{
	char path[96];
	json_t *fresh = NULL;
	int r;

	(void)snprintf(path, sizeof path, "/result/%s?wait=%.3f", id, wait_s);
	if (text)
		buf_clear(text);
	r = client_json(c, "GET", path, NULL, NULL, &fresh, text, e);
	if (r < 0)
		return r;
	json_decref(*task);
	*task = fresh;
	return 0;
}

int outcome_wait(struct client *c, json_t **task, struct buf *text, double wait_s, struct err *e)
{
	bool terminal = isatty(STDERR_FILENO);
	int64_t since = clock_monotonic_us();
	char id[64];
	int r = 0;

	(void)str_copy(id, sizeof id, outcome_text(*task, "task_id"));
	while (r >= 0 && !outcome_is_final(*task)) {
		double step = terminal ? POLL_TERMINAL_S : POLL_S;
		double left = wait_s - (double)(clock_monotonic_us() - since) / 1e6;

		if (wait_s >= 0 && left <= 0)
			break;
		if (terminal)
			show_progress(*task, since);
		r = ask(c, id, wait_s >= 0 && left < step ? left : step, task, text, e);
	}
	if (terminal && clock_monotonic_us() - since >= QUIET_US)
		(void)fputs("\r\033[K", stderr);
	return r < 0 ? r : outcome_is_final(*task);
}

/* ---- showing ---- */

static int put_stream(const json_t *task, const char *stream, int fd, struct err *e)
{
	struct buf b;
	int r;

	buf_init(&b, OUTPUT_MAX);
	r = outcome_output(task, stream, &b);
	if (r >= 0)
		r = fs_write_all(fd, b.data, b.len);
	buf_fini(&b);
	return r < 0 ? err_errno(e, r, "could not write the %s of the program", stream) : 0;
}

static void put_compiler(const json_t *task)
{
	const char *output = outcome_text(json_object_get(task, "compile"), "output");
	size_t len = strlen(output);

	if (len)
		(void)fprintf(stderr, "%s%s", output, output[len - 1] == '\n' ? "" : "\n");
}

static void put_limit(const json_t *task, const char *whose)
{
	const char *limit = outcome_text(task, "limit_hit");
	const json_t *usage = json_object_get(task, "usage");

	if (str_eq(limit, "cpu_ms"))
		(void)fprintf(stderr, "kiln: %stime limit: %lld ms of CPU time were used\n", whose,
			      (long long)number(usage, "cpu_ms"));
	else if (str_eq(limit, "wall_ms"))
		(void)fprintf(stderr, "kiln: %stime limit: %lld ms by the clock had passed\n",
			      whose, (long long)number(usage, "wall_ms"));
	else if (str_eq(limit, "memory_bytes"))
		(void)fprintf(stderr, "kiln: %smemory limit\n", whose);
	else if (str_eq(limit, "output_bytes"))
		(void)fprintf(stderr, "kiln: %soutput limit: the rest is cut off\n", whose);
}

static void put_verdict(const json_t *task)
{
	const char *status = outcome_text(task, "status"), *outcome = outcome_text(task, "outcome");
	const json_t *error = json_object_get(task, "error");

	if (str_eq(status, "failed"))
		(void)fprintf(stderr, "kiln: the task could not be run: %s (%s)\n",
			      outcome_text(error, "message"), outcome_text(error, "code"));
	else if (str_eq(status, "expired"))
		(void)fputs("kiln: the task was not started before its deadline\n", stderr);
	else if (str_eq(status, "cancelled"))
		(void)fputs("kiln: the task was cancelled\n", stderr);
	else if (str_eq(outcome, "compile_error"))
		put_limit(task, "the compiler's ");
	else if (str_eq(outcome, "signalled"))
		(void)fprintf(stderr, "kiln: the program was ended by %s\n",
			      outcome_text(task, "signal"));
	else
		put_limit(task, "");
	if (json_is_true(json_object_get(task, "stdout_truncated")) &&
	    !str_eq(outcome, "output_limit"))
		(void)fputs("kiln: the standard output was cut off\n", stderr);
}

int outcome_print(const json_t *task, struct err *e)
{
	int r = fflush(stdout) ? -errno : put_stream(task, "stdout", STDOUT_FILENO, e);

	if (str_eq(outcome_text(task, "outcome"), "compile_error"))
		put_compiler(task);
	if (r >= 0)
		r = put_stream(task, "stderr", STDERR_FILENO, e);
	put_verdict(task);
	return r;
}

static int signal_number(const char *name)
{
	for (int n = 1; n < NSIG; n++) {
		const char *known = sigabbrev_np(n);

		if (known && str_has_prefix(name, "SIG") && str_eq(name + 3, known))
			return n;
	}
	return 0;
}

int outcome_exit_status(const json_t *task)
{
	static const struct {
		const char *outcome;
		int status;
	} statuses[] = {
		{"compile_error", EXIT_COMPILE_ERROR},
		{"time_limit", EXIT_TIME_LIMIT},
		{"memory_limit", EXIT_OTHER_LIMIT},
		{"output_limit", EXIT_OTHER_LIMIT},
	};
	const char *outcome = outcome_text(task, "outcome");

	if (!str_eq(outcome_text(task, "status"), "done"))
		return str_eq(outcome_text(task, "status"), "failed") ? EXIT_KILN_FAILED
								      : EXIT_NOT_RUN;
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		if (str_eq(outcome, statuses[i].outcome))
			return statuses[i].status;
	}
	if (str_eq(outcome, "signalled"))
		return 128 + signal_number(outcome_text(task, "signal"));
	return (int)number(task, "exit_code") & 0xff;
}
