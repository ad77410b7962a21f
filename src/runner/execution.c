/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/execution.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "runner/compile.h"
#include "runner/environment.h"
#include "runner/step.h"
#include "runner/verdict.h"
#include "sandbox/archive.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum execution_state {
	EXEC_RECEIVING, /* contents are missing */
	EXEC_WAITING,	/* another execution compiles the same program */
	EXEC_COMPILING,
	EXEC_RUNNING,
	EXEC_ENDED, /* done was told */
	_EXEC_STATE_MAX
};

static const bool may_move[_EXEC_STATE_MAX][_EXEC_STATE_MAX] = {
	[EXEC_RECEIVING] = {[EXEC_WAITING] = true,
			    [EXEC_COMPILING] = true,
			    [EXEC_RUNNING] = true,
			    [EXEC_ENDED] = true},
	[EXEC_WAITING] = {[EXEC_COMPILING] = true, [EXEC_RUNNING] = true, [EXEC_ENDED] = true},
	[EXEC_COMPILING] = {[EXEC_RUNNING] = true, [EXEC_ENDED] = true},
	[EXEC_RUNNING] = {[EXEC_ENDED] = true},
};

struct execution {
	const struct execution_env *env;
	const struct execution_ops *ops;
	void *ctx;
	enum execution_state state;
	struct intake in;
	struct language *language;
	uint8_t identity[DIGEST_SIZE]; /* of its toolchain */
	bool identified;
	char **envp;
	int files_fd; /* archive of the program's files */
	uint64_t credit;

	/* Compiling */
	uint8_t key[DIGEST_SIZE];
	bool leads; /* owes the cache an answer */
	struct cache_waiter waiter;
	struct buf compile_output;
	struct build *build;

	/* The step at hand */
	struct step *step;
	unsigned run;
	uint64_t sequence;
	bool standby;		     /* every box so far was ready when it was wanted */
	struct bytes message;	     /* what a standby interpreter is to do */
	bool may_stand_by, was_exec; /* this step: may have one; had one */
	bool may_fork, was_fork;     /* this run: may be a fork of an interpreter; was one */
	struct compiler *compiler;   /* that compiles it now, in place of a step */
	bool was_resident;	     /* one of these has */

	/* Why it is being ended before its time */
	bool cancelled;
	const char *fail_code;
	char fail_message[ERR_MSG_MAX];
};

static void run_start(struct execution *x);
static void compile_start(struct execution *x);

/* Where in a box the language's files from beforehand are; NULL: it has none, or not now. */
static const char *setup_of(const struct execution *x)
{
	return x->env->setup && x->identified ? setup_path(x->env->setup, x->language, x->identity)
					      : NULL;
}

static void execution_move(struct execution *x, enum execution_state to)
{
	assert(may_move[x->state][to]);
	x->state = to;
}

static void leave_cache(struct execution *x, struct build *build)
{
	cache_leave(&x->waiter);
	if (!x->leads)
		return;
	x->leads = false;
	cache_finish(x->env->cache, x->key, build);
}

static void execution_end(struct execution *x)
{
	const struct execution_end end = {
		.cancelled = x->cancelled && !x->fail_code,
		.error_code = x->fail_code,
		.error_message = x->fail_code ? x->fail_message : NULL,
		.standby = x->was_resident ? "resident"
			   : x->was_exec   ? "exec"
			   : x->was_fork   ? "fork"
			   : x->standby	   ? "sandbox"
					   : "none",
	};

	execution_move(x, EXEC_ENDED);
	step_free(TAKE_PTR(x->step));
	residents_leave(TAKE_PTR(x->compiler));
	leave_cache(x, NULL);
	x->ops->done(x->ctx, x, &end);
}

/* The first reason stands. */
static void set_failure(struct execution *x, const char *code, const char *message)
{
	if (x->fail_code)
		return;
	x->fail_code = code;
	(void)str_copy(x->fail_message, sizeof(x->fail_message), message);
}

static void end_failed(struct execution *x, const char *code, const char *message)
{
	set_failure(x, code, message);
	execution_end(x);
}

static bool stopping(const struct execution *x)
{
	return x->cancelled || x->fail_code;
}

/* ---- runs ---- */

static size_t run_room(void *ctx)
{
	struct execution *x = ctx;

	/* What a task that is being stopped still says must not keep it from ending. */
	if (stopping(x))
		return SIZE_MAX;
	if (!x->ops->writable(x->ctx))
		return 0;
	return x->credit < SIZE_MAX ? (size_t)x->credit : SIZE_MAX;
}

