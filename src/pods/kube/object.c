/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/object.h"

#include "base/str.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

const char *kube_text(const json_t *object, ...)
{
	const char *name, *text;
	va_list ap;

	va_start(ap, object);
	while ((name = va_arg(ap, const char *)))
		object = json_object_get(object, name);
	va_end(ap);
	text = json_string_value(object);
	return text ? text : "";
}

int kube_copy(char *dst, size_t size, const char *text, const char *what, struct err *e)
{
	if (!*text)
		return err_set(e, -EBADMSG, "an object has no %s", what);
	if (strlen(text) >= size)
		return err_set(e, -EBADMSG, "the %s of an object is too long", what);
	(void)str_copy(dst, size, text);
	return 0;
}

static enum kube_phase phase_of(const char *text)
{
	static const char *const names[] = {[KUBE_PENDING] = "Pending",
					    [KUBE_RUNNING] = "Running",
					    [KUBE_SUCCEEDED] = "Succeeded",
					    [KUBE_FAILED] = "Failed"};

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (str_eq(text, names[i]))
			return (enum kube_phase)i;
	/* A pod that was just created may have no phase for a moment. */
	return *text ? KUBE_PHASE_UNKNOWN : KUBE_PENDING;
}

static void read_condition(const json_t *condition, struct kube_pod *p)
{
	const char *type = kube_text(condition, "type", NULL);
	bool is_true = str_eq(kube_text(condition, "status", NULL), "True");

	if (str_eq(type, "Ready"))
		p->ready = is_true;
	else if (str_eq(type, "PodScheduled") && is_true)
		p->scheduled = true;
	else if (str_eq(type, "PodScheduled"))
		p->unschedulable = str_eq(kube_text(condition, "reason", NULL), "Unschedulable");
	else if (str_eq(type, "DisruptionTarget"))
		p->evicted = p->evicted || is_true;
}

/* The first that ended, or that waits for something; what it says is kept. */
static void read_container(const json_t *status, struct kube_pod *p)
{
	const json_t *state = json_object_get(status, "state");
	const json_t *ended = json_object_get(state, "terminated");
	const char *reason = kube_text(ended ? ended : state, ended ? "reason" : "waiting",
				       ended ? NULL : "reason", NULL);
	int64_t code = json_integer_value(json_object_get(ended, "exitCode"));

	if (*p->reason || !*reason || (ended && code == 0))
		return;
	(void)str_copy(p->reason, sizeof p->reason, reason);
	p->exit_code = code > -1000 && code < 1000 ? (int)code : -1;
}

static void read_status(const json_t *status, struct kube_pod *p)
{
	const char *reason = kube_text(status, "reason", NULL);
	const json_t *one;
	size_t i;

	p->phase = phase_of(kube_text(status, "phase", NULL));
	if (!str_copy(p->ip, sizeof p->ip, kube_text(status, "podIP", NULL)))
		p->ip[0] = '\0';
	json_array_foreach(json_object_get(status, "conditions"), i, one) read_condition(one, p);
	/* What the node says about the whole pod comes first: "Evicted", "NodeLost". */
	(void)str_copy(p->reason, sizeof p->reason, reason);
	p->evicted = p->evicted || str_eq(reason, "Evicted") || str_eq(reason, "Preempting");
	json_array_foreach(json_object_get(status, "initContainerStatuses"), i, one)
		read_container(one, p);
	json_array_foreach(json_object_get(status, "containerStatuses"), i, one)
		read_container(one, p);
}

int kube_pod_read(const json_t *object, struct kube_pod *ret_pod, struct err *e)
{
	const json_t *meta = json_object_get(object, "metadata");
	const json_t *labels = json_object_get(meta, "labels");
	struct kube_pod p = {.phase = KUBE_PENDING};
	int r = kube_copy(p.name, sizeof p.name, kube_text(meta, "name", NULL), "name", e);

	if (r == 0)
		r = kube_copy(p.uid, sizeof p.uid, kube_text(meta, "uid", NULL), "uid", e);
	if (r == 0)
		r = kube_copy(p.version, sizeof p.version, kube_text(meta, "resourceVersion", NULL),
			      "resourceVersion", e);
	if (r < 0)
		return r;
	if (!str_copy(p.pool, sizeof p.pool, kube_text(labels, KUBE_LABEL_POOL, NULL)))
		p.pool[0] = '\0';
	if (!str_copy(p.revision, sizeof p.revision, kube_text(labels, KUBE_LABEL_REVISION, NULL)))
		p.revision[0] = '\0';
	p.labelled_busy = str_eq(kube_text(labels, KUBE_LABEL_STATE, NULL), "busy");
	p.unwanted = json_object_get(json_object_get(meta, "annotations"), KUBE_NOTE_REPLACE);
	p.deleting = json_is_string(json_object_get(meta, "deletionTimestamp"));
	p.scheduled = *kube_text(object, "spec", "nodeName", NULL) != '\0';
	read_status(json_object_get(object, "status"), &p);
	*ret_pod = p;
	return 0;
}
