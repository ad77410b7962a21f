/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store-private.h"

#include "base/clock.h"
#include "base/str.h"
#include "base/url.h"
#include "observe/metrics.h"
#include "store/outbox.h"
#include "wire/codec.h"

#include <errno.h>
#include <string.h>

static const struct store_ops *const implementations[] = {
	&store_sqlite_ops,
	&store_postgres_ops,
};

static int unknown_url(const char *url, struct err *e)
{
	/* Only the scheme is told: behind it there may be a password. */
	return err_set(e, -EINVAL,
		       "\"%.*s\" is no store: known are sqlite:PATH and"
		       " postgresql://USER@HOST:PORT/DATABASE",
		       (int)strcspn(url, ":/@"), url);
}

int store_open(uv_loop_t *loop, const struct store_config *cfg, struct store **ret_store,
	       struct err *e)
{
	struct defer *defer = NULL;
	struct store *s = NULL;
	const char *rest;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(implementations); i++) {
		const struct store_ops *ops = implementations[i];

		if (!url_scheme_is(cfg->url, ops->scheme, &rest))
			continue;
		r = defer_new(loop, &defer);
		if (r < 0)
			return err_errno(e, r, "could not open the store");
		r = ops->open(loop, cfg, rest, &s, e);
		if (r < 0) {
			defer_close(defer);
			return r;
		}
		s->ops = ops;
		s->defer = defer;
		s->outbox = cfg->outbox && ops->has_outbox;
		*ret_store = s;
		return 0;
	}
	return unknown_url(cfg->url, e);
}

int64_t store_now_us(struct store *s)
{
	return s->ops->now_us ? s->ops->now_us(s) : clock_wall_us();
}

int store_health(struct store *s, struct err *e)
{
	return s->ops->health ? s->ops->health(s, e) : 0;
}

int store_write_health(const struct store *s, int64_t *ret_ago_us)
{
	*ret_ago_us = clock_monotonic_us() - s->write_failed_us;
	return s->write_code;
}

int store_migrate(const char *url, int *ret_from, int *ret_to, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(implementations); i++) {
		const struct store_ops *ops = implementations[i];

		if (!url_scheme_is(url, ops->scheme, NULL))
			continue;
		if (ops->migrate)
			return ops->migrate(url, ret_from, ret_to, e);
		return err_set(e, -ENOTSUP, "\"%s\" needs no migration: a server does it at start",
			       url);
	}
	return unknown_url(url, e);
}

void store_close(struct store *s, void (*closed)(void *ctx), void *ctx)
{
	s->closing = true;
	s->closed = closed;
	s->closed_ctx = ctx;
	s->ops->close(s);
}

void store_closed(struct store *s)
{
	void (*closed)(void *) = s->closed;
	void *ctx = s->closed_ctx;

	/* Runs the callbacks of requests that were refused meanwhile. */
	defer_close(s->defer);
	free(s);
	if (closed)
		closed(ctx);
}

void store_cancel(struct store_req *req)
{
	atomic_store(&req->cancelled, true);
}

bool store_has_outbox(const struct store *s)
{
	return s->outbox;
}

static const char *error_kind(int code)
{
	switch (code) {
	case -ENOSPC:
		return "full";
	case -EAGAIN:
		return "unavailable";
	case -EIO:
	case -ENOMEM:
		return "other";
	default: /* an answer, not a failure of the store */
		return NULL;
	}
}

static bool is_read(int verb)
{
	return verb == STORE_VERB_GET || verb == STORE_VERB_LIST || verb == STORE_VERB_SCAN ||
	       verb == STORE_VERB_OUTBOX_COUNT || verb == STORE_VERB_LIVE ||
	       verb == STORE_VERB_KEY_LIST || verb == STORE_VERB_TENANT_LIST ||
	       verb == STORE_VERB_COUNT_QUEUED;
}

static void note_write(struct store *s, const struct store_req *req, bool failed)
{
	if (is_read(req->verb))
		return;
	if (failed) {
		s->write_code = req->code;
		s->write_failed_us = clock_monotonic_us();
	} else if (req->verb == STORE_VERB_PROBE && req->code == 0) {
		s->write_code = 0;
	}
}

