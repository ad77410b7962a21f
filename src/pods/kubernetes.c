/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Pods of Kubernetes. Every process follows the templates and the pods of its namespace and keeps a
 * connection to each pod that runs, so that it can go on with those while the API server is away.
 * One of them, which holds the lease, also makes the steps of the plan (kube/plan.h).
 */

#include "pods/kubernetes-private.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "base/url.h"
#include "observe/metrics.h"
#include "pods/remote.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	STEP_MS = 1000,
	LOOK_MS = 100, /* for the first task of a pool without pods */
	SOON_MS = 10,
	OVERVIEW_MS = 10 * 60 * 1000,
	POD_BODY_MAX = 1024 * 1024,
};

#define LEASE_NAME "kiln-pods"

static struct kubernetes *kubernetes_of(struct pods *pods)
{
	return container_of(pods, struct kubernetes, pods);
}

static int64_t now_ms(void)
{
	return clock_monotonic_us() / 1000;
}

/* ---- what the scheduler tells ---- */

static void kubernetes_connection_lost(struct pods *pods, const char *name, const char *reason)
{
	struct kubernetes *k = kubernetes_of(pods);
	struct plan_pod *pod = plan_find(&k->plan, name);

	if (k->closing)
		return;
	if (pod)
		plan_lost(pod, now_ms());
	pods_connection_lost(k->remote, name, reason);
	kubernetes_soon(k);
}

static void kubernetes_heard(struct pods *pods, const char *name, unsigned slots, unsigned used,
			     uint64_t tasks)
{
	struct kubernetes *k = kubernetes_of(pods);
	struct plan_pod *pod = plan_find(&k->plan, name);
	bool first = pod && !pod->slots && slots;
	int64_t took_ms;

	if (!pod)
		return;
	took_ms = plan_heard(&k->plan, pod, slots, used, tasks, now_ms());
	if (!first)
		return;
	metric_add(METRIC_POOL_STARTS, 1, pod->facts.pool, "ready");
	if (took_ms >= 0)
		metric_observe(METRIC_POD_READY_SECONDS, (double)took_ms / 1000, pod->facts.pool);
	kubernetes_soon(k);
}

/* ---- steps ---- */

static bool waiting_of(void *ctx, const struct kube_pool *pool, uint64_t *ret_waiting)
{
	struct kubernetes *k = ctx;
	const char *list = pool->languages;
	char name[KUBE_LANGUAGES_MAX];
	uint64_t sum = 0;

	while (*list) {
		uint64_t n = 0;

		list = kubernetes_next_language(list, name);
		if (!k->ops->waiting(k->ctx, name, &n))
			return false;
		sum += n;
	}
	*ret_waiting = sum;
	return true;
}

/* It leads, and knows what there is since it does. */
static bool may_act(const struct kubernetes *k)
{
	return !k->closing && elector_leads(k->elector) &&
	       kube_reflector_lists(k->live) >= k->pods_needed &&
	       kube_reflector_lists(k->templates) >= k->templates_needed;
}

static void explain_size(const struct plan_pool *pool, const struct sizing_verdict *before)
{
	const struct sizing_verdict *v = &pool->verdict;
	char text[SIZING_EXPLAIN_MAX];

	metric_set(METRIC_POOL_WANT, v->want, pool->def.name);
	metric_set(METRIC_POOL_UNSATISFIED, v->unsatisfied, pool->def.name);
	/* Reasons alone change often, and are in kiln pods. */
	if (v->want == before->want && v->brake == before->brake)
		return;
	sizing_explain(v, &pool->count, text);
	log_info("pods", "size of a pool", LOG_STR("pool", pool->def.name), LOG_STR("why", text));
}

/* Of all pools on one page: what has not changed for long is far up in the log. */
static void tell_overview(struct kubernetes *k)
{
	int64_t now = now_ms();

	if (k->overview_ms && now - k->overview_ms < OVERVIEW_MS)
		return;
	k->overview_ms = now;
	for (size_t i = 0; i < k->plan.n_pools; i++) {
		const struct plan_pool *pool = k->plan.pools[i];
		char text[SIZING_EXPLAIN_MAX];

		if (pool->gone)
			continue;
		sizing_explain(&pool->verdict, &pool->count, text);
		log_info("pods", "a pool as it is", LOG_STR("pool", pool->def.name),
			 LOG_INT("min", pool->def.size.min_pods),
			 LOG_INT("max", pool->def.size.max_pods),
			 LOG_INT("waiting", (int64_t)pool->waiting), LOG_INT("used", pool->used),
			 LOG_INT("failed_starts", pool->failures), LOG_STR("why", text));
	}
}

static void step(struct kubernetes *k)
{
	struct plan_action actions[PLAN_ACTIONS_MAX];
	struct sizing_verdict *before = calloc(k->plan.n_pools + 1, sizeof *before);
	size_t n;

	if (!before)
		return;
	for (size_t i = 0; i < k->plan.n_pools; i++)
		before[i] = k->plan.pools[i]->verdict;
	n = plan_step(&k->plan, now_ms(), waiting_of, k, actions);
	for (size_t i = 0; i < k->plan.n_pools; i++)
		explain_size(k->plan.pools[i], &before[i]);
	free(before);
	tell_overview(k);
	for (size_t i = 0; i < n; i++)
		kubernetes_act(k, &actions[i]);
	if (k->plan.relist) {
		k->plan.relist = false;
		kube_reflector_relist(k->live);
	}
}

