/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/standby.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"
#include "runner/environment.h"
#include "sandbox/archive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	REFILL_MS = 5, /* after a task: let its end be told first */
	REFILL_LATER_MS = 25,
	LOOKS_IN_IDLE = 20,
	FAILURES_MAX = 3, /* in a row: the language's standby is given up */
	SETUP_PATH_MAX = 256,
	RECENT_MAX = 8,
	MESSAGE_MAX = STANDBY_BYTES_MAX + (2 << 20), /* with arguments */
	WINDOW_MIN_US = 250 * 1000,
	WINDOW_MAX_US = 5 * 1000 * 1000,
};

/* The standbys of one step of one language: all alike. */
struct kind {
	struct list link;
	const struct language *language;
	const struct language_step *step; /* of it */
	char setup[SETUP_PATH_MAX];	  /* "": none */
	struct task_limits limits;
	struct task_limits other; /* last ones that differed */
	struct list waiting;	  /* struct standby */
	unsigned n, n_ready, failures;
	int64_t boot_us;	       /* how long the last one took */
	int64_t recent_us[RECENT_MAX]; /* when it was asked for, a ring */
	unsigned next_recent;
	int64_t used_us; /* the last of these */
};

struct standby {
	struct list link;
	struct standby_pool *pool;
	struct kind *kind;
	struct step *step;
	bool ready;
	int64_t began_us;
};

struct standby_pool {
	uv_loop_t *loop;
	struct box_pool *boxes;
	struct standby_config cfg;
	struct list kinds;
	unsigned n, reserved; /* with those that others have */
	uint64_t bytes, reserved_bytes;
	struct standby *booting; /* one at a time */
	uv_timer_t refill_timer, look_timer;
	int handles;
	bool closing;
};

static void refill_later(struct standby_pool *p, uint64_t ms);

/* ---- one ---- */

static void standby_unlink(struct standby *s)
{
	struct standby_pool *p = s->pool;

	list_unlink(&s->link);
	s->kind->n--;
	s->kind->n_ready -= s->ready;
	p->n--;
	p->bytes -= (uint64_t)s->kind->step->standby.memory_bytes;
	if (p->booting == s)
		p->booting = NULL;
}

static void standby_end(struct standby *s)
{
	standby_unlink(s);
	step_free(s->step);
	free(s);
}

static size_t no_room(void *ctx)
{
	(void)ctx;
	return 0;
}

static void no_chunk(void *ctx, enum task_stream stream, const void *bytes, size_t len)
{
	(void)ctx;
	(void)stream;
	(void)bytes;
	(void)len;
}

static void on_ready(void *ctx)
{
	struct standby *s = ctx;

	s->ready = true;
	s->kind->n_ready++;
	s->kind->failures = 0;
	s->kind->boot_us = clock_monotonic_us() - s->began_us;
	s->pool->booting = NULL;
	refill_later(s->pool, REFILL_MS);
}

/* It ended before anybody wanted it: while it booted that is its language's fault. */
static void on_ended(void *ctx, struct step_end *end)
{
	struct standby *s = ctx;
	struct standby_pool *p = s->pool;
	struct kind *k = s->kind;

	if (!s->ready && ++k->failures == FAILURES_MAX)
		log_warn("runner", "a language's standby does not get ready: tasks start without",
			 LOG_STR("language", k->language->name),
			 LOG_STR("reason", end->failed ? end->failed : ""),
			 LOG_INT("exit_code", end->failed ? -1 : end->exited->code));
	standby_end(s);
	refill_later(p, REFILL_LATER_MS);
}

static const struct step_ops waiting_ops = {
	.room = no_room,
	.chunk = no_chunk,
	.ended = on_ended,
	.ready = on_ready,
};

static bool is_compiler(const struct kind *k)
{
	return k->step == &k->language->compile;
}

static int start_command(struct standby *s, const char *const *envp, struct err *e)
{
	const struct kind *k = s->kind;
	const struct language_step step = {.argv = k->step->standby.argv};
	const struct task_program program = {.entry = k->language->source};
	const struct language_words words = {.memory_bytes = k->limits.memory_bytes,
					     .setup = k->setup[0] ? k->setup : NULL};
	struct step_spec spec = {
		.envp = envp,
		.collect = (const char *const *)k->step->produces,
		.limits = &k->limits,
		.merge_streams = is_compiler(k),
		.waits = true,
	};
	char **argv = NULL;
	int r = language_argv(k->language, &step, &program, &words, NULL, 0, &argv);

	if (r < 0)
		return err_set(e, r, "could not make its command");
	spec.argv = (const char *const *)argv;
	r = step_start(s->pool->loop, s->pool->boxes, &spec, &waiting_ops, s, &s->step, e);
	language_argv_free(argv);
	return r;
}

