/* SPDX-License-Identifier: Apache-2.0 */

/* The writes: creates, deletions and labels, each with the version that it was decided on. */

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"
#include "pods/kubernetes-private.h"
#include "json/writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct write {
	struct list link;
	struct kubernetes *k;
	struct kube_call call;
	char name[KUBE_POD_NAME_MAX];
	char pool[KUBE_POD_NAME_MAX];
};

static int64_t now_ms(void)
{
	return clock_monotonic_us() / 1000;
}

static void end(struct write *w)
{
	list_unlink(&w->link);
	free(w);
}

static void note(struct kubernetes *k, const struct write *w, const char *what, int code)
{
	const char *why = w->call.request.error.msg;

	if (code == 0) {
		k->refusal[0] = '\0';
		return;
	}
	if (!str_eq(k->refusal, why))
		log_warn("pods", what, LOG_STR("pod", w->name), LOG_STR("pool", w->pool),
			 LOG_STR("reason", why));
	(void)str_copy(k->refusal, sizeof k->refusal, why);
}

/* ---- create ---- */

static void on_created(struct kube_call *c, int code)
{
	struct write *w = c->ctx;
	struct kubernetes *k = w->k;

	/* An earlier try has made it, and its answer was lost. */
	if (code == -EEXIST && c->tries > 1)
		code = 0;
	note(k, w, "could not create a pod", code);
	if (code == 0) {
		plan_created(&k->plan, w->pool, w->name);
	} else {
		/* Without an answer, or with one that says that something broke on the way, it may
		 * be there. */
		bool doubtful = !c->request.status || code == -EIO;

		metric_add(METRIC_POOL_STARTS, 1, w->pool, "refused");
		plan_create_failed(&k->plan, w->pool, w->name, doubtful, now_ms());
	}
	end(w);
	kubernetes_soon(k);
}

static int write_create(struct kubernetes *k, struct write *w, const struct plan_action *a)
{
	int r = kube_pool_write_pod(&a->pool->def, a->name, &k->body, &w->call.request.error);

	if (r < 0)
		return r;
	log_info("pods", "creates a pod", LOG_STR("pool", w->pool), LOG_STR("pod", w->name),
		 LOG_STR("why", a->why));
	w->call.verb = "create";
	w->call.method = "POST";
	w->call.done = on_created;
	return kube_call(k->client, &w->call, k->pods_path, k->body.data);
}

/* ---- delete ---- */

static void on_deleted(struct kube_call *c, int code)
{
	struct write *w = c->ctx;
	struct kubernetes *k = w->k;
	struct plan_pod *pod = plan_find(&k->plan, w->name);

	if (code == -ENOENT && pod) {
		kubernetes_disconnect(k, pod);
		plan_deleted(&k->plan, w->name);
	} else if (code < 0) {
		/* 409: it has changed since. What it is now is decided on again. */
		plan_order_failed(&k->plan, w->name);
		if (code != -EEXIST && code != -ENOENT)
			note(k, w, "could not delete a pod", code);
	}
	end(w);
}

static void write_precondition(struct buf *b, const struct plan_pod *pod)
{
	struct json_writer w;

	buf_clear(b);
	json_writer_init(&w, b);
	json_write_begin_object(&w);
	json_write_text_field(&w, "apiVersion", "v1");
	json_write_text_field(&w, "kind", "DeleteOptions");
	json_write_name(&w, "preconditions");
	json_write_begin_object(&w);
	json_write_text_field(&w, "uid", pod->facts.uid);
	json_write_text_field(&w, "resourceVersion", pod->facts.version);
	json_write_end_object(&w);
	json_write_end_object(&w);
}

/* What is said of its end: the name of a reason, and the program's own number. */
static void tell_deletion(const struct plan_pod *pod, const char *why)
{
	bool plain = str_eq(why, "surplus") || pod->facts.phase == KUBE_SUCCEEDED;

	LOG_AT(plain ? LOG_INFO : LOG_WARN, "pods", "deletes a pod",
	       LOG_STR("pool", pod->facts.pool), LOG_STR("pod", pod->facts.name),
	       LOG_STR("why", why), LOG_STR("reason", pod->facts.reason),
	       LOG_INT("exit_code", pod->facts.exit_code));
}