static void run_chunk(void *ctx, enum task_stream stream, const void *bytes, size_t len)
{
	struct execution *x = ctx;
	const struct execution_chunk chunk = {
		.run = x->run,
		.stream = stream,
		.sequence = x->sequence,
		.bytes = bytes,
		.len = len,
	};

	if (len > x->credit)
		return;
	x->credit -= len;
	x->sequence++;
	x->ops->output(x->ctx, x, &chunk);
}

/* The end of any step: whether the execution goes on. The step is freed. */
static bool step_over(struct execution *x, const struct step_end *end)
{
	x->standby = x->standby && end->standby;
	if (end->failed && !x->cancelled)
		set_failure(x, "sandbox_failed", end->failed);
	step_free(TAKE_PTR(x->step));
	if (!stopping(x))
		return true;
	execution_end(x);
	return false;
}

/* What stood by died before the program reached it: nothing has happened yet. */
static bool never_began(const struct execution *x, const struct step_end *end)
{
	return end->unused || (x->was_fork && end->failed && !end->started);
}

static void run_ended(void *ctx, struct step_end *end)
{
	struct execution *x = ctx;
	const struct sandbox_event_exited exited = *end->exited;
	const struct verdict_facts facts = {
		.exited = &exited,
		.truncated = {end->truncated[TASK_STDOUT], end->truncated[TASK_STDERR]},
		.own_program = x->language->run.argv[0][0] != '/',
	};
	struct task_run_result result = {0};
	struct err e;

	if (never_began(x, end) && !stopping(x)) {
		step_free(TAKE_PTR(x->step));
		x->may_stand_by = x->may_fork = false;
		run_start(x);
		return;
	}
	if (x->cancelled && !x->fail_code && !end->failed) {
		verdict_unfinished(&facts, &result);
		x->ops->run_done(x->ctx, x, x->run, &result);
	}
	if (!step_over(x, end))
		return;
	if (verdict_run(&facts, &result, &e) < 0) {
		end_failed(x, "sandbox_failed", e.msg);
		return;
	}
	x->ops->run_done(x->ctx, x, x->run, &result);
	bytes_fini(&x->in.runs[x->run].stdin_data);
	x->run++;
	if (x->run < x->in.n_runs)
		run_start(x);
	else
		execution_end(x);
}

static const struct step_ops run_ops = {
	.room = run_room,
	.chunk = run_chunk,
	.ended = run_ended,
};

/* Hands a step to what stands by for it. False where there is none, or it broke. */
static bool give_to_standby(struct execution *x, const struct standby_wish *wish,
			    struct step_gift *gift, char *const *args, size_t n_args)
{
	const int archives[] = {x->files_fd, x->build ? x->build->archive_fd : -EBADF};
	struct step *step;

	/* Without what the language makes beforehand its command is not whole. */
	if (!x->env->standby || !x->may_stand_by || !wish->step->standby.argv ||
	    wish->step->standby.fork || (x->language->setup.commands && !wish->setup))
		return false;
	bytes_fini(&x->message);
	if (standby_message(args, n_args, archives, archives[1] >= 0 ? 2 : 1, &x->message) < 0)
		return false;
	step = standby_take(x->env->standby, wish);
	if (!step)
		return false;
	gift->ctx = x;
	gift->limits = wish->limits;
	gift->message = &x->message;
	if (step_give(step, gift, NULL) < 0) {
		step_free(step);
		return false;
	}
	x->step = step;
	return true;
}

static bool run_on_standby(struct execution *x)
{
	const struct task_run *run = &x->in.runs[x->run];
	const struct standby_wish wish = {.language = x->language,
					  .step = &x->language->run,
					  .setup = setup_of(x),
					  .program = &x->in.program,
					  .limits = &run->limits,
					  .n_args = run->n_args};
	struct step_gift gift = {.ops = &run_ops, .stdin_data = &run->stdin_data};

	x->was_exec = !run->cold && give_to_standby(x, &wish, &gift, run->args, run->n_args);
	return x->was_exec;
}

/* What an interpreter has taken already, and what it goes by in each fork. */
static bool has_room_for_fork(const struct task_limits *l)
{
	return l->stack_bytes >= NURSERY_STACK_BYTES && l->open_files >= NURSERY_FILES_MIN;
}

/* Those in which a fork of an interpreter waits, or those in which programs start. */
static struct box_pool *boxes_of_run(struct execution *x)
{
	const struct task_run *run = &x->in.runs[x->run];
	struct box_pool *forks = NULL;

