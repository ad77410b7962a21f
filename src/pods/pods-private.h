/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What an implementation of pods provides; chosen by URL in pods.c. Private to this folder. */

#include "pods/pods.h"

struct pods_impl {
	const char *scheme;
	int (*open)(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops,
		    void *ctx, struct pods **ret_pods, struct err *e);
	void (*connection_lost)(struct pods *p, const char *pod, const char *reason);
	void (*heard)(struct pods *p, const char *pod, unsigned slots, unsigned used,
		      uint64_t tasks);				 /* NULL: it does not matter */
	void (*reload)(struct pods *p);				 /* NULL: nothing to read */
	void (*explain)(const struct pods *p, struct buf *why);	 /* NULL: nothing to say */
	int (*describe)(const struct pods *p, struct buf *json); /* NULL: nothing to say */
	void (*close)(struct pods *p, int64_t grace_ms, void (*closed)(void *ctx), void *ctx);
};

/* First member of every implementation's structure. */
struct pods {
	const struct pods_impl *impl;
};

extern const struct pods_impl pods_local;
extern const struct pods_impl pods_remote;
extern const struct pods_impl pods_kubernetes;
