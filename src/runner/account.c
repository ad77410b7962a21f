/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/account.h"

#include "base/log.h"

static void tell_standby(void *ctx, const struct standby_view *view)
{
	unsigned *n = ctx;

	(*n)++;
	log_info("runner", "stands by", LOG_STR("language", view->language->name),
		 LOG_STR("step", view->compiles ? "compile" : "run"),
		 LOG_STR("state", view->ready ? "ready" : "boots"),
		 LOG_INT("box", view->placed ? (int64_t)view->place.box : -1),
		 LOG_INT("init_pid", view->placed ? (int64_t)view->place.init_pid : -1));
}

void account_tell(const struct account_of *what, uint64_t number)
{
	const char *making = what->setup ? setup_making(what->setup) : NULL;
	unsigned n = 0;

	if (what->standby)
		standby_each(what->standby, tell_standby, &n);
	log_info("runner", "account", LOG_INT("number", number), LOG_INT("standbys", n),
		 LOG_INT("busy", what->busy), LOG_STR("setup", making ? making : ""));
}
