/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/reflector.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "loop/backoff.h"
#include "observe/metrics.h"
#include "pods/kube/lines.h"
#include "pods/kube/object.h"
#include "json/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	PAGE = 250, /* objects per request of a list */
	PAGE_MAX_BYTES = 32 * 1024 * 1024,
	LIST_MS = 30 * 1000,
	LINE_MAX_BYTES = 2 * 1024 * 1024, /* etcd keeps nothing above 1.5 MiB */
	WATCH_MIN_S = 180, /* what the server is asked for; it ends the watch itself */
	WATCH_SPREAD_S = 120,
	WATCH_GRACE_S = 30, /* and if it does not, we do */
	RELIST_MS = 10 * 60 * 1000,
	STEADY_MS = 10 * 1000, /* a watch that lived for so long was a good one */
	REST_MIN_MS = 100,
	REST_MAX_MS = 30 * 1000,
	PATH_BYTES_MAX = 8192,
	CONTINUE_MAX = 4096,
	VERSION_MAX = KUBE_VERSION_MAX,
};

static const struct json_bounds page_bounds = {.depth = 64, .values = 4000000};
static const struct json_bounds event_bounds = {.depth = 64, .values = 200000};

enum state { LISTING, WATCHING, RESTING };

struct kube_reflector {
	struct kube_reflector_config cfg;
	enum state state;
	struct kube_call list;
	struct kube_request watch;
	struct kube_lines lines;
	char *watch_path;
	char version[VERSION_MAX];
	char next[CONTINUE_MAX]; /* of the list; "": from its beginning */
	bool again;		 /* list, as soon as this is over */
	uint64_t lists;
	int64_t listed_ms, watched_ms; /* monotonic */
	struct backoff backoff;
	uv_timer_t timer;   /* the end of a rest */
	struct err found;   /* what is wrong with the watch that is open */
	struct err trouble; /* as told last; "": none */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static int64_t now_ms(void)
{
	return clock_monotonic_us() / 1000;
}

static void note_life(struct kube_reflector *r)
{
	metric_set(METRIC_KUBE_LAST_EVENT, (double)clock_wall_us() / 1e6, r->cfg.resource);
}

/* ---- rests ---- */

static void list(struct kube_reflector *r);
static void watch(struct kube_reflector *r);

static void on_rested(uv_timer_t *timer)
{
	struct kube_reflector *r = timer->data;

	if (r->again || !r->lists)
		list(r);
	else
		watch(r);
}

static void rest(struct kube_reflector *r, uint64_t ms)
{
	r->state = RESTING;
	(void)uv_timer_start(&r->timer, on_rested, ms, 0);
}

/* Each kind of trouble is logged once, not at every try. */
static void rest_for(struct kube_reflector *r, const char *reason, const struct err *e,
		     int64_t at_least_ms)
{
	uint64_t ms = backoff_next_ms(&r->backoff);

	metric_add(METRIC_KUBE_WATCH_RESTARTS, 1, r->cfg.resource, reason);
	if (!str_eq(r->trouble.msg, e->msg))
		log_warn("pods", "could not follow the API server",
			 LOG_STR("resource", r->cfg.resource), LOG_STR("reason", e->msg));
	r->trouble = *e;
	if (at_least_ms > 0 && ms < (uint64_t)at_least_ms)
		ms = (uint64_t)at_least_ms;
	rest(r, ms);
}

static void is_well(struct kube_reflector *r)
{
	if (*r->trouble.msg)
		log_info("pods", "the API server can be followed again",
			 LOG_STR("resource", r->cfg.resource));
	r->trouble.msg[0] = '\0';
	backoff_reset(&r->backoff);
}

/* ---- the list ---- */

/* A continue token is base64 for URLs in real servers; others may choose as they like. */
static void escape(struct buf *b, const char *text)
{
	static const char hex[] = "0123456789ABCDEF";
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._~";

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (strchr(plain, c))
			(void)buf_append_char(b, (char)c);
		else
			(void)buf_printf(b, "%%%c%c", hex[c >> 4], hex[c & 15]);
	}
}

static void write_path(const struct kube_reflector *r, struct buf *b)
{
	buf_init(b, PATH_BYTES_MAX);
	(void)buf_printf(b, "%s?", r->cfg.path);
	if (r->cfg.selector) {
		(void)buf_append_str(b, "labelSelector=");
		escape(b, r->cfg.selector);
		(void)buf_append_char(b, '&');
	}
}

