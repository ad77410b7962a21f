/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/inspect.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"
#include "base/url.h"
#include "cmd/cmd.h"
#include "config/config.h"
#include "store/outbox.h"
#include "task/language.h"
#include "json/writer.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum {
	LETTERS_MAX = 1000,
	LETTERS_SHOWN = 20,
	TEXT_MAX = 4 * 1024 * 1024,
	OUTBOX_COUNT_MAX = 10000000
};

const char cmd_queue_usage[] =
	"usage: kiln queue [--json] [OPTIONS]\n"
	"       kiln queue replay [--json] [OPTIONS]\n\n"
	"Shows how many tasks wait in the queues at a broker, per language and priority, how many\n"
	"in the outbox of the store before them, and the dead letters: messages that nobody could\n"
	"read, that were delivered too often without an answer, or that waited for a week. replay\n"
	"puts the dead letters that can be read back into their queues; a task that is through by\n"
	"then is not run again. The options are those of `kiln serve` that say where its queue "
	"and\n"
	"store are: --queue, --store, --languages, --config.\n\n"
	"exit status: 0, or 1 where the broker could not be asked.\n";

/* ---- the queues ---- */

struct view {
	const struct language_registry *languages;
	struct queue_inspector *inspector; /* NULL: the broker cannot be asked */
	const char *store;
	struct json_writer *json; /* NULL: for a person */
	size_t shown;
	size_t dead; /* letters, of which not all are shown */
};

static void show_queue(struct view *v, const char *language, enum task_class class,
		       const struct queue_count *c)
{
	if (!v->json) {
		if (!v->shown++)
			(void)printf("%-32s %9s %10s\n", "QUEUE", "WAITING", "CONSUMERS");
		(void)printf("%-32s %9zu %10zu\n", c->name, c->ready, c->consumers);
		return;
	}
	json_write_begin_object(v->json);
	json_write_text_field(v->json, "name", c->name);
	json_write_text_field(v->json, "language", language);
	json_write_text_field(v->json, "priority", task_class_name(class));
	json_write_int_field(v->json, "waiting", (int64_t)c->ready);
	json_write_int_field(v->json, "consumers", (int64_t)c->consumers);
	json_write_end_object(v->json);
}

static int show_queues(struct view *v, struct err *e)
{
	for (size_t i = 0; i < language_count(v->languages); i++) {
		const char *name = language_at(v->languages, i)->name;

		for (int c = 0; c < _TASK_CLASS_MAX; c++) {
			struct queue_count count;
			int r = queue_inspect_count(v->inspector, name, (enum task_class)c, &count,
						    e);

			if (r < 0)
				return r;
			if (count.exists)
				show_queue(v, name, (enum task_class)c, &count);
		}
	}
	if (!v->json && !v->shown)
		(void)printf("There are no queues: nothing was submitted yet.\n");
	return 0;
}

/* ---- the outbox ---- */

struct backlog {
	struct store_outbox_count count;
	bool done, closed;
	int code;
};

static void on_counted(struct store_req *req, int code)
{
	struct backlog *b = req->ctx;

	b->done = true;
	b->code = code;
}

static void on_store_closed(void *ctx)
{
	((struct backlog *)ctx)->closed = true;
}

/* What was stored and is not known to be at the broker. -ENOTSUP: such a store has no outbox. */
static int read_backlog(const char *url, struct backlog *b, struct err *e)
{
	const struct store_config cfg = {.url = url, .outbox = true};
	uv_loop_t *loop = uv_default_loop();
	struct store *store = NULL;
	int r = url_scheme_is(url, "sqlite", NULL) ? -ENOTSUP : store_open(loop, &cfg, &store, e);

	if (r < 0)
		return r;
	b->count = (struct store_outbox_count){.req = {.done = on_counted, .ctx = b},
					       .limit = OUTBOX_COUNT_MAX};
	store_outbox_count(store, &b->count);
	while (!b->done)
		(void)uv_run(loop, UV_RUN_ONCE);
	store_close(store, on_store_closed, b);
	while (!b->closed)
		(void)uv_run(loop, UV_RUN_ONCE);
	return b->code < 0 ? err_errno(e, b->code, "could not count the outbox") : 0;
}

