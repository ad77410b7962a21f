/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/box.h"

#include "base/log.h"
#include "loop/backoff.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { PREPARE_TRIES = 3, RETRY_MIN_MS = 50, RETRY_MAX_MS = 5000, REFILL_DELAY_MS = 25 };

enum box_state {
	BOX_EMPTY, /* may be prepared */
	BOX_PREPARING,
	BOX_READY, /* may be started */
	BOX_RUNNING,
	BOX_DYING, /* EXITED came, RELEASED did not yet */
};

struct box {
	enum box_state state;
	uint64_t cookie;
	uint32_t init_pid;   /* from READY on */
	struct box_use *use; /* RUNNING, DYING; NULL where nobody is interested any more */
};

struct box_pool {
	struct sandbox_client *client;
	struct box_pool_config cfg;
	uv_poll_t poll;
	uv_timer_t refill_timer;
	int handles;
	bool closing, lost;
	uint64_t cookie;
	struct backoff retry;
	unsigned failures; /* prepares that failed since one succeeded */
	struct list waiting;
	unsigned n_waiting;
	unsigned count[BOX_DYING + 1]; /* boxes by state */
	struct box boxes[SANDBOX_BOXES_MAX];
};

static void box_move(struct box_pool *p, struct box *b, enum box_state to)
{
	p->count[b->state]--;
	p->count[to]++;
	b->state = to;
}

static unsigned box_index(const struct box_pool *p, const struct box *b)
{
	return (unsigned)(b - p->boxes);
}

static struct box *box_in_state(struct box_pool *p, enum box_state state)
{
	if (p->count[state] == 0)
		return NULL;
	for (unsigned i = 0; i < p->cfg.boxes; i++) {
		if (p->boxes[i].state == state)
			return &p->boxes[i];
	}
	return NULL;
}

static void refill_due(uv_timer_t *timer);

static void refill_later(struct box_pool *p, uint64_t ms)
{
	if (!p->closing && !uv_is_active((uv_handle_t *)&p->refill_timer))
		(void)uv_timer_start(&p->refill_timer, refill_due, ms, 0);
}

/* Whether a failure makes the next try wait. */
static bool backing_off(const struct box_pool *p)
{
	return p->failures > 0 && uv_is_active((const uv_handle_t *)&p->refill_timer);
}

static struct box_use *find_tired(struct box_pool *p)
{
	struct box_use *u;

	LIST_FOREACH (u, &p->waiting, link) {
		if (u->failures >= PREPARE_TRIES)
			return u;
	}
	return NULL;
}

/* Boxes that are prepared together fail together, which counts once. Those that wait hear of it
 * when they have seen it often enough: what passes by itself is nobody's failure. */
static void prepare_failed(struct box_pool *p, const char *message)
{
	struct box_use *u;

	if (backing_off(p))
		return;
	if (p->failures++ == 0)
		log_error("runner", "could not prepare a sandbox", LOG_STR("reason", message));
	if (!p->closing)
		(void)uv_timer_start(&p->refill_timer, refill_due, backoff_next_ms(&p->retry), 0);
	LIST_FOREACH (u, &p->waiting, link)
		u->failures++;
	while ((u = find_tired(p))) {
		list_unlink(&u->link);
		p->n_waiting--;
		u->ops->failed(u, message);
	}
}

static void prepare_one(struct box_pool *p, struct box *b)
{
	struct err e;
	int r = sandbox_client_prepare(p->client, box_index(p, b), ++p->cookie, &p->cfg.expected,
				       &e);

	if (r < 0) {
		prepare_failed(p, e.msg);
		return;
	}
	b->cookie = p->cookie;
	b->use = NULL;
	box_move(p, b, BOX_PREPARING);
}

static void refill(struct box_pool *p)
{
	struct box *b;

	while (!p->closing && !p->lost && !backing_off(p) &&
	       p->count[BOX_PREPARING] + p->count[BOX_READY] < p->cfg.standbys + p->n_waiting &&
	       (b = box_in_state(p, BOX_EMPTY)))
		prepare_one(p, b);
}

static void refill_due(uv_timer_t *timer)
{
	refill(timer->data);
}

/* Gives the use a box that is ready. Leaves the use with its owner on failure. */
static void start_use(struct box_pool *p, struct box *b, struct box_use *u)
{
	struct err e;
	int r = sandbox_client_start(p->client, box_index(p, b), b->cookie, &u->task, &e);

	if (r < 0) {
		u->ops->failed(u, e.msg);
		return;
	}
	box_move(p, b, BOX_RUNNING);
	b->use = u;
	u->box = b;
	u->ops->started(u);
}

