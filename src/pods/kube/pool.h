/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A pool as its PodTemplate (core/v1) describes it. The template's own "template" is what pods are
 * made from; annotations of the PodTemplate say how many, and do not count for its revision:
 *
 *	kiln/max		pods at most; required
 *	kiln/min		at least (0)
 *	kiln/slots		tasks at once per pod, as kiln-runner --slots (1)
 *	kiln/spare		slots kept free beyond what chance asks for (0)
 *	kiln/idle		how long what was needed is kept (5m)
 *	kiln/drain		in which a backlog is to be gone (5s)
 *	kiln/languages		names with commas (the template's name)
 *	kiln/port		of the runner (9464)
 *	kiln/key		"pool": all pods have the pool's key; "pod": each has one of its
 *				own, which `kiln-runner derive-key` makes from that (pool)
 *	kiln/weight		share where capacity is short (1)
 *	kiln/start-timeout	after which a pod that does not serve is replaced (5m)
 *	kiln/recycle-tasks	tasks after which a pod is replaced; 0: any number (10000). 1 with
 *				one slot: pods are used once
 *	kiln/recycle-after	time after which it is (6h)
 *
 * A name that begins with "kiln/" and is none of these is refused, as is a value that is none: what
 * was in force before stays.
 */

#include "base/buf.h"
#include "pods/kube/object.h"
#include "pods/sizing.h"

enum { KUBE_POOL_NAME_MAX = 40, KUBE_LANGUAGES_MAX = 256 };

#define KUBE_LABEL_STANDBY "kiln/standby" /* of a PodTemplate that is a pool; any value */

struct kube_pool {
	char name[KUBE_POD_NAME_MAX];
	char uid[KUBE_UID_MAX];
	char revision[KUBE_REVISION_MAX]; /* of the pods that are to be */
	struct sizing_pool size;
	uint32_t weight;
	char languages[KUBE_LANGUAGES_MAX];
	uint16_t port;
	bool key_per_pod;
	int64_t start_timeout_ms;
	uint64_t recycle_tasks; /* 0: any number */
	int64_t recycle_ms;
	json_t *template;
};

/* -EINVAL with a message that names what is wrong. *ret_pool is the caller's to fini. */
int kube_pool_read(const json_t *object, struct kube_pool *ret_pool, struct err *e);
void kube_pool_fini(struct kube_pool *p);

/* The JSON of a new pod of this name. b is cleared before. */
int kube_pool_write_pod(const struct kube_pool *p, const char *name, struct buf *b, struct err *e);
