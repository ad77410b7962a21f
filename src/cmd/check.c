/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/check.h"

#include "base/clock.h"
#include "base/str.h"
#include "cmd/local_server.h"
#include "cmd/outcome.h"
#include "cmd/submission.h"
#include "config/config.h"
#include "task/language.h"
#include "json/reader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { OUTPUT_MAX = 1024 * 1024, FIRST_WAIT_S = 20, SHOWN_MAX = 300 };

static int out_of_memory(struct err *e)
{
	return err_errno(e, -ENOMEM, "could not make the check");
}

static int set_check_limits(json_t *body, const struct task_limits *l)
{
	json_t *limits = json_object();
	int r = limits ? json_object_set_new(body, "limits", limits) : -1;

	for (size_t i = 0; r >= 0 && i < task_limit_fields_count; i++) {
		int64_t value = task_limit_get(l, &task_limit_fields[i]);

		if (value != TASK_LIMIT_UNSET)
			r = json_object_set_new(limits, task_limit_fields[i].name,
						json_integer(value));
	}
	return r;
}

static char *check_body(const struct language *l, const struct language_check *check)
{
	AUTO(json_cleanup) json_t *body = json_object();
	json_t *args = json_array();
	int r;

	if (!body || !args || json_object_set_new(body, "args", args) < 0)
		return NULL;
	r = json_object_set_new(body, "language", json_string(l->name)) |
	    submission_set_bytes(body, "code", "code_encoding", check->code, strlen(check->code)) |
	    set_check_limits(body, &check->limits);
	if (check->stdin_text)
		r |= submission_set_bytes(body, "stdin", "stdin_encoding", check->stdin_text,
					  strlen(check->stdin_text));
	for (size_t i = 0; check->args && check->args[i]; i++)
		r |= json_array_append_new(args, json_string(check->args[i]));
	return r < 0 ? NULL : json_dumps(body, JSON_COMPACT);
}

static void append_shown(struct buf *why, const char *what, const char *text)
{
	size_t len = strlen(text);

	(void)buf_printf(why, "\n      %s: ", what);
	for (size_t i = 0; i < len && i < SHOWN_MAX; i++)
		(void)buf_append_str(why, text[i] == '\n' ? "\\n" : (char[]){text[i], '\0'});
	if (len > SHOWN_MAX)
		(void)buf_append_str(why, "...");
}

static void compare_output(const json_t *task, const char *stream, const char *expected,
			   struct buf *why)
{
	struct buf got;
	int r;

	buf_init(&got, OUTPUT_MAX);
	r = outcome_output(task, stream, &got);
	if (expected &&
	    (r < 0 || got.len != strlen(expected) || memcmp(got.data, expected, got.len) != 0)) {
		(void)buf_printf(why, "\n      %s differs", stream);
		append_shown(why, "expected", expected);
		append_shown(why, "got", got.data);
	}
	buf_fini(&got);
}

/* Appends what is not as promised. */
static void compare(const json_t *task, const struct language_check *check, struct buf *why)
{
	const char *status = outcome_text(task, "status");
	const char *got = str_eq(status, "done") ? outcome_text(task, "outcome") : status;
	const char *expected = task_outcome_name(check->expect_outcome);
	const json_t *code = json_object_get(task, "exit_code");
	const json_t *error = json_object_get(task, "error");

	if (!str_eq(got, expected)) {
		(void)buf_printf(why, " expected %s, got %s", expected, got);
		if (json_is_integer(code))
			(void)buf_printf(why, " with exit code %lld",
					 (long long)json_integer_value(code));
		append_shown(why, "stderr", outcome_text(task, "stderr"));
		append_shown(why, "compiler",
			     outcome_text(json_object_get(task, "compile"), "output"));
		if (json_is_object(error))
			append_shown(why, "error", outcome_text(error, "message"));
		return;
	}
	if (check->expect_exit_code >= 0 && json_integer_value(code) != check->expect_exit_code)
		(void)buf_printf(why, " expected exit code %d, got %lld", check->expect_exit_code,
				 (long long)json_integer_value(code));
	compare_output(task, "stdout", check->expect_stdout, why);
	compare_output(task, "stderr", check->expect_stderr, why);
}

/* 1 where the program did what it should, 0 where not (a line for why is appended). */
static int run_check(struct client *c, const struct language *l, const struct language_check *check,
		     struct buf *why, struct err *e)
{
	AUTO(json_cleanup) json_t *task = NULL;
	AUTO_FREE char *body = check_body(l, check);
	struct buf reasons;
	bool good;
	int r;

