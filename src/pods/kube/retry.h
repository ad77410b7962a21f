/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whether a request to the API server is tried again, and when. Pure functions.
 *
 * Every request of Kiln may be sent twice: objects are created under names that are chosen here,
 * and whatever changes or removes one names the version that it means. So all that failed in a way
 * that may pass is tried again, with growing waits, as often as the budget has it: retries are at
 * most a fifth of what succeeds, beyond a small reserve, so that a server that is down is not kept
 * down by those that wait for it.
 */

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	KUBE_TRIES_MAX = 5,
	KUBE_RETRY_MIN_MS = 100,
	KUBE_RETRY_MAX_MS = 10 * 1000,
	KUBE_RETRY_AFTER_MAX_MS = 60 * 1000, /* what a server may ask for */
};

struct kube_budget {
	double left; /* retries; kube_budget_init fills the reserve */
};

void kube_budget_init(struct kube_budget *b);
void kube_budget_succeeded(struct kube_budget *b);

struct kube_outcome {
	int code;   /* negative errno: no answer */
	int status; /* of the answer */
	int64_t retry_after_ms;
	unsigned tries; /* with this one */
};

/* The wait until the next try, which the budget has paid for; -1: what there is stays. spread is a
 * random number below 1000. */
int64_t kube_retry_ms(const struct kube_outcome *o, struct kube_budget *b, uint32_t spread);

/* 0 for what succeeded, else a negative errno: -ENOENT, -EEXIST (409 of any kind), -ESTALE (410),
 * -EINVAL (400, 422), -EPERM (401, 403), -EBUSY (429), -EIO. e gets the message of the Status
 * object that the body may be. */
int kube_status_code(int status, const char *body, size_t len, struct err *e);