static void serve_waiting(struct box_pool *p)
{
	struct box_use *u;
	struct box *b;

	while ((u = LIST_FIRST(&p->waiting, struct box_use, link)) &&
	       (b = box_in_state(p, BOX_READY))) {
		list_unlink(&u->link);
		p->n_waiting--;
		start_use(p, b, u);
	}
}

void box_run(struct box_pool *p, struct box_use *u)
{
	list_init(&u->link);
	u->box = NULL;
	u->failures = 0;
	u->has_started = u->limiting = false;
	u->standby = p->n_waiting == 0 && p->count[BOX_READY] > 0;
	if (p->lost) {
		u->ops->failed(u, "the spawner is gone");
		return;
	}
	if (u->standby) {
		start_use(p, box_in_state(p, BOX_READY), u);
		/* Making the next one at once would compete with the task that has just begun; it
		 * is made when a box is released, or soon where that takes longer. */
		if (p->count[BOX_READY] > 0)
			refill_later(p, REFILL_DELAY_MS);
		else
			refill(p);
		return;
	}
	list_push_back(&p->waiting, &u->link);
	p->n_waiting++;
	refill(p);
}

void box_kill(struct box_pool *p, struct box_use *u, enum sandbox_limit reason)
{
	struct err e;

	if (!list_empty(&u->link)) {
		list_unlink(&u->link);
		p->n_waiting--;
		u->ops->failed(u, "cancelled while it waited for a sandbox");
		return;
	}
	if (!u->box || u->box->state != BOX_RUNNING)
		return;
	/* A spawner that cannot be told is gone, and its boxes with it. */
	(void)sandbox_client_kill(p->client, box_index(p, u->box), u->box->cookie, reason, &e);
}

int box_limit(struct box_pool *p, struct box_use *u, const struct sandbox_limits *limits,
	      struct err *e)
{
	if (!u->box || u->box->state != BOX_RUNNING)
		return err_set(e, -ESRCH, "the sandbox does not run any more");
	u->limiting = true;
	return sandbox_client_limit(p->client, box_index(p, u->box), u->box->cookie, limits, e);
}

void box_leave(struct box_pool *p, struct box_use *u)
{
	if (!u->ops)
		return;
	if (u->link.next && !list_empty(&u->link)) {
		list_unlink(&u->link);
		p->n_waiting--;
	}
	if (!u->box)
		return;
	box_kill(p, u, SANDBOX_LIMIT_REQUESTED);
	u->box->use = NULL;
	u->box = NULL;
}

static void box_exited(struct box_pool *p, struct box *b, const struct sandbox_event_exited *x)
{
	enum box_state was = b->state;
	char message[ERR_MSG_MAX];

	box_move(p, b, BOX_DYING);
	if (was == BOX_RUNNING) {
		if (b->use)
			b->use->ops->exited(b->use, x);
		return;
	}
	(void)snprintf(message, sizeof(message), "could not %s%s%s", sandbox_step_name(x->step),
		       x->error ? ": " : "", x->error ? err_text(x->error) : "");
	prepare_failed(p, message);
}

static void box_released(struct box_pool *p, struct box *b)
{
	struct box_use *u = b->use;

	b->use = NULL;
	box_move(p, b, BOX_EMPTY);
	if (u) {
		u->box = NULL;
		u->ops->gone(u);
	}
	refill(p);
}

static void box_prepared(struct box_pool *p, struct box *b,
			 const struct sandbox_event_prepared *prepared)
{
	b->init_pid = prepared->init_pid;
	p->failures = 0;
	backoff_reset(&p->retry);
	box_move(p, b, BOX_READY);
	serve_waiting(p);
	refill(p);
}

/* The first one is the answer to START, whose order against a LIMIT is known. */
static void box_started(struct box *b)
{
	struct box_use *u = b->use;

	if (b->state != BOX_RUNNING || !u)
		return;
	if (!u->has_started) {
		u->has_started = true;
		return;
	}
	if (!u->limiting)
		return;
	u->limiting = false;
	u->ops->limited(u);
}

static void box_refused(struct box_pool *p, struct box *b, const struct sandbox_reply_error *error)
{
	struct box_use *u = b->use;
	struct err e;

	switch (error->request) {
	case SANDBOX_PREPARE:
		box_move(p, b, BOX_EMPTY);
		prepare_failed(p, error->message);
		return;
	case SANDBOX_START:
	case SANDBOX_LIMIT:
		/* The box is as it was; it is not tried a second time. */
		(void)sandbox_client_release(p->client, box_index(p, b), b->cookie, &e);
		b->use = NULL;
		box_move(p, b, BOX_DYING);
		if (!u)
			return;
		u->box = NULL;
		u->ops->failed(u, error->message);
		return;
	default:
		log_warn("runner", "the spawner refused a request",
			 LOG_INT("request", error->request), LOG_STR("reason", error->message));
	}
}

