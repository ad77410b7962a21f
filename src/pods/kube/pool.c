/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/pool.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "crypto/digest.h"
#include "pods/kube/access.h"
#include "json/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "kiln/"

enum { REVISION_BYTES = 5, HOUR_MS = 3600 * 1000 };

/* What the annotations say, in the widest type of each kind. */
struct notes {
	int64_t max, min, slots, spare, idle_ms, drain_ms, port, weight, start_timeout_ms;
	int64_t recycle_tasks, recycle_ms;
	const char *languages;
	bool key_per_pod;
};

enum note_kind { NOTE_COUNT, NOTE_TIME, NOTE_LANGUAGES, NOTE_KEY };

static const struct note_def {
	const char *name;
	enum note_kind kind;
	size_t offset;
	int64_t min, max;
} note_defs[] = {
	{"max", NOTE_COUNT, offsetof(struct notes, max), 0, SIZING_PODS_MAX},
	{"min", NOTE_COUNT, offsetof(struct notes, min), 0, SIZING_PODS_MAX},
	{"slots", NOTE_COUNT, offsetof(struct notes, slots), 1, 64},
	{"spare", NOTE_COUNT, offsetof(struct notes, spare), 0, SIZING_PODS_MAX},
	{"port", NOTE_COUNT, offsetof(struct notes, port), 1, 65535},
	{"weight", NOTE_COUNT, offsetof(struct notes, weight), 1, 1000},
	{"recycle-tasks", NOTE_COUNT, offsetof(struct notes, recycle_tasks), 0, INT64_MAX},
	{"idle", NOTE_TIME, offsetof(struct notes, idle_ms), 1000, 24 * HOUR_MS},
	{"drain", NOTE_TIME, offsetof(struct notes, drain_ms), 100, HOUR_MS},
	{"start-timeout", NOTE_TIME, offsetof(struct notes, start_timeout_ms), 1000, HOUR_MS},
	{"recycle-after", NOTE_TIME, offsetof(struct notes, recycle_ms), 1000,
	 INT64_C(1000) * HOUR_MS},
	{"languages", NOTE_LANGUAGES, 0, 0, 0},
	{"key", NOTE_KEY, 0, 0, 0},
};

static int read_note(const struct note_def *d, const char *text, struct notes *n, struct err *e)
{
	int64_t value = 0;
	int r = 0;

	switch (d->kind) {
	case NOTE_LANGUAGES:
		if (!*text || strlen(text) >= KUBE_LANGUAGES_MAX)
			return err_set(e, -EINVAL, PREFIX "languages has 1 to %d bytes",
				       KUBE_LANGUAGES_MAX - 1);
		n->languages = text;
		return 0;
	case NOTE_KEY:
		n->key_per_pod = str_eq(text, "pod");
		return n->key_per_pod || str_eq(text, "pool")
			       ? 0
			       : err_set(e, -EINVAL,
					 PREFIX "key is \"%.32s\": expected pool or pod", text);
	case NOTE_COUNT:
		r = str_to_i64(text, d->min, d->max, &value);
		break;
	case NOTE_TIME:
		r = str_to_ms(text, &value);
		if (r == 0 && (value < d->min || value > d->max))
			r = -ERANGE;
		break;
	}
	if (r < 0)
		return err_set(e, -EINVAL,
			       PREFIX "%s is \"%.32s\": expected a %s from %lld to %lld%s", d->name,
			       text, d->kind == NOTE_TIME ? "time" : "number", (long long)d->min,
			       (long long)d->max, d->kind == NOTE_TIME ? " ms" : "");
	*(int64_t *)(void *)((char *)n + d->offset) = value;
	return 0;
}

static int read_notes(json_t *annotations, struct notes *n, struct err *e)
{
	const char *name;
	json_t *value;
	int r = 0;

	json_object_foreach(annotations, name, value)
	{
		size_t i = 0;

		if (!str_has_prefix(name, PREFIX))
			continue;
		while (i < ARRAY_SIZE(note_defs) &&
		       !str_eq(note_defs[i].name, name + strlen(PREFIX)))
			i++;
		if (i == ARRAY_SIZE(note_defs) || !json_is_string(value))
			return err_set(e, -EINVAL, "\"%.64s\" is no annotation of a pool", name);
		r = read_note(&note_defs[i], json_string_value(value), n, e);
		if (r < 0)
			return r;
	}
	if (n->max < 0)
		return err_set(e, -EINVAL, PREFIX "max is missing");
	if (n->min > n->max)
		return err_set(e, -EINVAL, PREFIX "min is above " PREFIX "max");
	return 0;
}

static void apply_notes(const struct notes *n, struct kube_pool *p)
{
	p->size = (struct sizing_pool){
		.min_pods = (uint32_t)n->min,
		.max_pods = (uint32_t)n->max,
		.slots = (uint32_t)n->slots,
		.spare_slots = (uint32_t)n->spare,
		.single_use = n->slots == 1 && n->recycle_tasks == 1,
		.idle_ms = n->idle_ms,
		.drain_ms = n->drain_ms,
	};
	p->weight = (uint32_t)n->weight;
	p->port = (uint16_t)n->port;
	p->key_per_pod = n->key_per_pod;
	p->start_timeout_ms = n->start_timeout_ms;
	p->recycle_tasks = (uint64_t)n->recycle_tasks;
	p->recycle_ms = n->recycle_ms;
	(void)str_copy(p->languages, sizeof p->languages, n->languages ? n->languages : p->name);
}

