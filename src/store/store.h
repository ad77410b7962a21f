/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The store keeps tasks, their results and their life cycle. It is the truth: a task exists once
 * its insert is done, and is final once its finish is; queues and caches may be lost and are made
 * again from here.
 *
 * Every verb is asynchronous and works like a libuv request. The caller owns the request structure
 * and all that it points to, fills the fields marked "in", and leaves it alone until its done
 * callback; "out" fields hold then (with code 0, or as the verb says), and out pointers are the
 * caller's to free. The callback comes exactly once, from the loop, never from inside the verb.
 * store_cancel makes it come with -ECANCELED and nothing done, unless the request is past recall:
 * then it comes with what it came to.
 *
 * Requests that arrive together share a commit; done comes after it. Codes common to all verbs:
 *	-ENOSPC   the disk is full; -EAGAIN the store is unavailable; both: try again later
 *	-EIO      the store is damaged or refuses; -ENOMEM
 *	-EINVAL   an "in" field is out of its range; -ESHUTDOWN store_close was called before
 *
 * Fencing: claim gives an attempt number. finish and release count only for the attempt that is
 * the row's own and while it is running: anything else is -ESTALE and changes nothing.
 */

#include "base/err.h"
#include "loop/defer.h"
#include "loop/worker.h"
#include "task/task.h"

#include <stdatomic.h>
#include <uv.h>

struct store;
struct store_req;

typedef void (*store_done_cb)(struct store_req *req, int code);

/* First member of every request. in: done, ctx. The rest is the implementation's. */
struct store_req {
	store_done_cb done;
	void *ctx;
	struct store *store;
	int verb;
	int code;
	unsigned again; /* tries whose fate is unknown, since their connection was lost */
	atomic_bool cancelled;
	struct work work;
	struct deferred deferred;
};

struct store_config {
	const char *url;	 /* "sqlite:PATH" or "postgresql://USER@HOST:PORT/DATABASE" */
	int64_t busy_timeout_ms; /* SQLite: for another process that holds the write lock */
	bool outbox;		 /* PostgreSQL: tasks that become queued are noted in the outbox */
};

/* Opens, and makes or upgrades the schema; refuses one that is newer than it knows (-ENOTSUP), and
 * a file that is damaged or of another program (-EUCLEAN). A PostgreSQL schema that is older is
 * refused too (-ESTALE): others may be using it, so that is for `kiln migrate`. Blocks: for
 * start-up only. */
int store_open(uv_loop_t *loop, const struct store_config *cfg, struct store **ret_store,
	       struct err *e);

/* Finishes what was asked (some done callbacks may come from in here), then closes; closed is
 * called from the loop, after the last of them. */
void store_close(struct store *s, void (*closed)(void *ctx), void *ctx);

void store_cancel(struct store_req *req);

/* Whether tasks that become queued are noted in an outbox: see outbox.h. */
bool store_has_outbox(const struct store *s);

/* 0, or -EAGAIN where the store cannot be reached at present, with where and why. */
int store_health(struct store *s, struct err *e);

/* The time by which leases, deadlines and ids are told, in microseconds since 1970: the database's
 * where processes of several hosts share one, so that a clock that is wrong or stepped on one of
 * them ends nobody's lease. It goes on while the database is away. */
int64_t store_now_us(struct store *s);

/* 0, or the code of the last write that the store itself failed (-ENOSPC, -EAGAIN, -EIO, ...), and
 * how long ago that was. Remembered until a probe succeeds: a write that succeeds meanwhile may
 * have found room where the next does not. */
int store_write_health(const struct store *s, int64_t *ret_ago_us);

/* Writes a little, which nobody sees, to find out whether the store takes writes (again). */
struct store_probe {
	struct store_req req;
};
void store_probe(struct store *s, struct store_probe *r);

/* Brings the schema up to what this program knows, *ret_to, and is safe when several do so at once.
 * *ret_from is what it was before, 0 where there was none. One that is newer is left as it is where
 * this program can use it, else it is -ENOTSUP. Blocks. */
