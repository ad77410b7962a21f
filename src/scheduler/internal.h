/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of the scheduler share: the scheduler itself, a runner (one connection), and a job
 * (one task from delivery to acknowledgement). Private to this folder.
 *
 *	WAITING --> FETCHING --> ASSIGNED --> RUNNING --> SETTLING --> (gone)
 *	   ^------------------------------------------------'  put back
 *
 * A job beyond FETCHING holds a slot of its runner until the runner says that it is through with
 * the task, or is gone.
 */

#include "base/map.h"
#include "loop/backoff.h"
#include "outbox/reconciler.h"
#include "scheduler/choice.h"
#include "scheduler/lanes.h"
#include "scheduler/scheduler.h"
#include "store/access.h"
#include "wire/conn.h"

enum job_state {
	JOB_WAITING,
	JOB_FETCHING,
	JOB_ASSIGNED,
	JOB_RUNNING,
	JOB_SETTLING,
	_JOB_STATE_MAX
};

/* A claim is DUE for a moment first: a task that is through by then is claimed and finished in one
 * write. */
enum claim_state { CLAIM_NONE, CLAIM_DUE, CLAIM_PENDING, CLAIM_WON, CLAIM_LOST };

enum {
	CLAIM_DELAY_MS = 5,
	LEASE_RENEWALS = 3, /* tries per lease */
};

/* What is to become of a job once it is known whether its claim was won. */
enum settle {
	SETTLE_NONE,
	SETTLE_FINISH,	  /* write final_state and the result */
	SETTLE_RETRY,	  /* back to queued, the attempt is used up */
	SETTLE_HAND_BACK, /* back to queued, the attempt does not count */
};

struct runner;
struct job_spans;

struct job {
	struct lane_item lane;
	struct list runner_link; /* in runner->jobs from FETCHING on */
	struct list retry_link;
	struct list claim_link; /* in scheduler->claims while DUE */
	int64_t claim_at_us;	/* monotonic */
	struct scheduler *scheduler;
	struct queue_delivery *delivery; /* NULL once acknowledged, or lost with the queue */
	struct uuid id;
	size_t language; /* index in the registry */
	enum task_class class;
	enum job_state state;
	enum claim_state claim;
	uint64_t owner; /* of the claim: the runner's, who may be gone meanwhile */
	enum settle settle;
	struct runner *runner; /* NULL while waiting, and when it is gone */
	bool cancel_sent;
	/* Its row was put back to queued meanwhile, or a copy of its message came, which says that
	 * this may be so: where the attempt comes to nothing, the task starts over. */
	bool again;

	struct task_spec *spec;
	struct task_result *result;
	struct buf *outputs;	 /* [n_runs * _TASK_STREAM_MAX], what OUTPUT frames brought */
	struct job_spans *spans; /* NULL where it is not traced */
	uint64_t credit_used;
	uint64_t next_sequence;
	int attempt;
	enum task_state final_state;
	char error_code[64];
	char error_message[256];

	int64_t taken_us;     /* monotonic: delivered to this scheduler */
	int64_t assigned_us;  /* monotonic */
	int64_t accepted_us;  /* monotonic */
	int64_t finishing_us; /* monotonic: the result went to the store */
	int64_t started_us;   /* wall */
	int64_t finished_us;  /* wall */

	/* Requests in flight. */
	struct cache_get cache_get;
	struct store_get store_get;
	struct store_claim store_claim;
	struct store_finish store_finish;
	struct store_release store_release;
	bool fetching; /* cache_get or store_get has not come back */
	bool settling; /* store_finish or store_release has not come back */
	struct backoff backoff;
	int64_t retry_at_us; /* monotonic */
	void (*retry)(struct job *j);
};

struct runner {
	struct list link;
	struct scheduler *scheduler;
	char pod[64];
	struct wire_conn *conn;
	struct task_isolation isolation;
	uint64_t owner;	  /* in the leases of what runs there; random, not 0 */
	bool greeted;	  /* HELLO came */
	int64_t heard_us; /* monotonic: its last frame, or when we last stood still */
	bool full;	  /* said BUSY; until it finishes a task or sends a heartbeat */
	bool draining;	  /* takes no more: it ends, or is to be let go of */
	bool retired;	  /* let go of when the last task is through */
	unsigned slots;
	unsigned busy;	 /* by this scheduler */
	unsigned others; /* by other schedulers, as of the last heartbeat */
	bool *languages; /* by index: installed there */
	struct list jobs;
	struct standby_counts *standbys;   /* that wait there, as of the last heartbeat */
	uint64_t cache_hits, cache_misses; /* as of the last heartbeat, for metrics */
	scheduler_lost_cb lost;
	void *lost_ctx;
	struct choice_place place; /* of choice.h */
};

/* What is taken of one language. */
struct intake_state {
	size_t prefetch;    /* 0: nothing */
	int64_t stopped_us; /* monotonic: since when, after something was */
};

struct scheduler {
	uv_loop_t *loop;
	struct scheduler_config cfg;
	struct uuid id;	     /* on the bus; random */
	int64_t reported_us; /* monotonic: the languages */
	struct defer *defer;
	struct deferred dispatch;
	struct lanes *lanes;
	struct intake_state *intake;	 /* by language */
	struct standby_totals *standbys; /* by language */
	bool *offered;			 /* by language: a runner comes when there are tasks */
	scheduler_heard_cb heard;	 /* may be NULL */
	void *heard_ctx;
	struct list others; /* schedulers with which tasks wait */
	uv_timer_t tell_timer;
	bool told_waiting;
	struct map jobs; /* by id */
	struct reconciler *reconciler;
	struct list runners;
	struct choice *choice; /* among them */
	struct list retries;   /* jobs with retry set */
	uv_timer_t renew_timer;
	uv_timer_t sweep_timer;
	uv_timer_t retry_timer;
	uv_timer_t claim_timer;
	struct list claims; /* jobs whose claim is DUE, the oldest first */
	uv_timer_t close_timer;
	int open_handles;
	size_t orphans;	 /* releases of orphans in flight */
	size_t requests; /* store requests of the scheduler's own in flight */
	bool recovering; /* a step of it is in flight */
	bool consuming;
	int64_t started_us;
	bool recovered; /* what was left behind is back in the queues */
	bool closing;
	void (*closed)(void *ctx);
	void *closed_ctx;

