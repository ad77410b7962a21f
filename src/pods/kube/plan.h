/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What is to be done about the pods of all pools: state and the time go in, actions come out. No
 * I/O, no clock, no log of its own, so that tests and the manager run the same code; memory only
 *for what is known.
 *
 * What is known comes from three sides, each of which may be late: the API server (plan_seen,
 * plan_deleted), the connections to the runners (plan_connected, plan_heard, plan_lost), and what
 * this manager has asked for and not yet seen (orders and expected pods). A pod is one of these at
 *any time, by plan_state_of:
 *
 *	UNSCHEDULABLE <-> STARTING --> IDLE <-> BUSY --> DRAINING --> ENDED
 *	                      |          '---LOST---'                   ^
 *	                      '-> LEAVING ------------------------------'
 *
 * Rules that hold whatever happens:
 *  - A pod that may have a task is never deleted: one that served is asked to drain, and its
 *runner, which is the authority over its slots, ends with its last task. Deleted is what never
 *served, and what has ended.
 *  - Every deletion and every change names the version that it was decided on; what has moved on
 *    since is decided on again. So two managers that both believe to lead do no harm together.
 *  - What was asked for counts as there until it is seen, or a list that was begun later lacks it.
 *  - Where nothing starts, nothing is given up: a template that does not work leaves the pods of
 *the one before it in place.
 */

#include "base/list.h"
#include "base/map.h"
#include "pods/kube/pool.h"

enum { PLAN_STARTS = 32, PLAN_ACTIONS_MAX = 256 };

enum plan_state {
	PLAN_STARTING,
	PLAN_UNSCHEDULABLE,
	PLAN_IDLE,
	PLAN_BUSY,
	PLAN_LOST, /* it served, and cannot be reached */
	PLAN_DRAINING,
	PLAN_LEAVING, /* is being deleted */
	PLAN_ENDED,
	_PLAN_STATE_MAX,
};

/* Of the machine that a pod is on. What cannot be seen is taken for fine. */
enum plan_node_state {
	PLAN_NODE_FINE,
	PLAN_NODE_CORDONED,  /* its pods are replaced, first the new, then the old */
	PLAN_NODE_NOT_READY, /* the same; what cannot be reached there is lost at once */
	PLAN_NODE_GONE,	     /* what cannot be reached there is not there */
};

enum plan_order { PLAN_NO_ORDER, PLAN_TO_DRAIN, PLAN_TO_DELETE };

struct plan_pod {
	struct kube_pod facts;
	uint64_t generation; /* of the last list that had it */
	int64_t seen_ms;     /* first */
	int64_t ended_ms;    /* it ended while it was known; 0 */
	enum plan_node_state node;
	/* From its runner. */
	bool connected;
	bool served;  /* was connected, or ready, at some time */
	bool refuses; /* its runner takes no more tasks */
	uint32_t slots, used;
	uint64_t tasks;	    /* ended since its start */
	int64_t changed_ms; /* when it last became connected, lost, busy or idle */
	int64_t created_ms; /* when it was asked for; 0: not known, or it waited for a node */
	/* What was asked for. */
	enum plan_order order;
	int64_t ordered_ms;
	bool labelling;
	bool failure_counted;
	bool dialled; /* the manager's: is being connected to */
};

struct plan_pool {
	struct kube_pool def;
	bool gone;   /* its template is */
	bool listed; /* in the list that is under way */
	struct sizing_meter meter;
	struct sizing_state state;
	struct sizing_verdict verdict; /* of the last step */
	struct sizing_pods count;
	uint32_t slots;	   /* of a pod of this revision, as its runner says; 0: not known */
	uint64_t finished; /* since the last step */
	uint64_t waiting;  /* as of the last step */
	int64_t unheard;   /* tasks that wait no longer, and of which no runner has told yet */
	int64_t unheard_ms;
	uint32_t used;
	uint32_t failures;
	int64_t failed_ms;
	uint32_t window;	       /* creates that may be under way at one time */
	uint32_t under_way;	       /* creates without an answer */
	int64_t start_ms[PLAN_STARTS]; /* the last times from create to connected */
	uint32_t n_starts;	       /* ever */
};