	if (!body)
		return out_of_memory(e);
	buf_init(&reasons, OUTPUT_MAX);
	r = submission_send(c, body, FIRST_WAIT_S, &task, NULL, e);
	if (r >= 0)
		r = outcome_wait(c, &task, NULL, -1, e);
	if (r == -EPROTO)
		r = buf_printf(&reasons, " refused: %s", e->msg);
	else if (r >= 0)
		compare(task, check, &reasons);
	good = !reasons.len;
	if (!good)
		(void)buf_printf(why, "\n    %s:%s", check->name, reasons.data);
	buf_fini(&reasons);
	return r < 0 ? r : good;
}

static int check_one(struct client *c, const struct language *l, struct err *e)
{
	int64_t since = clock_monotonic_us();
	size_t good = 0;
	struct buf why;
	int r = 0;

	buf_init(&why, OUTPUT_MAX);
	for (size_t i = 0; r >= 0 && i < l->n_checks; i++) {
		if (isatty(STDERR_FILENO))
			(void)fprintf(stderr, "\r\033[K%s: %s", l->name, l->checks[i].name);
		r = run_check(c, l, &l->checks[i], &why, e);
		good += r > 0;
	}
	if (isatty(STDERR_FILENO))
		(void)fputs("\r\033[K", stderr);
	if (r >= 0)
		(void)printf("%-12s %-7s %zu of %zu checks, %.1f s%s\n", l->name,
			     good == l->n_checks ? "ok" : "FAILED", good, l->n_checks,
			     (double)(clock_monotonic_us() - since) / 1e6, why.data);
	(void)fflush(stdout);
	buf_fini(&why);
	return r < 0 ? r : good != l->n_checks;
}

/* What the server says of a language: 1 installed, 0 not, -ENOENT unknown to it. */
static int is_installed(const json_t *languages, const char *name)
{
	size_t i;
	const json_t *l;

	json_array_foreach(json_object_get(languages, "languages"), i, l)
	{
		if (str_eq(outcome_text(l, "name"), name))
			return !json_is_false(json_object_get(l, "installed"));
	}
	return -ENOENT;
}

static bool is_wanted(const struct check_options *o, const struct language *l,
		      const struct language_registry *registry)
{
	for (size_t i = 0; i < o->n_names; i++) {
		if (language_find(registry, o->names[i]) == l)
			return true;
	}
	return !o->n_names;
}

static int check_wanted(const struct check_options *o, struct client *c,
			const struct language_registry *registry, struct err *e)
{
	AUTO(json_cleanup) json_t *languages = NULL;
	int failed = 0;
	int r = client_json(c, "GET", "/languages", NULL, NULL, &languages, NULL, e);

	for (size_t i = 0; r >= 0 && i < language_count(registry); i++) {
		const struct language *l = language_at(registry, i);
		int there = is_installed(languages, l->name);

		if (!is_wanted(o, l, registry))
			continue;
		if (there > 0) {
			r = check_one(c, l, e);
			failed += r > 0;
			continue;
		}
		(void)printf("%-12s %s%s%s\n", l->name,
			     there < 0 ? "the server does not know it" : "not installed",
			     l->install_debian ? ": apt-get install " : "",
			     l->install_debian ? l->install_debian : "");
		/* That a language is not there is a failure only for who asked for it. */
		failed += o->n_names > 0;
	}
	return r < 0 ? r : failed;
}

static int find_languages(const struct check_options *o, char **ret_dir, struct err *e)
{
	AUTO(config_free) struct config *cfg = NULL;
	char self[] = "check";
	char *argv[] = {self, NULL};
	int r;

	if (!o->languages_dir) {
		r = config_load(1, argv, environ, &cfg, e);
		if (r < 0)
			return r;
	}
	*ret_dir = strdup(o->languages_dir ? o->languages_dir : cfg->languages);
	return *ret_dir ? 0 : out_of_memory(e);
}

int check_languages(const struct check_options *o, struct err *e)
{
	AUTO(language_registry_free) struct language_registry *registry = NULL;
	AUTO(local_server_stop) struct local_server *server = NULL;
	AUTO(client_free) struct client *c = NULL;
	AUTO_FREE char *dir = NULL;
	struct client_options client = *o->client;
	int r = find_languages(o, &dir, e);

	if (r >= 0)
		r = language_registry_load(dir, &registry, e);
	for (size_t i = 0; r >= 0 && i < o->n_names; i++) {
		const char *near = NULL;

		if (language_find(registry, o->names[i]))
			continue;
		if (language_near(registry, o->names[i], &near, 1))
			return err_set(e, -EINVAL, "unknown language \"%s\" (did you mean \"%s\"?)",
				       o->names[i], near);
		return err_set(e, -EINVAL, "unknown language \"%s\"", o->names[i]);
	}
	if (r >= 0 && !client.server && !config_env("KILN_SERVER")) {
		r = local_server_start(dir, &server, e);
		if (r >= 0)
			client.server = local_server_url(server);
	}
	if (r >= 0)
		r = client_new(&client, &c, e);
	return r < 0 ? r : check_wanted(o, c, registry, e);
}
