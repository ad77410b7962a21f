/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "observe/metrics.h"
#include "wire/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MIN_MS = 100, RETRY_MAX_MS = 5000 };

static void fetch(struct job *j);

/* The index of a language in the registry; -1 where this scheduler does not know it. */
static struct job *job_new(struct scheduler *s, struct queue_delivery *d, size_t language)
{
	struct job *j = calloc(1, sizeof *j);

	if (!j)
		return NULL;
	j->scheduler = s;
	j->delivery = d;
	j->id = d->message.id;
	j->class = d->message.class;
	j->language = language;
	j->taken_us = clock_monotonic_us();
	list_init(&j->runner_link);
	list_init(&j->retry_link);
	list_init(&j->claim_link);
	list_init(&j->cache_get.deferred.link);
	backoff_init(&j->backoff, RETRY_MIN_MS, RETRY_MAX_MS);
	if (lanes_enter(s->lanes, d->message.tenant, language, j->class, &j->lane) < 0) {
		free(j);
		return NULL;
	}
	if (map_put(&s->jobs, &j->id, sizeof j->id, j) < 0) {
		lanes_leave(s->lanes, &j->lane);
		free(j);
		return NULL;
	}
	return j;
}

/* Forgets what belongs to one try; the job itself stays. */
static void clear_try(struct job *j)
{
	if (j->outputs)
		for (size_t i = 0; i < j->spec->n_runs * _TASK_STREAM_MAX; i++)
			buf_fini(&j->outputs[i]);
	free(j->outputs);
	j->outputs = NULL;
	task_result_free(j->result);
	j->result = NULL;
	task_spec_free(j->spec);
	j->spec = NULL;
	spans_drop(j);
	list_unlink(&j->claim_link);
	j->claim = CLAIM_NONE;
	j->settle = SETTLE_NONE;
	j->cancel_sent = false;
	j->again = false;
	j->credit_used = 0;
	j->next_sequence = 0;
	j->attempt = 0;
	j->started_us = 0;
	j->accepted_us = 0;
	j->error_code[0] = j->error_message[0] = '\0';
}

void job_free(struct job *j)
{
	struct scheduler *s = j->scheduler;

	runner_release_slot(j);
	clear_try(j);
	lanes_leave(s->lanes, &j->lane);
	(void)map_remove(&s->jobs, &j->id, sizeof j->id);
	list_unlink(&j->retry_link);
	free(j);
	scheduler_dispatch_soon(s);
	scheduler_check_closed(s);
}

struct job *job_find(struct scheduler *s, const ProtobufCBinaryData *id)
{
	return id->len == sizeof(struct uuid) ? map_get(&s->jobs, id->data, id->len) : NULL;
}

static void wait_in_lane(struct job *j, bool front)
{
	struct scheduler *s = j->scheduler;

	j->state = JOB_WAITING;
	if (front)
		lanes_push_front(s->lanes, &j->lane);
	else
		lanes_push(s->lanes, &j->lane);
	scheduler_dispatch_soon(s);
}

void job_delivered(struct scheduler *s, struct queue_delivery *d)
{
	struct job *j = map_get(&s->jobs, &d->message.id, sizeof d->message.id);
	ssize_t language;

	if (j) {
		/* Twice, which at-least-once allows. The copy stands in for one that was lost with
		 * its queue; otherwise its word is kept, and one message is enough. */
		if (j->delivery)
			queue_ack(s->cfg.queue, d);
		else
			j->delivery = d;
		j->again = true;
		return;
	}
	language = scheduler_language_index(s, d->message.language);
	j = language < 0 ? NULL : job_new(s, d, (size_t)language);
	if (!j) {
		log_error("scheduler", "could not take a task", LOG_TASK(&d->message.id),
			  LOG_STR("language", d->message.language));
		queue_hand_back(s->cfg.queue, d);
		return;
	}
	wait_in_lane(j, false);
}

void job_start_over(struct job *j)
{
	runner_release_slot(j);
	clear_try(j);
	if (!j->delivery || j->scheduler->closing) {
		if (j->delivery)
			queue_hand_back(j->scheduler->cfg.queue, j->delivery);
		job_free(j);
		return;
	}
	wait_in_lane(j, true);
}

/* ---- fetching the program ---- */

void job_drop(struct job *j)
{
	if (j->again) {
		job_start_over(j);
		return;
	}
	if (j->delivery)
		queue_ack(j->scheduler->cfg.queue, j->delivery);
	j->delivery = NULL;
	job_free(j);
}

static int make_result(struct job *j)
{
	size_t n = j->spec->n_runs;
	struct task_result *r = calloc(1, sizeof *r);

	if (!r)
		return -ENOMEM;
	j->result = r;
	r->runs = calloc(n + 1, sizeof *r->runs);
	j->outputs = calloc(n * _TASK_STREAM_MAX + 1, sizeof *j->outputs);
	if (!r->runs || !j->outputs)
		return -ENOMEM;
	r->n_runs = n;
	for (size_t i = 0; i < n; i++) {
		r->runs[i].usage.memory_bytes = -1;
		for (int k = 0; k < _TASK_STREAM_MAX; k++)
			buf_init(&j->outputs[i * _TASK_STREAM_MAX + (size_t)k],
				 (size_t)j->spec->runs[i].limits.output_bytes);
	}
	return 0;
}

