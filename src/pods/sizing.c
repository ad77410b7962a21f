/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/sizing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FAST_S	  6.0
#define SLOW_S	  60.0
#define SERVICE_S 300.0 /* the window of the service time */

/* Of the estimate of a rate, in standard deviations: what is beyond is not chance. */
#define RATE_SIGMA 2.0
/* Free slots beside a load of a, of which sqrt(a) is the standard deviation: CHANCE_SIGMA of those
 * are enough for any load. A small pool has one of them, and more as far as it stays busier than
 * BUSY_TARGET: with few slots the rest would cost more than the waits that it saves. */
#define CHANCE_SIGMA 2.25
#define BUSY_TARGET  0.7

#define TASKS_MAX     1e9
#define SERVICE_MAX_S 86400.0

enum {
	START_DEFAULT_MS = 2000,
	START_MAX_MS = 600 * 1000,
	SERVICE_DEFAULT_MS = 1000,
	IDLE_MAX_MS = 24 * 3600 * 1000,
	STARTING_MIN = 16, /* that may start together in a pool however small */
	FAILURES_FREE = 3, /* starts that may fail in a row before tries are spaced */
	BACKOFF_MAX_MS = 300 * 1000,
	BACKOFF_WAITED_FOR_MS = 10 * 1000, /* while tasks wait */
	RETIRE_PER_S_DIVISOR = 20,	   /* a twentieth of the pool per second may leave */
	RETIRE_BURST_DIVISOR = 4,	   /* a quarter at once */
};

static double sane(double x, double max)
{
	if (!(x > 0)) /* also what is not a number */
		return 0;
	return x < max ? x : max;
}

