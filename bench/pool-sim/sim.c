/* SPDX-License-Identifier: Apache-2.0 */
#include "sim.h"

#include "base/cleanup.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NONE	      SIZE_MAX
#define START_ALONE_S 0.4
#define START_LOOK_S  1.0
#define START_NODE_S  0.15

enum event_kind { ARRIVE, DONE, READY, FAIL, LOSE, TICK };

struct event {
	double at;
	uint64_t order; /* what is at the same time keeps the order in which it was made */
	enum event_kind kind;
	uint32_t pool;
	size_t of;	 /* pod; DONE: task */
	uint64_t number; /* of the pod: one in the same place later is another; DONE: of the run */
};

enum pod_state { POD_NONE, POD_STARTING, POD_READY, POD_LEAVING };

struct pod {
	enum pod_state state;
	uint32_t used;
	uint32_t tries;
	uint64_t number;
	double since, begun;
};

struct task {
	double arrived, wait, takes;
	uint32_t pool;
	size_t pod; /* that it runs in */
	uint64_t run;
	size_t next; /* in the queue */
};

struct pool {
	struct pod *pods;
	size_t n_pods, cap_pods;
	size_t first, last; /* queue */
	uint64_t waiting, arrived, finished;
	uint32_t used;
	double seen_at, concurrency_s, cpu_s, changed_at;
	uint64_t rng_arrive;
	double starts[SIM_STARTS];
	size_t n_starts;
	uint32_t failures;
	double failed_at;
	void *state;
};

struct sim {
	const struct sim_scenario *s;
	const struct sim_policy *p;
	struct event *heap;
	size_t n, cap;
	uint64_t order, number, rng_service, rng_pods;
	double now, node_free;
	struct task *tasks;
	size_t n_tasks, cap_tasks;
	struct pool pools[SIM_POOLS_MAX];
	uint32_t alive;
	struct sim_result r;
	bool failed; /* no memory */
};

/* splitmix64, Steele, Lea, Flood 2014; a number in (0, 1]. */
static double draw(uint64_t *x)
{
	uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (double)(((z ^ (z >> 31)) >> 11) + 1) * 0x1p-53;
}

static double draw_exponential(uint64_t *x, double mean)
{
	return -log(draw(x)) * mean;
}

static double draw_service(struct sim *m)
{
	double sigma = m->s->spread, u = draw(&m->rng_service), v = draw(&m->rng_service);
	double normal = sqrt(-2 * log(u)) * cos(2 * M_PI * v);

	return m->s->service_s * exp(sigma * normal - sigma * sigma / 2);
}

static void *grow(struct sim *m, void *array, size_t *cap, size_t size)
{
	size_t more = *cap ? *cap * 2 : 64;
	void *p = reallocarray(array, more, size);

	if (!p) {
		m->failed = true;
		return array;
	}
	*cap = more;
	return p;
}

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct sim *m, struct event e)
{
	size_t i;

	if (m->n == m->cap)
		m->heap = grow(m, m->heap, &m->cap, sizeof *m->heap);
	if (m->failed)
		return;
	e.order = m->order++;
	for (i = m->n++; i && before(&e, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
		m->heap[i] = m->heap[(i - 1) / 2];
	m->heap[i] = e;
}

static struct event pop(struct sim *m)
{
	struct event top = m->heap[0], e = m->heap[--m->n];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < m->n && before(&m->heap[child + 1], &m->heap[child]))
			child++;
		if (child >= m->n || !before(&m->heap[child], &e))
			break;
		m->heap[i] = m->heap[child];
		i = child;
	}
	m->heap[i] = e;
	return top;
}

/* The integrals up to now, before something changes. */
static void account(struct sim *m, struct pool *l)
{
	double dt = m->now - l->changed_at;

	l->concurrency_s += dt * ((double)l->waiting + l->used);
	l->cpu_s += dt * l->used * m->s->cpu;
	l->changed_at = m->now;
}

static void end_pod(struct sim *m, struct pod *p)
{
	m->r.pod_seconds += m->now - p->since;
	m->alive--;
	p->state = POD_NONE;
	p->number = 0;
}

