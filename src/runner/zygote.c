/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/zygote.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"
#include "runner/environment.h"
#include "task/task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	FAILURES_MAX = 3, /* in a row: the language's is given up */
	FAILED_MAX = 16,  /* languages that are remembered */
	START_MS = 20 * 1000,
	LOOK_MS = 5 * 1000,
	LOOK_SOON_MS = 10, /* while one is going */
	TURN_MS = 2000,	   /* so long a tenant keeps a place that another wants */
	/* The interpreter itself, in what one fork of it costs. */
	OWN_SHARE = 3,
	IMPORTS_BYTES_MAX = 2048,
};

enum zygote_state {
	ZYGOTE_NONE,
	ZYGOTE_STARTING,
	ZYGOTE_SERVING,
	ZYGOTE_RETIRING, /* tasks are left in its boxes */
	ZYGOTE_ENDING,
};

struct zygote {
	struct zygotes *all;
	unsigned place;
	enum zygote_state state;
	const struct language *language;
	char tenant[TASK_TENANT_MAX + 1];
	struct sandbox_client *client;
	uv_poll_t *poll; /* STARTING, ENDING; freed when it is closed */
	struct box_pool *pool;
	bool lost;
	uint64_t forks;
	int64_t began_us, used_us;
};

struct failures {
	const struct language *language;
	unsigned n;
};

struct zygotes {
	struct zygotes_config cfg;
	char *standby_dir; /* absolute */
	uv_timer_t look_timer;
	bool closing;
	struct zygote zygotes[NURSERY_PLACES_MAX];
	struct failures failed[FAILED_MAX];
};

#define FOREACH_ZYGOTE(z, all)                                                                     \
	for (struct zygote *z = (all)->zygotes;                                                    \
	     z < (all)->zygotes + nursery_places((all)->cfg.nursery); z++)

static void look(uv_timer_t *timer);

static void look_later(struct zygotes *all, uint64_t ms)
{
	if (!all->closing)
		(void)uv_timer_start(&all->look_timer, look, ms, LOOK_MS);
}

/* ---- what failed ---- */

static struct failures *failures_of(struct zygotes *all, const struct language *l)
{
	for (size_t i = 0; i < FAILED_MAX; i++) {
		struct failures *f = &all->failed[i];

		if (f->language == l || !f->language) {
			f->language = l;
			return f;
		}
	}
	return NULL;
}

static void start_failed(struct zygote *z, const char *reason)
{
	struct failures *f = failures_of(z->all, z->language);

	if (f && ++f->n == FAILURES_MAX)
		log_warn("runner", "no tasks can be forked of a language's interpreter",
			 LOG_STR("language", z->language->name), LOG_STR("reason", reason));
}

/* ---- from state to state ---- */

static void poll_closed(uv_handle_t *h)
{
	free(h);
}

static void stop_poll(struct zygote *z)
{
	if (!z->poll)
		return;
	(void)uv_poll_stop(z->poll);
	z->poll->data = NULL;
	uv_close((uv_handle_t *)TAKE_PTR(z->poll), poll_closed);
}

static int start_poll(struct zygote *z, uv_poll_cb cb)
{
	uv_poll_t *poll = malloc(sizeof(*poll));

	if (!poll)
		return -ENOMEM;
	if (uv_poll_init(z->all->cfg.loop, poll, sandbox_client_fd(z->client)) < 0) {
		free(poll);
		return -EMFILE;
	}
	z->poll = poll;
	poll->data = z;
	(void)uv_poll_start(poll, UV_READABLE, cb);
	return 0;
}

static void forget(struct zygote *z)
{
	stop_poll(z);
	sandbox_client_free(TAKE_PTR(z->client));
	*z = (struct zygote){.all = z->all, .place = z->place};
}

static void on_ending(uv_poll_t *poll, int status, int events)
{
	struct zygote *z = poll->data;
	union sandbox_event event;
	int r;

	(void)status;
	(void)events;
	if (!z)
		return;
	do {
		r = sandbox_client_receive(z->client, &event, NULL);
	} while (r > 0);
	if (r < 0)
		forget(z);
}

/* Its groups are used again when it has removed what is in them, which its end says. */
static void end(struct zygote *z)
{
	stop_poll(z);
	box_pool_free(TAKE_PTR(z->pool));
	z->state = ZYGOTE_ENDING;
	sandbox_client_end(z->client);
	if (start_poll(z, on_ending) < 0)
		forget(z);
}

