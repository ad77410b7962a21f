/* SPDX-License-Identifier: Apache-2.0 */

/* What the API server tells, as it comes: pods are connected to, and languages offered. */

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"
#include "pods/kubernetes-private.h"
#include "pods/remote.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int64_t now_ms(void)
{
	return clock_monotonic_us() / 1000;
}

/* ---- connections ---- */

static bool can_connect(const struct plan_pod *pod)
{
	return pod->facts.phase == KUBE_RUNNING && *pod->facts.ip && !pod->facts.deleting;
}

/* A pool's key is mounted from a Secret, since the names of pods are not known when that is made.
 * Its pods have it, or each has one of its own that an init container made from it, out of reach of
 * what runs afterwards. */
static void connect_pod(struct kubernetes *k, struct plan_pod *pod)
{
	const struct plan_pool *pool = plan_find_pool(&k->plan, pod->facts.pool);
	struct remote_address a = {.name = ""};
	struct err e;
	int r;

	if (!pool || pod->dialled || !can_connect(pod))
		return;
	(void)str_copy(a.name, sizeof a.name, pod->facts.name);
	(void)str_copy(a.host, sizeof a.host, pod->facts.ip);
	(void)snprintf(a.port, sizeof a.port, "%u", pool->def.port);
	r = pool->def.key_per_pod ? remote_put(k->remote, &a, pool->def.name, a.name, &e)
				  : remote_put(k->remote, &a, NULL, pool->def.name, &e);
	if (r < 0) {
		log_error("pods", "could not connect to a pod", LOG_STR("pod", a.name),
			  LOG_STR("reason", e.msg));
		return;
	}
	pod->dialled = true;
}

static void connect_all(struct kubernetes *k)
{
	struct plan_pod *pod;
	size_t cursor;

	MAP_FOREACH (pod, cursor, &k->plan.pods)
		connect_pod(k, pod);
}

void kubernetes_disconnect(struct kubernetes *k, struct plan_pod *pod)
{
	if (pod->dialled)
		remote_drop(k->remote, pod->facts.name);
	pod->dialled = false;
}

static void on_connected(void *ctx, const char *pod, int fd, const struct tls_psk *psk)
{
	struct kubernetes *k = ctx;

	k->ops->connected(k->ctx, pod, fd, psk);
}

static void on_retired(void *ctx, const char *pod)
{
	struct kubernetes *k = ctx;

	k->ops->retired(k->ctx, pod);
}

const struct pods_ops kubernetes_remote_ops = {.connected = on_connected, .retired = on_retired};

/* ---- the API server's view: pods ---- */

static void on_pods_begin(void *ctx)
{
	plan_begin(&((struct kubernetes *)ctx)->plan);
}

/* By few words, since they are labels of a metric. */
static const char *end_of(const struct kube_pod *facts)
{
	if (facts->evicted)
		return "evicted";
	if (str_eq(facts->reason, "OOMKilled"))
		return "oom";
	return facts->phase == KUBE_SUCCEEDED ? "completed" : "failed";
}

static void note_end(const struct plan_pod *pod)
{
	const struct kube_pod *f = &pod->facts;

	if (pod->served)
		metric_add(METRIC_POOL_ENDS, 1, f->pool, end_of(f));
	else if (!f->evicted)
		metric_add(METRIC_POOL_STARTS, 1, f->pool, "failed");
	if (f->phase == KUBE_FAILED)
		log_warn("pods", "a pod has failed", LOG_STR("pool", f->pool),
			 LOG_STR("pod", f->name), LOG_STR("end", end_of(f)),
			 LOG_STR("reason", f->reason), LOG_INT("exit_code", f->exit_code),
			 LOG_STR("said", f->message),
			 LOG_STR("served", pod->served ? "yes" : "no"));
}

