/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/standby_sum.h"

#include "base/cleanup.h"

struct reporting {
	struct standby_report *report;
	const struct charge *charge;
	const struct language *language; /* whose forks are added */
};

/* NULL where there is no room, which is as much as there can be standbys. */
static struct standby_sum *sum_of(struct standby_report *r, const struct language *language,
				  bool compiles)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->sums[i].language == language && r->sums[i].compiles == compiles)
			return &r->sums[i];
	if (r->n == ARRAY_SIZE(r->sums))
		return NULL;
	r->sums[r->n] =
		(struct standby_sum){.language = language, .compiles = compiles, .measured = true};
	return &r->sums[r->n++];
}

/* as: what the language says of it. place: NULL where it is not known. */
static void add_one(const struct reporting *to, const struct language *language, bool compiles,
		    const struct language_standby *as, const struct box_place *place)
{
	struct standby_sum *sum = sum_of(to->report, language, compiles);
	uint64_t bytes;

	if (!sum)
		return;
	if (!place || charge_read(to->charge, place->init_pid, &bytes) < 0) {
		bytes = (uint64_t)as->memory_bytes;
		sum->measured = false;
	}
	sum->n++;
	sum->memory_bytes += bytes;
}

static void add_standby(void *ctx, const struct standby_view *view)
{
	const struct language *l = view->language;

	if (view->ready)
		add_one(ctx, l, view->compiles,
			view->compiles ? &l->compile.standby : &l->run.standby,
			view->placed ? &view->place : NULL);
}

/* One that has a program, or has had some, stays ready for the next. */
static void add_resident(void *ctx, const struct residents_view *view)
{
	if (view->ready)
		add_one(ctx, view->language, true, &view->language->compile.resident,
			view->placed ? &view->place : NULL);
}

static void add_fork(void *ctx, const struct box_place *place)
{
	const struct reporting *to = ctx;

	add_one(to, to->language, false, &to->language->run.standby, place);
}

static void add_forks(void *ctx, const struct language *language, const struct box_pool *forks)
{
	struct reporting *to = ctx;

	to->language = language;
	if (forks)
		box_pool_each_ready(forks, add_fork, to);
}

void standby_report(const struct standby_sources *from, struct standby_report *ret_report)
{
	struct reporting to = {.report = ret_report, .charge = from->charge};

	*ret_report = (struct standby_report){.budget_bytes = from->budget_bytes};
	if (from->pool) {
		ret_report->used_bytes += standby_bytes(from->pool);
		standby_each(from->pool, add_standby, &to);
	}
	if (from->zygotes) {
		ret_report->used_bytes += zygotes_bytes(from->zygotes);
		zygotes_each(from->zygotes, add_forks, &to);
	}
	if (from->residents)
		residents_each(from->residents, add_resident, &to);
}