static void look(uv_timer_t *timer);

static int boot(struct standby_pool *p, struct kind *k, struct err *e)
{
	const uint64_t look_ms = (uint64_t)p->cfg.idle_ms / LOOKS_IN_IDLE;
	struct standby *s = calloc(1, sizeof(*s));
	char **envp = NULL;
	int r = s ? environment_new(k->language, &envp, e) : err_set(e, -ENOMEM, "out of memory");

	if (r == 0) {
		s->pool = p;
		s->kind = k;
		s->began_us = clock_monotonic_us();
		r = start_command(s, (const char *const *)envp, e);
	}
	environment_free(envp);
	if (r < 0) {
		free(s);
		return r;
	}
	list_push_back(&k->waiting, &s->link);
	k->n++;
	p->n++;
	p->bytes += (uint64_t)k->step->standby.memory_bytes;
	p->booting = s;
	if (!uv_is_active((uv_handle_t *)&p->look_timer))
		(void)uv_timer_start(&p->look_timer, look, look_ms, look_ms);
	return 0;
}

/* ---- how many ---- */

static void kind_flush(struct kind *k)
{
	struct standby *s;

	while ((s = LIST_FIRST(&k->waiting, struct standby, link)))
		standby_end(s);
}

/* As many as were asked for in the time that it takes to start some, and one. */
static unsigned wanted(const struct standby_pool *p, const struct kind *k, int64_t now_us)
{
	int64_t window_us = 2 * k->boot_us;
	unsigned n = 1;

	if (k->failures >= FAILURES_MAX || now_us - k->used_us > p->cfg.idle_ms * 1000)
		return 0;
	if (window_us < WINDOW_MIN_US)
		window_us = WINDOW_MIN_US;
	if (window_us > WINDOW_MAX_US)
		window_us = WINDOW_MAX_US;
	for (size_t i = 0; i < RECENT_MAX; i++)
		n += k->recent_us[i] > 0 && now_us - k->recent_us[i] < window_us;
	return n < p->cfg.max_language ? n : p->cfg.max_language;
}

static bool has_room(const struct standby_pool *p, const struct kind *k)
{
	return p->n < p->cfg.max &&
	       p->bytes + (uint64_t)k->step->standby.memory_bytes <= p->cfg.budget_bytes;
}

/* Makes room for a language that has none, by one of the language that was not asked for longest.
 */
static bool make_room(struct standby_pool *p, const struct kind *k)
{
	while (!has_room(p, k)) {
		struct kind *other, *oldest = NULL;
		struct standby *s;

		LIST_FOREACH (other, &p->kinds, link) {
			if (other != k && other->n > 0 && other->used_us < k->used_us &&
			    (!oldest || other->used_us < oldest->used_us))
				oldest = other;
		}
		s = oldest && k->n == 0 ? LIST_FIRST(&oldest->waiting, struct standby, link) : NULL;
		if (!s)
			return false;
		standby_end(s);
	}
	return true;
}

static struct standby *least_used(const struct standby_pool *p)
{
	struct kind *k, *oldest = NULL;

	LIST_FOREACH (k, &p->kinds, link) {
		if (k->n > 0 && (!oldest || k->used_us < oldest->used_us))
			oldest = k;
	}
	return oldest ? LIST_FIRST(&oldest->waiting, struct standby, link) : NULL;
}

bool standby_reserve(struct standby_pool *p, uint64_t bytes)
{
	if (p->reserved == p->cfg.max || p->reserved_bytes + bytes > p->cfg.budget_bytes)
		return false;
	while (p->n >= p->cfg.max || p->bytes + bytes > p->cfg.budget_bytes) {
		struct standby *s = least_used(p);

		if (!s)
			return false;
		standby_end(s);
	}
	p->n++;
	p->reserved++;
	p->bytes += bytes;
	p->reserved_bytes += bytes;
	return true;
}

void standby_give_back(struct standby_pool *p, uint64_t bytes)
{
	p->n--;
	p->reserved--;
	p->bytes -= bytes;
	p->reserved_bytes -= bytes;
}