static void handle_event(struct box_pool *p, const union sandbox_event *ev)
{
	struct box *b;

	if (ev->h.box >= p->cfg.boxes)
		return;
	b = &p->boxes[ev->h.box];
	if (ev->h.cookie != b->cookie || b->state == BOX_EMPTY)
		return;
	switch (ev->h.type) {
	case SANDBOX_EVENT_PREPARED:
		if (b->state == BOX_PREPARING)
			box_prepared(p, b, &ev->prepared);
		break;
	case SANDBOX_EVENT_STARTED:
		box_started(b);
		break;
	case SANDBOX_EVENT_EXITED:
		if (b->state != BOX_DYING)
			box_exited(p, b, &ev->exited);
		break;
	case SANDBOX_EVENT_RELEASED:
		box_released(p, b);
		break;
	case SANDBOX_REPLY_ERROR:
		box_refused(p, b, &ev->error);
		break;
	default:
		break;
	}
}

/* Those that wait for the end of their pipes will see it: nobody is left who could write. */
static void spawner_lost(struct box_pool *p, const char *message)
{
	struct box_use *u;

	p->lost = true;
	(void)uv_poll_stop(&p->poll);
	p->cfg.lost(p->cfg.ctx, message);
	for (unsigned i = 0; i < p->cfg.boxes; i++) {
		enum box_state was = p->boxes[i].state;

		u = p->boxes[i].use;
		p->boxes[i].use = NULL;
		if (!u)
			continue;
		u->box = NULL;
		if (was == BOX_RUNNING)
			u->ops->failed(u, message);
	}
	while ((u = LIST_FIRST(&p->waiting, struct box_use, link))) {
		list_unlink(&u->link);
		p->n_waiting--;
		u->ops->failed(u, message);
	}
}

static void readable(uv_poll_t *poll, int status, int events)
{
	struct box_pool *p = poll->data;
	union sandbox_event ev;
	struct err e;
	int r;

	(void)status;
	(void)events;
	while (!p->closing && (r = sandbox_client_receive(p->client, &ev, &e)) != 0) {
		if (r < 0) {
			spawner_lost(p, e.msg);
			return;
		}
		handle_event(p, &ev);
	}
}

int box_pool_new(uv_loop_t *loop, struct sandbox_client *client, const struct box_pool_config *cfg,
		 struct box_pool **ret_pool, struct err *e)
{
	struct box_pool *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(e, -ENOMEM, "could not allocate the pool of sandboxes");
	p->client = client;
	p->cfg = *cfg;
	p->count[BOX_EMPTY] = cfg->boxes;
	list_init(&p->waiting);
	backoff_init(&p->retry, RETRY_MIN_MS, RETRY_MAX_MS);
	r = uv_poll_init(loop, &p->poll, sandbox_client_fd(client));
	if (r < 0) {
		free(p);
		return err_errno(e, r, "could not watch the spawner");
	}
	(void)uv_timer_init(loop, &p->refill_timer);
	p->poll.data = p->refill_timer.data = p;
	p->handles = 2;
	(void)uv_poll_start(&p->poll, UV_READABLE, readable);
	refill(p);
	*ret_pool = p;
	return 0;
}

static void handle_closed(uv_handle_t *h)
{
	struct box_pool *p = h->data;

	if (--p->handles == 0)
		free(p);
}

void box_pool_free(struct box_pool *p)
{
	if (!p)
		return;
	p->closing = true;
	uv_close((uv_handle_t *)&p->poll, handle_closed);
	uv_close((uv_handle_t *)&p->refill_timer, handle_closed);
}

bool box_place(const struct box_pool *p, const struct box_use *u, struct box_place *ret_place)
{
	if (!u->box)
		return false;
	*ret_place = (struct box_place){box_index(p, u->box), u->box->init_pid};
	return true;
}

void box_pool_retire(struct box_pool *p)
{
	p->cfg.standbys = 0;
}

bool box_pool_is_unused(const struct box_pool *p)
{
	for (unsigned i = 0; i < p->cfg.boxes; i++) {
		if (p->boxes[i].use)
			return false;
	}
	return p->n_waiting == 0;
}

void box_pool_each_ready(const struct box_pool *p,
			 void (*each)(void *ctx, const struct box_place *place), void *ctx)
{
	for (unsigned i = 0; i < p->cfg.boxes; i++)
		if (p->boxes[i].state == BOX_READY)
			each(ctx, &(struct box_place){i, p->boxes[i].init_pid});
}

void box_pool_stats(const struct box_pool *p, struct box_pool_stats *ret_stats)
{
	ret_stats->ready = p->count[BOX_READY];
	ret_stats->waiting = p->n_waiting;
}