static void observe(struct kubernetes *k)
{
	struct plan_pod *pod;
	size_t cursor;

	for (size_t i = 0; i < k->plan.n_pools; i++)
		for (enum plan_state s = 0; s < _PLAN_STATE_MAX; s++)
			metric_set(METRIC_POOL_PODS, 0, k->plan.pools[i]->def.name,
				   plan_state_name(s));
	MAP_FOREACH (pod, cursor, &k->plan.pods)
		metric_add(METRIC_POOL_PODS, 1, pod->facts.pool,
			   plan_state_name(plan_state_of(pod)));
}

static bool is_empty(const struct plan_pool *pool)
{
	const struct sizing_pods *c = &pool->count;

	return !pool->gone && !(c->idle + c->busy + c->starting + c->unschedulable);
}

/* The first task of a pool that is at zero should not wait for the clock too. */
static bool first_task_came(struct kubernetes *k)
{
	for (size_t i = 0; i < k->plan.n_pools; i++) {
		uint64_t n = 0;

		if (is_empty(k->plan.pools[i]) && k->plan.pools[i]->waiting == 0 &&
		    waiting_of(k, &k->plan.pools[i]->def, &n) && n)
			return true;
	}
	return false;
}

static void on_timer(uv_timer_t *timer)
{
	struct kubernetes *k = timer->data;
	int64_t now = now_ms();
	bool due = now - k->stepped_ms >= STEP_MS;

	if (due || (may_act(k) && first_task_came(k))) {
		k->stepped_ms = now;
		if (may_act(k))
			step(k);
		if (due)
			observe(k);
	}
	(void)uv_timer_start(&k->timer, on_timer, LOOK_MS, 0);
}

void kubernetes_soon(struct kubernetes *k)
{
	if (k->closing)
		return;
	k->stepped_ms = now_ms() - STEP_MS;
	if (uv_timer_get_due_in(&k->timer) > SOON_MS)
		(void)uv_timer_start(&k->timer, on_timer, SOON_MS, 0);
}

static void on_leader_changed(void *ctx, bool leads)
{
	struct kubernetes *k = ctx;

	if (!leads)
		return;
	k->overview_ms = 0;
	k->pods_needed = kube_reflector_lists(k->live) + 1;
	k->templates_needed = kube_reflector_lists(k->templates) + 1;
	kube_reflector_relist(k->live);
	kube_reflector_relist(k->templates);
}

/* ---- life ---- */

