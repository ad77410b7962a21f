/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "observe/metrics.h"

#include <errno.h>
#include <string.h>

static void settle(struct job *j);

static bool may_come_back(int code)
{
	return code == -ENOSPC || code == -EAGAIN || code == -ENOMEM || code == -EIO;
}

static void tell_finished(struct job *j, enum task_state state)
{
	uint8_t payload = (uint8_t)state;

	cache_drop(j->scheduler->cfg.cache, CACHE_SPEC, &j->id);
	bus_publish(j->scheduler->cfg.bus, BUS_FINISHED, &j->id, &payload, sizeof payload);
}

/* ---- claim ---- */

static void retry_claim(struct job *j)
{
	job_claim(j);
}

static void on_claimed(struct store_req *req, int code)
{
	struct job *j = req->ctx;

	if (may_come_back(code)) {
		j->claim = CLAIM_NONE;
		scheduler_retry(j, retry_claim);
		return;
	}
	if (code < 0) {
		/* Cancelled, expired, removed, or someone else's meanwhile. */
		j->claim = CLAIM_LOST;
		if (code == -ESTALE && j->store_claim.state == TASK_EXPIRED)
			tell_finished(j, TASK_EXPIRED);
		job_cancel(j);
		if (j->settle != SETTLE_NONE)
			settle(j);
		else
			metric_add(METRIC_TASK_DUPLICATES_DROPPED, 1);
		return;
	}
	j->claim = CLAIM_WON;
	j->attempt = j->store_claim.attempt;
	if (j->settle != SETTLE_NONE)
		settle(j);
}

void job_claim(struct job *j)
{
	const struct scheduler *s = j->scheduler;
	int64_t now_us = store_now_us(s->cfg.store);

	list_unlink(&j->claim_link);
	j->claim = CLAIM_PENDING;
	j->store_claim = (struct store_claim){
		.req = {.done = on_claimed, .ctx = j},
		.id = j->id,
		.owner = j->owner,
		.now_us = now_us,
		.lease_until_us = now_us + s->cfg.lease_ms * 1000,
	};
	store_claim(s->cfg.store, &j->store_claim);
}

static void on_claim_timer(uv_timer_t *timer)
{
	struct scheduler *s = timer->data;
	int64_t now_us = clock_monotonic_us();
	struct job *j;

	while ((j = LIST_FIRST(&s->claims, struct job, claim_link)) && j->claim_at_us <= now_us)
		job_claim(j);
	if (j)
		(void)uv_timer_start(timer, on_claim_timer,
				     (uint64_t)(j->claim_at_us - now_us) / 1000 + 1, 0);
}

void job_claim_soon(struct job *j)
{
	struct scheduler *s = j->scheduler;

	j->claim = CLAIM_DUE;
	j->owner = j->runner->owner;
	j->claim_at_us = clock_monotonic_us() + CLAIM_DELAY_MS * INT64_C(1000);
	list_push_back(&s->claims, &j->claim_link);
	if (!uv_is_active((uv_handle_t *)&s->claim_timer))
		(void)uv_timer_start(&s->claim_timer, on_claim_timer, CLAIM_DELAY_MS, 0);
}

/* ---- finish ---- */

static void observe_finish(const struct job *j)
{
	const char *language = j->spec->program.language;
	const char *outcome = task_outcome_name(j->result->outcome);
	double total = (double)(j->finished_us - j->spec->created_us) / 1e6;

	if (!outcome)
		outcome = task_state_name(j->final_state);
	metric_add(METRIC_TASKS_FINISHED, 1, language, outcome);
	metric_observe(METRIC_TASK_RESULT_COMMIT_SECONDS,
		       (double)(clock_monotonic_us() - j->finishing_us) / 1e6);
	metric_observe(METRIC_TASK_TOTAL_SECONDS, total > 0 ? total : 0, language);
	if (j->accepted_us)
		metric_observe(METRIC_TASK_RUN_SECONDS,
			       (double)(clock_monotonic_us() - j->accepted_us) / 1e6, language);
}

/* Readers after this find the task without a read of the store. */
static void put_into_cache(struct job *j)
{
	struct task t = {
		.spec = *j->spec,
		.state = j->final_state,
		.attempt = j->attempt,
		.started_us = j->started_us,
		.finished_us = j->finished_us,
		.result = j->result,
	};

	cache_put_task(j->scheduler->cfg.cache, &t);
}