static void show_backlog_json(struct json_writer *w, const struct backlog *b)
{
	char oldest[CLOCK_RFC3339_MAX];

	json_write_begin_object(w);
	json_write_int_field(w, "tasks", (int64_t)b->count.n);
	if (b->count.oldest_us) {
		clock_format(b->count.oldest_us, oldest);
		json_write_text_field(w, "oldest_at", oldest);
	} else {
		json_write_null_field(w, "oldest_at");
	}
	json_write_end_object(w);
}

static int show_backlog(struct view *v, struct err *e)
{
	char oldest[CLOCK_RFC3339_MAX] = "";
	struct backlog b = {0};
	int r = read_backlog(v->store, &b, e);

	if (v->json && r == -ENOTSUP)
		json_write_null_field(v->json, "outbox");
	if (r < 0)
		return r == -ENOTSUP ? 0 : r;
	if (v->json) {
		json_write_name(v->json, "outbox");
		show_backlog_json(v->json, &b);
		return 0;
	}
	if (b.count.oldest_us)
		clock_format(b.count.oldest_us, oldest);
	(void)printf("\nOutbox: %zu tasks wait in the store%s%s\n", b.count.n,
		     *oldest ? ", the oldest since " : "", oldest);
	return 0;
}

/* ---- the dead letters ---- */

static void show_letter_json(struct json_writer *w, const struct queue_dead_letter *l)
{
	char id[UUID_TEXT_MAX], died[CLOCK_RFC3339_MAX];

	json_write_begin_object(w);
	if (l->readable) {
		uuid_format(&l->message.id, id);
		json_write_text_field(w, "task_id", id);
		json_write_text_field(w, "language", l->message.language);
		json_write_text_field(w, "priority", task_class_name(l->message.class));
		json_write_text_field(w, "tenant", l->message.tenant);
	} else {
		json_write_null_field(w, "task_id");
		json_write_text_field(w, "problem", l->problem);
	}
	json_write_text_field(w, "reason", l->reason);
	json_write_text_field(w, "queue", l->queue);
	if (l->died_us) {
		clock_format(l->died_us, died);
		json_write_text_field(w, "died_at", died);
	} else {
		json_write_null_field(w, "died_at");
	}
	json_write_end_object(w);
}

/* What stands in a dead letter may come from anybody: only what was checked, or is ours, is shown
 * as it is. */
static void show_letter(void *ctx, const struct queue_dead_letter *l)
{
	char id[UUID_TEXT_MAX], died[CLOCK_RFC3339_MAX] = "";
	struct view *v = ctx;

	if (v->json) {
		show_letter_json(v->json, l);
		return;
	}
	if (l->died_us)
		clock_format(l->died_us, died);
	if (l->readable) {
		uuid_format(&l->message.id, id);
		(void)printf("  %s  %s.%s  %s  %s\n", id, l->message.language,
			     task_class_name(l->message.class), l->reason, died);
		return;
	}
	(void)printf("  (%s)  %s  %s\n", l->problem, l->reason, died);
}

static int show_dead(struct view *v, struct err *e)
{
	size_t dead = 0;
	int r;

	if (!v->json)
		(void)printf("\nDead letters, the oldest first:\n");
	r = queue_inspect_dead(v->inspector, v->json ? LETTERS_MAX : LETTERS_SHOWN, &dead,
			       show_letter, v, e);
	if (r < 0 || v->json) {
		v->dead = dead;
		return r;
	}
	if (!dead)
		(void)printf("  none\n");
	else if (dead > LETTERS_SHOWN)
		(void)printf("  and %zu more (--json shows up to %d)\n", dead - LETTERS_SHOWN,
			     LETTERS_MAX);
	return 0;
}

/* A list in JSON, null where the broker cannot be asked. */
static int show_list(struct view *v, const char *name, int (*list)(struct view *, struct err *),
		     struct err *e)
{
	int r;

