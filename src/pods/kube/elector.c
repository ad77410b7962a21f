/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/elector.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "observe/metrics.h"
#include "pods/kube/lease.h"
#include "json/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	TRY_MS = 3 * 1000,
	RELEASE_MS = 1000,
	PATH_BYTES_MAX = 256,
	BODY_MAX_BYTES = 4096,
	SPREAD_MS = 200, /* who begins together must not try together */
};

struct elector {
	struct elector_config cfg;
	struct lease lease;
	struct kube_call call;
	char path[PATH_BYTES_MAX]; /* of all leases of the namespace */
	int64_t asked_ms;
	bool told; /* what changed was last called with */
	bool closing;
	struct err trouble; /* as logged last */
	uv_timer_t timer;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static int64_t now_ms(void)
{
	return clock_monotonic_us() / 1000;
}

bool elector_leads(const struct elector *el)
{
	return lease_leads(&el->lease, now_ms());
}

const char *elector_holder(const struct elector *el)
{
	return el->lease.record.holder;
}

static void tell(struct elector *el)
{
	bool leads = !el->closing && elector_leads(el);

	if (leads == el->told)
		return;
	el->told = leads;
	metric_set(METRIC_LEADER, leads ? 1 : 0);
	log_info("pods", leads ? "decides the sizes of the pools" : "no longer decides the sizes",
		 LOG_STR("holder", el->lease.record.holder));
	el->cfg.changed(el->cfg.ctx, leads);
}

/* ---- asking ---- */

static void on_timer(uv_timer_t *timer);

static void again(struct elector *el)
{
	if (!el->closing)
		(void)uv_timer_start(&el->timer, on_timer,
				     LEASE_RETRY_MS + arc4random_uniform(SPREAD_MS), 0);
}

static void note_trouble(struct elector *el, const struct err *e)
{
	if (!str_eq(e->msg, el->trouble.msg) && *e->msg)
		log_warn("pods", "could not take part in the election", LOG_STR("reason", e->msg));
	el->trouble = *e;
}

static int take_answer(struct elector *el, const struct kube_call *c, struct lease_record *r,
		       struct err *e)
{
	static const struct json_bounds bounds = {.depth = 32, .values = 10000};
	AUTO(json_cleanup) json_t *object = NULL;
	int code = json_decode(c->request.answer.data, c->request.answer.len, &bounds, &object, e);

	(void)el;
	return code < 0 ? code : lease_read(object, r, e);
}

static void on_seen(struct kube_call *c, int code)
{
	struct elector *el = c->ctx;
	struct lease_record r;
	struct err e = c->request.error;

	if (code == 0)
		code = take_answer(el, c, &r, &e);
	if (code == 0 || code == -ENOENT) {
		lease_observe(&el->lease, code == 0 ? &r : NULL, now_ms());
		e.msg[0] = '\0';
	}
	note_trouble(el, &e);
	tell(el);
	/* What is free is taken at once. */
	if (!el->closing && code <= 0 && el->lease.known &&
	    lease_next(&el->lease, now_ms()) != LEASE_LOOK && (code == 0 || code == -ENOENT))
		(void)uv_timer_start(&el->timer, on_timer, 0, 0);
	else
		again(el);
}

static void on_written(struct kube_call *c, int code)
{
	struct elector *el = c->ctx;
	struct lease_record r;
	struct err e = c->request.error;

	if (code == 0)
		code = take_answer(el, c, &r, &e);
	if (code == 0)
		lease_won(&el->lease, &r, el->asked_ms, now_ms());
	else if (code == -EEXIST || code == -ENOENT)
		lease_refused(&el->lease);
	if (code == 0 || code == -EEXIST)
		e.msg[0] = '\0';
	note_trouble(el, &e);
	tell(el);
	again(el);
}

static void ask(struct elector *el, enum lease_verb verb, bool release)
{
	static const struct {
		const char *verb, *method;
	} how[] = {[LEASE_LOOK] = {"get", "GET"},
		   [LEASE_CREATE] = {"create", "POST"},
		   [LEASE_UPDATE] = {"update", "PUT"}};
	char path[PATH_BYTES_MAX + 80];
	CLEANUP(buf_fini) struct buf body;

	buf_init(&body, BODY_MAX_BYTES);
	(void)snprintf(path, sizeof path, verb == LEASE_CREATE ? "%s" : "%s/%s", el->path,
		       el->cfg.lease);
	if (verb != LEASE_LOOK)
		lease_write(&el->lease, el->cfg.lease, clock_wall_us(), release, &body);
	el->call.verb = how[verb].verb;
	el->call.method = how[verb].method;
	el->call.timeout_ms = release ? RELEASE_MS : TRY_MS;
	el->call.done = verb == LEASE_LOOK ? on_seen : on_written;
	el->asked_ms = now_ms();
	if (buf_error(&body) < 0 ||
	    kube_call(el->cfg.client, &el->call, path, verb == LEASE_LOOK ? NULL : body.data) < 0)
		again(el);
}

/* A call that takes longer than it may goes on: what it says at last counts from when it was
 * asked for. */
static void on_timer(uv_timer_t *timer)
{
	struct elector *el = timer->data;

	tell(el);
	if (!el->call.client)
		ask(el, lease_next(&el->lease, now_ms()), false);
	if (el->call.client)
		again(el);
}

/* ---- life ---- */

static void on_timer_closed(uv_handle_t *handle)
{
	struct elector *el = handle->data;
	void (*closed)(void *) = el->closed;
	void *ctx = el->closed_ctx;

	free(el);
	if (closed)
		closed(ctx);
}

static void end(struct elector *el)
{
	kube_call_cancel(&el->call);
	if (!uv_is_closing((uv_handle_t *)&el->timer))
		uv_close((uv_handle_t *)&el->timer, on_timer_closed);
}

static void on_released(struct kube_call *c, int code)
{
	(void)code;
	end(c->ctx);
}

static void on_release_late(uv_timer_t *timer)
{
	end(timer->data);
}

void elector_close(struct elector *el, void (*closed)(void *ctx), void *ctx)
{
	bool leads = elector_leads(el);

	el->closing = true;
	el->closed = closed;
	el->closed_ctx = ctx;
	kube_call_cancel(&el->call);
	tell(el);
	if (!leads) {
		end(el);
		return;
	}
	ask(el, LEASE_UPDATE, true);
	el->call.done = on_released;
	(void)uv_timer_start(&el->timer, on_release_late, RELEASE_MS, 0);
}

int elector_new(uv_loop_t *loop, const struct elector_config *cfg, struct elector **ret_elector,
		struct err *e)
{
	struct elector *el = calloc(1, sizeof *el);

	if (!el)
		return err_set(e, -ENOMEM, "out of memory");
	el->cfg = *cfg;
	lease_init(&el->lease, cfg->self);
	(void)snprintf(el->path, sizeof el->path,
		       "/apis/coordination.k8s.io/v1/namespaces/%s/leases",
		       kube_client_namespace(cfg->client));
	el->call.ctx = el;
	(void)uv_timer_init(loop, &el->timer);
	el->timer.data = el;
	(void)uv_timer_start(&el->timer, on_timer, 0, 0);
	metric_set(METRIC_LEADER, 0);
	*ret_elector = el;
	return 0;
}
