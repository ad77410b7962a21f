/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/residents.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"
#include "runner/resident.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	SETUP_PATH_MAX = 256,
	DEMANDS_MAX = 32, /* tenants that are remembered */
	DEMAND_MIN = 2,
	FAILURES_MAX = 3, /* in a row: nobody tries again */
	SPARE_MS = 2000,  /* without a program for so long it makes way for another tenant's */
	LOOKS_IN_IDLE = 8,
	SPENT_SHARE = 8, /* of its programs: those that it has while the next one boots */
};

/* Whose a compiler is, and what it was started with. */
struct owner {
	char tenant[TASK_TENANT_MAX + 1];
	const struct language *language;
	char setup[SETUP_PATH_MAX]; /* "": none */
	struct task_limits limits;
};

struct compiler {
	struct list link;
	struct residents *pool;
	struct owner owner;
	struct resident *resident;
	bool ready;
	unsigned programs;
	int64_t began_us, used_us;
};

/* How often somebody had to do without one. */
struct demand {
	struct owner owner;
	unsigned n;
	int64_t last_us;
};

struct residents {
	uv_loop_t *loop;
	struct box_pool *boxes;
	struct residents_config cfg;
	struct list compilers;
	struct compiler *booting; /* one at a time */
	unsigned failures;
	struct demand demands[DEMANDS_MAX];
	uv_timer_t look_timer;
};

/* ---- owners ---- */

static bool owner_init(struct owner *o, const struct residents_wish *w)
{
	*o = (struct owner){.language = w->wish->language, .limits = *w->wish->limits};
	return str_copy(o->tenant, sizeof(o->tenant), w->tenant) &&
	       str_copy(o->setup, sizeof(o->setup), w->wish->setup ? w->wish->setup : "");
}

/* Limits of output are kept by the runner. */
static bool same_owner(const struct owner *a, const struct owner *b)
{
	struct task_limits limits = a->limits;

	limits.output_bytes = b->limits.output_bytes;
	return a->language == b->language && str_eq(a->tenant, b->tenant) &&
	       str_eq(a->setup, b->setup) && memcmp(&limits, &b->limits, sizeof(limits)) == 0;
}

static uint64_t cost_of(const struct owner *o)
{
	return (uint64_t)o->language->compile.resident.memory_bytes;
}

/* One that is nearly spent does not count: the next one is to be there before it ends. */
static bool is_fresh(const struct residents *p, const struct compiler *c)
{
	return c->programs < p->cfg.programs - p->cfg.programs / SPENT_SHARE;
}

static unsigned count_of(const struct residents *p, const char *tenant)
{
	const struct compiler *c;
	unsigned n = 0;

	LIST_FOREACH (c, &p->compilers, link)
		n += str_eq(c->owner.tenant, tenant) && is_fresh(p, c);
	return n;
}

/* ---- one ---- */

static void compiler_end(struct compiler *c)
{
	struct residents *p = c->pool;

	if (p->booting == c)
		p->booting = NULL;
	list_unlink(&c->link);
	standby_give_back(p->cfg.room, cost_of(&c->owner));
	resident_free(c->resident);
	free(c);
}

static void on_ready(void *ctx)
{
	struct compiler *c = ctx;

	c->ready = true;
	c->used_us = clock_monotonic_us();
	c->pool->booting = NULL;
	c->pool->failures = 0;
}

static void boot_failed(struct residents *p, const struct owner *o, const char *reason)
{
	if (++p->failures == FAILURES_MAX)
		log_warn("runner", "no resident compiler gets ready: there will be none",
			 LOG_STR("language", o->language->name), LOG_STR("reason", reason));
}

static void on_ended(void *ctx)
{
	struct compiler *c = ctx;

	if (!c->ready)
		boot_failed(c->pool, &c->owner, "it ended");
	compiler_end(c);
}

static const struct resident_ops compiler_ops = {.ready = on_ready, .ended = on_ended};

static void look(uv_timer_t *timer);

