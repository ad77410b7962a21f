/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runners that others have started, on any machine (kiln-runner --listen). Each is connected to,
 * and again whenever the connection is lost:
 *
 *	WAITING -> RESOLVING -> CONNECTING -> CONNECTED
 *	   ^-----------'------------'------------'
 *
 * The addresses that a name has are tried in turn. What is connected is the scheduler's: whether
 * the runner holds its key is found out there, and comes back as a lost connection with the reason.
 */

#include "pods/remote.h"

#include "pods/remote-private.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "base/url.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	LOOK_MS = 1000, /* for a change of the file */
	EXPLAINED_MAX = 3,
};

static struct remote *remote_of(struct pods *pods)
{
	return container_of(pods, struct remote, pods);
}

void remote_let_go(struct remote *r)
{
	void (*closed)(void *) = r->closed;
	void *ctx = r->closed_ctx;

	if (--r->open_handles)
		return;
	explicit_bzero(r->secret, sizeof r->secret);
	buf_fini(&r->file);
	free(r->path);
	free(r);
	if (closed)
		closed(ctx);
}

/* ---- the list ---- */

static struct place *find_place(struct remote *r, const char *name)
{
	struct place *p;

	LIST_FOREACH (p, &r->places, link)
		if (str_eq(p->address.name, name))
			return p;
	return NULL;
}

/* Of the secret and the name; or, for a pod of a pool, of the pool's key and the name. */
static int derive_key(const struct remote *r, const char *pool, const char *identity,
		      uint8_t key[TLS_KEY_SIZE], struct err *e)
{
	uint8_t of_pool[TLS_KEY_SIZE];
	int code;

	if (!pool)
		return tls_derive_key(r->secret, r->secret_len, identity, key, e);
	code = tls_derive_key(r->secret, r->secret_len, pool, of_pool, e);
	if (code == 0)
		code = tls_derive_key(of_pool, sizeof of_pool, identity, key, e);
	explicit_bzero(of_pool, sizeof of_pool);
	return code;
}

static int add_place(struct remote *r, const struct remote_address *a, const char *pool,
		     const char *identity, struct err *e)
{
	struct place *p = calloc(1, sizeof *p);
	int code = p ? 0 : err_set(e, -ENOMEM, "out of memory");

	if (code == 0)
		code = derive_key(r, pool, identity, p->psk.key, e);
	if (code < 0) {
		free(p);
		return code;
	}
	(void)str_copy(p->psk.identity, sizeof p->psk.identity, identity);
	p->remote = r;
	p->address = *a;
	p->fd = -EBADF;
	(void)uv_timer_init(r->loop, &p->timer);
	p->timer.data = p;
	r->open_handles++;
	list_push_back(&r->places, &p->link);
	place_start(p);
	return 0;
}

/* A place goes at once where nothing is under way; else with the end of what is. */
static void remove_place(struct place *p)
{
	p->removed = true;
	if (p->state == PLACE_WAITING || p->state == PLACE_CONNECTING)
		place_free(p);
	else if (p->state == PLACE_CONNECTED && !p->remote->closing)
		p->remote->ops->retired(p->remote->ctx, p->address.name);
}

static bool is_listed(const struct remote_list *l, const struct place *p)
{
	for (size_t i = 0; i < l->n; i++)
		if (str_eq(l->all[i].name, p->address.name) &&
		    str_eq(l->all[i].host, p->address.host) &&
		    str_eq(l->all[i].port, p->address.port))
			return true;
	return false;
}

/* Those that are gone from the list go, or have another address; then what is new comes. A name
 * whose connection is still in use at its former address comes when that is over. */
static int apply(struct remote *r, const struct remote_list *l, struct err *e)
{
	struct place *p, *tmp;
	int code = 0;

	LIST_FOREACH_SAFE (p, tmp, &r->places, link)
		if (!p->removed && !is_listed(l, p))
			remove_place(p);
	for (size_t i = 0; i < l->n && code == 0; i++)
		if (!find_place(r, l->all[i].name))
			code = add_place(r, &l->all[i], NULL, l->all[i].name, e);
	return code;
}

static int use_text(struct remote *r, const char *text, struct err *e)
{
	struct remote_list l = {0};
	int code = remote_list_parse(text, r->path != NULL, &l, e);

	if (code == 0)
		code = apply(r, &l, e);
	free(l.all);
	return code;
}

static void on_file_read(uv_work_t *work, int status)
{
	struct remote *r = work->data;
	struct err e = {""};

	(void)status;
	r->reading = false;
	if (!r->closing && *r->error.msg)
		e = r->error;
	else if (!r->closing && use_text(r, r->file.data ? r->file.data : "", &e) == 0)
		log_info("pods", "read the list of runners", LOG_STR("file", r->path));
	if (*e.msg)
		log_error("pods", "could not use the list of runners; the one before stays",
			  LOG_STR("file", r->path), LOG_STR("reason", e.msg));
	if (r->again && !r->closing)
		pods_reload(&r->pods);
	remote_let_go(r);
}

static void read_file(uv_work_t *work)
{
	struct remote *r = work->data;

	buf_fini(&r->file);
	buf_init(&r->file, REMOTE_LIST_BYTES_MAX);
	r->error.msg[0] = '\0';
	(void)fs_read_file(AT_FDCWD, r->path, &r->file, &r->error);
}

