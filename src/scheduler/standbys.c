/* SPDX-License-Identifier: Apache-2.0 */

/* Interpreters that wait at the runners, for metrics: each runner's last word is kept, and added up
 * now and then. */

#include "scheduler/internal.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <errno.h>
#include <stdlib.h>

enum { STANDBYS_MAX = 256 }; /* kinds that one runner may tell of */
enum { STEP_RUN, STEP_COMPILE, STEPS };
enum { DECLARED, MEASURED, SOURCES };

static const char *const step_names[STEPS] = {"run", "compile"};
static const char *const source_names[SOURCES] = {"declared", "cgroup"};

struct standby_count {
	size_t language;
	unsigned step, source, n;
	double memory_bytes;
};

struct standby_counts {
	double used_bytes, budget_bytes;
	size_t n;
	struct standby_count each[];
};

/* Of all runners, by language and step. What was told once is told until the end: as nothing. */
struct standby_totals {
	struct standby_total {
		double n, memory_bytes[SOURCES];
		bool told, told_memory[SOURCES];
	} each[STEPS];
};

/* False for a language that is not known here. */
static bool find_language(const struct scheduler *s, const char *name, size_t *ret_language)
{
	for (size_t i = 0; i < language_count(s->cfg.languages); i++) {
		if (str_eq(language_at(s->cfg.languages, i)->name, name)) {
			*ret_language = i;
			return true;
		}
	}
	return false;
}

int standbys_heard(struct runner *r, const Kiln__Heartbeat *m)
{
	struct standby_counts *counts;

	free(TAKE_PTR(r->standbys));
	if (m->n_waiting > STANDBYS_MAX)
		return -EBADMSG;
	if (!m->n_waiting && !m->standby_budget_bytes)
		return 0;
	counts = calloc(1, sizeof *counts + m->n_waiting * sizeof counts->each[0]);
	if (!counts)
		return -ENOMEM;
	counts->used_bytes = (double)m->standby_used_bytes;
	counts->budget_bytes = (double)m->standby_budget_bytes;
	for (size_t i = 0; i < m->n_waiting; i++) {
		const Kiln__Standbys *from = m->waiting[i];
		struct standby_count *to = &counts->each[counts->n];

		if (!find_language(r->scheduler, from->language, &to->language))
			continue;
		to->step = from->compiles ? STEP_COMPILE : STEP_RUN;
		to->source = from->measured ? MEASURED : DECLARED;
		to->n = from->ready;
		to->memory_bytes = (double)from->memory_bytes;
		counts->n++;
	}
	r->standbys = counts;
	return 0;
}

static void add(struct standby_totals *totals, const struct standby_counts *counts)
{
	for (size_t i = 0; i < counts->n; i++) {
		const struct standby_count *from = &counts->each[i];
		struct standby_total *to = &totals[from->language].each[from->step];

		to->n += from->n;
		to->memory_bytes[from->source] += from->memory_bytes;
		to->told = to->told_memory[from->source] = true;
	}
}

static void tell(const char *language, unsigned step, struct standby_total *t)
{
	if (t->told)
		metric_set(METRIC_STANDBYS, t->n, language, step_names[step]);
	t->n = 0;
	for (unsigned i = 0; i < SOURCES; i++) {
		if (t->told_memory[i])
			metric_set(METRIC_STANDBY_MEMORY_BYTES, t->memory_bytes[i], language,
				   step_names[step], source_names[i]);
		t->memory_bytes[i] = 0;
	}
}

int standbys_open(struct scheduler *s)
{
	s->standbys = calloc(language_count(s->cfg.languages) + 1, sizeof *s->standbys);
	return s->standbys ? 0 : -ENOMEM;
}

void standbys_observe(struct scheduler *s)
{
	double used_bytes = 0, budget_bytes = 0;
	const struct runner *r;

	LIST_FOREACH (r, &s->runners, link) {
		if (!r->standbys)
			continue;
		add(s->standbys, r->standbys);
		used_bytes += r->standbys->used_bytes;
		budget_bytes += r->standbys->budget_bytes;
	}
	for (size_t i = 0; i < language_count(s->cfg.languages); i++)
		for (unsigned step = 0; step < STEPS; step++)
			tell(language_at(s->cfg.languages, i)->name, step,
			     &s->standbys[i].each[step]);
	metric_set(METRIC_STANDBY_BUDGET_BYTES, used_bytes, "used");
	metric_set(METRIC_STANDBY_BUDGET_BYTES, budget_bytes - used_bytes, "free");
}