static int on_pod_seen(void *ctx, const json_t *object, struct err *e)
{
	struct kubernetes *k = ctx;
	struct plan_pod *pod;
	struct kube_pod facts;
	int64_t ended_before;
	bool is_new;
	int r = kube_pod_read(object, &facts, e);

	if (r < 0)
		return r;
	pod = plan_find(&k->plan, facts.name);
	if (pod && !str_eq(pod->facts.uid, facts.uid))
		kubernetes_disconnect(k, pod);
	ended_before = pod ? pod->ended_ms : 0;
	if (plan_seen(&k->plan, &facts, now_ms(), &pod, &is_new) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (!ended_before && pod->ended_ms)
		note_end(pod);
	if (facts.phase == KUBE_SUCCEEDED || facts.phase == KUBE_FAILED) {
		kubernetes_disconnect(k, pod);
		kubernetes_soon(k);
	} else {
		connect_pod(k, pod);
	}
	return 0;
}

static void on_pod_gone(void *ctx, struct plan_pod *pod)
{
	kubernetes_disconnect(ctx, pod);
}

static void on_pod_deleted(void *ctx, const json_t *object)
{
	struct kubernetes *k = ctx;
	struct plan_pod *pod = plan_find(&k->plan, kube_text(object, "metadata", "name", NULL));

	if (!pod || !str_eq(pod->facts.uid, kube_text(object, "metadata", "uid", NULL)))
		return;
	kubernetes_disconnect(k, pod);
	plan_deleted(&k->plan, pod->facts.name);
	kubernetes_soon(k);
}

static void on_pods_listed(void *ctx)
{
	struct kubernetes *k = ctx;

	plan_listed(&k->plan, on_pod_gone, k);
	kubernetes_soon(k);
}

const struct kube_reflector_ops kubernetes_pod_ops = {
	.begin = on_pods_begin,
	.seen = on_pod_seen,
	.deleted = on_pod_deleted,
	.listed = on_pods_listed,
};

/* ---- the API server's view: templates ---- */

const char *kubernetes_next_language(const char *list, char name[KUBE_LANGUAGES_MAX])
{
	size_t len = strcspn(list, ",");

	memcpy(name, list, len);
	name[len] = '\0';
	return list + len + (list[len] != '\0');
}

static void offer(struct kubernetes *k, const struct kube_pool *pool, bool yes)
{
	const char *list = pool->languages;
	char name[KUBE_LANGUAGES_MAX];

	while (*list) {
		list = kubernetes_next_language(list, name);
		k->ops->offered(k->ctx, name, yes);
	}
}

/* After one was taken back: another pool may have the same language. */
static void offer_all(struct kubernetes *k)
{
	for (size_t i = 0; i < k->plan.n_pools; i++) {
		const struct plan_pool *pool = k->plan.pools[i];

		if (!pool->gone && pool->def.size.max_pods)
			offer(k, &pool->def, true);
	}
}

/* One that cannot be used is told of, and leaves what is in force. */
static int on_template_seen(void *ctx, const json_t *object, struct err *e)
{
	struct kubernetes *k = ctx;
	const char *name = kube_text(object, "metadata", "name", NULL);
	const struct plan_pool *before = plan_find_pool(&k->plan, name);
	bool is_known = before && !before->gone;
	char revision[KUBE_REVISION_MAX] = "";
	struct kube_pool def;
	struct err why;

	if (before) {
		memcpy(revision, before->def.revision, sizeof revision);
		plan_keep_pool(&k->plan, name);
	}
	if (kube_pool_read(object, &def, &why) < 0) {
		log_error("pods", "cannot use a pod template", LOG_STR("template", name),
			  LOG_STR("reason", why.msg), LOG_STR("in_force", revision));
		return 0;
	}
	if (!is_known || !str_eq(revision, def.revision))
		log_info("pods", is_known ? "rolls a pool out anew" : "has a pool",
			 LOG_STR("pool", def.name), LOG_STR("revision", def.revision),
			 LOG_INT("min", def.size.min_pods), LOG_INT("max", def.size.max_pods));
	if (is_known)
		offer(k, &before->def, false);
	if (plan_put_pool(&k->plan, &def) < 0) {
		kube_pool_fini(&def);
		return err_set(e, -ENOMEM, "out of memory");
	}
	offer_all(k);
	connect_all(k);
	kubernetes_soon(k);
	return 0;
}

static void drop_template(struct kubernetes *k, struct plan_pool *pool)
{
	log_info("pods", "lets go of a pool: its template is gone",
		 LOG_STR("pool", pool->def.name));
	plan_drop_pool(&k->plan, pool->def.name);
	offer(k, &pool->def, false);
	offer_all(k);
	kubernetes_soon(k);
}

static void on_template_deleted(void *ctx, const json_t *object)
{
	struct kubernetes *k = ctx;
	struct plan_pool *pool =
		plan_find_pool(&k->plan, kube_text(object, "metadata", "name", NULL));

	if (pool && !pool->gone)
		drop_template(k, pool);
}

static void on_templates_begin(void *ctx)
{
	plan_pools_begin(&((struct kubernetes *)ctx)->plan);
}

static void on_templates_listed(void *ctx)
{
	struct kubernetes *k = ctx;

	for (size_t i = 0; i < k->plan.n_pools; i++)
		if (!k->plan.pools[i]->listed && !k->plan.pools[i]->gone)
			drop_template(k, k->plan.pools[i]);
	kubernetes_soon(k);
}

const struct kube_reflector_ops kubernetes_template_ops = {
	.begin = on_templates_begin,
	.seen = on_template_seen,
	.deleted = on_template_deleted,
	.listed = on_templates_listed,
};

/* ---- the API server's view: nodes ---- */

static void on_nodes_begin(void *ctx)
{
	plan_nodes_begin(&((struct kubernetes *)ctx)->plan);
}

static int on_node_seen(void *ctx, const json_t *object, struct err *e)
{
	struct kubernetes *k = ctx;
	struct kube_node facts;
	int r = kube_node_read(object, &facts, e);

	if (r == 0)
		r = plan_node_seen(&k->plan, &facts);
	if (r > 0) {
		log_info("pods", "a node has changed", LOG_STR("node", facts.name),
			 LOG_STR("ready", facts.ready && !facts.deleting ? "yes" : "no"),
			 LOG_STR("cordoned", facts.unschedulable ? "yes" : "no"));
		kubernetes_soon(k);
	}
	return r == -ENOMEM ? err_set(e, r, "out of memory") : r < 0 ? r : 0;
}

static void on_node_deleted(void *ctx, const json_t *object)
{
	struct kubernetes *k = ctx;
	const char *name = kube_text(object, "metadata", "name", NULL);

	log_info("pods", "a node is gone", LOG_STR("node", name));
	plan_node_gone(&k->plan, name);
	kubernetes_soon(k);
}

static void on_nodes_listed(void *ctx)
{
	struct kubernetes *k = ctx;

	plan_nodes_listed(&k->plan);
	kubernetes_soon(k);
}

const struct kube_reflector_ops kubernetes_node_ops = {
	.begin = on_nodes_begin,
	.seen = on_node_seen,
	.deleted = on_node_deleted,
	.listed = on_nodes_listed,
};
