/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a runner has started that no task asked for: told to the log, on demand (SIGUSR1), so that
 * whoever looks at the host knows whose a process is. A line for each interpreter that stands by,
 * with the first process of its sandbox, then the sum, which has the number of the account.
 */

#include "runner/setup.h"
#include "runner/standby.h"

struct account_of {
	const struct standby_pool *standby; /* NULL: none */
	const struct setup *setup;	    /* NULL: none */
	unsigned busy;			    /* slots */
};

/* number: of the account, from 1, for whoever waits for it. */
void account_tell(const struct account_of *what, uint64_t number);
