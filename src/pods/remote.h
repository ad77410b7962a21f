/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Connections to runners that listen, for who knows by himself which there are: as "runners:" has
 * them, without a list. Private to this folder.
 */

#include "pods/remote_list.h"

/* ops: connected and retired. Ends by pods_close. */
int remote_new(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops,
	       void *ctx, struct pods **ret_pods, struct err *e);

/* Connects, and again whenever it is lost. The name is new; identity is the key's, which is made
 * from the secret, or from the key of a pool, where one is named. */
int remote_put(struct pods *pods, const struct remote_address *a, const char *pool,
	       const char *identity, struct err *e);

/* What is connected gets no more tasks, and ends with those that it has. Nothing where it is not
 * known. */
void remote_drop(struct pods *pods, const char *name);
