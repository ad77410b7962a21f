/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a tenant may submit: how often, and how many tasks of its may wait. The limits are those of
 * the configuration, unless the store has others for the tenant; a change counts within
 * QUOTA_FRESH_MS.
 *
 * The rate is counted together with other processes where there is a Redis. The number of tasks
 * that wait is asked from the store once a second at most for each tenant, and counted on from
 * there by this process alone: with several, a tenant may pass its quota by what the others take
 * within that second.
 */

#include "api/problem.h"
#include "base/list.h"
#include "rate/rate.h"
#include "store/access.h"

enum { QUOTA_FRESH_MS = 5000 };

struct api;
struct quota;
struct quota_tenant;

int quota_new(struct api *a, struct quota **ret_quota);
/* Accepts NULL; no request may be under way. */
void quota_free(struct quota *q);

/* Asks for one submission. The request is the caller's until done, or until quota_ask gave its
 * answer at once. */
struct quota_request {
	const char *tenant;				 /* in */
	void (*done)(struct quota_request *r, int code); /* in: as quota_ask */
	void *ctx;					 /* in */
	struct problem problem;				 /* out, with -EDQUOT */
	struct quota *quota;
	struct quota_tenant *state; /* NULL: its tasks are not counted */
	struct list link;	    /* among those that wait for the store */
	int64_t limits[_TENANT_LIMIT_MAX];
	struct rate_take take;
};

/* 0, -EDQUOT with problem, another negative errno where the store could not tell, or -EINPROGRESS:
 * done comes, from the loop. */
int quota_ask(struct quota *q, struct quota_request *r);
