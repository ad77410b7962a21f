/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"
#include "wire/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS_MAX = 1024 };

struct runner *runner_choose(struct scheduler *s, size_t language, const struct task_spec *spec)
{
	bool compiled = language_at(s->cfg.languages, language)->compile.argv != NULL;

	return choice_find(s->choice, language, compiled ? spec : NULL);
}

void runner_release_slot(struct job *j)
{
	if (!j->runner)
		return;
	j->runner->busy--;
	choice_update(j->scheduler->choice, j->runner);
	j->runner = NULL;
	list_unlink(&j->runner_link);
	lanes_ended(&j->lane);
	scheduler_dispatch_soon(j->scheduler);
}

void runner_free(struct runner *r)
{
	wire_conn_close(r->conn);
	choice_remove(r->scheduler->choice, r);
	list_unlink(&r->link);
	free(r->isolation.level);
	free(r->isolation.limits);
	free(r->isolation.standby);
	free(r->languages);
	free(r->standbys);
	free(r);
}

/* The end of a connection, by whichever side: its tasks go back, its pod is looked after. */
static void lose(struct runner *r, const char *reason)
{
	struct scheduler *s = r->scheduler;
	scheduler_lost_cb lost = r->lost;
	void *lost_ctx = r->lost_ctx;
	struct job *j, *tmp;
	char pod[sizeof r->pod];

	(void)str_copy(pod, sizeof pod, r->pod);
	/* One that never was there is the pod manager's to tell of. */
	if (!s->closing && r->greeted && !(r->draining && !r->busy))
		log_warn("scheduler", "runner is lost", LOG_STR("pod", pod),
			 LOG_STR("reason", reason), LOG_INT("tasks", r->busy));
	r->greeted = false;
	choice_update(s->choice, r);
	LIST_FOREACH_SAFE (j, tmp, &r->jobs, runner_link)
		job_runner_lost(j, reason);
	runner_free(r);
	scheduler_runners_changed(s);
	if (lost)
		lost(lost_ctx, pod, reason);
}

static void on_closed(void *ctx, int code, const char *message)
{
	(void)code;
	lose(ctx, message);
}

/* ---- frames ---- */

static int take_languages(struct runner *r, const Kiln__Hello *m)
{
	struct language_registry *registry = r->scheduler->cfg.languages;
	size_t n = language_count(registry);

	r->languages = calloc(n + 1, sizeof *r->languages);
	if (!r->languages)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_languages; i++) {
		const Kiln__LanguageStatus *status = m->languages[i];

		for (size_t k = 0; k < n; k++) {
			struct language *l = language_at(registry, k);

			if (!str_eq(l->name, status->name))
				continue;
			r->languages[k] = status->installed;
			if (status->installed || !l->installed)
				(void)language_set_status(l, status->installed, status->version);
		}
	}
	return 0;
}

static void observe_isolation(const struct task_isolation *i)
{
	char abi[16];

	(void)snprintf(abi, sizeof abi, "%d", i->landlock);
	metric_set(METRIC_ISOLATION_INFO, 1, i->level ? i->level : "", i->limits ? i->limits : "",
		   i->seccomp ? "true" : "false", abi);
}

static int on_hello(struct runner *r, const Kiln__Hello *m)
{
	int code;

	if (r->greeted)
		return -EBADMSG;
	if (m->protocol != WIRE_PROTOCOL) {
		log_error("scheduler", "runner speaks another protocol version",
			  LOG_STR("pod", r->pod), LOG_INT("theirs", m->protocol),
			  LOG_INT("ours", WIRE_PROTOCOL));
		return -EPROTONOSUPPORT;
	}
	if (!m->slots || m->slots > SLOTS_MAX)
		return -EBADMSG;
	code = take_languages(r, m);
	if (code < 0)
		return code;
	code = codec_get_isolation(m->isolation, &r->isolation);
	if (code < 0)
		return code;
	r->slots = m->slots;
	r->greeted = true;
	code = choice_add(r->scheduler->choice, r);
	if (code < 0)
		return code;
	observe_isolation(&r->isolation);
	log_info("scheduler", "runner is connected", LOG_STR("pod", r->pod),
		 LOG_INT("slots", r->slots), LOG_STR("limits", r->isolation.limits));
	report_languages(r->scheduler);
	scheduler_runners_changed(r->scheduler);
	scheduler_dispatch_soon(r->scheduler);
	return 0;
}

/* A runner without slots ends as soon as its tasks are through. */
static int on_heartbeat(struct runner *r, const Kiln__Heartbeat *m)
{
	if (!m->slots && !r->draining)
		log_info("scheduler", "runner takes no more tasks", LOG_STR("pod", r->pod));
	if (r->draining != (r->retired || !m->slots)) {
		r->draining = !r->draining;
		choice_update(r->scheduler->choice, r);
		scheduler_runners_changed(r->scheduler);
	}
	r->full = r->full && m->busy >= r->slots;
	r->others = m->busy > r->busy ? m->busy - r->busy : 0;
	choice_update(r->scheduler->choice, r);
	metric_set(METRIC_COMPILE_CACHE_BYTES, (double)m->cache_bytes);
	demand_heard(r, m->slots, m->busy, m->tasks);
	scheduler_dispatch_soon(r->scheduler);
	return standbys_heard(r, m);
}