/* Of everything that makes a pod what it is, in one order. A server that is upgraded may fill in
 * more defaults than before; that is a new revision too. */
static int make_revision(const json_t *template, char revision[KUBE_REVISION_MAX], struct err *e)
{
	AUTO_FREE char *text = json_dumps(template, JSON_COMPACT | JSON_SORT_KEYS);
	uint8_t digest[DIGEST_SIZE];

	if (!text || digest_bytes(text, strlen(text), digest) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	hex_encode(digest, REVISION_BYTES, revision);
	return 0;
}

/* A runner ends to be replaced: one that the kubelet starts again would be neither. */
static int check_template(const json_t *template, struct err *e)
{
	if (!json_array_size(json_object_get(json_object_get(template, "spec"), "containers")))
		return err_set(e, -EINVAL, "its template has no containers");
	if (!str_eq(kube_text(template, "spec", "restartPolicy", NULL), "Never"))
		return err_set(e, -EINVAL, "restartPolicy of its template must be Never");
	return 0;
}

int kube_pool_read(const json_t *object, struct kube_pool *ret_pool, struct err *e)
{
	const json_t *meta = json_object_get(object, "metadata");
	json_t *template = json_object_get(object, "template");
	struct notes n = {.max = -1,
			  .slots = 1,
			  .idle_ms = 5 * 60 * 1000,
			  .drain_ms = 5000,
			  .port = 9464,
			  .weight = 1,
			  .start_timeout_ms = 5 * 60 * 1000,
			  .recycle_tasks = 10000,
			  .recycle_ms = 6 * HOUR_MS};
	struct kube_pool p = {.template = NULL};
	int r = kube_copy(p.name, sizeof p.name, kube_text(meta, "name", NULL), "name", e);

	if (r == 0 && !kube_is_name(p.name, KUBE_POOL_NAME_MAX))
		r = err_set(e, -EINVAL,
			    "its name must be a-z, 0-9 and \"-\", of at most %d characters",
			    KUBE_POOL_NAME_MAX);
	if (r == 0)
		r = kube_copy(p.uid, sizeof p.uid, kube_text(meta, "uid", NULL), "uid", e);
	if (r == 0)
		r = read_notes(json_object_get(meta, "annotations"), &n, e);
	if (r == 0)
		r = check_template(template, e);
	if (r == 0)
		r = make_revision(template, p.revision, e);
	if (r < 0)
		return r;
	apply_notes(&n, &p);
	p.template = json_incref(template);
	*ret_pool = p;
	return 0;
}

void kube_pool_fini(struct kube_pool *p)
{
	json_decref(p->template);
	p->template = NULL;
}

/* ---- a pod ---- */

static json_t *owner_of(const struct kube_pool *p)
{
	/* With a controller a drain of its node takes the pod like any other, and with an owner the
	 * pods go when their template does. */
	return json_pack("[{s:s,s:s,s:s,s:s,s:b}]", "apiVersion", "v1", "kind", "PodTemplate",
			 "name", p->name, "uid", p->uid, "controller", 1);
}

static json_t *make_pod(const struct kube_pool *p, const char *name)
{
	json_t *pod = json_deep_copy(p->template);
	json_t *meta = json_object_get(pod, "metadata"), *labels;
	bool ok = pod && json_object_set_new(pod, "apiVersion", json_string("v1")) == 0 &&
		  json_object_set_new(pod, "kind", json_string("Pod")) == 0;

	if (!json_is_object(meta)) {
		meta = json_object();
		ok = json_object_set_new(pod, "metadata", meta) == 0 && ok;
	}
	labels = json_object_get(meta, "labels");
	if (!json_is_object(labels)) {
		labels = json_object();
		ok = json_object_set_new(meta, "labels", labels) == 0 && ok;
	}
	ok = ok && json_object_set_new(meta, "name", json_string(name)) == 0 &&
	     json_object_set_new(meta, "ownerReferences", owner_of(p)) == 0 &&
	     json_object_set_new(labels, KUBE_LABEL_POOL, json_string(p->name)) == 0 &&
	     json_object_set_new(labels, KUBE_LABEL_REVISION, json_string(p->revision)) == 0 &&
	     json_object_set_new(labels, KUBE_LABEL_STATE, json_string("idle")) == 0;
	if (ok)
		return pod;
	json_decref(pod);
	return NULL;
}

static int append(const char *bytes, size_t len, void *ctx)
{
	return buf_append(ctx, bytes, len);
}

int kube_pool_write_pod(const struct kube_pool *p, const char *name, struct buf *b, struct err *e)
{
	AUTO(json_cleanup) json_t *pod = make_pod(p, name);

	buf_clear(b);
	if (!pod || json_dump_callback(pod, append, b, JSON_COMPACT) < 0)
		return err_set(e, -ENOMEM, "could not write a pod of \"%s\"", p->name);
	return 0;
}