static void boot(struct residents *p, const struct owner *o)
{
	const uint64_t look_ms = (uint64_t)p->cfg.idle_ms / LOOKS_IN_IDLE;
	const struct resident_spec spec = {
		.language = o->language,
		.setup = o->setup[0] ? o->setup : NULL,
		.limits = &o->limits,
	};
	struct compiler *c = calloc(1, sizeof(*c));
	struct err e = {""};

	if (c) {
		c->pool = p;
		c->owner = *o;
		c->began_us = c->used_us = clock_monotonic_us();
	}
	if (!c ||
	    resident_start(p->loop, p->boxes, &spec, &compiler_ops, c, &c->resident, &e) < 0) {
		boot_failed(p, o, e.msg);
		standby_give_back(p->cfg.room, cost_of(o));
		free(c);
		return;
	}
	list_push_back(&p->compilers, &c->link);
	p->booting = c;
	if (!uv_is_active((uv_handle_t *)&p->look_timer))
		(void)uv_timer_start(&p->look_timer, look, look_ms, look_ms);
}

/* ---- which there are ---- */

/* One that does nothing, and that another has more need of. */
static bool may_go(const struct residents *p, const struct compiler *c, int64_t now_us)
{
	return c->ready && resident_is_free(c->resident) &&
	       (now_us - c->used_us > SPARE_MS * INT64_C(1000) || count_of(p, c->owner.tenant) > 1);
}

/* Ends the one that makes way for another of o. tenant: only of this one; NULL: of any. */
static bool end_one(struct residents *p, const struct owner *o, const char *tenant, int64_t now_us)
{
	struct compiler *c, *oldest = NULL;

	LIST_FOREACH (c, &p->compilers, link) {
		if (!same_owner(&c->owner, o) && (!tenant || str_eq(c->owner.tenant, tenant)) &&
		    may_go(p, c, now_us) && (!oldest || c->used_us < oldest->used_us))
			oldest = c;
	}
	if (oldest)
		compiler_end(oldest);
	return oldest;
}

static bool make_room(struct residents *p, const struct owner *o, int64_t now_us)
{
	if (count_of(p, o->tenant) >= p->cfg.max_tenant && !end_one(p, o, o->tenant, now_us))
		return false;
	while (!standby_reserve(p->cfg.room, cost_of(o))) {
		if (!end_one(p, o, NULL, now_us))
			return false;
	}
	return true;
}

/* The entry of this owner; else the one that was of no use for longest, emptied. */
static struct demand *demand_of(struct residents *p, const struct owner *o)
{
	struct demand *oldest = &p->demands[0];

	for (size_t i = 0; i < DEMANDS_MAX; i++) {
		struct demand *d = &p->demands[i];

		if (d->n > 0 && same_owner(&d->owner, o))
			return d;
		if (d->last_us < oldest->last_us)
			oldest = d;
	}
	*oldest = (struct demand){.owner = *o};
	return oldest;
}

static void miss(struct residents *p, const struct owner *o)
{
	struct demand *d = demand_of(p, o);
	int64_t now_us = clock_monotonic_us();

	if (now_us - d->last_us > RESIDENT_DEMAND_MS * INT64_C(1000))
		d->n = 0;
	d->n++;
	d->last_us = now_us;
	if (d->n >= DEMAND_MIN && !p->booting && p->failures < FAILURES_MAX &&
	    make_room(p, o, now_us))
		boot(p, o);
}

static void look(uv_timer_t *timer)
{
	struct residents *p = timer->data;
	int64_t now_us = clock_monotonic_us();
	struct compiler *c, *next;

	LIST_FOREACH_SAFE (c, next, &p->compilers, link) {
		if (!c->ready && now_us - c->began_us > STANDBY_BOOT_MS * INT64_C(1000)) {
			boot_failed(p, &c->owner, "it takes too long");
			compiler_end(c);
		} else if (c->ready && resident_is_free(c->resident) &&
			   now_us - c->used_us > p->cfg.idle_ms * 1000) {
			compiler_end(c);
		}
	}
	if (list_empty(&p->compilers))
		(void)uv_timer_stop(&p->look_timer);
}

/* ---- programs ---- */

