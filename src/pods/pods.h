/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Places that can run tasks. A pod is a local runner process ("local:"), which the pod manager
 * makes and replaces when it dies; or a runner on any machine that was started by others
 * ("runners:"), which it connects to again and again; or a pod of Kubernetes ("kubernetes:"), of
 * which there are as many as the demand of each language asks for. It hands out a connection to
 * each. What is said on a connection is the scheduler's affair.
 */

#include "base/buf.h"
#include "base/err.h"
#include "wire/tls.h"

#include <stdbool.h>
#include <stdint.h>
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

	/* The rest is for pods that come and go with demand, and may be NULL for others. */

	/* Its runner is to take no more tasks from anybody, and to end with its last. */
	void (*drain)(void *ctx, const char *pod);
	/* Tasks of this language that wait for a slot; false: it cannot be said now. */
	bool (*waiting)(void *ctx, const char *language, uint64_t *ret_waiting);
	/* Whether pods can be made for this language, also while there is none. */
	void (*offered)(void *ctx, const char *language, bool yes);
};

struct pods_config {
	/* "local:", "runners:NAME@HOST:PORT,...", or "runners:file=PATH" with one NAME@HOST:PORT on
	 * each line, which is read again when it changes; or as of kube/access.h */
	const char *url;
	/* the cluster's, which the key of each runner, or of each pool, is derived from */
	const void *secret;
	size_t secret_len;
	const char *kube_host, *kube_port; /* what a container is told of the API server, or NULL */
	int keeper_fd;			   /* local: the socket of the keeper (keeper.h) */
	unsigned slots;			   /* local: in total */
	unsigned slots_per_pod;		   /* local: at most so many per runner */
};

int pods_open(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops, void *ctx,
	      struct pods **ret_pods, struct err *e);

/* The connection to this pod is broken: connect again, or replace it. */
void pods_connection_lost(struct pods *p, const char *pod, const char *reason);

/* What its runner has said: how many slots it has (0: it takes no more tasks), how many of them are
 * taken, by whomever, and how many tasks have ended since its start. */
void pods_heard(struct pods *p, const char *pod, unsigned slots, unsigned used, uint64_t tasks);

/* Reads again what may have changed; nothing where the pods are not listed in a file. */
void pods_reload(struct pods *p);

/* Appends which pods are not there, and why, as far as that fits. */
void pods_explain(const struct pods *p, struct buf *why);

/* Writes pools and pods as JSON, for people: why each pool has its size, what each pod does.
 * -EOPNOTSUPP where they do not come and go with demand. */
int pods_describe(const struct pods *p, struct buf *json);

/* Asks every pod that is this process' own to end, by force after grace_ms. */
void pods_close(struct pods *p, int64_t grace_ms, void (*closed)(void *ctx), void *ctx);