int store_migrate(const char *url, int *ret_from, int *ret_to, struct err *e);

/* ---- tasks ---- */

enum { STORE_IDEMPOTENCY_KEY_MAX = 255, STORE_HASH_SIZE = 32, STORE_TRACEPARENT_MAX = 56 };

/* Adds a queued task; -EEXIST where the id is there already. With an idempotency key of the tenant
 * that was seen before, has not expired and whose task is still there: the same body hash gives 0
 * with existing set and existing_id the earlier task; another body gives -EEXIST. */
struct store_insert {
	struct store_req req;
	const struct task_spec *spec;	    /* in */
	const char *idempotency_key;	    /* in, or NULL */
	uint8_t body_hash[STORE_HASH_SIZE]; /* in, with a key */
	int64_t idempotency_expires_us;	    /* in, with a key */
	bool left;			    /* in: its note in the outbox is a sweeper's at once */
	bool existing;			    /* out */
	struct uuid existing_id;	    /* out */
};
void store_insert(struct store *s, struct store_insert *r);

/* Reads one task. tenant NULL: whoever's. -ENOENT where there is none, or it is another's. */
enum store_parts {
	STORE_META = 0,		 /* the row; spec and result without contents, stdin, outputs */
	STORE_CONTENTS = 1 << 0, /* files and stdin too */
	STORE_RESULT = 1 << 1,	 /* the whole result too */
};
struct store_get {
	struct store_req req;
	struct uuid id;	    /* in */
	const char *tenant; /* in */
	unsigned parts;	    /* in, enum store_parts */
	struct task *task;  /* out */
};
void store_get(struct store *s, struct store_get *r);

enum { STORE_LIST_MAX = 1000, STORE_SWEEP_MAX = 10000 };

/* Lists newest first, without contents and outputs. */
struct store_list {
	struct store_req req;
	const char *tenant;   /* in, NULL: all */
	const char *language; /* in, NULL: any */
	int state;	      /* in, enum task_state, -1: any */
	bool has_before;      /* in */
	struct uuid before;   /* in: only tasks with smaller ids */
	size_t limit;	      /* in: 1 to STORE_LIST_MAX */
	struct task **tasks;  /* out: an array of n tasks */
	size_t n;	      /* out */
};
void store_list(struct store *s, struct store_list *r);

/* Moves a queued task to running for this owner. 0, -ENOENT, or -ESTALE with state what it is
 * instead. One whose deadline has passed is moved to expired here (-ESTALE, state EXPIRED). */
struct store_claim {
	struct store_req req;
	struct uuid id;		/* in */
	uint64_t owner;		/* in: not 0 */
	int64_t now_us;		/* in */
	int64_t lease_until_us; /* in */
	int attempt;		/* out */
	enum task_state state;	/* out */
};
void store_claim(struct store *s, struct store_claim *r);

/* Prolongs all leases of these owners, and tells which of their running tasks are to be cancelled.
 */
struct store_renew {
	struct store_req req;
	const uint64_t *owners;	 /* in: array of n_owners, 1 to STORE_SWEEP_MAX, none of them 0 */
	size_t n_owners;	 /* in */
	int64_t lease_until_us;	 /* in */
	struct uuid *cancelling; /* out: array of n ids */
	size_t n;		 /* out */
};
void store_renew(struct store *s, struct store_renew *r);

/* Writes the final state and result of a running task. -ESTALE: the attempt is not the row's.
 *
 * With claim_owner the task was not claimed before: it is claimed and finished in one write, which
 * spares a short task a commit. It must still be queued then, and its deadline not have passed when
 * it started; otherwise -ESTALE, found tells what it is, and the row is as store_claim would
 * leave it. */