	if (!v->json)
		return v->inspector ? list(v, e) : 0;
	json_write_name(v->json, name);
	if (!v->inspector) {
		json_write_null(v->json);
		return 0;
	}
	json_write_begin_array(v->json);
	r = list(v, e);
	json_write_end_array(v->json);
	return r;
}

static int show(struct view *v, struct err *e)
{
	int r;

	if (v->json)
		json_write_begin_object(v->json);
	r = show_list(v, "queues", show_queues, e);
	if (r == 0)
		r = show_backlog(v, e);
	if (r == 0)
		r = show_list(v, "dead_letters", show_dead, e);
	if (r == 0 && v->json) {
		if (v->inspector)
			json_write_int_field(v->json, "dead_letters_total", (int64_t)v->dead);
		json_write_end_object(v->json);
	}
	return r;
}

static int replay(struct view *v, struct err *e)
{
	size_t replayed = 0, left = 0;
	int r = queue_replay_dead(v->inspector, &replayed, &left, e);

	if (r < 0)
		return r;
	if (v->json) {
		json_write_begin_object(v->json);
		json_write_int_field(v->json, "replayed", (int64_t)replayed);
		json_write_int_field(v->json, "left", (int64_t)left);
		json_write_end_object(v->json);
		return 0;
	}
	(void)printf("%zu put back into their queues", replayed);
	(void)printf(left ? ", %zu left that cannot be read\n" : "\n", left);
	return 0;
}

/* ---- the command ---- */

/* Takes "--json" out; the rest is the configuration's. */
static bool take_json(int *argc, char **argv)
{
	bool found = false;
	int n = 0;

	for (int i = 0; i < *argc; i++) {
		if (i && str_eq(argv[i], "--json"))
			found = true;
		else
			argv[n++] = argv[i];
	}
	*argc = n;
	return found;
}

static int print(struct view *v, bool as_json, int (*action)(struct view *, struct err *),
		 struct err *e)
{
	struct json_writer w;
	struct buf text;
	int r;

	buf_init(&text, TEXT_MAX);
	json_writer_init(&w, &text);
	v->json = as_json ? &w : NULL;
	r = action(v, e);
	if (r == 0 && buf_error(&text) < 0)
		r = err_errno(e, buf_error(&text), "could not write the answer");
	if (r == 0 && as_json)
		(void)printf("%s\n", text.data);
	buf_fini(&text);
	return r;
}

/* Where the broker cannot be asked, what is in the store is shown before that is said. */
static int run(const struct config *c, bool as_json, int (*action)(struct view *, struct err *),
	       struct err *e)
{
	AUTO(language_registry_free) struct language_registry *languages = NULL;
	AUTO(queue_inspector_free) struct queue_inspector *inspector = NULL;
	struct view v = {.store = c->store};
	struct err away = {""};
	int r = language_registry_load(c->languages, &languages, e), asked;

	if (r < 0)
		return r;
	asked = queue_inspector_new(c->queue, &inspector, &away);
	v.languages = languages;
	v.inspector = inspector;
	if (asked == 0 || (asked == -ENOTCONN && action == show))
		r = print(&v, as_json, action, e);
	return r == 0 && asked < 0 ? err_set(e, asked, "%s", away.msg) : r;
}

int cmd_queue(int argc, char **argv)
{
	AUTO(config_free) struct config *c = NULL;
	bool as_json = take_json(&argc, argv);
	bool replays = argc > 1 && str_eq(argv[1], "replay");
	struct err e = {""};

	if (argc > 1 && !replays && argv[1][0] != '-')
		return cmd_fail_text(EXIT_WRONG_USE,
				     "unexpected argument \"%s\": `kiln queue [replay]`", argv[1]);
	if (config_load(argc - replays, argv + replays, environ, &c, &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	return run(c, as_json, replays ? replay : show, &e) < 0 ? cmd_fail(EXIT_FAILED, &e)
								: EXIT_OK;
}
