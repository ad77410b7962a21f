/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Follows the objects of one kind in a namespace: lists them, then watches from the version of the
 * list on, for as long as it lives.
 *
 *	LISTING --> WATCHING --> RESTING --> WATCHING, or LISTING where the version is too old
 *	   '------------------------^
 *
 * "Too old" comes as a status 410, or as an ERROR event within a 200; then, after what cannot be
 * read, and ten minutes after the last list in any case, it is listed again, since an idle watch
 *and a dead one look the same. A watch that ends or breaks off goes on from the last version that
 *was heard of, also from a bookmark. What cannot be had is asked for again after growing waits.
 *
 * Versions are opaque: they are handed back, and never compared.
 */

#include "pods/kube/client.h"

#include <jansson.h>
#include <stdbool.h>

struct kube_reflector;

struct kube_reflector_ops {
	/* A list begins: what is not told between here and listed is gone. It may begin again. */
	void (*begin)(void *ctx);
	void (*listed)(void *ctx);
	/* An object that is there, new or changed. -EBADMSG: it cannot be read; it is listed again.
	 */
	int (*seen)(void *ctx, const json_t *object, struct err *e);
	void (*deleted)(void *ctx, const json_t *object);
};

struct kube_reflector_config {
	struct kube_client *client;
	const char *path;     /* "/api/v1/namespaces/NAMESPACE/pods"; static or outlives it */
	const char *selector; /* as in labelSelector; needs no escapes; or NULL */
	const char *resource; /* "pods": for metrics and the log; static */
	const struct kube_reflector_ops *ops;
	void *ctx;
};

int kube_reflector_new(uv_loop_t *loop, const struct kube_reflector_config *cfg,
		       struct kube_reflector **ret_reflector, struct err *e);

/* Nothing is told any more. closed is called from the loop. */
void kube_reflector_close(struct kube_reflector *r, void (*closed)(void *ctx), void *ctx);

/* Lists again, soon. May be called from the ops. */
void kube_reflector_relist(struct kube_reflector *r);

/* How many lists were complete; 0: nothing is known yet. */
uint64_t kube_reflector_lists(const struct kube_reflector *r);

/* Why it cannot follow at the moment, or "". */
const char *kube_reflector_trouble(const struct kube_reflector *r);
