/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/connection.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/str.h"
#include "wire/codec.h"
#include "wire/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Output is held back while so much waits to be written, whatever credit there is: small chunks
 * cost more than their bytes. */
enum {
	SEND_QUEUE_HIGH = 1024 * 1024,
	MESSAGE_MAX = 256,
	FAIL_BATCH = 16,
	LEASE_LATE_MS = 500,
	SILENT_LEASES = 3,
	SILENT_MIN_MS = 30000,
};

enum connection_state { CONN_GREETING, CONN_OPEN, CONN_DRAINING, CONN_ENDED, _CONN_STATE_MAX };

struct connection {
	struct connection_config cfg;
	struct wire_conn *wire;
	enum connection_state state;
	struct map tasks; /* by id */
	uint64_t credit_bytes;
	uint64_t owner;	  /* in whose name the scheduler claims tasks; 0: not told */
	uv_timer_t lease; /* before HELLO: the time for it */
	int64_t lease_ms, renewed_us, lease_due_us;
	int64_t heard_us;     /* monotonic: the last frame */
	struct deferred over; /* tells "ended" outside of every call */
	char message[MESSAGE_MAX];
};

struct task_slot { /* an execution and its place in the map */
	struct connection *connection;
	struct uuid id;
	char traceparent[TRACEPARENT_LEN + 1];
	struct execution *execution;
};

static bool over(const struct connection *c)
{
	return c->state == CONN_ENDED;
}

static void connection_end(struct connection *c, const char *message)
{
	if (over(c))
		return;
	c->state = CONN_ENDED;
	(void)str_copy(c->message, sizeof(c->message), message);
	defer_call(c->cfg.defer, &c->over);
}

static void send_frame(struct connection *c, Kiln__Frame__KindCase kind, void *body)
{
	Kiln__Frame frame = KILN__FRAME__INIT;
	int r;

	if (over(c))
		return;
	frame.kind_case = kind;
	frame.hello = body; /* all kinds share the union's pointer */
	r = wire_conn_send(c->wire, &frame);
	if (r < 0)
		connection_end(c, err_text(r));
}

static char *text(const char *s)
{
	return (char *)(uintptr_t)(s ? s : "");
}

/* ---- what executions say ---- */

static bool on_writable(void *ctx)
{
	struct task_slot *t = ctx;

	return wire_conn_queued(t->connection->wire) < SEND_QUEUE_HIGH;
}

static void on_output(void *ctx, const struct execution *x, const struct execution_chunk *chunk)
{
	struct task_slot *t = ctx;
	Kiln__Output m = KILN__OUTPUT__INIT;

	(void)x;
	codec_put_id(&t->id, &m.task);
	m.run = chunk->run;
	m.stream = chunk->stream;
	m.sequence = chunk->sequence;
	m.bytes.data = (uint8_t *)(uintptr_t)chunk->bytes;
	m.bytes.len = chunk->len;
	send_frame(t->connection, KILN__FRAME__KIND_OUTPUT, &m);
}

static void on_compiled(void *ctx, const struct execution *x, const struct task_compile_result *r)
{
	struct task_slot *t = ctx;
	Kiln__Compiled m = KILN__COMPILED__INIT;
	Kiln__CompileResult result;
	Kiln__Usage usage;

	(void)x;
	codec_put_id(&t->id, &m.task);
	codec_put_compile_result(r, &result, &usage);
	m.result = &result;
	send_frame(t->connection, KILN__FRAME__KIND_COMPILED, &m);
}

static void on_run_done(void *ctx, const struct execution *x, unsigned run,
			const struct task_run_result *r)
{
	struct task_slot *t = ctx;
	Kiln__RunDone m = KILN__RUN_DONE__INIT;
	Kiln__RunResult result;
	Kiln__Usage usage;

	(void)x;
	codec_put_id(&t->id, &m.task);
	codec_put_run_result(r, &result, &usage);
	m.run = run;
	m.result = &result;
	send_frame(t->connection, KILN__FRAME__KIND_RUN_DONE, &m);
}

static void slot_free(struct task_slot *t)
{
	struct connection *c = t->connection;

	(void)map_remove(&c->tasks, t->id.bytes, sizeof(t->id.bytes));
	execution_free(t->execution);
	free(t);
	c->cfg.give_slot(c->cfg.ctx);
}