static int64_t clamp_ms(int64_t ms, int64_t min, int64_t max)
{
	return ms < min ? min : ms > max ? max : ms;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static uint32_t pods_for(double slots, uint32_t per_pod)
{
	/* A billionth, so that 8.0000000001 slots do not make a second pod. */
	double pods = ceil(sane(slots, TASKS_MAX) / per_pod - 1e-9);

	return (uint32_t)sane(pods, SIZING_PODS_MAX);
}

/* That are there or on their way. A pod without a node is one of them: to replace it would give two
 * that have no node. */
static uint32_t present(const struct sizing_pods *n)
{
	uint64_t sum = (uint64_t)n->idle + n->busy + n->starting + n->unschedulable;

	return sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

/* dt: since the last time. Which of them ended is not known: each was as old as all on average. */
static void note_running(struct sizing_meter *m, uint64_t finished, uint32_t used, double dt)
{
	double most = max_u32(m->used, used);

	m->running_s += m->used * dt;
	if (!used || (double)finished >= most)
		m->running_s = 0;
	else
		m->running_s *= 1 - (double)finished / most;
	m->used = used;
}

void sizing_meter_add(struct sizing_meter *m, int64_t now_ms, uint64_t arrived, uint64_t finished,
		      uint32_t used)
{
	double dt, rate, fast, slow, service;

	if (!m->started) {
		m->started = true;
		m->at_ms = m->last_use_ms = now_ms;
	}
	if (arrived || finished || used)
		m->last_use_ms = now_ms;
	note_running(m, finished, used, now_ms > m->at_ms ? (double)(now_ms - m->at_ms) / 1000 : 0);
	m->arrived += arrived;
	m->done += (double)finished;
	if (now_ms <= m->at_ms)
		return;
	dt = (double)(now_ms - m->at_ms) / 1000;
	rate = (double)m->arrived / dt;
	fast = exp(-dt / FAST_S);
	slow = exp(-dt / SLOW_S);
	service = exp(-dt / SERVICE_S);
	m->fast = m->fast * fast + rate * (1 - fast);
	m->slow = m->slow * slow + rate * (1 - slow);
	m->busy_s = m->busy_s * service + used * dt;
	m->done *= service;
	m->arrived = 0;
	m->at_ms = now_ms;
}

double sizing_meter_service_s(const struct sizing_meter *m)
{
	/* One task of a second is assumed before all others. */
	return (m->busy_s + SERVICE_DEFAULT_MS / 1000.0) / (m->done + 1);
}

double sizing_meter_age_s(const struct sizing_meter *m)
{
	return m->used ? m->running_s / m->used : 0;
}

void sizing_meter_tell(const struct sizing_meter *m, struct sizing_demand *d)
{
	d->rate_fast = m->fast;
	d->rate_slow = m->slow;
	d->service_s = sizing_meter_service_s(m);
	d->age_s = sizing_meter_age_s(m);
}

/* The slow rate, unless the fast one differs from it by more than chance explains. The variance of
 * an exponential average of a Poisson process of rate r with time constant T is r / 2T. */
static double arrival_rate(double fast, double slow, bool *ret_surge)
{
	double sigma = RATE_SIGMA * sqrt(fast / (2 * FAST_S));
	double low = fast - sigma;
	/* One arrival more: that none came for a few seconds says little about a low rate. */
	double high = fast + sigma + 1 / (2 * FAST_S);

	*ret_surge = low > slow;
	return low > slow ? low : high < slow ? high : slow;
}

static double chance(double load)
{
	double sigma = sqrt(load);

	return fmin(CHANCE_SIGMA * sigma, fmax(sigma, load / BUSY_TARGET - load));
}

/* Of the backlog, what the pods that are ready would not have done by the time at which a new one
 * could help. */
static double left_over(double backlog, double load, double ready_slots, double service_s,
			double start_s)
{
	double free_slots = ready_slots - load;

	if (free_slots <= 0)
		return backlog;
	backlog -= free_slots * start_s / service_s;
	return backlog > 0 ? backlog : 0;
}

/* All that can be there by the time at which a pod created now is ready: what runs and waits, less
 * what ends and more what comes meanwhile, at the rate that is no news. What comes later, later
 * pods are for: without this bound, eleven tasks of twenty seconds that came at once would count as
 * the first of many. */
static double soon(double used, double backlog, double rate, double service_s, double start_s)
{
	double coming = rate * start_s, ending = used * fmin(1, start_s / service_s);

	return used + backlog + fmax(0, coming - ending) + chance(coming);
}

struct terms {
	double load, chance, backlog, used, soon;
	bool surge;
};

static struct terms weigh(const struct sizing_pool *p, const struct sizing_demand *d,
			  const struct sizing_pods *now, uint32_t slots)
{
	double service_s = sane(d->service_s, SERVICE_MAX_S);
	int64_t start_ms = d->start_ms > 0 ? d->start_ms : START_DEFAULT_MS;
	double start_s = (double)clamp_ms(start_ms, 1, START_MAX_MS) / 1000;
	double drain_s = (double)clamp_ms(p->drain_ms, 100, START_MAX_MS) / 1000;
	double ready = ((double)now->idle + now->busy) * slots;
	double backlog = sane((double)d->backlog, TASKS_MAX), slow = sane(d->rate_slow, TASKS_MAX);
	struct terms t = {.used = sane((double)d->used_slots, TASKS_MAX)};
	double rate = arrival_rate(sane(d->rate_fast, TASKS_MAX), slow, &t.surge);
	double waiting, held_s;

	if (service_s <= 0)
		service_s = SERVICE_DEFAULT_MS / 1000.0;
	/* A slot that can be used once is also taken for as long as its successor starts. */
	t.load = rate * (p->single_use ? service_s + start_s : service_s);
	t.chance = chance(t.load) + p->spare_slots;
	/* What waits, waits for those that run now, however short the ones before them were. */
	held_s = fmax(service_s, sane(d->age_s, SERVICE_MAX_S));
	waiting = left_over(backlog, t.load, ready, held_s, start_s);
	/* A task cannot use more than one slot, however soon it should be done. */
	t.backlog = waiting * (p->single_use || held_s > drain_s ? 1 : held_s / drain_s);
	/* Slots that are used once must be there before: their successors come too late. */
	t.soon = soon(t.used, backlog, fmin(rate, slow), service_s, start_s) + p->spare_slots;
	if (p->single_use)
		t.soon = INFINITY;
	return t;
}

static void want_by_terms(const struct terms *t, uint32_t slots, struct sizing_verdict *v)
{
	double base = fmin(t->load + t->chance, t->soon);
	uint32_t without;

	v->reason = t->surge ? SIZING_SURGE : SIZING_LOAD;
	if (t->used > base) {
		base = t->used;
		v->reason = SIZING_IN_USE;
	}
	without = pods_for(base, slots);
	v->want = pods_for(fmin(base + t->backlog, t->soon), slots);
	if (v->want > without)
		v->reason = SIZING_BACKLOG;
	else if (!v->want)
		v->reason = SIZING_NONE;
}

/* Nothing came, ran or waited for the whole hold time: nothing of it is worth holding. */
static void rest(const struct sizing_pool *p, uint32_t slots, struct sizing_state *st,
		 struct sizing_verdict *v)
{
	memset(st->held, 0, sizeof st->held);
	v->want = pods_for(p->spare_slots, slots);
	v->reason = v->want ? SIZING_LOAD : SIZING_NONE;
}

/* Moves the window on to this moment; what is older than the hold time falls out. A change of the
 * hold time keeps the greatest. */
static void turn(struct sizing_state *st, int64_t idle_ms, int64_t now_ms)
{
	int64_t part = now_ms / (idle_ms / SIZING_WINDOW);
	uint32_t most = 0;

	if (idle_ms != st->idle_ms) {
		for (size_t i = 0; i < SIZING_WINDOW; i++)
			most = max_u32(most, st->held[i]);
		memset(st->held, 0, sizeof st->held);
		st->held[part % SIZING_WINDOW] = most;
		st->idle_ms = idle_ms;
		st->part = part;
	}
	if (part - st->part >= SIZING_WINDOW)
		memset(st->held, 0, sizeof st->held);
	else
		for (int64_t i = st->part + 1; i <= part; i++)
			st->held[i % SIZING_WINDOW] = 0;
	if (part > st->part)
		st->part = part;
}

/* The greatest of the last hold time. */
static uint32_t remember(struct sizing_state *st, uint32_t want)
{
	uint32_t *newest = &st->held[st->part % SIZING_WINDOW];
	uint32_t most = 0;

	*newest = max_u32(*newest, want);
	for (size_t i = 0; i < SIZING_WINDOW; i++)
		most = max_u32(most, st->held[i]);
	return most;
}

static void limit(struct sizing_verdict *v, uint32_t min, uint32_t max)
{
	if (v->want < min) {
		v->want = min;
		v->reason = SIZING_MIN;
	}
	if (v->want > max) {
		v->unsatisfied = v->want - max;
		v->want = max;
		v->reason = SIZING_MAX;
	}
}

static void begin(struct sizing_state *st, uint32_t here, int64_t idle_ms, int64_t now_ms)
{
	*st = (struct sizing_state){.started = true,
				    .idle_ms = idle_ms,
				    .part = now_ms / (idle_ms / SIZING_WINDOW),
				    .begun_ms = now_ms,
				    .retired_ms = now_ms,
				    .retire_credit = SIZING_PODS_MAX};
	st->held[st->part % SIZING_WINDOW] = here;
}

static void want_by_demand(const struct sizing_pool *p, const struct sizing_demand *d,
			   const struct sizing_pods *now, int64_t now_ms, int64_t idle_ms,
			   struct sizing_state *st, struct sizing_verdict *v)
{
	uint32_t slots = max_u32(p->slots, 1), held;
	struct terms t = weigh(p, d, now, slots);
	/* Since when it is quiet is not known of the time before this manager. */
	bool quiet = d->quiet_ms >= idle_ms && now_ms - st->begun_ms >= idle_ms;

	v->load_slots = t.load;
	v->chance_slots = t.chance;
	v->backlog_slots = t.backlog;
	if (quiet && !d->backlog && !d->used_slots)
		rest(p, slots, st, v);
	else
		want_by_terms(&t, slots, v);
	held = remember(st, v->want);
	if (held > v->want) {
		v->want = held;
		v->reason = SIZING_HELD;
	}
}

void sizing_want(const struct sizing_pool *p, const struct sizing_demand *d,
		 const struct sizing_pods *now, int64_t now_ms, struct sizing_state *st,
		 struct sizing_verdict *ret_verdict)
{
	uint32_t max = min_u32(p->max_pods, SIZING_PODS_MAX), min = min_u32(p->min_pods, max);
	uint32_t here = min_u32(present(now), SIZING_PODS_MAX);
	int64_t idle_ms = clamp_ms(p->idle_ms, 1000, IDLE_MAX_MS) / SIZING_WINDOW * SIZING_WINDOW;
	struct sizing_verdict v = {0};

	if (!st->started)
		begin(st, here, idle_ms, now_ms);
	turn(st, idle_ms, now_ms);
	if (d->known) {
		want_by_demand(p, d, now, now_ms, idle_ms, st, &v);
	} else {
		v.want = here;
		(void)remember(st, here);
		v.reason = SIZING_BLIND;
	}
	limit(&v, min, max);
	if (!v.want)
		v.cold_start_ms = d->start_ms > 0 ? d->start_ms : START_DEFAULT_MS;
	*ret_verdict = v;
}

static uint64_t cost_of(const struct sizing_claim *c)
{
	return c->cost ? c->cost : 1;
}

/* What a pool gets at a water level of so much capacity per unit of weight. */
static uint32_t at_level(const struct sizing_claim *c, double level)
{
	double pods = floor(level * max_u32(c->weight, 1) / (double)cost_of(c));

	if (!c->want)
		return 0;
	return pods < 1 ? 1 : pods < c->want ? (uint32_t)pods : c->want;
}

/* A double: what many pools want together may be more than 64 bits. */
static double taken_at(const struct sizing_claim *claims, size_t n, double level)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)at_level(&claims[i], level) * (double)cost_of(&claims[i]);
	return sum;
}

