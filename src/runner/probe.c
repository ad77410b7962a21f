/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/probe.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/str.h"
#include "runner/toolchain.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The version command of one language. */
struct check {
	struct probe *probe;
	struct language *language;
	uv_process_t process;
	uv_pipe_t pipes[2]; /* stdout, stderr */
	struct buf text[2];
	char chunk[1024];
	int open; /* handles */
	int64_t exit_status;
	int signal;
	bool timed_out;
	struct toolchain *toolchain; /* NULL: it said nothing in time, or no memory for it */
	bool identified;
	bool untold; /* its identity could not be told when last asked for */
};

struct probe {
	uv_loop_t *loop;
	struct language_registry *languages;
	void (*done)(void *ctx); /* NULL once called, or freed */
	void *ctx;
	uv_timer_t timer;
	bool timer_open, freed;
	size_t running, n_checks;
	struct check checks[];
};

static void probe_release(struct probe *p)
{
	if (!p->freed || p->running > 0 || p->timer_open)
		return;
	for (size_t i = 0; i < p->n_checks; i++) {
		buf_fini(&p->checks[i].text[0]);
		buf_fini(&p->checks[i].text[1]);
		toolchain_free(p->checks[i].toolchain);
	}
	free(p);
}

static void timer_closed(uv_handle_t *h)
{
	struct probe *p = h->data;

	p->timer_open = false;
	probe_release(p);
}

/* The first line of what a version command said, on whichever stream; NULL where it said nothing.
 */
static const char *first_line(struct check *c)
{
	for (int i = 0; i < 2; i++) {
		char *line = c->text[i].data;

		line += strspn(line, " \t\r\n");
		line[strcspn(line, "\r\n")] = '\0';
		if (*line && utf8_valid(line, strlen(line)))
			return line;
	}
	return NULL;
}

static void remember_toolchain(struct check *c)
{
	struct buf said;

	buf_init(&said, 2 * PROBE_TEXT_MAX);
	for (int i = 0; i < 2; i++)
		(void)buf_append(&said, c->text[i].data, c->text[i].len);
	c->toolchain = toolchain_new(c->language, said.data, said.len);
	buf_fini(&said);
}

static void check_conclude(struct check *c)
{
	struct language *l = c->language;
	const char *line;

	/* Its programs are there, and the host is slow. What it makes is not kept: for that it
	 * would have to be told from another. */
	if (c->timed_out) {
		log_warn("runner", "a language's version command took too long",
			 LOG_STR("language", l->name), LOG_INT("timeout_ms", PROBE_TIMEOUT_MS));
		(void)language_set_status(l, true, NULL);
		return;
	}
	if (l->compile.argv || l->setup.commands)
		remember_toolchain(c);
	if (c->signal != 0 || c->exit_status != 0) {
		log_warn("runner", "a language's version command failed",
			 LOG_STR("language", l->name), LOG_INT("exit_code", c->exit_status),
			 LOG_INT("signal", c->signal));
		(void)language_set_status(l, false, NULL);
		return;
	}
	line = first_line(c);
	(void)language_set_status(l, true, line);
}

static void probe_step_done(struct probe *p)
{
	void (*done)(void *ctx) = p->done;

	if (--p->running > 0)
		return;
	if (p->freed) {
		probe_release(p);
		return;
	}
	p->done = NULL;
	uv_close((uv_handle_t *)&p->timer, timer_closed);
	done(p->ctx);
}

static void check_closed(uv_handle_t *h)
{
	struct check *c = h->data;

	if (--c->open > 0)
		return;
	if (!c->probe->freed)
		check_conclude(c);
	probe_step_done(c->probe);
}

static void on_exit_of(uv_process_t *process, int64_t exit_status, int signal)
{
	struct check *c = process->data;

	c->exit_status = exit_status;
	c->signal = signal;
	uv_close((uv_handle_t *)process, check_closed);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
	struct check *c = h->data;

	(void)suggested;
	*ret = uv_buf_init(c->chunk, sizeof(c->chunk));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *chunk)
{
	struct check *c = stream->data;

	/* What passes the maximum is cut: only the beginning is of interest. */
	if (n > 0)
		(void)buf_append(&c->text[(uv_pipe_t *)stream - c->pipes], chunk->base, (size_t)n);
	else if (n < 0)
		uv_close((uv_handle_t *)stream, check_closed);
}

static void timed_out(uv_timer_t *timer)
{
	struct probe *p = timer->data;

	for (size_t i = 0; i < p->n_checks; i++) {
		struct check *c = &p->checks[i];

		if (c->open == 0)
			continue;
		c->timed_out = true;
		/* A child of the command may hold the pipes: they are closed, not waited for. */
		if (uv_is_active((uv_handle_t *)&c->process))
			(void)uv_process_kill(&c->process, SIGKILL);
		for (int k = 0; k < 2; k++) {
			if (!uv_is_closing((uv_handle_t *)&c->pipes[k]))
				uv_close((uv_handle_t *)&c->pipes[k], check_closed);
		}
	}
}