static void ask_page(struct kube_reflector *r)
{
	CLEANUP(buf_fini) struct buf b;
	int code;

	write_path(r, &b);
	(void)buf_printf(&b, "limit=%d", PAGE);
	if (*r->next) {
		(void)buf_append_str(&b, "&continue=");
		escape(&b, r->next);
	}
	code = buf_error(&b);
	if (code == 0)
		code = kube_call(r->cfg.client, &r->list, b.data, NULL);
	if (code < 0) {
		struct err e;

		(void)err_errno(&e, code, "could not ask for a list");
		rest_for(r, "error", &e, 0);
	}
}

static void list(struct kube_reflector *r)
{
	r->state = LISTING;
	r->again = false;
	r->next[0] = '\0';
	r->cfg.ops->begin(r->cfg.ctx);
	ask_page(r);
}

/* The continue token is the last that is taken: with it the page counts as read. */
static int take_page(struct kube_reflector *r, const char *text, size_t len, struct err *e)
{
	AUTO(json_cleanup) json_t *page = NULL;
	const json_t *meta, *items, *one;
	int code = json_decode(text, len, &page_bounds, &page, e);
	size_t i;

	if (code < 0)
		return code;
	meta = json_object_get(page, "metadata");
	items = json_object_get(page, "items");
	if (!json_is_array(items) && !json_is_null(items))
		return err_set(e, -EBADMSG, "a list has no items");
	json_array_foreach(items, i, one)
	{
		code = r->cfg.ops->seen(r->cfg.ctx, one, e);
		if (code < 0)
			return code;
	}
	code = kube_copy(r->version, sizeof r->version, kube_text(meta, "resourceVersion", NULL),
			 "resourceVersion", e);
	if (code == 0 && !str_copy(r->next, sizeof r->next, kube_text(meta, "continue", NULL)))
		code = err_set(e, -EBADMSG, "the token for the rest of a list is too long");
	return code;
}

static void on_page(struct kube_call *c, int code)
{
	struct kube_reflector *r = container_of(c, struct kube_reflector, list);
	struct err e = c->request.error;

	if (code == 0)
		code = take_page(r, c->request.answer.data, c->request.answer.len, &e);
	if (code < 0) {
		r->again = true;
		rest_for(r, code == -ESTALE ? "expired" : "error", &e, 0);
		return;
	}
	note_life(r);
	if (*r->next) {
		ask_page(r);
		return;
	}
	r->lists++;
	r->listed_ms = now_ms();
	r->cfg.ops->listed(r->cfg.ctx);
	if (r->again) /* asked for while it was under way */
		rest(r, 0);
	else
		watch(r);
}

/* ---- the watch ---- */

static int take_error(const json_t *object, struct err *e)
{
	int64_t code = json_integer_value(json_object_get(object, "code"));
	const char *text = kube_text(object, "message", NULL);

	return err_set(e, code == 410 ? -ESTALE : -EIO,
		       "the API server ended a watch with %lld: %s", (long long)code, text);
}

static int take_event(struct kube_reflector *r, const json_t *event, struct err *e)
{
	const char *type = kube_text(event, "type", NULL);
	const json_t *object = json_object_get(event, "object");
	char version[VERSION_MAX];
	int code;

	if (str_eq(type, "ERROR"))
		return take_error(object, e);
	code = kube_copy(version, sizeof version,
			 kube_text(object, "metadata", "resourceVersion", NULL), "resourceVersion",
			 e);
	if (code == 0 && (str_eq(type, "ADDED") || str_eq(type, "MODIFIED")))
		code = r->cfg.ops->seen(r->cfg.ctx, object, e);
	else if (code == 0 && str_eq(type, "DELETED"))
		r->cfg.ops->deleted(r->cfg.ctx, object);
	else if (code == 0 && !str_eq(type, "BOOKMARK"))
		code = err_set(e, -EBADMSG, "an event of a watch has the type \"%.32s\"", type);
	if (code == 0)
		memcpy(r->version, version, sizeof version);
	return code;
}

static int on_line(void *ctx, const char *text, size_t len)
{
	struct kube_reflector *r = ctx;
	AUTO(json_cleanup) json_t *event = NULL;
	int code = json_decode(text, len, &event_bounds, &event, &r->found);

	if (code == 0)
		code = take_event(r, event, &r->found);
	if (code < 0)
		return code == -ENOMEM || code == -ESTALE || code == -EIO ? code : -EBADMSG;
	note_life(r);
	is_well(r);
	return 0;
}

static int on_chunk(struct kube_request *req, const char *bytes, size_t len)
{
	struct kube_reflector *r = container_of(req, struct kube_reflector, watch);
	int code = kube_lines_feed(&r->lines, bytes, len, on_line, r);

	if (code == -EMSGSIZE)
		(void)err_set(&r->found, code, "an event of a watch is longer than %d bytes",
			      LINE_MAX_BYTES);
	return code;
}