static void on_done(void *ctx, struct execution *x, const struct execution_end *end)
{
	struct task_slot *t = ctx;
	Kiln__Done m;

	(void)x;
	kiln__done__init(&m);
	codec_put_id(&t->id, &m.task);
	m.cancelled = end->cancelled;
	m.error_code = text(end->error_code);
	m.error_message = text(end->error_message);
	m.standby = text(end->standby);
	if (end->error_code)
		log_warn("runner", "could not run a task", LOG_TASK(&t->id),
			 LOG_TRACE(t->traceparent), LOG_STR("code", end->error_code),
			 LOG_STR("reason", end->error_message));
	send_frame(t->connection, KILN__FRAME__KIND_DONE, &m);
	slot_free(t);
}

static const struct execution_ops execution_ops = {
	.writable = on_writable,
	.output = on_output,
	.compiled = on_compiled,
	.run_done = on_run_done,
	.done = on_done,
};

/* ---- the lease ---- */

static void on_lease(uv_timer_t *timer);

static void lease_look_in(struct connection *c, int64_t ms)
{
	c->lease_due_us = clock_monotonic_us() + ms * 1000;
	(void)uv_timer_start(&c->lease, on_lease, (uint64_t)ms, 0);
}

static void lease_watch(struct connection *c)
{
	if (!uv_is_active((uv_handle_t *)&c->lease) && map_count(&c->tasks) > 0)
		lease_look_in(c, c->lease_ms);
}

static void lease_renew(struct connection *c, uint32_t lease_ms)
{
	if (lease_ms > 0)
		c->lease_ms = lease_ms;
	c->renewed_us = clock_monotonic_us();
	/* A timer that is armed looks at renewed_us when it fires; a shorter lease arms it anew. */
	if (lease_ms > 0)
		(void)uv_timer_stop(&c->lease);
	lease_watch(c);
}

static void on_no_hello(uv_timer_t *timer)
{
	connection_end(timer->data, "the peer did not greet in time");
}

static void on_lease(uv_timer_t *timer)
{
	struct connection *c = timer->data;
	int64_t now_us = clock_monotonic_us();
	int64_t left_ms = c->lease_ms - (now_us - c->renewed_us) / 1000;

	if (map_count(&c->tasks) == 0)
		return;
	/* Whoever stood still has heard no renewal, and a scheduler on the same machine may have
	 * stood still as well. What came meanwhile is read after the timers. */
	if (left_ms <= 0 && (now_us - c->lease_due_us) / 1000 > LEASE_LATE_MS) {
		log_warn("runner", "this process stood still",
			 LOG_INT("ms", (now_us - c->lease_due_us) / 1000));
		left_ms = c->lease_ms;
		c->renewed_us = now_us;
	}
	if (left_ms > 0) {
		lease_look_in(c, left_ms);
		return;
	}
	log_warn("runner", "the lease of a scheduler's tasks ran out",
		 LOG_INT("tasks", map_count(&c->tasks)), LOG_INT("lease_ms", c->lease_ms));
	connection_fail_tasks(c, "lease_expired", "the scheduler did not renew its lease");
}

/* ---- frames ---- */

static struct execution *find_task(struct connection *c, const ProtobufCBinaryData *id)
{
	struct task_slot *t = map_get(&c->tasks, id->data, id->len);

	return t ? t->execution : NULL;
}

static int on_hello(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	if (f->hello->protocol != WIRE_PROTOCOL)
		return err_set(e, -EPROTONOSUPPORT,
			       "the scheduler speaks protocol %u, this runner %d",
			       f->hello->protocol, WIRE_PROTOCOL);
	c->credit_bytes = f->hello->credit_bytes;
	c->owner = f->hello->owner;
	c->state = CONN_OPEN;
	(void)uv_timer_stop(&c->lease);
	c->cfg.opened(c->cfg.ctx);
	return 0;
}

static void answer(struct connection *c, Kiln__Frame__KindCase kind,
		   const ProtobufCBinaryData *task)
{
	/* ACCEPTED and BUSY are the same message under two names. */
	Kiln__Accepted accepted = KILN__ACCEPTED__INIT;
	Kiln__Busy busy = KILN__BUSY__INIT;

	accepted.task = busy.task = *task;
	if (kind == KILN__FRAME__KIND_ACCEPTED)
		send_frame(c, kind, &accepted);
	else
		send_frame(c, kind, &busy);
}

