/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/internal.h"

#include "base/clock.h"

#include <string.h>

/*
 * What the runners have installed, told to the processes that serve the API: at once when a runner
 * connects, and again every few seconds for those that came later or missed it. What pods can be
 * made for counts as installed. A scheduler without either has nothing to say.
 */

enum { REPORT_EVERY_MS = 2000, BATCH_MAX = 64 };

struct batch {
	struct scheduler *scheduler;
	Kiln__LanguageStatus status[BATCH_MAX];
	Kiln__LanguageStatus *statuses[BATCH_MAX];
	Kiln__LanguageReport report;
};

static void publish(struct batch *b)
{
	uint8_t payload[BUS_PAYLOAD_MAX];
	size_t len = kiln__language_report__pack(&b->report, payload);

	if (b->report.n_languages)
		bus_publish(b->scheduler->cfg.bus, BUS_LANGUAGES, &b->scheduler->id, payload, len);
	b->report.n_languages = 0;
}

/* Into this message, or into the next where it is full. What fits in none is left out. */
static void add(struct batch *b, const struct language *l, bool installed)
{
	for (int tries = 0; tries < 2; tries++) {
		Kiln__LanguageStatus *s = &b->status[b->report.n_languages];

		kiln__language_status__init(s);
		s->name = l->name;
		if (installed && l->version)
			s->version = l->version;
		s->installed = installed;
		b->statuses[b->report.n_languages++] = s;
		if (kiln__language_report__get_packed_size(&b->report) <= BUS_PAYLOAD_MAX) {
			if (b->report.n_languages == BATCH_MAX)
				publish(b);
			return;
		}
		b->report.n_languages--;
		publish(b);
	}
}

static bool is_installed(struct scheduler *s, size_t language)
{
	return choice_has(s->choice, language) || s->offered[language];
}

void report_languages(struct scheduler *s)
{
	struct batch b = {.scheduler = s};
	struct scheduler_stats stats;

	scheduler_get_stats(s, &stats);
	if (!stats.runners && !demand_any_offered(s))
		return;
	kiln__language_report__init(&b.report);
	b.report.languages = b.statuses;
	for (size_t i = 0; i < language_count(s->cfg.languages); i++)
		add(&b, language_at(s->cfg.languages, i), is_installed(s, i));
	publish(&b);
	s->reported_us = clock_monotonic_us();
}

void report_languages_again(struct scheduler *s)
{
	if (clock_monotonic_us() - s->reported_us >= REPORT_EVERY_MS * 1000)
		report_languages(s);
}