	struct store_renew renew;
	bool renewing;
	uint64_t *renewed;	/* the owners that are being renewed */
	int64_t renewed_us;	/* monotonic: the renewal was asked for */
	int64_t store_since_us; /* monotonic: the store answers in time since; 0: it does not */
	int64_t ticked_us;	/* monotonic: the sweep timer's last tick */
	struct store_sweep sweep;
	bool sweeping;
	int64_t swept_us; /* monotonic: the sweep was asked for */
	struct store_scan scan;
	struct uuid scan_until;
	struct store_prune prune;
	bool pruning;
	int64_t next_prune_us; /* monotonic */
	struct store_tenant_list tenant_list;
	bool reading_tenants;
	int64_t next_tenants_us;      /* monotonic */
	struct store_tenant *tenants; /* those with limits of their own, by name */
	size_t n_tenants;
};

/* standbys.c */
int standbys_open(struct scheduler *s);
int standbys_heard(struct runner *r, const Kiln__Heartbeat *m);
void standbys_observe(struct scheduler *s); /* into the metrics */

/* job.c */
void job_delivered(struct scheduler *s, struct queue_delivery *d);
void job_start(struct job *j, struct runner *r); /* takes a slot of the runner */
void job_cancel(struct job *j);
void job_runner_lost(struct job *j, const char *message);
void job_free(struct job *j);
struct job *job_find(struct scheduler *s, const ProtobufCBinaryData *id);
void job_queue_lost(struct job *j);
void job_start_over(struct job *j); /* its row is queued again */
/* Somebody else's, or final: lets go of its message, unless there is reason to look again. */
void job_drop(struct job *j);
void job_abandon(struct job *j); /* the scheduler ends: let go of it now, or soon */

/* spans.c: what is told to a collector about one attempt. */
void spans_begin(struct job *j); /* the program is here */
void spans_compiled(struct job *j);
void spans_run_done(struct job *j, size_t run);
void spans_end(struct job *j, const char *error); /* error: why it came to nothing, or NULL */
void spans_drop(struct job *j);

/* settle.c: from the end of a run to the row. */
void job_settle(struct job *j, enum settle how);
void job_claim(struct job *j);
void job_claim_soon(struct job *j);

/* follow.c: frames about one job. */
void job_accepted(struct job *j);
void job_busy(struct job *j);
int job_output(struct job *j, const Kiln__Output *m);
int job_compiled(struct job *j, const Kiln__Compiled *m);
int job_run_done(struct job *j, const Kiln__RunDone *m);
int job_done(struct job *j, const Kiln__Done *m);

/* assign.c */
int assign_send(struct job *j);

/* runner.c */
struct runner *runner_choose(struct scheduler *s, size_t language, const struct task_spec *spec);
void runner_release_slot(struct job *j);
void runner_free(struct runner *r);
struct runner *runner_find(struct scheduler *s, const char *pod); /* NULL: none */
/* Gives up runners that said nothing for too long: stopped, stuck, or behind a dead link. */
void runners_drop_silent(struct scheduler *s);
void runners_drop_retired(struct scheduler *s);

/* scheduler.c */
void scheduler_dispatch_soon(struct scheduler *s);
void scheduler_retry(struct job *j, void (*retry)(struct job *j));
void scheduler_check_closed(struct scheduler *s);
void scheduler_consume(struct scheduler *s);
/* One came or went, or takes no more. */
void scheduler_runners_changed(struct scheduler *s);
ssize_t scheduler_language_index(const struct scheduler *s, const char *name); /* -1: none */

/* demand.c: what pods that come and go with demand are told. */
void demand_heard(const struct runner *r, unsigned slots, unsigned used, uint64_t tasks);
bool demand_any_offered(const struct scheduler *s);

/* waiting.c: tasks without a runner, of this scheduler for the others, and theirs. */
int waiting_listen(struct scheduler *s);
void waiting_tell(struct scheduler *s); /* soon, where there are any */
uint64_t waiting_elsewhere(const struct scheduler *s, size_t language);
void waiting_stop(struct scheduler *s);

/* report.c */
void report_languages(struct scheduler *s);
void report_languages_again(struct scheduler *s); /* where it is time */

/* tenants.c */
size_t tenants_running_max(void *ctx, const char *name); /* ctx: the scheduler */
void tenants_read(struct scheduler *s);

/* recover.c */
void recover_start(struct scheduler *s);
void recover_sweep(struct scheduler *s, bool idle); /* idle: nothing in hand, nothing queued */
/* The store has answered to what was asked of it at that (monotonic) time; true where it took so
 * long that leases may have ended meanwhile. */
bool recover_note_answer(struct scheduler *s, int64_t asked_us, int code);
/* A task that somebody else than its owner has put back or ended. */
void recover_moved(struct scheduler *s, const struct store_ticket *t);

/* orphan.c: tasks of other schedulers that are gone. */
int orphan_take(struct scheduler *s, const Kiln__Orphaned *m);
