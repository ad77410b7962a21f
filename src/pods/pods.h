/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Places that can run tasks. A pod is a local runner process ("local:"), which the pod manager
 * makes and replaces when it dies, or a runner on any machine that was started by others
 * ("runners:"), which it connects to again and again. It hands out a connection to each. What is
 * said on a connection is the scheduler's affair.
 */

#include "base/buf.h"
#include "base/err.h"
#include "wire/tls.h"

#include <uv.h>

struct pods;

enum { POD_NAME_MAX = 64 };

struct pods_ops {
	/* A pod is there; fd is a connected stream socket that now belongs to the callee. psk is
	 * the key for what is said on it, valid during the call, or NULL where nobody can listen.
	 */
	void (*connected)(void *ctx, const char *pod, int fd, const struct tls_psk *psk);
	/* The pod itself has ended; reason is for people. Its connection ends by itself. */
	void (*gone)(void *ctx, const char *pod, const char *reason);
	/* The pod is not wanted any more: its connection is to end once its tasks are through. */
	void (*retired)(void *ctx, const char *pod);
};

struct pods_config {
	/* "local:", "runners:NAME@HOST:PORT,...", or "runners:file=PATH" with one NAME@HOST:PORT on
	 * each line, which is read again when it changes */
	const char *url;
	const void *secret; /* runners: the cluster's, which the key of each is derived from */
	size_t secret_len;
	int keeper_fd;		/* local: the socket of the keeper (keeper.h) */
	unsigned slots;		/* local: in total */
	unsigned slots_per_pod; /* local: at most so many per runner */
};

int pods_open(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops, void *ctx,
	      struct pods **ret_pods, struct err *e);

/* The connection to this pod is broken: connect again, or replace it. */
void pods_connection_lost(struct pods *p, const char *pod, const char *reason);

/* Reads again what may have changed; nothing where the pods are not listed in a file. */
void pods_reload(struct pods *p);

/* Appends which pods are not there, and why, as far as that fits. */
void pods_explain(const struct pods *p, struct buf *why);

/* Asks every pod to end, by force after grace_ms. */
void pods_close(struct pods *p, int64_t grace_ms, void (*closed)(void *ctx), void *ctx);