static void refill(struct standby_pool *p)
{
	int64_t now_us = clock_monotonic_us();
	struct kind *k;
	struct err e;

	if (p->closing || p->booting || !p->cfg.idle(p->cfg.ctx))
		return;
	LIST_FOREACH (k, &p->kinds, link) {
		if (k->n >= wanted(p, k, now_us) || !make_room(p, k))
			continue;
		if (boot(p, k, &e) < 0 && ++k->failures == FAILURES_MAX)
			log_warn("runner", "a language's standby cannot be started",
				 LOG_STR("language", k->language->name), LOG_STR("reason", e.msg));
		return;
	}
}

static void refill_due(uv_timer_t *timer)
{
	refill(timer->data);
}

static void refill_later(struct standby_pool *p, uint64_t ms)
{
	if (!p->closing && !uv_is_active((uv_handle_t *)&p->refill_timer))
		(void)uv_timer_start(&p->refill_timer, refill_due, ms, 0);
}

static bool is_late(const struct standby *s, int64_t now_us)
{
	return now_us - s->began_us > STANDBY_BOOT_MS * INT64_C(1000);
}

/* Only while there are some: an idle runner is left alone. */
static void look(uv_timer_t *timer)
{
	struct standby_pool *p = timer->data;
	int64_t now_us = clock_monotonic_us();
	struct kind *k;

	if (p->booting && is_late(p->booting, now_us))
		step_kill(p->booting->step);
	LIST_FOREACH (k, &p->kinds, link) {
		if (wanted(p, k, now_us) == 0)
			kind_flush(k);
	}
	if (p->n == p->reserved)
		(void)uv_timer_stop(&p->look_timer);
	refill_later(p, REFILL_LATER_MS);
}

/* ---- wishes ---- */

/* All but the output, which is counted outside of the sandbox. */
static bool same_limits(const struct task_limits *a, const struct task_limits *b)
{
	struct task_limits x = *a;

	x.output_bytes = b->output_bytes;
	return memcmp(&x, b, sizeof(x)) == 0;
}

static struct kind *kind_of(struct standby_pool *p, const struct standby_wish *w)
{
	struct kind *k;

	LIST_FOREACH (k, &p->kinds, link) {
		if (k->step == w->step)
			return k;
	}
	k = calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	k->language = w->language;
	k->step = w->step;
	k->limits = k->other = *w->limits;
	list_init(&k->waiting);
	list_push_back(&p->kinds, &k->link);
	return k;
}

/* Other limits that come twice in a row are the ones to expect. */
static void learn(struct kind *k, const struct standby_wish *w)
{
	const char *setup = w->setup ? w->setup : "";

	k->used_us = clock_monotonic_us();
	k->recent_us[k->next_recent++ % RECENT_MAX] = k->used_us;
	if (!str_eq(k->setup, setup)) {
		kind_flush(k);
		k->failures = 0;
		(void)str_copy(k->setup, sizeof(k->setup), setup);
	}
	if (same_limits(&k->limits, w->limits)) {
		k->other = k->limits;
	} else if (same_limits(&k->other, w->limits)) {
		kind_flush(k);
		k->limits = *w->limits;
	} else {
		k->other = *w->limits;
	}
}

/* What the standby was started with cannot be changed any more. */
static bool fits(const struct kind *k, const struct standby_wish *w)
{
	return same_limits(&k->limits, w->limits) &&
	       (is_compiler(k) || (str_eq(w->program->entry, k->language->source) &&
				   (k->step->standby.args || w->n_args == 0)));
}

static struct standby *find_ready(const struct kind *k)
{
	struct standby *s;

	LIST_FOREACH (s, &k->waiting, link) {
		if (s->ready)
			return s;
	}
	return NULL;
}

struct step *standby_take(struct standby_pool *p, const struct standby_wish *w)
{
	struct kind *k = kind_of(p, w);
	struct step *step = NULL;
	struct standby *s;

	if (!k)
		return NULL;
	learn(k, w);
	s = fits(k, w) ? find_ready(k) : NULL;
	if (s) {
		step = TAKE_PTR(s->step);
		standby_end(s);
	}
	refill_later(p, REFILL_LATER_MS);
	return step;
}

void standby_poke(struct standby_pool *p)
{
	if (!list_empty(&p->kinds))
		refill_later(p, REFILL_MS);
}

unsigned standby_ready(const struct standby_pool *p)
{
	unsigned n = 0;
	struct kind *k;

	LIST_FOREACH (k, &p->kinds, link)
		n += k->n_ready;
	return n;
}