	if (x->env->zygotes && x->may_fork && !run->cold && has_room_for_fork(&run->limits))
		forks = zygotes_ask(x->env->zygotes, x->language, x->in.tenant,
				    x->in.program.entry);
	x->was_fork = forks;
	return forks ? forks : x->env->boxes;
}

static void run_start(struct execution *x)
{
	const struct task_run *run = &x->in.runs[x->run];
	struct step_spec spec = {
		.envp = (const char *const *)x->envp,
		.inputs = {x->files_fd},
		.n_inputs = 1,
		.limits = &run->limits,
		.stdin_data = &run->stdin_data,
	};
	char **argv = NULL;
	struct err e;
	int r;

	if (run_on_standby(x))
		return;
	r = language_argv(x->language, &x->language->run, &x->in.program,
			  &(struct language_words){.memory_bytes = run->limits.memory_bytes,
						   .setup = setup_of(x)},
			  run->args, run->n_args, &argv);

	if (r < 0) {
		end_failed(x, "runner_failed", err_text(r));
		return;
	}
	if (x->build && x->build->archive_fd >= 0)
		spec.inputs[spec.n_inputs++] = x->build->archive_fd;
	spec.argv = (const char *const *)argv;
	r = step_start(x->env->loop, boxes_of_run(x), &spec, &run_ops, x, &x->step, &e);
	if (r < 0 && x->was_fork) {
		x->may_fork = false;
		r = step_start(x->env->loop, boxes_of_run(x), &spec, &run_ops, x, &x->step, &e);
	}
	language_argv_free(argv);
	if (r < 0)
		end_failed(x, "sandbox_failed", e.msg);
}

static void runs_begin(struct execution *x)
{
	x->may_stand_by = x->may_fork = true;
	execution_move(x, EXEC_RUNNING);
	run_start(x);
}

/* ---- compiling ---- */

/* A build is there, from whoever made it: say so, and go on where it is a good one. */
static void build_known(struct execution *x, struct build *build, bool cached)
{
	struct task_compile_result told = build->result;

	if (cached) {
		told.cached = true;
		told.usage = (struct task_usage){0};
	}
	x->build = build_ref(build);
	x->ops->compiled(x->ctx, x, &told);
	if (verdict_compile_ok(&build->result))
		runs_begin(x);
	else
		execution_end(x);
}

static size_t compile_room(void *ctx)
{
	(void)ctx;
	return SIZE_MAX;
}

static void compile_chunk(void *ctx, enum task_stream stream, const void *bytes, size_t len)
{
	struct execution *x = ctx;

	/* The step's own limit of output is the buffer's maximum. */
	(void)stream;
	(void)buf_append(&x->compile_output, bytes, len);
}

/* The verdict over a compile step, with what it made. NULL where there is no verdict. */
static struct build *compile_build(struct execution *x, struct step_end *end, struct err *e)
{
	const struct verdict_facts facts = {
		.exited = end->exited,
		.truncated = {end->truncated[TASK_STDOUT], end->truncated[TASK_STDERR]},
	};
	struct task_compile_result result = {0};
	AUTO_FD int archive = TAKE_FD(end->collected);
	struct build *build;
	size_t size = 0;

	if (verdict_compile(&facts, &result, e) < 0)
		return NULL;
	if (verdict_compile_ok(&result) &&
	    compile_check_products(archive, x->language->compile.produces, end->exited, &size,
				   &x->compile_output) < 0)
		result.exit_code = -1;
	if (!verdict_compile_ok(&result))
		cleanup_close(&archive);
	result.output.data = buf_steal(&x->compile_output, &result.output.len);
	build = build_new_consume(TAKE_FD(archive), size, &result);
	bytes_fini(&result.output);
	if (!build)
		(void)err_set(e, -ENOMEM, "out of memory");
	return build;
}

static void compile_begin(struct execution *x);

static void compile_ended(void *ctx, struct step_end *end)
{
	struct execution *x = ctx;
	struct build *build = NULL;
	struct err e;

	x->was_resident = x->compiler && !end->unused;
	x->compiler = NULL;
	if (end->unused && !stopping(x)) {
		step_free(TAKE_PTR(x->step));
		x->may_stand_by = false;
		compile_begin(x);
		return;
	}
	if (!end->failed && !stopping(x)) {
		build = compile_build(x, end, &e);
		if (!build)
			set_failure(x, "sandbox_failed", e.msg);
	}
	if (!step_over(x, end))
		return;
	/* Another task may allow the compiler more than this one did. */
	leave_cache(x, build->result.limit_hit == TASK_LIMIT_NONE ? build : NULL);
	build_known(x, build, false);
	build_unref(build);
}

