/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Housekeeping of the PostgreSQL store's partitions, one for each day. */

#include "store/store.h"

#include <uv.h>

struct pg_store;

/* One statement at a time is on its way. */
enum pg_days_step {
	PG_DAYS_IDLE,
	PG_DAYS_MAKE,
	PG_DAYS_FIND,
	PG_DAYS_DETACH_RESULT,
	PG_DAYS_DETACH_TASK,
	PG_DAYS_DROP
};

struct pg_days {
	struct pg_store *store;
	struct store_req req;
	uv_timer_t timer;
	enum pg_days_step step;
	bool make;	   /* wanted: days made ahead */
	int64_t before_us; /* wanted: days before this dropped; 0: nothing */
	int64_t now_before_us;
	char day[16]; /* the one that is being dropped: "20261123" */
	/* "whole", "pending" or "none": how it hangs on its table. */
	char task_how[8], result_how[8];
	char text[320];
};

void pg_days_init(struct pg_days *d, struct pg_store *s);
void pg_days_make(struct pg_days *d);
void pg_days_drop_before(struct pg_days *d, int64_t before_us);
void pg_days_close(struct pg_days *d);
