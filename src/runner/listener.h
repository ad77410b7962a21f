/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A listening socket whose connections are handed on as descriptors. */

#include "base/err.h"

#include <uv.h>

struct listener;

/* Binds the address, numeric with its port (base/url.h): an address that is taken is told at
 * start. *ret_fd is the caller's. */
int listener_bind(const char *address, int *ret_fd, struct err *e);

/* Listens on what was bound, whose fd is taken. accepted gets each connection and owns it; not
 * from within a call. */
int listener_new_consume(uv_loop_t *loop, int fd, void (*accepted)(void *ctx, int fd), void *ctx,
			 struct listener **ret_listener, struct err *e);
void listener_free(struct listener *l); /* accepts NULL */