static void begin_start(struct sim *m, uint32_t pool, size_t at, double later)
{
	struct pod *p = &m->pools[pool].pods[at];
	double from = m->now + later;
	bool fails = draw(&m->rng_pods) <= m->s->start_fails ||
		     (from >= m->s->outage[0] && from < m->s->outage[1]);
	struct event e = {
		.kind = fails ? FAIL : READY, .pool = pool, .of = at, .number = p->number};

	if (m->node_free < from)
		m->node_free = from;
	m->node_free += START_NODE_S / m->s->nodes;
	e.at = m->node_free + START_ALONE_S + START_LOOK_S * draw(&m->rng_pods);
	p->begun = from;
	push(m, e);
}

static void create(struct sim *m, uint32_t pool)
{
	struct pool *l = &m->pools[pool];
	size_t at = 0;

	while (at < l->n_pods && l->pods[at].state != POD_NONE)
		at++;
	if (at == l->cap_pods)
		l->pods = grow(m, l->pods, &l->cap_pods, sizeof *l->pods);
	if (m->failed)
		return;
	if (at == l->n_pods)
		l->n_pods++;
	l->pods[at] = (struct pod){.state = POD_STARTING, .number = ++m->number, .since = m->now};
	m->r.created++;
	if (++m->alive > m->r.max_pods)
		m->r.max_pods = m->alive;
	begin_start(m, pool, at, 0);
}

/* Least is best. A pod that starts serves nobody, an idle one only might. */
static uint32_t worth(const struct pod *p)
{
	return p->state == POD_STARTING ? 0 : 1 + p->used;
}

static void retire(struct sim *m, struct pool *l)
{
	struct pod *best = NULL;

	for (size_t i = 0; i < l->n_pods; i++) {
		struct pod *p = &l->pods[i];

		if (p->state != POD_STARTING && p->state != POD_READY)
			continue;
		if (!best || worth(p) < worth(best))
			best = p;
	}
	if (!best)
		return;
	if (best->used)
		best->state = POD_LEAVING;
	else
		end_pod(m, best);
}

static struct sizing_pods count(const struct pool *l)
{
	struct sizing_pods n = {.failures = l->failures,
				.failed_ms = (int64_t)(l->failed_at * 1000)};

