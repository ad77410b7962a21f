/* SPDX-License-Identifier: Apache-2.0 */

/* How many tasks of a tenant may run at one time: as configured, or as the store has it for this
 * tenant, which is read again now and then. */

#include "scheduler/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum { READ_EVERY_US = 5000000 };

static int compare_name(const void *name, const void *tenant)
{
	return strcmp(name, ((const struct store_tenant *)tenant)->name);
}

size_t tenants_running_max(void *ctx, const char *name)
{
	const struct scheduler *s = ctx;
	const struct store_tenant *own =
		s->n_tenants ? bsearch(name, s->tenants, s->n_tenants, sizeof *own, compare_name)
			     : NULL;

	if (own && own->limits[TENANT_RUNNING] != STORE_TENANT_UNSET)
		return (size_t)own->limits[TENANT_RUNNING];
	return s->cfg.tenant_running_max;
}

static void on_read(struct store_req *req, int code)
{
	struct scheduler *s = req->ctx;

	s->reading_tenants = false;
	s->requests--;
	if (code < 0) {
		log_warn("scheduler", "could not read the limits of tenants",
			 LOG_STR("reason", err_text(code)));
	} else {
		free(s->tenants);
		s->tenants = TAKE_PTR(s->tenant_list.tenants);
		s->n_tenants = s->tenant_list.n;
		lanes_refresh(s->lanes);
		scheduler_dispatch_soon(s);
	}
	scheduler_check_closed(s);
}

void tenants_read(struct scheduler *s)
{
	int64_t now_us = clock_monotonic_us();

	if (s->closing || s->reading_tenants || now_us < s->next_tenants_us)
		return;
	s->next_tenants_us = now_us + READ_EVERY_US;
	s->reading_tenants = true;
	s->requests++;
	s->tenant_list = (struct store_tenant_list){.req = {.done = on_read, .ctx = s}};
	store_tenant_list(s->cfg.store, &s->tenant_list);
}