static const struct step_ops compile_ops = {
	.room = compile_room,
	.chunk = compile_chunk,
	.ended = compile_ended,
};

static struct standby_wish compile_wish(const struct execution *x)
{
	return (struct standby_wish){.language = x->language,
				     .step = &x->language->compile,
				     .setup = setup_of(x),
				     .program = &x->in.program,
				     .limits = &x->in.program.compile_limits};
}

/* Compiles it by a compiler that stands by, which takes the arguments of the plain one. */
static bool compile_on_standby(struct execution *x, char *const *argv)
{
	static const struct bytes nothing;
	const struct standby_wish wish = compile_wish(x);
	struct step_gift gift = {.ops = &compile_ops, .stdin_data = &nothing};
	size_t n = 0;

	while (argv[n])
		n++;
	return !x->in.runs[0].cold && give_to_standby(x, &wish, &gift, argv + 1, n - 1);
}

/* By a compiler that has worked for this tenant before, and will again. */
static bool compile_on_resident(struct execution *x, char *const *argv)
{
	const struct standby_wish wish = compile_wish(x);
	struct residents_wish w = {.wish = &wish,
				   .tenant = x->in.tenant,
				   .args = argv + 1,
				   .archive = x->files_fd,
				   .ops = &compile_ops,
				   .ctx = x};

	if (!x->env->residents || !x->may_stand_by || x->in.runs[0].cold ||
	    (x->language->setup.commands && !wish.setup))
		return false;
	while (w.args[w.n_args])
		w.n_args++;
	x->compiler = residents_give(x->env->residents, &w);
	return x->compiler;
}

static int compile_cold(struct execution *x, const char *const *argv, struct err *e)
{
	const struct step_spec spec = {
		.argv = argv,
		.envp = (const char *const *)x->envp,
		.collect = (const char *const *)x->language->compile.produces,
		.inputs = {x->files_fd},
		.n_inputs = 1,
		.limits = &x->in.program.compile_limits,
		.merge_streams = true,
	};

	return step_start(x->env->loop, x->env->boxes, &spec, &compile_ops, x, &x->step, e);
}

static void compile_begin(struct execution *x)
{
	const struct language_words words = {
		.memory_bytes = x->in.program.compile_limits.memory_bytes, .setup = setup_of(x)};
	char **argv = NULL;
	struct err e;
	int r = language_argv(x->language, &x->language->compile, &x->in.program, &words, NULL, 0,
			      &argv);

	if (r < 0) {
		end_failed(x, "runner_failed", err_text(r));
		return;
	}
	if (!compile_on_resident(x, argv) && !compile_on_standby(x, argv))
		r = compile_cold(x, (const char *const *)argv, &e);
	language_argv_free(argv);
	if (r < 0)
		end_failed(x, "sandbox_failed", e.msg);
}

static void compile_start(struct execution *x)
{
	struct task_limits *limits = &x->in.program.compile_limits;

	execution_move(x, EXEC_COMPILING);
	if (limits->output_bytes > COMPILE_OUTPUT_MAX)
		limits->output_bytes = COMPILE_OUTPUT_MAX;
	buf_init(&x->compile_output, (size_t)limits->output_bytes + COMPILE_NOTE_MAX);
	compile_begin(x);
}

static void build_arrived(struct cache_waiter *w, struct build *build)
{
	struct execution *x = container_of(w, struct execution, waiter);

	if (build) {
		build_known(x, build, true);
		return;
	}
	x->leads = true;
	compile_start(x);
}

/* The files are packed, and hashed where that is wanted: their contents are not needed again. */
static void release_contents(struct execution *x)
{
	for (size_t i = 0; i < x->in.program.n_files; i++)
		bytes_fini(&x->in.program.files[i].content);
}

static void build_begin(struct execution *x)
{
	struct build *build = NULL;
	int r;

	if (!x->identified) {
		release_contents(x);
		compile_start(x);
		return;
	}
	r = compile_key(&x->in, x->language, x->identity, x->env->share_cache,
			(const char *const *)x->envp, x->key);
	release_contents(x);
	if (r == 0)
		r = cache_ask(x->env->cache, x->key, &x->waiter, &build);
	switch (r) {
	case CACHE_HIT:
		build_known(x, build, true);
		build_unref(build);
		return;
	case CACHE_LEAD:
		x->leads = true;
		compile_start(x);
		return;
	case CACHE_WAIT:
		execution_move(x, EXEC_WAITING);
		return;
	default:
		end_failed(x, "runner_failed", err_text(r));
	}
}