struct store_finish {
	struct store_req req;
	struct uuid id;			  /* in */
	uint64_t claim_owner;		  /* in: 0, or who claims it */
	int attempt;			  /* in; out with claim_owner */
	enum task_state state;		  /* in: DONE, CANCELLED or FAILED */
	enum task_state found;		  /* out, with claim_owner and -ESTALE */
	int64_t started_us;		  /* in */
	int64_t finished_us;		  /* in */
	const struct task_result *result; /* in, or NULL */
};
void store_finish(struct store *s, struct store_finish *r);

/* What is needed to queue a task (again). */
struct store_ticket {
	struct uuid id;
	enum task_class class;
	enum task_state state; /* of a sweep or a release: what it became */
	char language[TASK_LANGUAGE_MAX];
	char tenant[TASK_TENANT_MAX];
	/* Of a scan, an outbox_take and a live at PostgreSQL: */
	char traceparent[STORE_TRACEPARENT_MAX]; /* "": none */
	int64_t queued_us; /* when it was queued again last; 0: not since it was made */
	bool boxed;	   /* of a scan: it is in the outbox */
};

/* Puts a running task back to queued. counts: the attempt was used up; after TASK_ATTEMPTS_MAX of
 * them the task is FAILED with this error instead. Without: a hand-back, the attempt is given
 * back too; only where the task never ran, or was stopped through no fault of its own. A task that
 * is cancelling ends CANCELLED.
 *
 * With owner, somebody else does so for an owner that is gone: whatever its attempt is, as long as
 * the task is still that owner's. */
struct store_release {
	struct store_req req;
	struct uuid id;		    /* in */
	uint64_t owner;		    /* in: 0, or whose it must be */
	int attempt;		    /* in, without owner */
	bool counts;		    /* in */
	int64_t now_us;		    /* in */
	const char *error_code;	    /* in, with counts */
	const char *error_message;  /* in, with counts */
	enum task_state state;	    /* out: QUEUED, FAILED or CANCELLED */
	struct store_ticket ticket; /* out */
};
void store_release(struct store *s, struct store_release *r);

/* Queued: cancelled at once. Running: marked, 0 with state RUNNING. -ENOENT; -EALREADY when final;
 * state tells which. */
struct store_cancel_task {
	struct store_req req;
	struct uuid id;	       /* in */
	const char *tenant;    /* in, NULL: whoever's */
	int64_t now_us;	       /* in */
	enum task_state state; /* out */
};
void store_cancel_task(struct store *s, struct store_cancel_task *r);

/* Moves queued tasks past their deadline to expired, and running ones whose lease has ended (or
 * all, with every_lease: for an embedded server at start, whose owners are all gone) as release
 * with counts does, with this error. */
struct store_sweep {
	struct store_req req;
	int64_t now_us;		      /* in */
	bool every_lease;	      /* in */
	const char *error_code;	      /* in */
	const char *error_message;    /* in */
	size_t limit;		      /* in: at most so many moves, 1 to STORE_SWEEP_MAX */
	struct store_ticket *tickets; /* out: array of n, what was moved */
	size_t n;		      /* out */
};
void store_sweep(struct store *s, struct store_sweep *r);

/* Queued tasks in order of id, after one. */
struct store_scan {
	struct store_req req;
	struct uuid after;	      /* in: zero for the first */
	size_t limit;		      /* in: 1 to STORE_SWEEP_MAX */
	struct store_ticket *tickets; /* out: array of n */
	size_t n;		      /* out */
};
void store_scan(struct store *s, struct store_scan *r);

/* Removes final tasks that finished before a time, and expired idempotency keys. PostgreSQL drops
 * what was made on an earlier day by the day, and so keeps it up to a day longer. */
struct store_prune {
	struct store_req req;
	int64_t before_us; /* in */
	int64_t now_us;	   /* in */
	size_t limit;	   /* in: 1 to STORE_SWEEP_MAX, of tasks and of keys */
	size_t n;	   /* out: tasks removed; equal to limit: call again */
};
void store_prune(struct store *s, struct store_prune *r);