static int write_delete(struct kubernetes *k, struct write *w, const struct plan_pod *pod,
			const char *why)
{
	char path[256];

	tell_deletion(pod, why);
	write_precondition(&k->body, pod);
	(void)snprintf(path, sizeof path, "%s/%s", k->pods_path, w->name);
	w->call.verb = "delete";
	w->call.method = "DELETE";
	w->call.done = on_deleted;
	return kube_call(k->client, &w->call, path, k->body.data);
}

/* ---- label ---- */

static void on_labelled(struct kube_call *c, int code)
{
	struct write *w = c->ctx;

	(void)code; /* where it did not work, the next step finds the label as it was */
	plan_labelled(&w->k->plan, w->name);
	end(w);
}

static int write_label(struct kubernetes *k, struct write *w, const struct plan_pod *pod, bool busy)
{
	char path[256];
	struct json_writer j;

	buf_clear(&k->body);
	json_writer_init(&j, &k->body);
	json_write_begin_object(&j);
	json_write_name(&j, "metadata");
	json_write_begin_object(&j);
	json_write_text_field(&j, "resourceVersion", pod->facts.version);
	json_write_name(&j, "labels");
	json_write_begin_object(&j);
	json_write_text_field(&j, KUBE_LABEL_STATE, busy ? "busy" : "idle");
	json_write_end_object(&j);
	json_write_end_object(&j);
	json_write_end_object(&j);
	(void)snprintf(path, sizeof path, "%s/%s", k->pods_path, w->name);
	w->call.verb = "patch";
	w->call.method = "PATCH";
	w->call.content_type = "application/merge-patch+json";
	w->call.done = on_labelled;
	return kube_call(k->client, &w->call, path, k->body.data);
}

/* ---- all ---- */

static void fail(struct kubernetes *k, const struct plan_action *a)
{
	if (a->verb == PLAN_CREATE)
		plan_create_failed(&k->plan, a->pool->def.name, a->name, false, now_ms());
	else if (a->verb == PLAN_LABEL)
		plan_labelled(&k->plan, a->name);
	else
		plan_order_failed(&k->plan, a->name);
}

static int write_one(struct kubernetes *k, struct write *w, const struct plan_action *a)
{
	const struct plan_pod *pod = a->verb == PLAN_CREATE ? NULL : plan_find(&k->plan, a->name);

	if (a->verb == PLAN_CREATE)
		return write_create(k, w, a);
	if (!pod)
		return -ENOENT;
	(void)str_copy(w->pool, sizeof w->pool, pod->facts.pool);
	if (a->verb == PLAN_LABEL)
		return write_label(k, w, pod, a->busy);
	return write_delete(k, w, pod, a->why);
}

void kubernetes_act(struct kubernetes *k, const struct plan_action *a)
{
	struct write *w;

	if (a->verb == PLAN_DRAIN) {
		log_info("pods", "drains a pod", LOG_STR("pod", a->name), LOG_STR("why", a->why));
		k->ops->drain(k->ctx, a->name);
		return;
	}
	w = calloc(1, sizeof *w);
	if (!w) {
		fail(k, a);
		return;
	}
	w->k = k;
	w->call.ctx = w;
	(void)str_copy(w->name, sizeof w->name, a->name);
	if (a->pool)
		(void)str_copy(w->pool, sizeof w->pool, a->pool->def.name);
	list_init(&w->link);
	list_push_back(&k->writes, &w->link);
	if (write_one(k, w, a) < 0) {
		fail(k, a);
		end(w);
	}
}

void kubernetes_cancel(struct kubernetes *k)
{
	struct write *w, *tmp;

	LIST_FOREACH_SAFE (w, tmp, &k->writes, link) {
		kube_call_cancel(&w->call);
		end(w);
	}
}
