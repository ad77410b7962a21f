/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/lease.h"

#include "base/clock.h"
#include "base/str.h"
#include "json/writer.h"

#include <errno.h>

int lease_read(const json_t *object, struct lease_record *ret_record, struct err *e)
{
	const json_t *spec = json_object_get(object, "spec");
	int64_t seconds = json_integer_value(json_object_get(spec, "leaseDurationSeconds"));
	struct lease_record r = {
		.transitions = json_integer_value(json_object_get(spec, "leaseTransitions")),
		.duration_ms = seconds > 0 && seconds < 3600 ? seconds * 1000 : LEASE_DURATION_MS,
	};
	int code = kube_copy(r.version, sizeof r.version,
			     kube_text(object, "metadata", "resourceVersion", NULL),
			     "resourceVersion", e);

	if (code < 0)
		return code;
	(void)str_copy(r.holder, sizeof r.holder, kube_text(spec, "holderIdentity", NULL));
	(void)str_copy(r.acquired, sizeof r.acquired, kube_text(spec, "acquireTime", NULL));
	*ret_record = r;
	return 0;
}

void lease_init(struct lease *l, const char *self)
{
	*l = (struct lease){.known = false};
	(void)str_copy(l->self, sizeof l->self, self);
}

void lease_observe(struct lease *l, const struct lease_record *r, int64_t now_ms)
{
	if (!l->known || l->absent != !r || (r && !str_eq(r->version, l->record.version)))
		l->changed_ms = now_ms;
	l->known = true;
	l->absent = !r;
	l->record = r ? *r : (struct lease_record){.holder = ""};
	if (!str_eq(l->record.holder, l->self))
		l->holding = false;
}

/* A holder that let go of it, or that has not been heard of for as long as it promised. */
static bool is_free(const struct lease *l, int64_t now_ms)
{
	return !*l->record.holder || now_ms - l->changed_ms >= l->record.duration_ms;
}

enum lease_verb lease_next(const struct lease *l, int64_t now_ms)
{
	if (!l->known)
		return LEASE_LOOK;
	if (l->absent)
		return LEASE_CREATE;
	if (str_eq(l->record.holder, l->self) || is_free(l, now_ms))
		return LEASE_UPDATE;
	return LEASE_LOOK;
}

void lease_won(struct lease *l, const struct lease_record *r, int64_t asked_ms, int64_t now_ms)
{
	lease_observe(l, r, now_ms);
	l->holding = str_eq(r->holder, l->self);
	l->renewed_ms = asked_ms;
}

void lease_refused(struct lease *l)
{
	l->known = false;
	l->holding = false;
}

bool lease_leads(const struct lease *l, int64_t now_ms)
{
	return l->holding && now_ms - l->renewed_ms < LEASE_DEADLINE_MS;
}

void lease_write(const struct lease *l, const char *name, int64_t wall_us, bool release,
		 struct buf *b)
{
	bool mine = !l->absent && str_eq(l->record.holder, l->self);
	char now[CLOCK_RFC3339_MAX];
	struct json_writer w;

	clock_format(wall_us, now);
	buf_clear(b);
	json_writer_init(&w, b);
	json_write_begin_object(&w);
	json_write_text_field(&w, "apiVersion", "coordination.k8s.io/v1");
	json_write_text_field(&w, "kind", "Lease");
	json_write_name(&w, "metadata");
	json_write_begin_object(&w);
	json_write_text_field(&w, "name", name);
	if (!l->absent)
		json_write_text_field(&w, "resourceVersion", l->record.version);
	json_write_end_object(&w);
	json_write_name(&w, "spec");
	json_write_begin_object(&w);
	json_write_text_field(&w, "holderIdentity", release ? "" : l->self);
	json_write_int_field(&w, "leaseDurationSeconds", release ? 1 : LEASE_DURATION_MS / 1000);
	json_write_text_field(&w, "acquireTime",
			      mine && *l->record.acquired ? l->record.acquired : now);
	json_write_text_field(&w, "renewTime", now);
	json_write_int_field(&w, "leaseTransitions",
			     l->record.transitions + (mine || l->absent ? 0 : 1));
	json_write_end_object(&w);
	json_write_end_object(&w);
}
