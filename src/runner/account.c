/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/account.h"

#include "base/log.h"

struct telling {
	unsigned n;
	const struct language *language; /* whose forks are told */
};

static void tell_one(struct telling *t, const struct language *language, const char *step,
		     bool ready, const struct box_place *place)
{
	t->n++;
	log_info("runner", "stands by", LOG_STR("language", language->name), LOG_STR("step", step),
		 LOG_STR("state", ready ? "ready" : "boots"),
		 LOG_INT("box", place ? (int64_t)place->box : -1),
		 LOG_INT("init_pid", place ? (int64_t)place->init_pid : -1));
}

static void tell_standby(void *ctx, const struct standby_view *view)
{
	tell_one(ctx, view->language, view->compiles ? "compile" : "run", view->ready,
		 view->placed ? &view->place : NULL);
}

static void tell_fork(void *ctx, const struct box_place *place)
{
	struct telling *t = ctx;

	tell_one(t, t->language, "run", true, place);
}

static void tell_forks(void *ctx, const struct language *language, const struct box_pool *forks)
{
	struct telling *t = ctx;

	t->language = language;
	if (forks)
		box_pool_each_ready(forks, tell_fork, t);
}

static void tell_resident(void *ctx, const struct residents_view *view)
{
	const struct standby_view same = {.language = view->language,
					  .compiles = true,
					  .ready = view->ready,
					  .placed = view->placed,
					  .place = view->place};

	tell_standby(ctx, &same);
}

void account_tell(const struct account_of *what, uint64_t number)
{
	const char *making = what->setup ? setup_making(what->setup) : NULL;
	struct telling t = {0};

	if (what->standby)
		standby_each(what->standby, tell_standby, &t);
	if (what->zygotes)
		zygotes_each(what->zygotes, tell_forks, &t);
	if (what->residents)
		residents_each(what->residents, tell_resident, &t);
	log_info("runner", "account", LOG_INT("number", number), LOG_INT("standbys", t.n),
		 LOG_INT("busy", what->busy), LOG_STR("setup", making ? making : ""));
}
