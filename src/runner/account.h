/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a runner has started that no task asked for: told to the log, on demand (SIGUSR1), so that
 * whoever looks at the host knows whose a process is. A line for each interpreter that stands by,
 * forked or not, with the first process of its sandbox, then the sum, which has the number of the
 * account.
 */

#include "runner/residents.h"
#include "runner/setup.h"
#include "runner/standby.h"
#include "runner/zygote.h"

struct account_of {
	const struct standby_pool *standby; /* NULL: none */
	const struct zygotes *zygotes;	    /* NULL: none */
	const struct residents *residents;  /* NULL: none */
	const struct setup *setup;	    /* NULL: none */
	unsigned busy;			    /* slots */
};

/* number: of the account, from 1, for whoever waits for it. */
void account_tell(const struct account_of *what, uint64_t number);