static int task_add(struct connection *c, struct intake *in, struct execution **ret_execution,
		    struct err *e)
{
	struct task_slot *t = calloc(1, sizeof(*t));
	int r = t ? 0 : -ENOMEM;

	if (r == 0) {
		t->connection = c;
		t->id = in->id;
		memcpy(t->traceparent, in->traceparent, sizeof(t->traceparent));
		r = map_put(&c->tasks, t->id.bytes, sizeof(t->id.bytes), t);
	}
	if (r < 0) {
		free(t);
		intake_fini(in);
		return err_set(e, r == -EEXIST ? -EBADMSG : r,
			       r == -EEXIST ? "a task was assigned twice" : "out of memory");
	}
	r = execution_new_consume(c->cfg.env, in, c->credit_bytes, &execution_ops, t, &t->execution,
				  e);
	if (r < 0) {
		(void)map_remove(&c->tasks, t->id.bytes, sizeof(t->id.bytes));
		free(t);
		return r;
	}
	*ret_execution = t->execution;
	return 0;
}

static int on_assign(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	const Kiln__Assign *m = f->assign;
	struct intake in = {0};
	struct execution *x = NULL;
	int r;

	if (m->task.len != sizeof(in.id.bytes))
		return err_set(e, -EBADMSG, "a task has no id");
	if (c->state == CONN_DRAINING || !c->cfg.take_slot(c->cfg.ctx)) {
		answer(c, KILN__FRAME__KIND_BUSY, &m->task);
		return 0;
	}
	r = intake_init(&in, m, e);
	if (r < 0)
		intake_fini(&in);
	else
		r = task_add(c, &in, &x, e);
	if (r < 0) {
		c->cfg.give_slot(c->cfg.ctx);
		return r;
	}
	lease_renew(c, m->lease_ms);
	answer(c, KILN__FRAME__KIND_ACCEPTED, &m->task);
	execution_begin(x);
	return 0;
}

static int on_content(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	struct execution *x = find_task(c, &f->content->task);

	return x ? execution_content(x, f->content, e) : 0;
}

static int on_cancel(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	struct execution *x = find_task(c, &f->cancel->task);

	(void)e;
	if (x)
		execution_cancel(x);
	return 0;
}

static int on_credit(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	struct execution *x = find_task(c, &f->credit->task);

	(void)e;
	if (x)
		execution_add_credit(x, f->credit->bytes);
	return 0;
}

static int on_renew(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	(void)e;
	lease_renew(c, f->renew->lease_ms);
	return 0;
}

static int on_drain(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	(void)f;
	(void)e;
	c->state = CONN_DRAINING;
	c->cfg.drain(c->cfg.ctx);
	return 0;
}

/* A run's standard input is complete in its assignment and its end was told to the program. */
static int on_stdin(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	if (!find_task(c, &f->stdin->task))
		return 0;
	return err_set(e, -EBADMSG, "STDIN for a run whose standard input is complete");
}

static int on_signal_frame(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	if (!find_task(c, &f->signal->task))
		return 0;
	return err_set(e, -EBADMSG, "SIGNAL for a run that is not interactive");
}

static const struct {
	Kiln__Frame__KindCase kind;
	const char *name;
	int (*handle)(struct connection *c, const Kiln__Frame *f, struct err *e);
	bool allowed[_CONN_STATE_MAX];
} kinds[] = {
	{KILN__FRAME__KIND_HELLO, "HELLO", on_hello, {[CONN_GREETING] = true}},
	{KILN__FRAME__KIND_ASSIGN,
	 "ASSIGN",
	 on_assign,
	 {[CONN_OPEN] = true, [CONN_DRAINING] = true}},
	{KILN__FRAME__KIND_CONTENT,
	 "CONTENT",
	 on_content,
	 {[CONN_OPEN] = true, [CONN_DRAINING] = true}},
	{KILN__FRAME__KIND_STDIN, "STDIN", on_stdin, {[CONN_OPEN] = true, [CONN_DRAINING] = true}},
	{KILN__FRAME__KIND_SIGNAL,
	 "SIGNAL",
	 on_signal_frame,
	 {[CONN_OPEN] = true, [CONN_DRAINING] = true}},
	{KILN__FRAME__KIND_CANCEL,
	 "CANCEL",
	 on_cancel,
	 {[CONN_OPEN] = true, [CONN_DRAINING] = true}},
	{KILN__FRAME__KIND_RENEW, "RENEW", on_renew, {[CONN_OPEN] = true, [CONN_DRAINING] = true}},
	{KILN__FRAME__KIND_CREDIT,
	 "CREDIT",
	 on_credit,
	 {[CONN_OPEN] = true, [CONN_DRAINING] = true}},
	{KILN__FRAME__KIND_DRAIN, "DRAIN", on_drain, {[CONN_OPEN] = true, [CONN_DRAINING] = true}},
};