static double highest_level(const struct sizing_claim *claims, size_t n, double capacity)
{
	double low = 0, high = 1;

	for (size_t i = 0; i < n; i++)
		high = fmax(high, ((double)claims[i].want + 1) * (double)cost_of(&claims[i]));
	if (taken_at(claims, n, high) <= capacity)
		return high;
	for (int i = 0; i < 100; i++) {
		double mid = (low + high) / 2;

		if (taken_at(claims, n, mid) <= capacity)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* Of the pools that want one pod more, and for which one fits, that with the least for its weight;
 * NULL when there is none. */
static struct sizing_claim *poorest(struct sizing_claim *claims, size_t n, uint64_t left)
{
	struct sizing_claim *best = NULL;
	double least = 0;

	for (size_t i = 0; i < n; i++) {
		struct sizing_claim *c = &claims[i];
		double has = (double)c->granted * (double)cost_of(c) / max_u32(c->weight, 1);

		if (c->granted >= c->want || cost_of(c) > left)
			continue;
		if (!best || has < least) {
			best = c;
			least = has;
		}
	}
	return best;
}

uint64_t sizing_share(struct sizing_claim *claims, size_t n, uint64_t capacity)
{
	double level = highest_level(claims, n, (double)capacity);
	struct sizing_claim *c;
	uint64_t left = capacity, missing = 0;

	/* Where not even one pod each fits, those that come first get theirs. */
	for (size_t i = 0; i < n; i++) {
		uint64_t fits = left / cost_of(&claims[i]);

		claims[i].granted = at_level(&claims[i], level);
		if (claims[i].granted > fits)
			claims[i].granted = (uint32_t)fits;
		left -= claims[i].granted * cost_of(&claims[i]);
	}
	/* What the whole numbers left over: less than a pod for each. */
	while ((c = poorest(claims, n, left)) != NULL) {
		c->granted++;
		left -= cost_of(c);
	}
	for (size_t i = 0; i < n; i++)
		missing += claims[i].want - claims[i].granted;
	return missing;
}

void sizing_grant(struct sizing_verdict *v, uint32_t granted)
{
	if (granted >= v->want)
		return;
	v->unsatisfied += v->want - granted;
	v->want = granted;
	v->reason = SIZING_SHARE;
}

static void fill_tokens(struct sizing_tokens *t, int64_t now_ms)
{
	if (!t->started) {
		t->started = true;
		t->left = t->burst;
		t->at_ms = now_ms;
	}
	if (now_ms <= t->at_ms)
		return;
	t->left = sane(t->left + t->rate * (double)(now_ms - t->at_ms) / 1000, t->burst);
	t->at_ms = now_ms;
}

/* Seconds 2, 4, 8, ... after the last failure, at most five minutes; while tasks wait, half a one.
 */
static bool may_try_again(const struct sizing_pods *now, int64_t now_ms, double backlog_slots)
{
	uint32_t doublings = min_u32(now->failures - FAILURES_FREE + 1, 16);
	int64_t max_ms = backlog_slots > 0 ? BACKOFF_WAITED_FOR_MS : BACKOFF_MAX_MS;

	return now_ms - now->failed_ms >= clamp_ms(INT64_C(1000) << doublings, 0, max_ms);
}

static void brake(struct sizing_verdict *v, uint64_t at_most, enum sizing_brake why)
{
	if (v->create <= at_most)
		return;
	v->create = (uint32_t)at_most;
	v->brake = why;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static void pace_create(const struct sizing_pool *p, const struct sizing_pods *now, int64_t now_ms,
			struct sizing_tokens *tokens, struct sizing_verdict *v)
{
	uint32_t here = present(now);
	uint32_t together = max_u32(STARTING_MIN, now->idle / 2 + now->busy / 2);

	v->create = v->want - here;
	brake(v, less(p->max_pods, (uint64_t)here + now->leaving), SIZING_LEAVING);
	brake(v, less(together, now->starting), SIZING_STARTING);
	if (now->unschedulable)
		brake(v, 0, SIZING_UNSCHEDULABLE);
	if (now->failures >= FAILURES_FREE)
		brake(v, !now->starting && may_try_again(now, now_ms, v->backlog_slots),
		      SIZING_BACKOFF);
	brake(v, (uint64_t)tokens->left, SIZING_TOKENS);
	tokens->left -= v->create;
}

static void pace_retire(const struct sizing_pods *now, struct sizing_state *st,
			struct sizing_verdict *v)
{
	/* Pods that serve nobody yet are not what the pace protects. */
	uint64_t unready = (uint64_t)now->starting + now->unschedulable;
	uint64_t allowed = unready + (uint64_t)st->retire_credit;

	v->retire = present(now) - v->want;
	if (v->retire > allowed)
		v->retire = (uint32_t)allowed;
	if (v->retire > unready)
		st->retire_credit -= (double)(v->retire - unready);
}

static void earn_retirement(const struct sizing_pods *now, int64_t now_ms, struct sizing_state *st)
{
	double ready = (double)now->idle + now->busy;

	if (now_ms > st->retired_ms) {
		st->retire_credit += fmax(1, ready / RETIRE_PER_S_DIVISOR) *
				     (double)(now_ms - st->retired_ms) / 1000;
		st->retired_ms = now_ms;
	}
	st->retire_credit = sane(st->retire_credit, fmax(1, floor(ready / RETIRE_BURST_DIVISOR)));
}

void sizing_pace(const struct sizing_pool *p, const struct sizing_pods *now, int64_t now_ms,
		 struct sizing_state *st, struct sizing_tokens *tokens, struct sizing_verdict *v)
{
	uint32_t here = present(now);

	fill_tokens(tokens, now_ms);
	earn_retirement(now, now_ms, st);
	v->create = v->retire = 0;
	v->brake = SIZING_FREE;
	if (v->want > here)
		pace_create(p, now, now_ms, tokens, v);
	else if (v->want < here)
		pace_retire(now, st, v);
}

const char *sizing_reason_name(enum sizing_reason reason)
{
	static const char *const names[_SIZING_REASON_MAX] = {
		[SIZING_NONE] = "none",	  [SIZING_MIN] = "min",	      [SIZING_LOAD] = "load",
		[SIZING_SURGE] = "surge", [SIZING_IN_USE] = "in_use", [SIZING_BACKLOG] = "backlog",
		[SIZING_HELD] = "held",	  [SIZING_MAX] = "max",	      [SIZING_SHARE] = "share",
		[SIZING_BLIND] = "blind",
	};

	return names[reason];
}

const char *sizing_brake_name(enum sizing_brake brake)
{
	static const char *const names[_SIZING_BRAKE_MAX] = {
		[SIZING_FREE] = "free",
		[SIZING_STARTING] = "starting",
		[SIZING_TOKENS] = "tokens",
		[SIZING_BACKOFF] = "backoff",
		[SIZING_UNSCHEDULABLE] = "unschedulable",
		[SIZING_LEAVING] = "leaving",
	};

	return names[brake];
}

void sizing_explain(const struct sizing_verdict *v, const struct sizing_pods *now,
		    char text[SIZING_EXPLAIN_MAX])
{
	(void)snprintf(text, SIZING_EXPLAIN_MAX,
		       "want %u (%s), have %u: idle %u, busy %u, starting %u, unschedulable %u, "
		       "leaving %u; slots: load %.1f, chance %.1f, backlog %.1f; create %u (%s), "
		       "retire %u, unsatisfied %u",
		       v->want, sizing_reason_name(v->reason), present(now), now->idle, now->busy,
		       now->starting, now->unschedulable, now->leaving, v->load_slots,
		       v->chance_slots, v->backlog_slots, v->create, sizing_brake_name(v->brake),
		       v->retire, v->unsatisfied);
}