/* ---- life cycle ---- */

static int find_language(struct execution *x, struct err *e)
{
	x->language = language_find(x->env->languages, x->in.program.language);
	if (!x->language || !x->language->installed || !x->language->run.argv)
		return err_set(e, -EINVAL, "the language \"%.64s\" is not installed here",
			       x->in.program.language);
	return 0;
}

static int pack_files(struct execution *x, struct err *e)
{
	AUTO(archive_writer_free) struct archive_writer *w = NULL;
	const struct task_program *p = &x->in.program;
	int r = archive_writer_new(&w, e);

	for (size_t i = 0; r == 0 && i < p->n_files; i++)
		r = archive_add(w, p->files[i].name, 0644, p->files[i].content.data,
				p->files[i].content.len, e);
	return r < 0 ? r : archive_finish(w, &x->files_fd, e);
}

void execution_begin(struct execution *x)
{
	struct err e;
	int r;

	if (x->in.missing > 0)
		return;
	r = find_language(x, &e);
	if (r < 0) {
		end_failed(x, "language_not_installed", e.msg);
		return;
	}
	r = intake_check(&x->in, x->language, &e);
	if (r < 0) {
		end_failed(x, "bad_task", e.msg);
		return;
	}
	r = pack_files(x, &e);
	if (r == 0)
		r = environment_new(x->language, &x->envp, &e);
	if (r < 0) {
		end_failed(x, "runner_failed", e.msg);
		return;
	}
	x->may_stand_by = true;
	if (x->language->compile.argv || x->language->setup.commands)
		x->identified = probe_identity(x->env->probe, x->language, x->identity);
	if (x->language->compile.argv) {
		build_begin(x);
		return;
	}
	release_contents(x);
	runs_begin(x);
}

int execution_new_consume(const struct execution_env *env, struct intake *in, uint64_t credit_bytes,
			  const struct execution_ops *ops, void *ctx,
			  struct execution **ret_execution, struct err *e)
{
	struct execution *x = calloc(1, sizeof(*x));

	if (!x) {
		intake_fini(in);
		return err_set(e, -ENOMEM, "out of memory");
	}
	x->env = env;
	x->ops = ops;
	x->ctx = ctx;
	x->in = *in;
	*in = (struct intake){0};
	x->credit = credit_bytes;
	x->files_fd = -EBADF;
	x->standby = true;
	x->waiter.call = build_arrived;
	list_init(&x->waiter.link);
	buf_init(&x->compile_output, 0);
	*ret_execution = x;
	return 0;
}

void execution_free(struct execution *x)
{
	if (!x)
		return;
	step_free(x->step);
	residents_leave(x->compiler);
	leave_cache(x, NULL);
	build_unref(x->build);
	buf_fini(&x->compile_output);
	bytes_fini(&x->message);
	environment_free(x->envp);
	cleanup_close(&x->files_fd);
	intake_fini(&x->in);
	free(x);
}

const struct uuid *execution_id(const struct execution *x)
{
	return &x->in.id;
}

int execution_content(struct execution *x, const Kiln__Content *m, struct err *e)
{
	int r;

	if (x->state != EXEC_RECEIVING)
		return err_set(e, -EBADMSG, "content for a task that is complete");
	r = intake_content(&x->in, m, e);
	if (r < 0)
		return r;
	execution_begin(x);
	return 0;
}

void execution_add_credit(struct execution *x, uint64_t bytes)
{
	x->credit = bytes < UINT64_MAX - x->credit ? x->credit + bytes : UINT64_MAX;
	execution_resume(x);
}

void execution_resume(struct execution *x)
{
	if (x->state == EXEC_RUNNING && x->step && run_room(x) > 0)
		step_resume(x->step);
}

/* Ends what is at hand; the end of a step that runs comes back through its callback. */
static void execution_stop(struct execution *x)
{
	if (x->state == EXEC_ENDED)
		return;
	if (!x->step) {
		execution_end(x);
		return;
	}
	/* In this order: the kill may end the step, and with it the execution, at once. */
	step_resume(x->step);
	step_kill(x->step);
}

void execution_cancel(struct execution *x)
{
	x->cancelled = true;
	execution_stop(x);
}

void execution_fail(struct execution *x, const char *code, const char *message)
{
	set_failure(x, code, message);
	execution_stop(x);
}

bool execution_failing(const struct execution *x)
{
	return x->fail_code != NULL;
}