void store_done(struct store *s, struct store_req *req)
{
	const char *kind = error_kind(req->code);

	if (kind)
		metric_add(METRIC_STORE_ERRORS, 1, kind);
	/* A file that is suddenly read-only is no fault of a request either. */
	note_write(s, req, kind || req->code == -EACCES);
	req->done(req, req->code);
}

static void on_refused(struct deferred *d)
{
	struct store_req *req = container_of(d, struct store_req, deferred);

	store_done(req->store, req);
}

/* Starts a request, or has it come back with the code that its check gave. */
static void start(struct store *s, struct store_req *req, enum store_verb verb, bool valid)
{
	req->store = s;
	req->verb = (int)verb;
	req->again = 0;
	req->code = s->closing ? -ESHUTDOWN : valid ? 0 : -EINVAL;
	atomic_init(&req->cancelled, false);
	list_init(&req->work.link);
	list_init(&req->deferred.link);
	if (req->code == 0) {
		s->ops->submit(s, req);
		return;
	}
	req->deferred.call = on_refused;
	defer_call(s->defer, &req->deferred);
}

/* The same for a verb that some stores do not have. */
static void start_outbox(struct store *s, struct store_req *req, enum store_verb verb, bool valid)
{
	if (s->outbox) {
		start(s, req, verb, valid);
		return;
	}
	req->store = s;
	req->code = -ENOTSUP;
	list_init(&req->deferred.link);
	req->deferred.call = on_refused;
	defer_call(s->defer, &req->deferred);
}

void store_probe(struct store *s, struct store_probe *r)
{
	start(s, &r->req, STORE_VERB_PROBE, true);
}

/* ---- the verbs: what their fields must hold ---- */

static bool text_fits(const char *text, size_t max)
{
	return text && *text && strlen(text) <= max;
}

static bool in_range(size_t n, size_t max)
{
	return n >= 1 && n <= max;
}

void store_insert(struct store *s, struct store_insert *r)
{
	const struct task_spec *spec = r->spec;
	bool valid =
		text_fits(spec->tenant, TASK_TENANT_MAX - 1) &&
		text_fits(spec->program.language, TASK_LANGUAGE_MAX - 1) &&
		(!r->idempotency_key || text_fits(r->idempotency_key, STORE_IDEMPOTENCY_KEY_MAX)) &&
		(!spec->traceparent || text_fits(spec->traceparent, STORE_TRACEPARENT_MAX - 1));

	r->existing = false;
	start(s, &r->req, STORE_VERB_INSERT, valid);
}

void store_get(struct store *s, struct store_get *r)
{
	r->task = NULL;
	start(s, &r->req, STORE_VERB_GET, r->parts <= (STORE_CONTENTS | STORE_RESULT));
}

void store_list(struct store *s, struct store_list *r)
{
	r->tasks = NULL;
	r->n = 0;
	start(s, &r->req, STORE_VERB_LIST,
	      in_range(r->limit, STORE_LIST_MAX) && r->state >= -1 && r->state < _TASK_STATE_MAX);
}

void store_claim(struct store *s, struct store_claim *r)
{
	start(s, &r->req, STORE_VERB_CLAIM, r->owner != 0);
}

void store_renew(struct store *s, struct store_renew *r)
{
	r->cancelling = NULL;
	r->n = 0;
	start(s, &r->req, STORE_VERB_RENEW, r->n_owners >= 1 && r->n_owners <= STORE_SWEEP_MAX);
}

void store_finish(struct store *s, struct store_finish *r)
{
	bool valid = r->state == TASK_DONE || r->state == TASK_CANCELLED || r->state == TASK_FAILED;

	start(s, &r->req, STORE_VERB_FINISH, valid && r->finished_us > 0);
}

void store_release(struct store *s, struct store_release *r)
{
	start(s, &r->req, STORE_VERB_RELEASE, !r->counts || (r->error_code && r->error_message));
}

void store_cancel_task(struct store *s, struct store_cancel_task *r)
{
	start(s, &r->req, STORE_VERB_CANCEL_TASK, r->now_us > 0);
}

void store_sweep(struct store *s, struct store_sweep *r)
{
	r->tickets = NULL;
	r->n = 0;
	start(s, &r->req, STORE_VERB_SWEEP,
	      in_range(r->limit, STORE_SWEEP_MAX) && r->error_code && r->error_message);
}