uint64_t standby_bytes(const struct standby_pool *p)
{
	return p->bytes;
}

void standby_each(const struct standby_pool *p,
		  void (*each)(void *ctx, const struct standby_view *view), void *ctx)
{
	struct standby *s;
	struct kind *k;

	LIST_FOREACH (k, &p->kinds, link) {
		LIST_FOREACH (s, &k->waiting, link) {
			struct standby_view view = {.language = k->language,
						    .compiles = is_compiler(k),
						    .ready = s->ready};

			view.placed = step_place(s->step, &view.place);
			each(ctx, &view);
		}
	}
}

/* ---- what one reads ---- */

static void put_number(struct buf *b, size_t n)
{
	const uint8_t bytes[] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
				 (uint8_t)n};

	(void)buf_append(b, bytes, sizeof(bytes));
}

static void put_bytes(struct buf *b, const void *bytes, size_t len)
{
	put_number(b, len);
	(void)buf_append(b, bytes, len);
}

static int put_archive(struct buf *b, const void *data, size_t len, size_t *n_files)
{
	struct archive_reader reader;
	struct archive_entry entry;
	int r = archive_open(&reader, data, len);

	while (r >= 0 && (r = archive_next(&reader, &entry)) > 0) {
		put_bytes(b, entry.name, entry.name_len);
		put_number(b, entry.mode);
		put_bytes(b, entry.data, (size_t)entry.size);
		(*n_files)++;
	}
	return r;
}

static int put_files(struct buf *b, const int *archives, size_t n, size_t *ret_files)
{
	int r = 0;

	*ret_files = 0;
	for (size_t i = 0; r == 0 && i < n; i++) {
		const void *data;
		size_t len;

		r = archive_map(archives[i], &data, &len, NULL);
		if (r < 0)
			return r;
		r = put_archive(b, data, len, ret_files);
		if (len > 0)
			(void)munmap((void *)(uintptr_t)data, len);
	}
	if (r == 0 && (*ret_files > STANDBY_FILES_MAX || buf_error(b) == -ENOBUFS))
		return -E2BIG;
	return r;
}

int standby_message(char *const *args, size_t n_args, const int *archives, size_t n_archives,
		    struct bytes *ret_message)
{
	struct buf b, files;
	size_t n_files;
	int r;

	buf_init(&b, MESSAGE_MAX);
	buf_init(&files, STANDBY_BYTES_MAX);
	r = put_files(&files, archives, n_archives, &n_files);
	put_number(&b, n_args);
	for (size_t i = 0; i < n_args; i++)
		put_bytes(&b, args[i], strlen(args[i]));
	put_number(&b, r == 0 ? n_files : 0);
	(void)buf_append(&b, files.data, files.len);
	if (r == 0)
		r = buf_error(&b) ? buf_error(&b) : buf_error(&files);
	if (r == 0)
		ret_message->data = buf_steal(&b, &ret_message->len);
	buf_fini(&b);
	buf_fini(&files);
	return r;
}

/* ---- life cycle ---- */

int standby_pool_new(uv_loop_t *loop, struct box_pool *boxes, const struct standby_config *cfg,
		     struct standby_pool **ret_pool, struct err *e)
{
	struct standby_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return err_set(e, -ENOMEM, "could not allocate the pool of standbys");
	p->loop = loop;
	p->boxes = boxes;
	p->cfg = *cfg;
	if (p->cfg.idle_ms == 0)
		p->cfg.idle_ms = STANDBY_IDLE_MS;
	list_init(&p->kinds);
	(void)uv_timer_init(loop, &p->refill_timer);
	(void)uv_timer_init(loop, &p->look_timer);
	p->refill_timer.data = p->look_timer.data = p;
	p->handles = 2;
	*ret_pool = p;
	return 0;
}

static void handle_closed(uv_handle_t *h)
{
	struct standby_pool *p = h->data;

	if (--p->handles == 0)
		free(p);
}

void standby_pool_free(struct standby_pool *p)
{
	struct kind *k, *next;

	if (!p)
		return;
	p->closing = true;
	LIST_FOREACH_SAFE (k, next, &p->kinds, link) {
		kind_flush(k);
		list_unlink(&k->link);
		free(k);
	}
	uv_close((uv_handle_t *)&p->refill_timer, handle_closed);
	uv_close((uv_handle_t *)&p->look_timer, handle_closed);
}
