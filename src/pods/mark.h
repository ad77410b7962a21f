/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Asks for pods of Kubernetes to be replaced, as `kubectl annotate pod NAME kiln/replace=` does: by
 * a note on each that the pod manager goes by, whoever leads, now or later. So it takes the right
 * to change pods in that namespace, and nothing that listens in a scheduler.
 */

#include "base/err.h"

#include <stddef.h>

struct pods_mark {
	const char *url;		   /* as of struct pods_config: kubernetes:... */
	const char *kube_host, *kube_port; /* the same */
	const char *const *pods;
	size_t n;
	/* For each pod; code: 0, or a negative errno with the reason. */
	void (*told)(void *ctx, const char *pod, int code, const char *reason);
	void *ctx;
};

/* Returns when each was told. -EINVAL where the URL is none, or another. */
int pods_mark(const struct pods_mark *m, struct err *e);