void store_scan(struct store *s, struct store_scan *r)
{
	r->tickets = NULL;
	r->n = 0;
	start(s, &r->req, STORE_VERB_SCAN, in_range(r->limit, STORE_SWEEP_MAX));
}

void store_prune(struct store *s, struct store_prune *r)
{
	r->n = 0;
	start(s, &r->req, STORE_VERB_PRUNE, in_range(r->limit, STORE_SWEEP_MAX));
}

void store_outbox_take(struct store *s, struct store_outbox_take *r)
{
	r->tickets = NULL;
	r->n = 0;
	start_outbox(s, &r->req, STORE_VERB_OUTBOX_TAKE,
		     in_range(r->limit, STORE_SWEEP_MAX) &&
			     in_range(r->limit_each, STORE_SWEEP_MAX) &&
			     r->n_rooms <= STORE_SWEEP_MAX);
}

void store_outbox_done(struct store *s, struct store_outbox_done *r)
{
	start_outbox(s, &r->req, STORE_VERB_OUTBOX_DONE, in_range(r->n, STORE_SWEEP_MAX));
}

void store_outbox_put(struct store *s, struct store_outbox_put *r)
{
	r->n_put = 0;
	start_outbox(s, &r->req, STORE_VERB_OUTBOX_PUT, in_range(r->n, STORE_SWEEP_MAX));
}

void store_outbox_count(struct store *s, struct store_outbox_count *r)
{
	r->n = 0;
	r->oldest_us = 0;
	start_outbox(s, &r->req, STORE_VERB_OUTBOX_COUNT, r->limit >= 1);
}

void store_live(struct store *s, struct store_live *r)
{
	r->tickets = NULL;
	r->n_live = 0;
	start_outbox(s, &r->req, STORE_VERB_LIVE, in_range(r->n, STORE_SWEEP_MAX));
}

void store_key_add(struct store *s, struct store_key_add *r)
{
	start(s, &r->req, STORE_VERB_KEY_ADD,
	      memchr(r->key.name, '\0', sizeof r->key.name) && r->key.name[0] &&
		      memchr(r->key.tenant, '\0', sizeof r->key.tenant) && r->key.tenant[0]);
}

void store_key_revoke(struct store *s, struct store_key_revoke *r)
{
	start(s, &r->req, STORE_VERB_KEY_REVOKE, r->name && r->now_us > 0);
}

void store_key_forget(struct store *s, struct store_key_forget *r)
{
	start(s, &r->req, STORE_VERB_KEY_FORGET, true);
}

void store_key_list(struct store *s, struct store_key_list *r)
{
	r->keys = NULL;
	r->n = 0;
	start(s, &r->req, STORE_VERB_KEY_LIST, true);
}

void store_tenant_set(struct store *s, struct store_tenant_set *r)
{
	bool valid = *r->tenant.name != '\0';

	for (int i = 0; i < _TENANT_LIMIT_MAX; i++)
		valid = valid && r->tenant.limits[i] >= STORE_TENANT_UNSET;
	start(s, &r->req, STORE_VERB_TENANT_SET, valid);
}

void store_tenant_list(struct store *s, struct store_tenant_list *r)
{
	r->tenants = NULL;
	r->n = 0;
	start(s, &r->req, STORE_VERB_TENANT_LIST, true);
}

void store_count_queued(struct store *s, struct store_count_queued *r)
{
	r->n = 0;
	start(s, &r->req, STORE_VERB_COUNT_QUEUED, r->tenant && r->limit > 0);
}

/* ---- heads ---- */

int store_unpack_spec(const void *bytes, size_t len, bool contents, struct task_spec *ret_spec)
{
	struct task_spec *spec = NULL;
	int r = codec_unpack_spec(bytes, len, &spec, NULL);

	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	if (!contents)
		task_spec_strip(spec);
	*ret_spec = *spec;
	free(spec);
	return 0;
}

void store_strip_result(struct task_result *r)
{
	bytes_fini(&r->compile.output);
	for (size_t i = 0; i < r->n_runs; i++)
		for (int k = 0; k < _TASK_STREAM_MAX; k++)
			bytes_fini(&r->runs[i].output[k]);
}