static int dispatch(struct connection *c, const Kiln__Frame *f, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (kinds[i].kind != f->kind_case)
			continue;
		if (!kinds[i].allowed[c->state])
			return err_set(e, -EBADMSG, "%s is not allowed now", kinds[i].name);
		return kinds[i].handle(c, f, e);
	}
	return err_set(e, -EBADMSG, "frame %d is not a scheduler's", (int)f->kind_case);
}

static void on_frame(void *ctx, const Kiln__Frame *frame)
{
	struct connection *c = ctx;
	struct err e;

	c->heard_us = clock_monotonic_us();
	if (!over(c) && dispatch(c, frame, &e) < 0)
		connection_end(c, e.msg);
}

static void on_closed(void *ctx, int code, const char *message)
{
	struct connection *c = ctx;

	(void)code;
	connection_end(c, message);
}

static void on_drained(void *ctx)
{
	struct connection *c = ctx;
	struct task_slot *t;
	size_t cursor;

	/* Resuming reads nothing by itself: the map does not change here. */
	MAP_FOREACH (t, cursor, &c->tasks)
		execution_resume(t->execution);
}

static const struct wire_conn_ops wire_ops = {
	.frame = on_frame,
	.closed = on_closed,
	.drained = on_drained,
};

/* ---- life cycle ---- */

static void kill_tasks(struct connection *c)
{
	struct task_slot *t;
	size_t cursor;

	while ((cursor = 0, t = map_next(&c->tasks, &cursor)))
		slot_free(t);
}

static void tell_orphans(const struct connection *c)
{
	const struct task_slot *t;
	size_t cursor = 0;

	MAP_FOREACH (t, cursor, &c->tasks)
		c->cfg.orphaned(c->cfg.ctx, &t->id, c->owner);
}

static void on_over(struct deferred *d)
{
	struct connection *c = container_of(d, struct connection, over);

	if (c->owner)
		tell_orphans(c);
	kill_tasks(c);
	c->cfg.ended(c->cfg.ctx, c, c->message);
}

static void send_hello(struct connection *c)
{
	struct language_registry *languages = c->cfg.env->languages;
	size_t n = language_count(languages);
	Kiln__LanguageStatus status[LANGUAGES_MAX];
	Kiln__LanguageStatus *statuses[LANGUAGES_MAX];
	Kiln__Isolation isolation;
	Kiln__Hello m;

	for (size_t i = 0; i < n; i++) {
		const struct language *l = language_at(languages, i);

		kiln__language_status__init(&status[i]);
		status[i].name = l->name;
		status[i].version = text(l->version);
		status[i].installed = l->installed;
		statuses[i] = &status[i];
	}
	codec_put_isolation(c->cfg.isolation, &isolation);
	kiln__hello__init(&m);
	m.protocol = WIRE_PROTOCOL;
	m.version = text(KILN_VERSION);
	m.name = text(c->cfg.name);
	m.slots = c->cfg.slots;
	m.languages = statuses;
	m.n_languages = n;
	m.isolation = &isolation;
	send_frame(c, KILN__FRAME__KIND_HELLO, &m);
}

