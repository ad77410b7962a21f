/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the manager of Kubernetes' pods share. */

#include "base/list.h"
#include "pods/kube/client.h"
#include "pods/kube/elector.h"
#include "pods/kube/plan.h"
#include "pods/kube/reflector.h"
#include "pods/pods-private.h"

struct kubernetes {
	struct pods pods;
	uv_loop_t *loop;
	const struct pods_ops *ops;
	void *ctx;
	struct kube_client *client;
	struct kube_reflector *templates, *live, *nodes;
	struct elector *elector;
	struct pods *remote; /* connections to those that run */
	struct plan plan;
	char templates_path[128], pods_path[128];
	/* How many lists of each there must be before it is acted on: nobody knows what happened
	 * before it led. */
	uint64_t templates_needed, pods_needed;
	struct list writes; /* under way */
	uv_timer_t timer;   /* the next step */
	int64_t stepped_ms;
	int64_t overview_ms; /* of the last in the log; 0: is due */
	struct buf body;
	char refusal[ERR_MSG_MAX]; /* why a write was refused last; "": none was since */
	bool closing;
	size_t open_parts;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* Carries out what a step has decided; each is answered to the plan later. */
void kubernetes_act(struct kubernetes *k, const struct plan_action *a);

/* Ends all writes without a word. */
void kubernetes_cancel(struct kubernetes *k);

/* There is no such pod any more, or it has no use. */
void kubernetes_disconnect(struct kubernetes *k, struct plan_pod *pod);

/* As of pods_describe. */
int kubernetes_describe(const struct pods *pods, struct buf *json);

/* A step, in a moment. */
void kubernetes_soon(struct kubernetes *k);

/* What follows the API server, and the connections; ctx is the struct kubernetes. */
extern const struct kube_reflector_ops kubernetes_pod_ops, kubernetes_template_ops,
	kubernetes_node_ops;
extern const struct pods_ops kubernetes_remote_ops;

/* Cuts the next language off a list; returns where the rest begins. */
const char *kubernetes_next_language(const char *list, char name[KUBE_LANGUAGES_MAX]);
