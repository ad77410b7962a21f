/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/object.h"

#include "base/str.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

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

/* The last line that says anything: bytes of a program that a user's task may have come close to.
 */
static void read_message(const char *text, char message[KUBE_MESSAGE_MAX])
{
	size_t end = strlen(text), begin, len;

	while (end && (unsigned char)text[end - 1] <= ' ')
		end--;
	for (begin = end; begin && text[begin - 1] != '\n';)
		begin--;
	len = end - begin < KUBE_MESSAGE_MAX - 1 ? end - begin : KUBE_MESSAGE_MAX - 1;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[begin + i];

		message[i] = c >= ' ' && c < 0x7f ? (char)c : '?';
	}
	message[len] = '\0';
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
	if (ended)
		read_message(kube_text(ended, "message", NULL), p->message);
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

/* RFC 3339, in UTC and whole seconds, as Kubernetes writes it; 0: it is none. */
static int64_t read_time(const char *text)
{
	struct tm tm = {0};
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);

	return end && !*end ? (int64_t)timegm(&tm) : 0;
}

int kube_node_read(const json_t *object, struct kube_node *ret_node, struct err *e)
{
	const json_t *meta = json_object_get(object, "metadata"), *condition;
	struct kube_node n = {.ready = false};
	int r = kube_copy(n.name, sizeof n.name, kube_text(meta, "name", NULL), "name", e);
	size_t i;

	if (r < 0)
		return r;
	json_array_foreach(json_object_get(json_object_get(object, "status"), "conditions"), i,
			   condition) n.ready =
		n.ready || (str_eq(kube_text(condition, "type", NULL), "Ready") &&
			    str_eq(kube_text(condition, "status", NULL), "True"));
	n.unschedulable =
		json_is_true(json_object_get(json_object_get(object, "spec"), "unschedulable"));
	n.deleting = json_is_string(json_object_get(meta, "deletionTimestamp"));
	*ret_node = n;
	return 0;
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
	if (!str_copy(p.node, sizeof p.node, kube_text(object, "spec", "nodeName", NULL)))
		p.node[0] = '\0';
	p.scheduled = *kube_text(object, "spec", "nodeName", NULL) != '\0';
	p.created_s = read_time(kube_text(meta, "creationTimestamp", NULL));
	read_status(json_object_get(object, "status"), &p);
	*ret_pod = p;
	return 0;
}