/* A frame about a task that is not (any more) this runner's is no fault of the runner: a cancel may
 * have crossed it. */
static struct job *own_job(struct runner *r, const ProtobufCBinaryData *id)
{
	struct job *j = job_find(r->scheduler, id);

	return j && j->runner == r ? j : NULL;
}

static int dispatch_frame(struct runner *r, const Kiln__Frame *f)
{
	struct job *j;

	switch (f->kind_case) {
	case KILN__FRAME__KIND_HELLO:
		return on_hello(r, f->hello);
	case KILN__FRAME__KIND_HEARTBEAT:
		return on_heartbeat(r, f->heartbeat);
	case KILN__FRAME__KIND_ORPHANED:
		return orphan_take(r->scheduler, f->orphaned);
	case KILN__FRAME__KIND_ACCEPTED:
		j = own_job(r, &f->accepted->task);
		if (j)
			job_accepted(j);
		return 0;
	case KILN__FRAME__KIND_BUSY:
		j = own_job(r, &f->busy->task);
		if (j)
			job_busy(j);
		return 0;
	case KILN__FRAME__KIND_OUTPUT:
		j = own_job(r, &f->output->task);
		return j ? job_output(j, f->output) : 0;
	case KILN__FRAME__KIND_COMPILED:
		j = own_job(r, &f->compiled->task);
		return j ? job_compiled(j, f->compiled) : 0;
	case KILN__FRAME__KIND_RUN_DONE:
		j = own_job(r, &f->run_done->task);
		return j ? job_run_done(j, f->run_done) : 0;
	case KILN__FRAME__KIND_DONE:
		j = own_job(r, &f->done->task);
		return j ? job_done(j, f->done) : 0;
	default:
		return -EBADMSG; /* a kind that only a scheduler sends */
	}
}

static void on_frame(void *ctx, const Kiln__Frame *frame)
{
	struct runner *r = ctx;
	int code;

	r->heard_us = clock_monotonic_us();
	if (!r->greeted && frame->kind_case != KILN__FRAME__KIND_HELLO)
		code = -EBADMSG;
	else
		code = dispatch_frame(r, frame);
	if (code < 0)
		lose(r, code == -ENOMEM ? "out of memory" : "the runner broke the protocol");
}

/* A runner that lives sends a heartbeat every five seconds at least, also while it is idle. */
void runners_drop_silent(struct scheduler *s)
{
	enum { SILENT_MIN_MS = 15000 };
	int64_t silent_ms = s->cfg.lease_ms > SILENT_MIN_MS ? s->cfg.lease_ms : SILENT_MIN_MS;
	int64_t since_us = clock_monotonic_us() - silent_ms * 1000;
	struct runner *r, *tmp;

	LIST_FOREACH_SAFE (r, tmp, &s->runners, link)
		if (r->heard_us < since_us)
			lose(r, "it has been silent for too long");
}

static const struct wire_conn_ops conn_ops = {.frame = on_frame, .closed = on_closed};

static int send_hello(struct runner *r)
{
	Kiln__Frame frame = KILN__FRAME__INIT;
	Kiln__Hello m;
	static char version[] = KILN_VERSION;

	kiln__hello__init(&m);
	m.protocol = WIRE_PROTOCOL;
	m.version = version;
	m.credit_bytes = r->scheduler->cfg.credit_bytes;
	m.owner = r->owner;
	frame.kind_case = KILN__FRAME__KIND_HELLO;
	frame.hello = &m;
	return wire_conn_send(r->conn, &frame);
}

void scheduler_add_runner(struct scheduler *s, const char *pod, int fd, const struct tls_psk *psk,
			  scheduler_lost_cb lost, void *ctx)
{
	struct runner *r = calloc(1, sizeof *r);
	struct err e = {0};

	if (!r) {
		(void)close(fd);
		if (lost)
			lost(ctx, pod, "out of memory");
		return;
	}
	r->scheduler = s;
	r->lost = lost;
	r->lost_ctx = ctx;
	r->heard_us = clock_monotonic_us();
	arc4random_buf(&r->owner, sizeof r->owner);
	r->owner = (r->owner >> 1) | 1; /* stores keep signed 64-bit numbers */
	list_init(&r->jobs);
	list_init(&r->link);
	(void)str_copy(r->pod, sizeof r->pod, pod);
	if (wire_conn_open_consume(s->loop, fd, psk, &conn_ops, r, &r->conn, &e) < 0) {
		lose(r, e.msg);
		return;
	}
	list_push_back(&s->runners, &r->link);
	if (send_hello(r) < 0)
		lose(r, "could not greet the runner");
}

struct runner *runner_find(struct scheduler *s, const char *pod)
{
	struct runner *r;

	LIST_FOREACH (r, &s->runners, link)
		if (str_eq(r->pod, pod))
			return r;
	return NULL;
}

void scheduler_retire_runner(struct scheduler *s, const char *pod)
{
	struct runner *r = runner_find(s, pod);

	if (!r)
		return;
	r->retired = r->draining = true;
	choice_update(s->choice, r);
	scheduler_runners_changed(s);
	runners_drop_retired(s);
}

void runners_drop_retired(struct scheduler *s)
{
	struct runner *r, *tmp;

	LIST_FOREACH_SAFE (r, tmp, &s->runners, link)
		if (r->retired && !r->busy)
			lose(r, "it is not wanted any more");
}