static bool is_source(const struct language *l, const char *name)
{
	/* Neither an option nor a file of options. */
	if (name[0] == '-' || name[0] == '@')
		return false;
	for (size_t i = 0; l->extensions && l->extensions[i]; i++) {
		size_t len = strlen(name), n = strlen(l->extensions[i]);

		if (len > n && str_eq(name + len - n, l->extensions[i]))
			return true;
	}
	return false;
}

/* All else could be code that a compiler executes: plug-ins, services, class files. */
static bool has_only_sources(const struct standby_wish *w)
{
	for (size_t i = 0; i < w->program->n_files; i++) {
		if (!is_source(w->language, w->program->files[i].name))
			return false;
	}
	return is_source(w->language, w->program->entry);
}

static struct compiler *find_free(struct residents *p, const struct owner *o)
{
	struct compiler *c, *found = NULL;

	/* The one that has had most: the others live longer, and not all end at once. */
	LIST_FOREACH (c, &p->compilers, link) {
		if (c->ready && c->programs < p->cfg.programs && resident_is_free(c->resident) &&
		    same_owner(&c->owner, o) && (!found || c->programs > found->programs))
			found = c;
	}
	return found;
}

/* Those that have had their number make way. */
static void end_spent(struct residents *p)
{
	struct compiler *c, *next;

	LIST_FOREACH_SAFE (c, next, &p->compilers, link) {
		if (c->programs >= p->cfg.programs && resident_is_free(c->resident))
			compiler_end(c);
	}
}

static bool give(struct compiler *c, const struct residents_wish *w, const struct bytes *message)
{
	const struct resident_work work = {
		.ops = w->ops, .ctx = w->ctx, .limits = w->wish->limits, .message = message};

	c->programs++;
	c->used_us = clock_monotonic_us();
	return resident_give(c->resident, &work) == 0;
}

struct compiler *residents_give(struct residents *p, const struct residents_wish *w)
{
	struct bytes message = {0};
	struct compiler *c;
	struct owner o;

	if (!w->wish->language->compile.resident.argv || !owner_init(&o, w) ||
	    !has_only_sources(w->wish))
		return NULL;
	end_spent(p);
	c = find_free(p, &o);
	if (!c) {
		miss(p, &o);
		return NULL;
	}
	if (standby_message(w->args, w->n_args, &w->archive, 1, &message) < 0)
		return NULL;
	if (!give(c, w, &message))
		c = NULL;
	bytes_fini(&message);
	if (c && !is_fresh(p, c))
		miss(p, &o);
	return c;
}

void residents_leave(struct compiler *c)
{
	if (c)
		compiler_end(c);
}

void residents_each(const struct residents *p,
		    void (*each)(void *ctx, const struct residents_view *view), void *ctx)
{
	const struct compiler *c;

	LIST_FOREACH (c, &p->compilers, link) {
		struct residents_view view = {.language = c->owner.language, .ready = c->ready};

		view.placed = resident_place(c->resident, &view.place);
		each(ctx, &view);
	}
}

/* ---- life cycle ---- */

int residents_new(uv_loop_t *loop, struct box_pool *boxes, const struct residents_config *cfg,
		  struct residents **ret_residents, struct err *e)
{
	struct residents *p = calloc(1, sizeof(*p));

	if (!p)
		return err_set(e, -ENOMEM, "could not allocate the resident compilers");
	p->loop = loop;
	p->boxes = boxes;
	p->cfg = *cfg;
	if (p->cfg.idle_ms == 0)
		p->cfg.idle_ms = RESIDENT_IDLE_MS;
	list_init(&p->compilers);
	(void)uv_timer_init(loop, &p->look_timer);
	p->look_timer.data = p;
	*ret_residents = p;
	return 0;
}

static void timer_closed(uv_handle_t *h)
{
	free(h->data);
}

void residents_free(struct residents *p)
{
	struct compiler *c, *next;

	if (!p)
		return;
	LIST_FOREACH_SAFE (c, next, &p->compilers, link)
		compiler_end(c);
	uv_close((uv_handle_t *)&p->look_timer, timer_closed);
}