static void on_finished(struct store_req *req, int code)
{
	struct job *j = req->ctx;

	j->settling = false;
	if (may_come_back(code)) {
		scheduler_retry(j, settle);
		return;
	}
	if (code < 0) {
		metric_add(METRIC_TASK_DUPLICATES_DROPPED, 1);
		/* Without a claim before, it was cancelled or expired at the last moment. */
		if (!j->store_finish.claim_owner)
			log_warn("scheduler", "a result came too late and was dropped",
				 LOG_TASK(&j->id), LOG_TRACE(j->spec->traceparent),
				 LOG_INT("attempt", j->attempt));
		else if (code == -ESTALE && j->store_finish.found == TASK_EXPIRED)
			tell_finished(j, TASK_EXPIRED);
		job_drop(j);
		return;
	}
	j->attempt = j->store_finish.attempt;
	put_into_cache(j);
	tell_finished(j, j->final_state);
	observe_finish(j);
	spans_end(j, NULL);
	log_debug("scheduler", "task is finished", LOG_TASK(&j->id),
		  LOG_TRACE(j->spec->traceparent),
		  LOG_STR("state", task_state_name(j->final_state)));
	j->again = false; /* a copy of the message says nothing any more */
	job_drop(j);
}

static void finish(struct job *j)
{
	list_unlink(&j->claim_link);
	j->settling = true;
	j->finishing_us = clock_monotonic_us();
	if (!j->finished_us)
		j->finished_us = store_now_us(j->scheduler->cfg.store);
	j->store_finish = (struct store_finish){
		.req = {.done = on_finished, .ctx = j},
		.id = j->id,
		.claim_owner = j->claim == CLAIM_DUE ? j->owner : 0,
		.attempt = j->attempt,
		.state = j->final_state,
		.started_us = j->started_us,
		.finished_us = j->finished_us,
		.result = j->result,
	};
	store_finish(j->scheduler->cfg.store, &j->store_finish);
}

/* ---- release ---- */

static void on_released(struct store_req *req, int code)
{
	struct job *j = req->ctx;

	j->settling = false;
	if (may_come_back(code)) {
		scheduler_retry(j, settle);
		return;
	}
	if (code == 0)
		spans_end(j, j->error_code[0] ? j->error_code : "handed back");
	if (code == 0 && j->store_release.state == TASK_QUEUED) {
		/* Its message is here still, so that none is needed. */
		if (j->delivery)
			publisher_forget(j->scheduler->cfg.publisher, &j->id);
		j->taken_us = clock_monotonic_us(); /* the next attempt's */
		job_start_over(j);
		return;
	}
	if (code == 0) {
		metric_add(METRIC_TASKS_FINISHED, 1, j->spec->program.language,
			   task_state_name(j->store_release.state));
		tell_finished(j, j->store_release.state);
		j->again = false;
	}
	job_drop(j);
}

static void release(struct job *j)
{
	j->settling = true;
	j->store_release = (struct store_release){
		.req = {.done = on_released, .ctx = j},
		.id = j->id,
		.attempt = j->attempt,
		.counts = j->settle == SETTLE_RETRY,
		.now_us = store_now_us(j->scheduler->cfg.store),
		.error_code = j->error_code,
		.error_message = j->error_message,
	};
	store_release(j->scheduler->cfg.store, &j->store_release);
}

/* ---- both ---- */

static void settle(struct job *j)
{
	if (j->claim == CLAIM_PENDING || j->settling || !list_empty(&j->retry_link))
		return; /* comes back here when that is through */
	if (j->claim == CLAIM_LOST) {
		job_drop(j);
		return;
	}
	if (j->settle == SETTLE_FINISH && (j->claim == CLAIM_WON || j->claim == CLAIM_DUE))
		finish(j);
	else if (j->settle == SETTLE_HAND_BACK && j->claim == CLAIM_DUE)
		job_start_over(j);
	else if (j->claim == CLAIM_WON)
		release(j);
	else
		job_claim(j);
}

void job_settle(struct job *j, enum settle how)
{
	j->state = JOB_SETTLING;
	j->settle = how;
	settle(j);
}