void remote_reload(struct pods *pods)
{
	struct remote *r = remote_of(pods);

	if (!r->path || r->closing)
		return;
	r->again = r->reading;
	if (r->reading)
		return;
	r->work.data = r;
	if (uv_queue_work(r->loop, &r->work, read_file, on_file_read) < 0)
		return;
	r->reading = true;
	r->open_handles++;
}

static void on_look(uv_fs_poll_t *look, int status, const uv_stat_t *before, const uv_stat_t *now)
{
	struct remote *r = look->data;

	(void)before;
	(void)now;
	if (status == 0)
		remote_reload(&r->pods);
}

/* ---- life ---- */

static int open_list(struct remote *r, const char *rest, struct err *e)
{
	int code;

	if (!str_has_prefix(rest, "file="))
		return use_text(r, rest, e);
	r->path = strdup(rest + strlen("file="));
	if (!r->path)
		return err_set(e, -ENOMEM, "out of memory");
	code = fs_read_file(AT_FDCWD, r->path, &r->file, e);
	if (code == 0)
		code = use_text(r, r->file.data ? r->file.data : "", e);
	if (code == 0)
		(void)uv_fs_poll_start(&r->look, on_look, r->path, LOOK_MS);
	return code;
}

static void on_look_closed(uv_handle_t *handle)
{
	remote_let_go(handle->data);
}

static void remote_close(struct pods *pods, int64_t grace_ms, void (*closed)(void *ctx), void *ctx)
{
	struct remote *r = remote_of(pods);
	struct place *p, *tmp;

	(void)grace_ms; /* they are not ours to end */
	r->closing = true;
	r->closed = closed;
	r->closed_ctx = ctx;
	LIST_FOREACH_SAFE (p, tmp, &r->places, link) {
		if (p->state == PLACE_RESOLVING)
			(void)uv_cancel((uv_req_t *)&p->resolving);
		else
			place_free(p); /* a connection that was handed out is not ours */
	}
	uv_close((uv_handle_t *)&r->look, on_look_closed);
}

static int make(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops,
		void *ctx, struct remote **ret_remote, struct err *e)
{
	struct remote *r;

	if (!cfg->secret_len)
		return err_set(e, -EINVAL,
			       "runners on other machines need the secret of the cluster: name its "
			       "file with --cluster-secret-file");
	if (cfg->secret_len > REMOTE_SECRET_MAX)
		return err_set(e, -EINVAL, "the secret of the cluster is too long");
	r = calloc(1, sizeof *r);
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->pods.impl = &pods_remote;
	r->loop = loop;
	r->ops = ops;
	r->ctx = ctx;
	memcpy(r->secret, cfg->secret, cfg->secret_len);
	r->secret_len = cfg->secret_len;
	list_init(&r->places);
	buf_init(&r->file, REMOTE_LIST_BYTES_MAX);
	(void)uv_fs_poll_init(loop, &r->look);
	r->look.data = r;
	r->open_handles = 1;
	*ret_remote = r;
	return 0;
}

static int remote_open(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops,
		       void *ctx, struct pods **ret_pods, struct err *e)
{
	struct remote *r;
	const char *rest;
	int code = make(loop, cfg, ops, ctx, &r, e);

	if (code < 0)
		return code;
	(void)url_scheme_is(cfg->url, pods_remote.scheme, &rest);
	code = open_list(r, rest, e);
	if (code < 0) {
		remote_close(&r->pods, 0, NULL, NULL);
		return code;
	}
	*ret_pods = &r->pods;
	return 0;
}

int remote_new(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops,
	       void *ctx, struct pods **ret_pods, struct err *e)
{
	struct remote *r;
	int code = make(loop, cfg, ops, ctx, &r, e);

	if (code < 0)
		return code;
	r->by_hand = true;
	*ret_pods = &r->pods;
	return 0;
}

int remote_put(struct pods *pods, const struct remote_address *a, const char *pool,
	       const char *identity, struct err *e)
{
	return add_place(remote_of(pods), a, pool, identity, e);
}

void remote_drop(struct pods *pods, const char *name)
{
	struct place *p = find_place(remote_of(pods), name);

	if (p && !p->removed)
		remove_place(p);
}

static void remote_connection_lost(struct pods *pods, const char *pod, const char *reason)
{
	struct remote *r = remote_of(pods);
	struct place *p, *tmp;
	struct err e = {""};

	(void)err_set(&e, -ENOTCONN, "%s", reason);
	LIST_FOREACH_SAFE (p, tmp, &r->places, link)
		if (p->state == PLACE_CONNECTED && str_eq(p->address.name, pod)) {
			place_try_later(p, &e);
			return;
		}
}

static void remote_explain(const struct pods *pods, struct buf *why)
{
	const void *self = pods; /* its first member */
	const struct remote *r = self;
	size_t left = 0, told = 0;
	const struct place *p;

	LIST_FOREACH (p, &r->places, link) {
		if (p->removed || p->state == PLACE_CONNECTED || !*p->error.msg)
			continue;
		if (told == EXPLAINED_MAX) {
			left++;
			continue;
		}
		(void)buf_printf(why, "%s%s at %s:%s: %s", told++ ? "; " : "", p->address.name,
				 p->address.host, p->address.port, p->error.msg);
	}
	if (left)
		(void)buf_printf(why, "; and %zu more", left);
}

const struct pods_impl pods_remote = {
	.scheme = "runners",
	.open = remote_open,
	.connection_lost = remote_connection_lost,
	.reload = remote_reload,
	.explain = remote_explain,
	.close = remote_close,
};
