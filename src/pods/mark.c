/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/mark.h"

#include "base/str.h"
#include "base/url.h"
#include "pods/kube/client.h"
#include "pods/kube/object.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { AT_ONCE = 8 };

#define BODY "{\"metadata\":{\"annotations\":{\"" KUBE_NOTE_REPLACE "\":\"\"}}}"

struct marker {
	const struct pods_mark *m;
	struct kube_client *client;
	size_t next, under_way;
	struct mark {
		struct marker *marker;
		struct kube_call call;
		const char *pod; /* NULL: free */
	} marks[AT_ONCE];
};

static void go_on(struct marker *k);

static void on_marked(struct kube_call *c, int code)
{
	struct mark *mark = c->ctx;
	struct marker *k = mark->marker;
	const char *pod = mark->pod;

	mark->pod = NULL;
	k->under_way--;
	k->m->told(k->m->ctx, pod, code, code ? c->request.error.msg : "");
	go_on(k);
}

static void begin(struct marker *k, struct mark *mark, const char *pod)
{
	char path[256];

	(void)snprintf(path, sizeof path, "/api/v1/namespaces/%s/pods/%s",
		       kube_client_namespace(k->client), pod);
	*mark = (struct mark){.marker = k,
			      .pod = pod,
			      .call = {.verb = "patch",
				       .method = "PATCH",
				       .content_type = "application/merge-patch+json",
				       .done = on_marked,
				       .ctx = mark}};
	k->under_way++;
	if (kube_call(k->client, &mark->call, path, BODY) < 0) {
		mark->pod = NULL;
		k->under_way--;
		k->m->told(k->m->ctx, pod, -ENOMEM, "out of memory");
	}
}

static void go_on(struct marker *k)
{
	for (size_t i = 0; i < AT_ONCE && k->next < k->m->n; i++)
		if (!k->marks[i].pod)
			begin(k, &k->marks[i], k->m->pods[k->next++]);
	if (!k->under_way && k->client) {
		kube_client_close(k->client, NULL, NULL);
		k->client = NULL;
	}
}

int pods_mark(const struct pods_mark *m, struct err *e)
{
	struct marker k = {.m = m};
	struct kube_access access;
	const char *rest;
	uv_loop_t loop;
	int r;

	if (!url_scheme_is(m->url, "kubernetes", &rest))
		return err_set(e, -EINVAL,
			       "\"%s\" has no pods that can be replaced: expected "
			       "kubernetes:NAMESPACE",
			       m->url);
	r = kube_access_parse(rest, m->kube_host, m->kube_port, &access, e);
	if (r < 0)
		return r;
	r = uv_loop_init(&loop);
	if (r < 0)
		return err_errno(e, r, "could not make an event loop");
	r = kube_client_new(&loop, &access, &k.client, e);
	if (r == 0) {
		go_on(&k);
		(void)uv_run(&loop, UV_RUN_DEFAULT);
	}
	(void)uv_loop_close(&loop);
	return r;
}
