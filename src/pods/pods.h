/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Places that can run tasks. A pod is a local runner process ("local:") or a Kubernetes pod; the
 * pod manager makes them, keeps as many as are wanted, replaces those that die, and hands out a
 * connection to each. What is said on a connection is the scheduler's affair.
 */

#include "base/err.h"

#include <uv.h>

struct pods;

enum { POD_NAME_MAX = 64 };

struct pods_ops {
	/* A pod is there; fd is a connected stream socket that now belongs to the callee. */
	void (*connected)(void *ctx, const char *pod, int fd);
	/* The pod itself has ended; reason is for people. Its connection ends by itself. */
	void (*gone)(void *ctx, const char *pod, const char *reason);
};

struct pods_config {
	const char *url;	/* "local:" */
	int keeper_fd;		/* local: the socket of the keeper (keeper.h) */
	unsigned slots;		/* local: in total */
	unsigned slots_per_pod; /* local: at most so many per runner */
};

int pods_open(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops, void *ctx,
	      struct pods **ret_pods, struct err *e);

/* The connection to this pod is broken: connect again, or replace it. */
void pods_connection_lost(struct pods *p, const char *pod);

/* Asks every pod to end, by force after grace_ms. */
void pods_close(struct pods *p, int64_t grace_ms, void (*closed)(void *ctx), void *ctx);