/* The program is here: off to the runner, and to the store at the same time. */
static void assign(struct job *j)
{
	int r = make_result(j);

	spans_begin(j);
	j->assigned_us = clock_monotonic_us();
	j->started_us = store_now_us(j->scheduler->cfg.store);
	if (r == 0 && j->runner) {
		struct runner *preferred = runner_choose(j->scheduler, j->language, j->spec);

		if (preferred && preferred != j->runner) {
			runner_release_slot(j);
			job_start(j, preferred);
			/* job_start only takes the slot: the program is here already. */
		}
	}
	if (r == 0)
		r = j->runner ? assign_send(j) : -EPIPE;
	if (r < 0) {
		log_warn("scheduler", "could not assign a task", LOG_TASK(&j->id),
			 LOG_TRACE(j->spec->traceparent), LOG_STR("reason", err_text(r)));
		scheduler_retry(j, job_start_over);
		return;
	}
	j->state = JOB_ASSIGNED;
	metric_add(METRIC_TASK_ATTEMPTS, 1, j->spec->program.language);
	job_claim_soon(j);
}

static void on_stored_spec(struct store_req *req, int code)
{
	struct job *j = req->ctx;
	struct task *t = j->store_get.task;

	j->fetching = false;
	if (code < 0 && code != -ENOENT) {
		scheduler_retry(j, job_start_over);
		return;
	}
	/* Removed, or decided, while it waited in the queue. */
	if (code < 0 || t->state != TASK_QUEUED) {
		if (code == 0)
			task_free(t);
		job_drop(j);
		return;
	}
	j->spec = calloc(1, sizeof *j->spec);
	if (!j->spec) {
		task_free(t);
		scheduler_retry(j, job_start_over);
		return;
	}
	*j->spec = t->spec;
	t->spec = (struct task_spec){0};
	task_free(t);
	assign(j);
}

static void on_cached_spec(struct cache_get *r, int code, const void *bytes, size_t len)
{
	struct job *j = r->ctx;

	if (code == 0 && codec_unpack_spec(bytes, len, &j->spec, NULL) == 0) {
		j->fetching = false;
		assign(j);
		return;
	}
	j->store_get = (struct store_get){
		.req = {.done = on_stored_spec, .ctx = j},
		.id = j->id,
		.parts = STORE_CONTENTS,
	};
	store_get(j->scheduler->cfg.store, &j->store_get);
}

static void fetch(struct job *j)
{
	j->state = JOB_FETCHING;
	j->fetching = true;
	j->cache_get.kind = CACHE_SPEC;
	j->cache_get.id = j->id;
	j->cache_get.done = on_cached_spec;
	j->cache_get.ctx = j;
	cache_get(j->scheduler->cfg.cache, &j->cache_get);
}

void job_start(struct job *j, struct runner *r)
{
	j->runner = r;
	r->busy++;
	choice_update(j->scheduler->choice, r);
	lanes_started(&j->lane);
	list_push_back(&r->jobs, &j->runner_link);
	if (!j->spec)
		fetch(j);
}

/* ---- from outside ---- */

void job_cancel(struct job *j)
{
	Kiln__Frame frame = KILN__FRAME__INIT;
	Kiln__Cancel m = KILN__CANCEL__INIT;

	if (j->cancel_sent || !j->runner || (j->state != JOB_ASSIGNED && j->state != JOB_RUNNING))
		return;
	codec_put_id(&j->id, &m.task);
	frame.kind_case = KILN__FRAME__KIND_CANCEL;
	frame.cancel = &m;
	j->cancel_sent = true;
	(void)wire_conn_send(j->runner->conn, &frame);
}

void job_runner_lost(struct job *j, const char *message)
{
	/* What takes no more tasks has not taken this one, which crossed that word on its way. */
	bool not_taken = j->runner->draining && j->state == JOB_ASSIGNED;

	runner_release_slot(j);
	/* While fetching, nothing was sent or claimed: it goes on, finds no runner, starts over. */
	if (j->state != JOB_ASSIGNED && j->state != JOB_RUNNING)
		return;
	if (not_taken) {
		job_settle(j, SETTLE_HAND_BACK);
		return;
	}
	(void)snprintf(j->error_code, sizeof j->error_code, "runner_lost");
	(void)snprintf(j->error_message, sizeof j->error_message, "%s", message);
	job_settle(j, SETTLE_RETRY);
}

void job_queue_lost(struct job *j)
{
	j->delivery = NULL;
	if (j->state != JOB_WAITING || !list_empty(&j->retry_link))
		return;
	lanes_remove(j->scheduler->lanes, &j->lane);
	job_free(j);
}

/* Requests in flight hold on to the job's memory. */
static bool has_requests(const struct job *j)
{
	return j->fetching || j->settling || j->claim == CLAIM_PENDING;
}

/* It outlasts the scheduler. Nothing was wrong with it, so its attempt is given back: schedulers
 * that are rolled must not use up the tries of a long task. The runner stops it now, and again when
 * its connection ends. */
static void hand_back(struct job *j)
{
	job_cancel(j);
	runner_release_slot(j);
	job_settle(j, SETTLE_HAND_BACK);
}

void job_abandon(struct job *j)
{
	if (j->state == JOB_ASSIGNED || j->state == JOB_RUNNING) {
		hand_back(j);
		return;
	}
	if (has_requests(j))
		return; /* scheduler_close asks again every second */
	if (j->state == JOB_WAITING && list_empty(&j->retry_link))
		lanes_remove(j->scheduler->lanes, &j->lane);
	if (j->delivery)
		queue_hand_back(j->scheduler->cfg.queue, j->delivery);
	j->delivery = NULL;
	job_free(j);
}