/* The version is of no use any more, or what came cannot be trusted. */
static bool must_list(const struct kube_request *req, int code)
{
	return code == -ESTALE || code == -EBADMSG || code == -EMSGSIZE ||
	       (code == 0 && (req->status == 410 || req->status == 400));
}

static void explain_end(const struct kube_reflector *r, int code, struct err *e)
{
	const struct kube_request *req = &r->watch;

	if (*r->found.msg)
		*e = r->found;
	else if (code < 0)
		*e = req->error;
	else if (req->status != 200)
		(void)err_set(e, -EIO, "the API server refused a watch with %d", req->status);
	else
		(void)err_set(e, -EIO, "the API server ended a watch at once");
}

static void on_watch_done(struct kube_request *req, int code)
{
	struct kube_reflector *r = container_of(req, struct kube_reflector, watch);
	bool expired = must_list(req, code);
	bool steady = now_ms() - r->watched_ms >= STEADY_MS;
	struct err e = {""};

	free(TAKE_PTR(r->watch_path));
	r->again = r->again || expired || now_ms() - r->listed_ms >= RELIST_MS;
	/* Its time was over, by the server's clock or by ours. */
	if (steady && req->status == 200 && (code == 0 || code == -ETIMEDOUT)) {
		metric_add(METRIC_KUBE_WATCH_RESTARTS, 1, r->cfg.resource, "end");
		is_well(r);
		rest(r, 0);
		return;
	}
	explain_end(r, code, &e);
	rest_for(r, expired ? "expired" : "error", &e, req->retry_after_ms);
}

static void watch(struct kube_reflector *r)
{
	uint32_t seconds = WATCH_MIN_S + arc4random_uniform(WATCH_SPREAD_S);
	struct buf b;
	size_t len;

	r->state = WATCHING;
	r->watched_ms = now_ms();
	r->found.msg[0] = '\0';
	kube_lines_clear(&r->lines);
	write_path(r, &b);
	(void)buf_printf(
		&b, "watch=1&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=", seconds);
	escape(&b, r->version);
	if (buf_error(&b) == 0)
		r->watch_path = buf_steal(&b, &len);
	buf_fini(&b);
	if (!r->watch_path) {
		struct err e;

		(void)err_set(&e, -ENOMEM, "could not ask for a watch: out of memory");
		rest_for(r, "error", &e, 0);
		return;
	}
	r->watch = (struct kube_request){
		.verb = "watch",
		.method = "GET",
		.path = r->watch_path,
		.timeout_ms = (int64_t)(seconds + WATCH_GRACE_S) * 1000,
		.chunk = on_chunk,
		.done = on_watch_done,
	};
	kube_http_send(kube_client_http(r->cfg.client), &r->watch);
}

/* ---- life ---- */

static void on_again(uv_timer_t *timer)
{
	struct kube_reflector *r = timer->data;

	kube_http_cancel(&r->watch);
	free(TAKE_PTR(r->watch_path));
	list(r);
}

/* By the timer: a watch cannot be ended from within its own events. */
void kube_reflector_relist(struct kube_reflector *r)
{
	r->again = true;
	if (r->state == WATCHING)
		(void)uv_timer_start(&r->timer, on_again, 0, 0);
}

uint64_t kube_reflector_lists(const struct kube_reflector *r)
{
	return r->lists;
}

const char *kube_reflector_trouble(const struct kube_reflector *r)
{
	return r->trouble.msg;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct kube_reflector *r = handle->data;
	void (*closed)(void *) = r->closed;
	void *ctx = r->closed_ctx;

	free(r);
	if (closed)
		closed(ctx);
}

void kube_reflector_close(struct kube_reflector *r, void (*closed)(void *ctx), void *ctx)
{
	r->closed = closed;
	r->closed_ctx = ctx;
	kube_call_cancel(&r->list);
	kube_http_cancel(&r->watch);
	free(TAKE_PTR(r->watch_path));
	kube_lines_fini(&r->lines);
	uv_close((uv_handle_t *)&r->timer, on_timer_closed);
}

int kube_reflector_new(uv_loop_t *loop, const struct kube_reflector_config *cfg,
		       struct kube_reflector **ret_reflector, struct err *e)
{
	struct kube_reflector *r = calloc(1, sizeof *r);

	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->cfg = *cfg;
	r->list = (struct kube_call){
		.verb = "list",
		.method = "GET",
		.answer_max = PAGE_MAX_BYTES,
		.timeout_ms = LIST_MS,
		.done = on_page,
	};
	kube_lines_init(&r->lines, LINE_MAX_BYTES);
	backoff_init(&r->backoff, REST_MIN_MS, REST_MAX_MS);
	(void)uv_timer_init(loop, &r->timer);
	r->timer.data = r;
	rest(r, 0); /* nothing is told from within this call */
	*ret_reflector = r;
	return 0;
}
