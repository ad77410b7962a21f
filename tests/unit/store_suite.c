/* SPDX-License-Identifier: Apache-2.0 */
#include "store_suite.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

const struct store_backend *store_backend;

void fixture_open(struct fixture *f)
{
	struct store_config cfg = {.url = f->url, .busy_timeout_ms = 100};
	struct err e = {""};

	if (store_open(&f->loop, &cfg, &f->store, &e) < 0)
		fail_msg("%s", e.msg);
}

static void on_closed(void *ctx)
{
	*(bool *)ctx = true;
}

void fixture_close(struct fixture *f)
{
	bool closed = false;

	store_close(f->store, on_closed, &closed);
	assert_false(closed);
	while (!closed)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	f->store = NULL;
}

int store_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->url = store_backend->fresh();
	fixture_open(f);
	*state = f;
	return 0;
}

int store_teardown(void **state)
{
	struct fixture *f = *state;

	if (f->store)
		fixture_close(f);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
	return 0;
}

void waiter_done(struct store_req *req, int code)
{
	struct waiter *w = req->ctx;

	assert_true(w->pending > 0);
	w->pending--;
	w->code = code;
}

int wait_all(struct fixture *f, struct waiter *w)
{
	while (w->pending)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	return w->code;
}

static char *copy(const char *text)
{
	char *s = strdup(text);

	assert_non_null(s);
	return s;
}

void make_spec(struct task_spec *s, const struct spec_options *o)
{
	const char *code = o->code ? o->code : "print(1)\n";
	struct task_program *p = &s->program;

	*s = (struct task_spec){0};
	uuid7_new(&s->id);
	s->tenant = copy(o->tenant ? o->tenant : "acme");
	s->class = o->class;
	s->created_us = NOW_US;
	s->deadline_us = o->deadline_us;
	s->traceparent = copy("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	p->language = copy(o->language ? o->language : "python");
	p->entry = copy("main.py");
	p->files = calloc(1, sizeof *p->files);
	assert_non_null(p->files);
	p->n_files = 1;
	p->files[0].name = copy("main.py");
	assert_int_equal(
		bytes_set(&p->files[0].content, code, o->code_len ? o->code_len : strlen(code)), 0);
	task_limits_unset(&p->compile_limits);
	s->runs = calloc(1, sizeof *s->runs);
	assert_non_null(s->runs);
	s->n_runs = 1;
	s->runs[0].args = calloc(2, sizeof(char *));
	assert_non_null(s->runs[0].args);
	s->runs[0].n_args = 2;
	s->runs[0].args[0] = copy("-x");
	s->runs[0].args[1] = copy("");
	if (o->stdin_text)
		assert_int_equal(
			bytes_set(&s->runs[0].stdin_data, o->stdin_text, strlen(o->stdin_text)), 0);
	task_limits_unset(&s->runs[0].limits);
	s->runs[0].limits.cpu_ms = 2000;
}

struct uuid add_task_with(struct fixture *f, const struct spec_options *o)
{
	struct task_spec spec;
	struct store_insert r = {.spec = &spec};
	struct uuid id;

	make_spec(&spec, o);
	id = spec.id;
	assert_int_equal(RUN(insert, f, &r), 0);
	assert_false(r.existing);
	task_spec_fini(&spec);
	return id;
}

struct uuid add_task(struct fixture *f)
{
	return add_task_with(f, &(struct spec_options){0});
}

int claim(struct fixture *f, const struct uuid *id)
{
	struct store_claim r = {.id = *id,
				.owner = OWNER_OF_CLAIMS,
				.now_us = NOW_US,
				.lease_until_us = NOW_US + 1000};

	assert_int_equal(RUN(claim, f, &r), 0);
	assert_int_equal(r.state, TASK_RUNNING);
	return r.attempt;
}

struct task *get_task(struct fixture *f, const struct uuid *id, unsigned parts)
{
	struct store_get r = {.id = *id, .parts = parts};

	assert_int_equal(RUN(get, f, &r), 0);
	assert_non_null(r.task);
	assert_true(uuid_eq(&r.task->spec.id, id));
	return r.task;
}

void assert_state(struct fixture *f, const struct uuid *id, enum task_state state, int attempt)
{
	AUTO(task_free) struct task *t = get_task(f, id, STORE_META);

	assert_string_equal(task_state_name(t->state), task_state_name(state));
	assert_int_equal(t->attempt, attempt);
	assert_int_equal(t->finished_us != 0, task_state_is_final(state));
}

void make_result(struct task_result *r, enum task_outcome outcome, size_t out_len)
{
	char *out = calloc(1, out_len + 1);

	assert_non_null(out);
	memset(out, 'o', out_len);
	*r = (struct task_result){.outcome = outcome, .ran = true};
	r->runs = calloc(1, sizeof *r->runs);
	assert_non_null(r->runs);
	r->n_runs = 1;
	r->runs[0].outcome = outcome;
	r->runs[0].exit_code = 3;
	r->runs[0].truncated[TASK_STDERR] = true;
	r->runs[0].usage = (struct task_usage){11, 22, -1};
	assert_int_equal(bytes_set(&r->runs[0].output[TASK_STDOUT], out, out_len), 0);
	assert_int_equal(bytes_set(&r->runs[0].output[TASK_STDERR], "e\0e", 3), 0);
	r->compile = (struct task_compile_result){.ran = true, .exit_code = 1};
	assert_int_equal(bytes_set(&r->compile.output, "warning", 7), 0);
	r->isolation.level = copy("sandbox");
	r->isolation.landlock = 4;
	r->pod = copy("pod-1");
	free(out);
}

int finish(struct fixture *f, const struct uuid *id, int attempt, enum task_state state,
	   const struct task_result *result)
{
	struct store_finish r = {
		.id = *id,
		.attempt = attempt,
		.state = state,
		.started_us = NOW_US + 10,
		.finished_us = NOW_US + 20,
		.result = result,
	};

	return RUN(finish, f, &r);
}