int connection_open_consume(uv_loop_t *loop, int fd, const struct connection_config *cfg,
			    struct connection **ret_connection, struct err *e)
{
	struct connection *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		(void)close(fd);
		return err_set(e, -ENOMEM, "out of memory");
	}
	c->cfg = *cfg;
	c->lease_ms = cfg->lease_ms;
	c->over.call = on_over;
	list_init(&c->over.link);
	r = wire_conn_open_consume(loop, fd, cfg->psk, &wire_ops, c, &c->wire, e);
	if (r < 0) {
		free(c);
		return r;
	}
	map_init(&c->tasks);
	(void)uv_timer_init(loop, &c->lease);
	c->lease.data = c;
	if (cfg->hello_ms)
		(void)uv_timer_start(&c->lease, on_no_hello, (uint64_t)cfg->hello_ms, 0);
	send_hello(c);
	*ret_connection = c;
	return 0;
}

static void on_freed(uv_handle_t *h)
{
	struct connection *c = h->data;

	map_fini(&c->tasks);
	free(c);
}

void connection_free(struct connection *c)
{
	if (!c)
		return;
	c->state = CONN_ENDED;
	kill_tasks(c);
	defer_cancel(&c->over);
	wire_conn_close(c->wire);
	uv_close((uv_handle_t *)&c->lease, on_freed);
}

struct told_standbys {
	Kiln__Standbys all[SANDBOX_BOXES_MAX], *each[SANDBOX_BOXES_MAX];
};

static void put_standbys(Kiln__Heartbeat *m, const struct standby_report *r,
			 struct told_standbys *told)
{
	for (size_t i = 0; i < r->n; i++) {
		Kiln__Standbys *to = told->each[i] = &told->all[i];

		kiln__standbys__init(to);
		to->language = r->sums[i].language->name;
		to->compiles = r->sums[i].compiles;
		to->ready = r->sums[i].n;
		to->memory_bytes = r->sums[i].memory_bytes;
		to->measured = r->sums[i].measured;
	}
	m->waiting = told->each;
	m->n_waiting = r->n;
	m->standby_used_bytes = r->used_bytes;
	m->standby_budget_bytes = r->budget_bytes;
}

void connection_heartbeat(struct connection *c, const struct connection_counters *n)
{
	Kiln__Heartbeat m = KILN__HEARTBEAT__INIT;
	struct told_standbys told;

	m.slots = n->slots;
	m.busy = n->busy;
	m.standbys = n->standbys;
	m.tasks = n->tasks;
	m.cache_bytes = n->cache_bytes;
	m.cache_hits = n->cache_hits;
	m.cache_misses = n->cache_misses;
	if (n->waiting)
		put_standbys(&m, n->waiting, &told);
	if (c->state != CONN_GREETING)
		send_frame(c, KILN__FRAME__KIND_HEARTBEAT, &m);
}

bool connection_tell_orphaned(struct connection *c, const struct uuid *task, uint64_t owner)
{
	Kiln__Orphaned m = KILN__ORPHANED__INIT;

	if (!c->owner || over(c))
		return false;
	codec_put_id(task, &m.task);
	m.owner = owner;
	send_frame(c, KILN__FRAME__KIND_ORPHANED, &m);
	return true;
}

void connection_end_silent(struct connection *c)
{
	int64_t silent_ms = c->lease_ms * SILENT_LEASES;

	if (silent_ms < SILENT_MIN_MS)
		silent_ms = SILENT_MIN_MS;
	if (clock_monotonic_us() - c->heard_us > silent_ms * 1000)
		connection_end(c, "the scheduler was silent for too long");
}

void connection_fail_tasks(struct connection *c, const char *code, const char *message)
{
	struct uuid ids[FAIL_BATCH];
	struct task_slot *t;
	size_t cursor, n;

	/* The end of one may end others, and changes the map: they are looked for one by one. A
	 * task that is told twice minds only the first time. */
	do {
		n = 0;
		MAP_FOREACH (t, cursor, &c->tasks) {
			if (n < ARRAY_SIZE(ids) && !execution_failing(t->execution))
				ids[n++] = t->id;
		}
		for (size_t i = 0; i < n; i++) {
			t = map_get(&c->tasks, ids[i].bytes, sizeof(ids[i].bytes));
			if (t)
				execution_fail(t->execution, code, message);
		}
	} while (n == ARRAY_SIZE(ids));
}

bool connection_flushed(const struct connection *c)
{
	return over(c) || wire_conn_queued(c->wire) == 0;
}