struct plan {
	struct map pods;  /* struct plan_pod by name */
	struct map nodes; /* by name */
	uint64_t node_generation;
	struct plan_pool **pools;
	size_t n_pools;
	struct list expected; /* creates that were not seen yet */
	size_t n_expected;
	uint64_t generation; /* of lists of pods */
	struct sizing_tokens tokens;
	uint32_t max_pods;	/* of all pools; 0: any number */
	uint64_t salt, counter; /* of names */
	bool relist;		/* out: something did not happen in time: list the pods again */
};

void plan_init(struct plan *p, uint32_t max_pods, uint64_t salt);
void plan_fini(struct plan *p);

/* ---- what is known ---- */

/* Takes the definition. */
int plan_put_pool(struct plan *p, struct kube_pool *def_take);
void plan_pools_begin(struct plan *p); /* none is listed */
/* Its template is there, and cannot be used: what is in force stays. */
void plan_keep_pool(struct plan *p, const char *name);
void plan_drop_pool(struct plan *p, const char *name);
struct plan_pool *plan_find_pool(struct plan *p, const char *name);

/* Of the API server. *ret_pod is what is known now; *ret_new whether another pod of this name, or
 * none, was known before. */
int plan_seen(struct plan *p, const struct kube_pod *facts, int64_t now_ms,
	      struct plan_pod **ret_pod, bool *ret_new);
void plan_deleted(struct plan *p, const char *name);
void plan_begin(struct plan *p);
/* gone is called for each pod that the list did not have, before it is forgotten; may be NULL. */
void plan_listed(struct plan *p, void (*gone)(void *ctx, struct plan_pod *pod), void *ctx);
struct plan_pod *plan_find(struct plan *p, const char *name);

/* Of the API server, about nodes. Whether something has changed; -ENOMEM. */
int plan_node_seen(struct plan *p, const struct kube_node *facts);
void plan_node_gone(struct plan *p, const char *name);
void plan_nodes_begin(struct plan *p);
void plan_nodes_listed(struct plan *p);

/* Of its runner. Returns the time that it took to start, or -1 where that is not known or was told
 * before. */
int64_t plan_heard(struct plan *p, struct plan_pod *pod, uint32_t slots, uint32_t used,
		   uint64_t tasks, int64_t now_ms);
void plan_lost(struct plan_pod *pod, int64_t now_ms);

/* ---- what is asked for ---- */

enum plan_verb { PLAN_CREATE, PLAN_DELETE, PLAN_DRAIN, PLAN_LABEL };

/* Why a pod is created, drained or deleted; for people, and as a metric's label. */
struct plan_action {
	enum plan_verb verb;
	struct plan_pool *pool;	      /* CREATE */
	char name[KUBE_POD_NAME_MAX]; /* of the pod */
	bool busy;		      /* LABEL */
	const char *why;
};

/* Tasks of the pool's languages that wait; false: cannot be asked. */
typedef bool (*plan_waiting_cb)(void *ctx, const struct kube_pool *pool, uint64_t *ret_waiting);

/* Whatever is due, at most PLAN_ACTIONS_MAX of it; the rest comes with the next step. Each counts
 * as under way until it is answered. */
size_t plan_step(struct plan *p, int64_t now_ms, plan_waiting_cb waiting, void *ctx,
		 struct plan_action actions[static PLAN_ACTIONS_MAX]);

/* The answers. doubtful: it may have been done all the same. */
void plan_created(struct plan *p, const char *pool, const char *name);
void plan_create_failed(struct plan *p, const char *pool, const char *name, bool doubtful,
			int64_t now_ms);
void plan_order_failed(struct plan *p, const char *name); /* of a DELETE, or a DRAIN */
void plan_labelled(struct plan *p, const char *name);

/* ---- looks ---- */

enum plan_state plan_state_of(const struct plan_pod *pod);
const char *plan_state_name(enum plan_state s);

/* The 95th percentile of the last starts; 0: none is known. */
int64_t plan_start_ms(const struct plan_pool *pool);