static void retire(struct zygote *z)
{
	box_pool_retire(z->pool);
	z->state = ZYGOTE_RETIRING;
	look_later(z->all, LOOK_SOON_MS);
}

static void on_lost(void *ctx, const char *message)
{
	struct zygote *z = ctx;

	log_warn("runner", "an interpreter that tasks were forked of is lost",
		 LOG_STR("language", z->language->name), LOG_STR("reason", message));
	start_failed(z, message);
	z->lost = true;
	z->state = ZYGOTE_RETIRING;
	look_later(z->all, 0);
}

/* Around its boxes stands all that stands around others. */
static bool is_as_strong(const struct sandbox_reply_configured *theirs,
			 const struct sandbox_reply_configured *ours)
{
	return theirs->rung == ours->rung && theirs->landlock_abi == ours->landlock_abi &&
	       theirs->filter_len == ours->filter_len &&
	       ((theirs->has ^ ours->has) & ~(uint32_t)SANDBOX_HAS_ROOT) == 0;
}

static int begin_serving(struct zygote *z, const struct sandbox_reply_configured *in_force,
			 struct err *e)
{
	struct zygotes *all = z->all;
	const struct box_pool_config cfg = {
		.boxes = nursery_boxes(all->cfg.nursery),
		.standbys = all->cfg.ready,
		.expected = all->cfg.expected,
		.lost = on_lost,
		.ctx = z,
	};

	if (!is_as_strong(in_force, all->cfg.in_force))
		return err_set(e, -EPERM, "its boxes would lack walls that others have");
	return box_pool_new(all->cfg.loop, z->client, &cfg, &z->pool, e);
}

static void retire_predecessor(const struct zygote *z)
{
	FOREACH_ZYGOTE(other, z->all)
	{
		if (other != z && other->state == ZYGOTE_SERVING &&
		    other->language == z->language && str_eq(other->tenant, z->tenant))
			retire(other);
	}
}

static void on_starting(uv_poll_t *poll, int status, int events)
{
	struct zygote *z = poll->data;
	union sandbox_event event;
	struct err e = {0};
	int r;

	(void)status;
	(void)events;
	if (!z)
		return;
	r = sandbox_client_receive(z->client, &event, &e);
	if (r == 0)
		return;
	if (r > 0 && event.h.type == SANDBOX_REPLY_ERROR)
		r = err_set(&e, -EIO, "%s", event.error.message);
	else if (r > 0 && event.h.type != SANDBOX_REPLY_CONFIGURED)
		r = err_set(&e, -EPROTO, "it gave a wrong answer");
	stop_poll(z);
	if (r > 0)
		r = begin_serving(z, &event.configured, &e);
	if (r < 0) {
		start_failed(z, e.msg);
		end(z);
		return;
	}
	z->state = ZYGOTE_SERVING;
	retire_predecessor(z);
}

/* ---- start ---- */

static uint64_t cost(const struct zygotes *all, const struct language *l)
{
	return (uint64_t)l->run.standby.memory_bytes * (all->cfg.ready + OWN_SHARE);
}

static void join(char *const *words, struct buf *ret_text)
{
	for (; words && *words; words++)
		(void)buf_printf(ret_text, "%s ", *words);
	(void)buf_printf(ret_text, "%s", "");
}

static int add_folder(const struct zygotes *all, const struct language_standby *s, char ***envp)
{
	AUTO_FREE char *folder = NULL;

	if (asprintf(&folder, "%s/%s", all->standby_dir, s->fork) < 0)
		return -ENOMEM;
	return environment_add(envp, s->variable, folder);
}

/* Beside the library that all have; a space or a colon in its name would make it the names of two.
 */
static int add_preload(const struct zygotes *all, const struct language_standby *s, char ***envp)
{
	const int stem = (int)(strrchr(all->cfg.library, '.') - all->cfg.library);
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%.*s-%s.so", stem, all->cfg.library, s->fork) < 0)
		return -ENOMEM;
	return strpbrk(path, " :") ? -EINVAL : environment_add(envp, "LD_PRELOAD", path);
}

