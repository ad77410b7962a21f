/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Takes part in the election by lease.h: looks and writes every two seconds, for as long as it
 * lives. */

#include "pods/kube/client.h"

#include <stdbool.h>

struct elector;

struct elector_config {
	struct kube_client *client;
	const char *lease; /* its name; static */
	const char *self;  /* of this process, unlike all others; copied */
	/* It leads now, or not any more. Between two calls of this it may stop to lead because time
	 * passes: elector_leads is asked before each write. */
	void (*changed)(void *ctx, bool leads);
	void *ctx;
};

int elector_new(uv_loop_t *loop, const struct elector_config *cfg, struct elector **ret_elector,
		struct err *e);

/* Lets go of the lease where it holds it, for at most a second, so that the next need not wait for
 * its end. closed is called from the loop. The client must live until then. */
void elector_close(struct elector *el, void (*closed)(void *ctx), void *ctx);

bool elector_leads(const struct elector *el);
const char *elector_holder(const struct elector *el); /* as seen last; "": nobody, or not known */
