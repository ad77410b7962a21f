/* SPDX-License-Identifier: Apache-2.0 */

/* "reflect REST-OF-URL": follows the pods that have the label app, and tells what the ops are told.
 * "relist" asks for a list. */

#include "kube_harness.h"

#include "base/str.h"
#include "pods/kube/object.h"
#include "pods/kube/reflector.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct reflect {
	struct kube_client *client;
	struct kube_reflector *reflector;
	char path[256];
};

static void on_begin(void *ctx)
{
	(void)ctx;
	harness_say("begin", "%s", "");
}

static void on_listed(void *ctx)
{
	(void)ctx;
	harness_say("listed", "%s", "");
}

static int on_seen(void *ctx, const json_t *object, struct err *e)
{
	struct kube_pod p;

	(void)ctx;
	if (kube_pod_read(object, &p, e) < 0)
		return -EBADMSG;
	harness_say("seen",
		    ",\"name\":%s,\"phase\":%d,\"ip\":%s,\"reason\":%s,\"version\":%s,\"ready\":%d,"
		    "\"unschedulable\":%d,\"deleting\":%d",
		    harness_quote(p.name), p.phase, harness_quote(p.ip), harness_quote(p.reason),
		    harness_quote(p.version), p.ready, p.unschedulable, p.deleting);
	return 0;
}

static void on_deleted(void *ctx, const json_t *object)
{
	(void)ctx;
	harness_say("deleted", ",\"name\":%s",
		    harness_quote(kube_text(object, "metadata", "name", NULL)));
}

static void reflect_command(struct harness *h, char *line)
{
	struct reflect *m = h->mode;

	if (str_eq(line, "relist"))
		kube_reflector_relist(m->reflector);
	else
		harness_say("trouble", ",\"text\":%s",
			    harness_quote(kube_reflector_trouble(m->reflector)));
}

static void reflect_end(struct harness *h)
{
	struct reflect *m = h->mode;

	kube_reflector_close(m->reflector, NULL, NULL);
	kube_client_close(m->client, NULL, NULL);
	free(m);
}

int harness_reflect(struct harness *h, int argc, char **argv)
{
	static const struct kube_reflector_ops ops = {
		.begin = on_begin, .listed = on_listed, .seen = on_seen, .deleted = on_deleted};
	struct reflect *m = calloc(1, sizeof *m);
	struct kube_reflector_config cfg = {.selector = "app=kiln-pod", .resource = "pods"};
	struct kube_access access;
	struct err e = {""};

	if (!m || argc != 1 || kube_access_parse(argv[0], NULL, NULL, &access, &e) < 0 ||
	    kube_client_new(&h->loop, &access, &m->client, &e) < 0)
		goto failed;
	(void)snprintf(m->path, sizeof m->path, "/api/v1/namespaces/%s/pods", access.namespace);
	cfg.client = m->client;
	cfg.path = m->path;
	cfg.ops = &ops;
	cfg.ctx = h;
	if (kube_reflector_new(&h->loop, &cfg, &m->reflector, &e) < 0)
		goto failed;
	h->mode = m;
	h->command = reflect_command;
	h->end = reflect_end;
	return 0;
failed:
	(void)fprintf(stderr, "reflect REST-OF-URL: %s\n", e.msg);
	free(m);
	return -1;
}