/* That of tasks, and what tells the interpreter what to become, which its forks do not have. */
static int environment(const struct zygotes *all, const struct language *l, char ***ret_envp,
		       struct err *e)
{
	const struct language_standby *s = &l->run.standby;
	struct buf imports;
	char **envp = NULL;
	int r = environment_new(l, &envp, e);

	if (r < 0)
		return r;
	buf_init(&imports, IMPORTS_BYTES_MAX);
	join(s->imports, &imports);
	r = buf_error(&imports);
	if (r == 0 && s->variable)
		r = add_folder(all, s, &envp);
	if (r == 0 && s->preload)
		r = add_preload(all, s, &envp);
	if (r == 0)
		r = environment_add(&envp, "KILN_ZYGOTE", all->cfg.library);
	if (r == 0)
		r = environment_add(&envp, "KILN_ZYGOTE_IMPORTS", imports.data);
	/* Restartable sequences have the kernel write to each fork that is scheduled. */
	if (r == 0)
		r = environment_add(&envp, "GLIBC_TUNABLES", "glibc.pthread.rseq=0");
	buf_fini(&imports);
	if (r < 0) {
		environment_free(envp);
		return err_set(e, r, "could not make its environment");
	}
	*ret_envp = envp;
	return 0;
}

static int start(struct zygote *z, struct err *e)
{
	struct zygotes *all = z->all;
	const struct language_step step = {.argv = z->language->run.standby.argv};
	const struct task_program program = {.entry = z->language->source};
	const struct language_words words = {0};
	char **argv = NULL, **envp = NULL;
	int r = language_argv(z->language, &step, &program, &words, NULL, 0, &argv);

	if (r < 0)
		return err_set(e, r, "could not make its command");
	r = environment(all, z->language, &envp, e);
	if (r == 0)
		r = nursery_start(all->cfg.nursery, z->place, (const char *const *)argv,
				  (const char *const *)envp, &z->client, e);
	if (r == 0 && start_poll(z, on_starting) < 0)
		r = err_set(e, -ENOMEM, "could not watch it");
	language_argv_free(argv);
	environment_free(envp);
	return r;
}

static void start_in(struct zygote *z, const struct language *l, const char *tenant)
{
	struct err e;

	z->language = l;
	(void)str_copy(z->tenant, sizeof(z->tenant), tenant);
	z->began_us = z->used_us = clock_monotonic_us();
	z->state = ZYGOTE_STARTING;
	if (start(z, &e) < 0) {
		start_failed(z, e.msg);
		forget(z);
	}
	look_later(z->all, LOOK_MS);
}

/* ---- who has a place ---- */

struct places {
	struct zygote *free;   /* one of them, or NULL */
	struct zygote *oldest; /* of those that serve: used longest ago */
	unsigned n_free;
	bool starting;
	uint64_t bytes;
};

static struct places count_places(struct zygotes *all)
{
	struct places p = {0};

	FOREACH_ZYGOTE(z, all)
	{
		if (z->state == ZYGOTE_NONE) {
			p.free = z;
			p.n_free++;
			continue;
		}
		p.bytes += cost(all, z->language);
		p.starting = p.starting || z->state == ZYGOTE_STARTING;
		if (z->state == ZYGOTE_SERVING && (!p.oldest || z->used_us < p.oldest->used_us))
			p.oldest = z;
	}
	return p;
}

/* The last place is for successors, so that nobody has to do without meanwhile. Returns whether one
 * starts, whosever it is. */
static bool want(struct zygotes *all, const struct language *l, const char *tenant, bool successor)
{
	struct places p = count_places(all);
	const struct failures *f = failures_of(all, l);
	int64_t now_us = clock_monotonic_us();

	if (p.starting || all->closing)
		return true;
	if (!f || f->n >= FAILURES_MAX)
		return false;
	if (p.n_free > (successor ? 0 : 1) && p.bytes + cost(all, l) <= all->cfg.budget_bytes) {
		start_in(p.free, l, tenant);
		return true;
	}
	if (!successor && p.oldest && now_us - p.oldest->used_us > TURN_MS * 1000)
		retire(p.oldest);
	return false;
}

static bool is_worn(const struct zygote *z, int64_t now_us)
{
	return z->forks >= z->all->cfg.forks_max ||
	       now_us - z->began_us > ZYGOTE_AGE_MS * INT64_C(1000);
}