static void check_spawn(struct check *c)
{
	char *env[] = {(char *)(uintptr_t) "PATH=/usr/bin:/bin", (char *)(uintptr_t) "LANG=C.UTF-8",
		       (char *)(uintptr_t) "HOME=/tmp", NULL};
	uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE}};
	uv_process_options_t options = {
		.file = c->language->version_argv[0],
		.args = c->language->version_argv,
		.env = env,
		.cwd = "/",
		.exit_cb = on_exit_of,
		.stdio = stdio,
		.stdio_count = 3,
	};
	int r;

	for (int i = 0; i < 2; i++) {
		(void)uv_pipe_init(c->probe->loop, &c->pipes[i], 0);
		c->pipes[i].data = c;
		stdio[i + 1].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
		stdio[i + 1].data.stream = (uv_stream_t *)&c->pipes[i];
	}
	c->open = 3;
	c->process.data = c;
	c->probe->running++;
	r = uv_spawn(c->probe->loop, &c->process, &options);
	if (r < 0) {
		c->exit_status = -1;
		uv_close((uv_handle_t *)&c->process, check_closed);
	}
	for (int i = 0; i < 2; i++) {
		if (r < 0 || uv_read_start((uv_stream_t *)&c->pipes[i], on_alloc, on_read) < 0)
			uv_close((uv_handle_t *)&c->pipes[i], check_closed);
	}
}

/* Whether the programs that the language names by an absolute path can be executed. */
static bool programs_exist(const struct language *l)
{
	char *const *const argvs[] = {l->version_argv, l->compile.argv, l->run.argv};

	for (size_t i = 0; i < ARRAY_SIZE(argvs); i++) {
		if (argvs[i] && argvs[i][0][0] == '/' && access(argvs[i][0], X_OK) < 0)
			return false;
	}
	return true;
}

/* Also where no command has to be run: done is never called from within probe_new. */
static void nothing_to_run(uv_timer_t *timer)
{
	struct probe *p = timer->data;

	p->running++;
	probe_step_done(p);
}

int probe_new(uv_loop_t *loop, struct language_registry *languages, void (*done)(void *ctx),
	      void *ctx, struct probe **ret_probe, struct err *e)
{
	size_t n = language_count(languages);
	struct probe *p = calloc(1, sizeof(*p) + n * sizeof(p->checks[0]));

	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->loop = loop;
	p->languages = languages;
	p->done = done;
	p->ctx = ctx;
	p->n_checks = n;
	(void)uv_timer_init(loop, &p->timer);
	p->timer.data = p;
	p->timer_open = true;
	for (size_t i = 0; i < n; i++) {
		struct check *c = &p->checks[i];

		c->probe = p;
		c->language = language_at(languages, i);
		buf_init(&c->text[0], PROBE_TEXT_MAX);
		buf_init(&c->text[1], PROBE_TEXT_MAX);
		if (!programs_exist(c->language))
			(void)language_set_status(c->language, false, NULL);
		else if (c->language->version_argv)
			check_spawn(c);
		else
			check_conclude(c);
	}
	(void)uv_timer_start(&p->timer, p->running > 0 ? timed_out : nothing_to_run,
			     p->running > 0 ? PROBE_TIMEOUT_MS : 0, 0);
	*ret_probe = p;
	return 0;
}

void probe_free(struct probe *p)
{
	if (!p || p->freed)
		return;
	p->freed = true;
	if (p->running > 0)
		timed_out(&p->timer);
	if (!uv_is_closing((uv_handle_t *)&p->timer))
		uv_close((uv_handle_t *)&p->timer, timer_closed);
	probe_release(p);
}

static struct check *find_check(struct probe *p, const struct language *l)
{
	for (size_t i = 0; i < p->n_checks; i++) {
		if (p->checks[i].language == l)
			return &p->checks[i];
	}
	return NULL;
}

/* Once when it begins: each compile asks. */
static void identity_untold(struct check *c, const char *reason)
{
	if (!c->untold)
		log_error("runner", "what is compiled is not cached: a toolchain cannot be told",
			  LOG_STR("language", c->language->name), LOG_STR("reason", reason));
	c->untold = true;
}

bool probe_identity(struct probe *p, const struct language *l,
		    uint8_t ret_identity[static DIGEST_SIZE])
{
	struct check *c = find_check(p, l);
	struct err e = {0};
	int r = -ENOMEM;

	if (!c)
		return false;
	if (c->toolchain)
		r = toolchain_identity(c->toolchain, ret_identity, &e);
	else
		(void)err_set(&e, r, c->timed_out ? "its version is not known" : "out of memory");
	if (r < 0) {
		identity_untold(c, e.msg);
		return false;
	}
	if (r > 0 && c->identified)
		log_info("runner", "a toolchain is another than before: it starts with no builds",
			 LOG_STR("language", l->name));
	c->identified = true;
	c->untold = false;
	return true;
}
