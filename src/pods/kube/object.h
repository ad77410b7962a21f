/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What Kiln reads of a Pod of Kubernetes (core/v1): a few fields of fixed size, so that thousands
 * can be kept. The object comes from a server that is trusted with the cluster, over a parser that
 * is not given more than a line: what has another type than it should counts as absent, and an
 * object that cannot be named is refused.
 */

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define KUBE_LABEL_POOL	    "kiln/pool"	 /* name of the PodTemplate that it was made from */
#define KUBE_LABEL_REVISION "kiln/rev"	 /* of that template */
#define KUBE_LABEL_STATE    "kiln/state" /* "busy" or "idle", as the leader last wrote it */

/* An annotation, of any value, by which people say that a pod is to be replaced. */
#define KUBE_NOTE_REPLACE "kiln/replace"

enum {
	KUBE_POD_NAME_MAX = 64,
	KUBE_UID_MAX = 40,
	KUBE_VERSION_MAX = 32,
	KUBE_REVISION_MAX = 16,
	KUBE_IP_MAX = 46,
	KUBE_REASON_MAX = 32,
	KUBE_NODE_MAX = 128, /* of one with a longer name it is not known how it is */
	KUBE_MESSAGE_MAX = 128,
};

enum kube_phase {
	KUBE_PENDING,
	KUBE_RUNNING,
	KUBE_SUCCEEDED,
	KUBE_FAILED,
	KUBE_PHASE_UNKNOWN, /* the kubelet cannot be asked */
};

struct kube_pod {
	char name[KUBE_POD_NAME_MAX];
	char uid[KUBE_UID_MAX];
	char version[KUBE_VERSION_MAX];	  /* resourceVersion: opaque */
	char pool[KUBE_POD_NAME_MAX];	  /* "": none */
	char revision[KUBE_REVISION_MAX]; /* "": none */
	char ip[KUBE_IP_MAX];		  /* "": none yet */
	char node[KUBE_NODE_MAX];	  /* "": none yet */
	int64_t created_s;		  /* since 1970; 0: not known */
	enum kube_phase phase;
	bool deleting;	    /* has a deletionTimestamp */
	bool scheduled;	    /* has a node */
	bool unschedulable; /* no node has room for it */
	bool ready;	    /* its readiness probe says so */
	bool evicted;	    /* by the node, or for a drain of it */
	bool labelled_busy;
	bool unwanted;			/* has KUBE_NOTE_REPLACE */
	int exit_code;			/* of the first container that ended; 0 */
	char reason[KUBE_REASON_MAX];	/* why it waits or ended: "OOMKilled", "ImagePullBackOff" */
	char message[KUBE_MESSAGE_MAX]; /* what its program said last, where the kubelet passes it
					 * on; one line */
};

struct kube_node {
	char name[KUBE_NODE_MAX];
	bool ready;
	bool unschedulable; /* cordoned */
	bool deleting;
};

/* -EBADMSG where it has no name that fits. */
int kube_node_read(const json_t *object, struct kube_node *ret_node, struct err *e);

/* -EBADMSG where name, uid or resourceVersion is absent or too long. */
int kube_pod_read(const json_t *object, struct kube_pod *ret_pod, struct err *e);

/* The text at a path of names, "metadata", "name", NULL; "" where there is none. */
const char *kube_text(const json_t *object, ...) __attribute__((sentinel));

/* Copies a text of an object whole; -EBADMSG where it is empty or too long. */
int kube_copy(char *dst, size_t size, const char *text, const char *what, struct err *e);