struct box_pool *zygotes_ask(struct zygotes *z, const struct language *language, const char *tenant,
			     const char *entry)
{
	if (!language->run.standby.fork || !str_eq(entry, language->source))
		return NULL;
	FOREACH_ZYGOTE(one, z)
	{
		if (one->language != language || one->state != ZYGOTE_SERVING ||
		    !str_eq(one->tenant, tenant))
			continue;
		one->used_us = clock_monotonic_us();
		one->forks++;
		/* Where there is no room for two, tasks start as usual until the next one serves.
		 */
		if (is_worn(one, one->used_us) && !want(z, language, tenant, true)) {
			retire(one);
			return NULL;
		}
		return one->pool;
	}
	(void)want(z, language, tenant, false);
	return NULL;
}

static void look_at(struct zygote *z, int64_t now_us)
{
	switch (z->state) {
	case ZYGOTE_STARTING:
		if (now_us - z->began_us > START_MS * INT64_C(1000)) {
			start_failed(z, "it did not answer");
			end(z);
		}
		break;
	case ZYGOTE_SERVING:
		if (now_us - z->used_us > ZYGOTE_IDLE_MS * INT64_C(1000))
			retire(z);
		break;
	case ZYGOTE_RETIRING:
		if (z->lost || box_pool_is_unused(z->pool))
			end(z);
		break;
	default:
		break;
	}
}

/* Only while there are some: an idle runner is left alone. */
static void look(uv_timer_t *timer)
{
	struct zygotes *all = timer->data;
	int64_t now_us = clock_monotonic_us();
	bool some = false, going = false;

	FOREACH_ZYGOTE(z, all)
	{
		look_at(z, now_us);
		some = some || z->state != ZYGOTE_NONE;
		going = going || z->state == ZYGOTE_RETIRING;
	}
	if (!some)
		(void)uv_timer_stop(timer);
	else if (going)
		look_later(all, LOOK_SOON_MS);
}

unsigned zygotes_ready(const struct zygotes *z)
{
	struct box_pool_stats stats;
	unsigned n = 0;

	FOREACH_ZYGOTE(one, (struct zygotes *)(uintptr_t)z)
	{
		if (one->state != ZYGOTE_SERVING)
			continue;
		box_pool_stats(one->pool, &stats);
		n += stats.ready;
	}
	return n;
}

uint64_t zygotes_bytes(const struct zygotes *z)
{
	return count_places((struct zygotes *)(uintptr_t)z).bytes;
}

void zygotes_each(const struct zygotes *z,
		  void (*each)(void *ctx, const struct language *language,
			       const struct box_pool *forks),
		  void *ctx)
{
	FOREACH_ZYGOTE(one, (struct zygotes *)(uintptr_t)z)
	{
		if (one->state != ZYGOTE_NONE)
			each(ctx, one->language, one->state == ZYGOTE_SERVING ? one->pool : NULL);
	}
}

/* ---- life cycle ---- */

int zygotes_new(const struct zygotes_config *cfg, struct zygotes **ret_zygotes, struct err *e)
{
	AUTO_FREE char *dir = realpath(cfg->languages, NULL);
	struct zygotes *z = calloc(1, sizeof(*z));

	if (!dir || !z || asprintf(&z->standby_dir, "%s/standby", dir) < 0) {
		free(z);
		return dir ? err_set(e, -ENOMEM, "out of memory")
			   : err_errno(e, -errno, "could not find \"%s\"", cfg->languages);
	}
	z->cfg = *cfg;
	for (unsigned i = 0; i < NURSERY_PLACES_MAX; i++)
		z->zygotes[i] = (struct zygote){.all = z, .place = i};
	(void)uv_timer_init(cfg->loop, &z->look_timer);
	z->look_timer.data = z;
	*ret_zygotes = z;
	return 0;
}

static void timer_closed(uv_handle_t *h)
{
	struct zygotes *z = h->data;

	free(z->standby_dir);
	free(z);
}

void zygotes_free(struct zygotes *z)
{
	if (!z)
		return;
	z->closing = true;
	FOREACH_ZYGOTE(one, z)
	{
		box_pool_free(TAKE_PTR(one->pool));
		forget(one);
	}
	uv_close((uv_handle_t *)&z->look_timer, timer_closed);
}
