/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How many pods the pool of a language should have. Pure functions: the clock is passed in, what
 * must be remembered lies in structures of the caller, nothing here allocates, logs or waits. The
 * pool manager and bench/pool-sim call the same code. The formulas and why they are these:
 * docs/POOLS.md.
 *
 * One step of a pool is sizing_want, then sizing_share over all pools where capacity is short, then
 * sizing_pace. A step is made about every second, and at once when a task comes to a pool without
 * pods. Rates and times come from runners, which run foreign code: what is not a number counts as
 * nothing, and what is beyond reason is cut to it.
 *
 * Times are milliseconds of one monotonic clock, unless their name says seconds.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SIZING_PODS_MAX = 100000, /* of one pool; what is above is cut */
	SIZING_WINDOW = 16,	  /* parts that the hold time is remembered in */
	SIZING_EXPLAIN_MAX = 256,
};

/* What is measured of one pool: counts go in, rates come out. Zero-initialised. */
struct sizing_meter {
	bool started;
	int64_t at_ms;
	int64_t last_use_ms; /* when a task last came, ran or ended */
	double fast, slow;   /* arrivals per second, averaged over about 6 and 60 seconds */
	double busy_s, done; /* slot-seconds and tasks ended, of about five minutes */
	double running_s;    /* slot-seconds of the tasks that run now */
	uint32_t used;	     /* how many they are */
	uint64_t arrived;    /* counted, not yet in the rates */
};

/* arrived and finished since the last call; used is the number of slots that are in use. */
void sizing_meter_add(struct sizing_meter *m, int64_t now_ms, uint64_t arrived, uint64_t finished,
		      uint32_t used);

/* Mean seconds that a task holds a slot. Tasks that still run count with what they have taken, so
 * that a language whose tasks are slow is known before the first of them ends. */
double sizing_meter_service_s(const struct sizing_meter *m);

/* Mean seconds that the tasks which run now have held theirs. */
double sizing_meter_age_s(const struct sizing_meter *m);

/* What a pool may be; from its template's annotations. */
struct sizing_pool {
	uint32_t min_pods, max_pods;
	uint32_t slots;	      /* tasks at once per pod, from 1 */
	uint32_t spare_slots; /* kept free beyond what chance asks for */
	bool single_use;      /* a pod ends after its task */
	int64_t idle_ms;      /* how long what was needed is kept */
	int64_t drain_ms;     /* in which a backlog is to be gone, once its pods are there */
};

struct sizing_demand {
	bool known;		     /* false: the queue or the runners cannot be asked */
	double rate_fast, rate_slow; /* tasks per second */
	double service_s;	     /* slot-seconds per task; 0: not known */
	double age_s;		     /* slot-seconds so far of a task that runs */
	uint64_t backlog;	     /* tasks that wait for a slot */
	uint64_t used_slots;
	int64_t quiet_ms; /* since a task last came, ran or ended */
	int64_t start_ms; /* from create to ready, p95; 0: not measured */
};

/* Fills what the meter knows: rate_fast, rate_slow, service_s, age_s. */
void sizing_meter_tell(const struct sizing_meter *m, struct sizing_demand *d);

struct sizing_pods {
	uint32_t idle, busy;
	uint32_t starting;	/* with creates that the watch has not shown yet */
	uint32_t unschedulable; /* no node has room; not in starting */
	uint32_t leaving;	/* draining, ending, being deleted: no longer counted on */
	uint32_t failures;	/* starts that failed since the last that did not */
	int64_t failed_ms;	/* when the last of them failed */
};