	for (size_t i = 0; i < l->n_pods; i++) {
		const struct pod *p = &l->pods[i];

		n.starting += p->state == POD_STARTING;
		n.leaving += p->state == POD_LEAVING;
		n.busy += p->state == POD_READY && p->used;
		n.idle += p->state == POD_READY && !p->used;
	}
	return n;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double start_p95(const struct pool *l)
{
	size_t n = l->n_starts < SIM_STARTS ? l->n_starts : SIM_STARTS;
	double sorted[SIM_STARTS];

	if (!n)
		return 0;
	memcpy(sorted, l->starts, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, compare);
	return sorted[(n * 95 + 99) / 100 - 1];
}

static void look(struct sim *m, uint32_t pool)
{
	struct pool *l = &m->pools[pool];
	double dt = m->now - l->seen_at;
	struct sim_view v = {.scenario = m->s,
			     .now = m->now,
			     .waiting = l->waiting,
			     .arrived = l->arrived,
			     .finished = l->finished,
			     .pods = count(l),
			     .used = l->used,
			     .start_p95 = start_p95(l)};
	struct sim_order o;

	account(m, l);
	v.concurrency = dt > 0 ? l->concurrency_s / dt : (double)l->waiting + l->used;
	v.cpu = dt > 0 ? l->cpu_s / dt : 0;
	l->arrived = l->finished = 0;
	l->concurrency_s = l->cpu_s = 0;
	l->seen_at = m->now;
	o = m->p->look(l->state, &v);
	for (uint32_t i = 0; i < o.create && !m->failed; i++)
		create(m, pool);
	for (uint32_t i = 0; i < o.retire; i++)
		retire(m, l);
}

static size_t freest(const struct sim *m, const struct pool *l)
{
	size_t best = NONE;

	for (size_t i = 0; i < l->n_pods; i++) {
		if (l->pods[i].state != POD_READY || l->pods[i].used >= m->s->slots)
			continue;
		if (best == NONE || l->pods[i].used < l->pods[best].used)
			best = i;
	}
	return best;
}

static void dispatch(struct sim *m, uint32_t pool)
{
	struct pool *l = &m->pools[pool];
	size_t at;

	while (l->waiting && (at = freest(m, l)) != NONE) {
		struct task *t = &m->tasks[l->first];
		struct event e = {.kind = DONE, .pool = pool, .of = l->first, .number = ++t->run};

		l->first = t->next;
		l->waiting--;
		l->used++;
		l->pods[at].used++;
		t->pod = at;
		t->wait = m->now - t->arrived;
		e.at = m->now + t->takes;
		push(m, e);
	}
}

static void enqueue(struct sim *m, struct pool *l, size_t task)
{
	m->tasks[task].pod = NONE;
	m->tasks[task].next = NONE;
	if (l->waiting++)
		m->tasks[l->last].next = task;
	else
		l->first = task;
	l->last = task;
}

static void schedule_arrival(struct sim *m, uint32_t pool)
{
	struct pool *l = &m->pools[pool];
	double t = m->now;

	/* By thinning, Lewis and Shedler 1979. */
	do {
		t += draw_exponential(&l->rng_arrive, 1 / m->s->rate_max);
	} while (t < m->s->seconds &&
		 draw(&l->rng_arrive) * m->s->rate_max > m->s->rate(m->s, pool, t));
	if (t < m->s->seconds)
		push(m, (struct event){.at = t, .kind = ARRIVE, .pool = pool});
}

static void schedule_trace(struct sim *m)
{
	for (size_t second = 0; second < (size_t)m->s->seconds; second++)
		for (uint32_t i = 0; i < m->s->trace[second]; i++)
			push(m, (struct event){.at = (double)second + draw(&m->pools[0].rng_arrive),
					       .kind = ARRIVE});
}

static void arrive(struct sim *m, uint32_t pool)
{
	struct pool *l = &m->pools[pool];
	struct sizing_pods n = count(l);
	bool none = !(n.idle + n.busy);

	account(m, l);
	if (m->n_tasks == m->cap_tasks)
		m->tasks = grow(m, m->tasks, &m->cap_tasks, sizeof *m->tasks);
	if (m->failed)
		return;
	m->tasks[m->n_tasks] = (struct task){
		.pool = pool, .arrived = m->now, .takes = draw_service(m), .wait = -1};
	m->r.cold += none;
	l->arrived++;
	enqueue(m, l, m->n_tasks++);
	dispatch(m, pool);
	if (m->p->wakes && none && !n.starting)
		look(m, pool);
	if (!m->s->trace)
		schedule_arrival(m, pool);
}

static void done(struct sim *m, const struct event *e)
{
	struct pool *l = &m->pools[e->pool];
	struct task *t = &m->tasks[e->of];
	struct pod *p;

	if (t->run != e->number || t->pod == NONE)
		return; /* its pod was lost: this run did not end */
	p = &l->pods[t->pod];
	account(m, l);
	t->pod = NONE;
	p->used--;
	l->used--;
	l->finished++;
	if (p->state == POD_LEAVING && !p->used)
		end_pod(m, p);
	dispatch(m, e->pool);
}

static void ready(struct sim *m, const struct event *e)
{
	struct pool *l = &m->pools[e->pool];
	struct pod *p = &l->pods[e->of];

	account(m, l);
	p->state = POD_READY;
	l->failures = 0;
	l->starts[l->n_starts++ % SIM_STARTS] = m->now - p->begun;
	if (m->s->pod_life_s > 0)
		push(m,
		     (struct event){.at = m->now + draw_exponential(&m->rng_pods, m->s->pod_life_s),
				    .kind = LOSE,
				    .pool = e->pool,
				    .of = e->of,
				    .number = e->number});
	dispatch(m, e->pool);
}

static void fail(struct sim *m, const struct event *e)
{
	struct pool *l = &m->pools[e->pool];
	struct pod *p = &l->pods[e->of];
	double later = 10 * pow(2, p->tries);

	m->r.failed++;
	l->failures++;
	l->failed_at = m->now;
	if (m->p->kubelet_retries) {
		p->tries++;
		begin_start(m, e->pool, e->of, later < 300 ? later : 300);
	} else {
		end_pod(m, p);
	}
}

static void lose(struct sim *m, const struct event *e)
{
	struct pool *l = &m->pools[e->pool];
	struct pod *p = &l->pods[e->of];

	account(m, l);
	for (size_t i = m->n_tasks; p->used && i-- > 0;) {
		struct task *t = &m->tasks[i];

		if (t->pod != e->of || t->pool != e->pool)
			continue;
		t->pod = NONE;
		p->used--;
		l->used--;
		m->r.lost++;
		t->run++;
		enqueue(m, l, i);
	}
	end_pod(m, p);
	dispatch(m, e->pool);
}

static bool stale(const struct sim *m, const struct event *e)
{
	const struct pod *p;

	if (e->kind != READY && e->kind != FAIL && e->kind != LOSE)
		return false;
	p = &m->pools[e->pool].pods[e->of];
	return p->number != e->number || (e->kind != LOSE && p->state != POD_STARTING);
}

static void tick(struct sim *m, uint32_t pool)
{
	look(m, pool);
	push(m, (struct event){.at = m->now + m->p->tick_s, .kind = TICK, .pool = pool});
}

static void step(struct sim *m)
{
	struct event e = pop(m);

	m->now = e.at;
	if (stale(m, &e))
		return;
	switch (e.kind) {
	case ARRIVE:
		arrive(m, e.pool);
		break;
	case DONE:
		done(m, &e);
		break;
	case READY:
		ready(m, &e);
		break;
	case FAIL:
		fail(m, &e);
		break;
	case LOSE:
		lose(m, &e);
		break;
	case TICK:
		tick(m, e.pool);
		break;
	}
}

static int prepare(struct sim *m, double fixed, uint64_t seed)
{
	m->rng_service = seed ^ UINT64_C(0x5345525649434521);
	m->rng_pods = seed ^ UINT64_C(0x504f445321212121);
	for (uint32_t i = 0; i < m->s->pools; i++) {
		struct pool *l = &m->pools[i];

		l->rng_arrive = seed * 1000003 + i;
		l->state = calloc(1, m->p->state_size);
		if (!l->state)
			return -ENOMEM;
		m->p->init(l->state, m->s, fixed);
		/* Policies look at other moments, not all pools at once. */
		push(m, (struct event){.at = m->p->tick_s * i / (double)m->s->pools,
				       .kind = TICK,
				       .pool = i});
		if (!m->s->trace)
			schedule_arrival(m, i);
	}
	if (m->s->trace)
		schedule_trace(m);
	return m->failed ? -ENOMEM : 0;
}

static int sum_up(struct sim *m, struct sim_result *ret)
{
	AUTO_FREE double *waits = calloc(m->n_tasks + 1, sizeof *waits);
	double sum = 0;

	if (!waits)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_tasks; i++) {
		/* Who still waits at the end has waited so long at least. */
		waits[i] = m->tasks[i].wait < 0 ? m->now - m->tasks[i].arrived : m->tasks[i].wait;
		sum += waits[i];
	}
	qsort(waits, m->n_tasks, sizeof *waits, compare);
	for (uint32_t i = 0; i < m->s->pools; i++)
		for (size_t j = 0; j < m->pools[i].n_pods; j++)
			if (m->pools[i].pods[j].state != POD_NONE)
				m->r.pod_seconds += m->now - m->pools[i].pods[j].since;
	m->r.tasks = m->n_tasks;
	if (m->n_tasks) {
		m->r.wait_mean = sum / (double)m->n_tasks;
		m->r.wait_p50 = waits[(m->n_tasks - 1) * 50 / 100];
		m->r.wait_p95 = waits[(m->n_tasks - 1) * 95 / 100];
		m->r.wait_p99 = waits[(m->n_tasks - 1) * 99 / 100];
		m->r.wait_max = waits[m->n_tasks - 1];
	}
	*ret = m->r;
	return 0;
}

int sim_run(const struct sim_scenario *s, const struct sim_policy *p, double fixed, uint64_t seed,
	    struct sim_result *ret)
{
	struct sim *m = calloc(1, sizeof *m);
	int r;

	if (!m)
		return -ENOMEM;
	m->s = s;
	m->p = p;
	r = prepare(m, fixed, seed);
	while (r == 0 && m->n && m->heap[0].at <= s->seconds && !m->failed)
		step(m);
	if (m->failed)
		r = -ENOMEM;
	m->now = s->seconds;
	if (r == 0)
		r = sum_up(m, ret);
	for (uint32_t i = 0; i < s->pools; i++) {
		free(m->pools[i].pods);
		free(m->pools[i].state);
	}
	free(m->heap);
	free(m->tasks);
	free(m);
	return r;
}
