/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

/*
 * What waits with a scheduler for a runner is no longer in the queue, where all see it, and no
 * runner tells of it yet. So each says it to the others while there is any, for the one that
 * decides on the sizes of the pools: without it, a burst that two schedulers share would look like
 * half of one. What one said counts until it says something else, or nothing for too long.
 */

enum {
	TELL_AFTER_MS = 100, /* most tasks have a runner before */
	TELL_EVERY_MS = 500,
	FORGET_MS = 2000,
	OTHERS_MAX = 256,
};

/* Another scheduler. */
struct other {
	struct list link;
	struct uuid id;
	int64_t heard_us;
	uint32_t waiting[]; /* by language */
};

static void forget(struct other *o)
{
	list_unlink(&o->link);
	free(o);
}

/* ---- telling ---- */

static size_t count(const struct scheduler *s, uint32_t *counts)
{
	const struct job *j;
	size_t cursor, n = 0;

	MAP_FOREACH (j, cursor, &s->jobs) {
		if (j->state != JOB_WAITING)
			continue;
		counts[j->language]++;
		n++;
	}
	return n;
}

/* What does not fit is left out. */
static size_t pack(const struct scheduler *s, const uint32_t *counts,
		   uint8_t payload[static BUS_PAYLOAD_MAX])
{
	Kiln__LanguageWaiting lines[LANGUAGES_MAX], *at[LANGUAGES_MAX];
	Kiln__WaitingReport report = KILN__WAITING_REPORT__INIT;

	report.languages = at;
	for (size_t i = 0; i < language_count(s->cfg.languages); i++) {
		Kiln__LanguageWaiting *line = &lines[report.n_languages];

		if (!counts[i])
			continue;
		kiln__language_waiting__init(line);
		line->language = language_at(s->cfg.languages, i)->name;
		line->tasks = counts[i];
		at[report.n_languages++] = line;
		if (kiln__waiting_report__get_packed_size(&report) > BUS_PAYLOAD_MAX)
			report.n_languages--;
	}
	return kiln__waiting_report__pack(&report, payload);
}

static void on_tell(uv_timer_t *timer)
{
	struct scheduler *s = timer->data;
	uint8_t payload[BUS_PAYLOAD_MAX];
	uint32_t counts[LANGUAGES_MAX] = {0};
	size_t n = count(s, counts);

	if (!n)
		(void)uv_timer_stop(timer);
	if (n || s->told_waiting)
		bus_publish(s->cfg.bus, BUS_WAITING, &s->id, payload, pack(s, counts, payload));
	s->told_waiting = n > 0;
}

void waiting_tell(struct scheduler *s)
{
	if (!s->closing && lanes_count(s->lanes) && !uv_is_active((uv_handle_t *)&s->tell_timer))
		(void)uv_timer_start(&s->tell_timer, on_tell, TELL_AFTER_MS, TELL_EVERY_MS);
}

/* ---- hearing ---- */

static struct other *get_other(struct scheduler *s, const struct uuid *id)
{
	struct other *o, *tmp;
	int64_t now_us = clock_monotonic_us();
	size_t n = 0;

	LIST_FOREACH_SAFE (o, tmp, &s->others, link) {
		if (uuid_eq(&o->id, id))
			return o;
		if (now_us - o->heard_us > FORGET_MS * INT64_C(1000))
			forget(o);
		else
			n++;
	}
	o = n < OTHERS_MAX
		    ? calloc(1, sizeof *o + language_count(s->cfg.languages) * sizeof o->waiting[0])
		    : NULL;
	if (!o)
		return NULL;
	o->id = *id;
	list_push_back(&s->others, &o->link);
	return o;
}

static void note(struct scheduler *s, struct other *o, const Kiln__WaitingReport *report)
{
	memset(o->waiting, 0, language_count(s->cfg.languages) * sizeof o->waiting[0]);
	o->heard_us = clock_monotonic_us();
	for (size_t i = 0; i < report->n_languages; i++) {
		const Kiln__LanguageWaiting *line = report->languages[i];
		ssize_t language = scheduler_language_index(s, line->language);

		if (language >= 0)
			o->waiting[language] = line->tasks;
	}
}

static void on_waiting(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		       size_t len)
{
	struct scheduler *s = ctx;
	Kiln__WaitingReport *report;
	struct other *o;

	(void)topic;
	if (uuid_eq(id, &s->id))
		return;
	report = kiln__waiting_report__unpack(NULL, len, payload);
	o = report ? get_other(s, id) : NULL;
	if (o && report->n_languages)
		note(s, o, report);
	else if (o)
		forget(o);
	if (report)
		kiln__waiting_report__free_unpacked(report, NULL);
}

uint64_t waiting_elsewhere(const struct scheduler *s, size_t language)
{
	int64_t now_us = clock_monotonic_us();
	const struct other *o;
	uint64_t n = 0;

	LIST_FOREACH (o, &s->others, link)
		if (now_us - o->heard_us <= FORGET_MS * INT64_C(1000))
			n += o->waiting[language];
	return n;
}

/* ---- life ---- */

int waiting_listen(struct scheduler *s)
{
	return bus_subscribe(s->cfg.bus, BUS_WAITING, on_waiting, s);
}

void waiting_stop(struct scheduler *s)
{
	struct other *o, *tmp;

	bus_unsubscribe(s->cfg.bus, BUS_WAITING, on_waiting, s);
	LIST_FOREACH_SAFE (o, tmp, &s->others, link)
		forget(o);
}