/* Which term decided. */
enum sizing_reason {
	SIZING_NONE,	/* no minimum, nothing to do: the next task waits for a cold start */
	SIZING_MIN,	/* the pool's minimum */
	SIZING_LOAD,	/* arrivals x service time, and what chance adds */
	SIZING_SURGE,	/* the same, of the last seconds: they differ by more than chance */
	SIZING_IN_USE,	/* slots in use now */
	SIZING_BACKLOG, /* tasks wait that the present pods would not finish in time */
	SIZING_HELD,	/* was needed within the hold time */
	SIZING_MAX,	/* the pool's maximum */
	SIZING_SHARE,	/* capacity is short, and this is the pool's share */
	SIZING_BLIND,	/* demand is not known: stays as it is */
	_SIZING_REASON_MAX,
};

/* Why fewer pods are created than are missing. */
enum sizing_brake {
	SIZING_FREE,
	SIZING_STARTING,      /* enough of them are being started */
	SIZING_TOKENS,	      /* the cluster-wide rate of creates */
	SIZING_BACKOFF,	      /* starts fail: one try at a time, with growing waits */
	SIZING_UNSCHEDULABLE, /* pods wait for a node already */
	SIZING_LEAVING,	      /* pods that leave still fill the maximum */
	_SIZING_BRAKE_MAX,
};

struct sizing_verdict {
	uint32_t want;	      /* pods that the pool should have */
	uint32_t create;      /* to be created now */
	uint32_t retire;      /* to be taken out now, see sizing_pace */
	uint32_t unsatisfied; /* pods wanted beyond what max or share allows */
	enum sizing_reason reason;
	enum sizing_brake brake;
	int64_t cold_start_ms; /* what the next task would wait; 0 where a pod is wanted */
	double load_slots, chance_slots, backlog_slots; /* the terms, for people */
};

/* What is remembered of one pool. Zero-initialised: a manager that starts, or takes over, keeps the
 * pods that it finds for one hold time, since it does not know what they were made for. */
struct sizing_state {
	bool started;
	int64_t begun_ms;
	int64_t part;		      /* number of the newest part of the window */
	int64_t idle_ms;	      /* that the parts were cut for */
	uint32_t held[SIZING_WINDOW]; /* most pods wanted in each */
	int64_t retired_ms;
	double retire_credit;
};

/* Creates of the whole cluster: rate per second, burst at most at once. Zero at: starts full. */
struct sizing_tokens {
	double rate, burst, left;
	bool started;
	int64_t at_ms;
};

/* Fills want, reason, unsatisfied and the terms. More demand never gives fewer pods. */
void sizing_want(const struct sizing_pool *p, const struct sizing_demand *d,
		 const struct sizing_pods *now, int64_t now_ms, struct sizing_state *st,
		 struct sizing_verdict *ret_verdict);

/* Pools that want more than there is. */
struct sizing_claim {
	uint32_t want;
	uint32_t weight;  /* 0 counts as 1 */
	uint64_t cost;	  /* of one pod, in the unit of the capacity; from 1 */
	uint32_t granted; /* out */
};

/* Weighted max-min: nobody gets more than it wants; what is left over by those who want little goes
 * to the others by weight; who wants something gets one pod before anybody gets a second. Returns
 * the number of pods wanted and not granted. */
uint64_t sizing_share(struct sizing_claim *claims, size_t n, uint64_t capacity);

/* Cuts the wanted size to what the pool's share allows. */
void sizing_grant(struct sizing_verdict *v, uint32_t granted);

/* Fills create and retire (never both), takes from the tokens what it grants. Of pods to be taken
 * out, first those that wait for a node, then those that start, then idle ones of the oldest
 * template, then the busy with fewest tasks, which are never deleted: they get no new task and end
 * with their last. */
void sizing_pace(const struct sizing_pool *p, const struct sizing_pods *now, int64_t now_ms,
		 struct sizing_state *st, struct sizing_tokens *tokens, struct sizing_verdict *v);

const char *sizing_reason_name(enum sizing_reason reason);
const char *sizing_brake_name(enum sizing_brake brake);

/* One line for the log: why the pool has the size it has. */
void sizing_explain(const struct sizing_verdict *v, const struct sizing_pods *now,
		    char text[SIZING_EXPLAIN_MAX]);
