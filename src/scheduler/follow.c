/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"
#include "wire/codec.h"

#include <errno.h>
#include <string.h>

/* Frames are a runner's word, and a runner is not trusted further than with its own tasks: what is
 * out of order or out of range is an error that ends its connection. */

void job_accepted(struct job *j)
{
	const struct queue_message *m = j->delivery ? &j->delivery->message : NULL;

	if (j->state != JOB_ASSIGNED)
		return;
	j->state = JOB_RUNNING;
	j->accepted_us = clock_monotonic_us();
	metric_observe(METRIC_TASK_DISPATCH_SECONDS, (double)(j->accepted_us - j->taken_us) / 1e6,
		       j->spec->program.language);
	if (m)
		metric_observe(
			METRIC_TASK_QUEUE_WAIT_SECONDS,
			(double)(store_now_us(j->scheduler->cfg.store) - j->spec->created_us) / 1e6,
			m->language, task_class_name(m->class));
}

void job_busy(struct job *j)
{
	if (j->state != JOB_ASSIGNED)
		return;
	j->runner->full = true;
	choice_update(j->scheduler->choice, j->runner);
	runner_release_slot(j);
	job_settle(j, SETTLE_HAND_BACK);
}

/* More credit once half of it is used, so that the runner never waits for a round trip. */
static void grant_credit(struct job *j, size_t n)
{
	Kiln__Frame frame = KILN__FRAME__INIT;
	Kiln__Credit m = KILN__CREDIT__INIT;

	j->credit_used += n;
	if (j->credit_used < j->scheduler->cfg.credit_bytes / 2)
		return;
	codec_put_id(&j->id, &m.task);
	m.bytes = j->credit_used;
	frame.kind_case = KILN__FRAME__KIND_CREDIT;
	frame.credit = &m;
	j->credit_used = 0;
	(void)wire_conn_send(j->runner->conn, &frame);
}

int job_output(struct job *j, const Kiln__Output *m)
{
	struct buf *b;

	if (j->state != JOB_RUNNING || m->run >= j->result->n_runs ||
	    m->stream >= _TASK_STREAM_MAX || m->sequence != j->next_sequence)
		return -EBADMSG;
	j->next_sequence++;
	b = &j->outputs[m->run * _TASK_STREAM_MAX + m->stream];
	if (buf_append(b, m->bytes.data, m->bytes.len) < 0)
		return buf_error(b) == -ENOBUFS ? -EBADMSG : -ENOMEM;
	grant_credit(j, m->bytes.len);
	return 0;
}

int job_compiled(struct job *j, const Kiln__Compiled *m)
{
	if (j->state != JOB_RUNNING || !m->result || j->result->compile.ran)
		return -EBADMSG;
	metric_add(METRIC_COMPILE_CACHE_REQUESTS, 1, m->result->cached ? "hit" : "miss");
	spans_compiled(j);
	return codec_get_compile_result(m->result, &j->result->compile, NULL);
}

static int take_output(struct job *j, size_t run, int stream)
{
	struct buf *b = &j->outputs[run * _TASK_STREAM_MAX + (size_t)stream];
	struct bytes *to = &j->result->runs[run].output[stream];

	if (!b->len)
		return 0;
	to->data = buf_steal(b, &to->len);
	return to->data ? 0 : -ENOMEM;
}

int job_run_done(struct job *j, const Kiln__RunDone *m)
{
	int r;

	if (j->state != JOB_RUNNING || !m->result || m->run >= j->result->n_runs ||
	    j->result->runs[m->run].outcome != TASK_OUTCOME_NONE ||
	    (m->result->outcome == TASK_OUTCOME_NONE && !j->cancel_sent) ||
	    m->result->outcome == TASK_OUTCOME_COMPILE_ERROR)
		return -EBADMSG;
	if (m->result->stdout.len || m->result->stderr.len) /* outputs come as OUTPUT */
		return -EBADMSG;
	spans_run_done(j, m->run);
	r = codec_get_run_result(m->result, &j->result->runs[m->run], NULL);
	for (int k = 0; r == 0 && k < _TASK_STREAM_MAX; k++)
		r = take_output(j, m->run, k);
	j->result->ran = true;
	return r;
}

/* A cancelled task keeps what its run had put out until then. */
static int take_unfinished_outputs(struct job *j)
{
	for (size_t i = 0; i < j->result->n_runs; i++) {
		if (j->result->runs[i].outcome != TASK_OUTCOME_NONE)
			continue;
		for (int k = 0; k < _TASK_STREAM_MAX; k++) {
			int r = take_output(j, i, k);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* The outcome of the task: the compile step's if that failed, else the first run's that is not OK.
 * -EBADMSG when a run is missing. */
static int task_outcome_of(const struct task_result *r, enum task_outcome *ret_outcome)
{
	*ret_outcome = TASK_OUTCOME_OK;
	if (r->compile.ran && (r->compile.exit_code != 0 || r->compile.limit_hit)) {
		*ret_outcome = TASK_OUTCOME_COMPILE_ERROR;
		return 0;
	}
	for (size_t i = 0; i < r->n_runs; i++) {
		if (r->runs[i].outcome == TASK_OUTCOME_NONE)
			return -EBADMSG;
		if (*ret_outcome == TASK_OUTCOME_OK)
			*ret_outcome = r->runs[i].outcome;
	}
	return 0;
}

static int copy_text(const char *text, char **ret)
{
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

/* Which walls stood, and where: the runner's own, with the standby that this task had. */
static int put_place(struct job *j, const char *standby)
{
	const struct task_isolation *from = &j->runner->isolation;
	struct task_isolation *to = &j->result->isolation;

	to->namespaces = from->namespaces;
	to->seccomp = from->seccomp;
	to->landlock = from->landlock;
	if (copy_text(from->level ? from->level : "", &to->level) < 0 ||
	    copy_text(from->limits ? from->limits : "", &to->limits) < 0 ||
	    copy_text(*standby ? standby : "none", &to->standby) < 0)
		return -ENOMEM;
	return copy_text(j->runner->pod, &j->result->pod);
}

int job_done(struct job *j, const Kiln__Done *m)
{
	bool sent = j->state == JOB_ASSIGNED || j->state == JOB_RUNNING;
	int r;

	if (!sent)
		return -EBADMSG;
	j->runner->full = false;
	choice_update(j->scheduler->choice, j->runner);
	if (m->error_code[0]) {
		(void)str_copy(j->error_code, sizeof j->error_code, m->error_code);
		(void)str_copy(j->error_message, sizeof j->error_message, m->error_message);
		log_warn("scheduler", "a runner could not run a task", LOG_TASK(&j->id),
			 LOG_TRACE(j->spec->traceparent), LOG_STR("pod", j->runner->pod),
			 LOG_STR("code", m->error_code), LOG_STR("reason", m->error_message));
		runner_release_slot(j);
		job_settle(j, SETTLE_RETRY);
		return 0;
	}
	r = put_place(j, m->standby);
	if (r == 0)
		r = take_unfinished_outputs(j);
	if (r < 0)
		return r;
	j->final_state = m->cancelled ? TASK_CANCELLED : TASK_DONE;
	if (!m->cancelled) {
		r = task_outcome_of(j->result, &j->result->outcome);
		if (r < 0)
			return r;
	}
	runner_release_slot(j);
	job_settle(j, SETTLE_FINISH);
	return 0;
}