static void let_go(void *ctx)
{
	struct kubernetes *k = ctx;
	void (*closed)(void *) = k->closed;
	void *closed_ctx = k->closed_ctx;

	if (--k->open_parts)
		return;
	plan_fini(&k->plan);
	buf_fini(&k->body);
	free(k);
	if (closed)
		closed(closed_ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
	let_go(handle->data);
}

/* The lease is let go of by the client, so that it ends last. */
static void on_elector_closed(void *ctx)
{
	struct kubernetes *k = ctx;
	struct kube_client *client = TAKE_PTR(k->client);

	if (client)
		kube_client_close(client, let_go, k);
	else
		let_go(k);
}

/* Those that never came are skipped. */
static void close_followers(struct kubernetes *k)
{
	struct kube_reflector *reflectors[] = {TAKE_PTR(k->templates), TAKE_PTR(k->live),
					       TAKE_PTR(k->nodes)};
	struct pods *remote = TAKE_PTR(k->remote);

	for (size_t i = 0; i < ARRAY_SIZE(reflectors); i++) {
		if (!reflectors[i])
			continue;
		k->open_parts++;
		kube_reflector_close(reflectors[i], let_go, k);
	}
	if (remote) {
		k->open_parts++;
		pods_close(remote, 0, let_go, k);
	}
}

/* The pods stay: others use them, and this process, when it is back. */
static void kubernetes_close(struct pods *pods, int64_t grace_ms, void (*closed)(void *ctx),
			     void *ctx)
{
	struct kubernetes *k = kubernetes_of(pods);
	struct elector *elector = TAKE_PTR(k->elector);

	(void)grace_ms;
	k->closing = true;
	k->closed = closed;
	k->closed_ctx = ctx;
	k->open_parts = 2; /* the timer; the elector, and the client after it */
	kubernetes_cancel(k);
	close_followers(k);
	uv_close((uv_handle_t *)&k->timer, on_timer_closed);
	if (elector)
		elector_close(elector, on_elector_closed, k);
	else
		on_elector_closed(k);
}

static int open_reflectors(struct kubernetes *k, struct err *e)
{
	const char *namespace = kube_client_namespace(k->client);
	struct kube_reflector_config cfg = {.client = k->client, .ctx = k};
	int r;

	(void)snprintf(k->pods_path, sizeof k->pods_path, "/api/v1/namespaces/%s/pods", namespace);
	(void)snprintf(k->templates_path, sizeof k->templates_path,
		       "/api/v1/namespaces/%s/podtemplates", namespace);
	cfg.path = k->templates_path;
	cfg.selector = KUBE_LABEL_STANDBY;
	cfg.resource = "podtemplates";
	cfg.ops = &kubernetes_template_ops;
	r = kube_reflector_new(k->loop, &cfg, &k->templates, e);
	if (r < 0)
		return r;
	cfg.path = k->pods_path;
	cfg.selector = KUBE_LABEL_POOL;
	cfg.resource = "pods";
	cfg.ops = &kubernetes_pod_ops;
	r = kube_reflector_new(k->loop, &cfg, &k->live, e);
	if (r < 0)
		return r;
	/* Who may not see them does without: nodes are the cluster's, and not a namespace's. */
	cfg.path = "/api/v1/nodes";
	cfg.selector = NULL;
	cfg.resource = "nodes";
	cfg.ops = &kubernetes_node_ops;
	return kube_reflector_new(k->loop, &cfg, &k->nodes, e);
}

static int open_elector(struct kubernetes *k, struct err *e)
{
	char host[64] = "", self[128];
	struct elector_config cfg = {.client = k->client,
				     .lease = LEASE_NAME,
				     .self = self,
				     .changed = on_leader_changed,
				     .ctx = k};

	/* A process that starts anew is another one: what it held before is over. */
	(void)gethostname(host, sizeof host - 1);
	(void)snprintf(self, sizeof self, "%s_%08x", host, arc4random());
	return elector_new(k->loop, &cfg, &k->elector, e);
}

static int open_parts(struct kubernetes *k, const struct pods_config *cfg, struct err *e)
{
	struct kube_access access;
	const char *rest;
	int r;

	(void)url_scheme_is(cfg->url, pods_kubernetes.scheme, &rest);
	r = kube_access_parse(rest, cfg->kube_host, cfg->kube_port, &access, e);
	if (r < 0)
		return r;
	plan_init(&k->plan, access.max_pods, ((uint64_t)arc4random() << 32) | arc4random());
	r = remote_new(k->loop, cfg, &kubernetes_remote_ops, k, &k->remote, e);
	if (r == 0)
		r = kube_client_new(k->loop, &access, &k->client, e);
	if (r == 0)
		r = open_reflectors(k, e);
	if (r == 0)
		r = open_elector(k, e);
	return r;
}

static int kubernetes_open(uv_loop_t *loop, const struct pods_config *cfg,
			   const struct pods_ops *ops, void *ctx, struct pods **ret_pods,
			   struct err *e)
{
	struct kubernetes *k = calloc(1, sizeof *k);
	int r;

	if (!k)
		return err_set(e, -ENOMEM, "out of memory");
	k->pods.impl = &pods_kubernetes;
	k->loop = loop;
	k->ops = ops;
	k->ctx = ctx;
	plan_init(&k->plan, 0, 0);
	list_init(&k->writes);
	buf_init(&k->body, POD_BODY_MAX);
	(void)uv_timer_init(loop, &k->timer);
	k->timer.data = k;
	r = open_parts(k, cfg, e);
	if (r < 0) {
		kubernetes_close(&k->pods, 0, NULL, NULL);
		return r;
	}
	(void)uv_timer_start(&k->timer, on_timer, LOOK_MS, 0);
	*ret_pods = &k->pods;
	return 0;
}

static void kubernetes_explain(const struct pods *pods, struct buf *why)
{
	const void *self = pods; /* its first member */
	const struct kubernetes *k = self;
	const char *const troubles[] = {kube_reflector_trouble(k->templates),
					kube_reflector_trouble(k->live), k->refusal};
	const char *before = "";

	if (!k->plan.n_pools)
		(void)buf_append_str(why, "no pod template has the label " KUBE_LABEL_STANDBY);
	before = k->plan.n_pools ? "" : "; ";
	for (size_t i = 0; i < ARRAY_SIZE(troubles); i++) {
		if (!*troubles[i])
			continue;
		(void)buf_printf(why, "%s%s", before, troubles[i]);
		before = "; ";
	}
	for (size_t i = 0; i < k->plan.n_pools; i++) {
		const struct plan_pool *pool = k->plan.pools[i];

		if (pool->gone || !pool->failures)
			continue;
		(void)buf_printf(why, "%s%u starts in a row failed in pool %s", before,
				 pool->failures, pool->def.name);
		before = "; ";
	}
}

static void kubernetes_reload(struct pods *pods)
{
	struct kubernetes *k = kubernetes_of(pods);

	kube_reflector_relist(k->templates);
	kube_reflector_relist(k->live);
}

const struct pods_impl pods_kubernetes = {
	.scheme = "kubernetes",
	.open = kubernetes_open,
	.connection_lost = kubernetes_connection_lost,
	.heard = kubernetes_heard,
	.reload = kubernetes_reload,
	.explain = kubernetes_explain,
	.describe = kubernetes_describe,
	.close = kubernetes_close,
};
