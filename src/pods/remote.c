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

#include "pods/pods-private.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"
#include "base/url.h"
#include "loop/backoff.h"
#include "wire/tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	RETRY_MIN_MS = 50,
	RETRY_MAX_MS = 2000,
	RETRY_SOON_MS = 250, /* of what is known to be about to listen */
	STEADY_MS = 10000,
	CONNECT_MS = 5000,
	LOOK_MS = 1000, /* for a change of the file */
	EXPLAINED_MAX = 3,
	SECRET_MAX = 4096,
};

enum place_state { PLACE_WAITING, PLACE_RESOLVING, PLACE_CONNECTING, PLACE_CONNECTED };

struct place {
	struct list link;
	struct remote *remote;
	struct remote_address address;
	struct tls_psk psk;
	enum place_state state;
	uv_getaddrinfo_t resolving;
	struct addrinfo *found, *next; /* what the name has come to; the one to be tried next */
	int fd;			       /* CONNECTING */
	uv_poll_t *poll;	       /* of fd; frees itself when it is closed */
	uv_timer_t timer;	       /* what the state waits for at most */
	struct backoff backoff;
	struct err tried; /* why the last address that was tried is none */
	struct err error; /* why it is not connected; "" at first */
	bool removed;	  /* not in the list any more: goes once nothing is under way */
};

struct remote {
	struct pods pods;
	uv_loop_t *loop;
	const struct pods_ops *ops;
	void *ctx;
	uint8_t secret[SECRET_MAX];
	size_t secret_len;
	struct list places;
	char *path;   /* of the file with the list; NULL: it was given */
	bool by_hand; /* the list is what remote_put and remote_drop make of it */
	uv_fs_poll_t look;
	uv_work_t work;	  /* reads the file */
	struct buf file;  /* what it read */
	struct err error; /* why it could not */
	bool reading, again;
	bool closing;
	size_t open_handles; /* and places, and what is under way */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static struct remote *remote_of(struct pods *pods)
{
	return container_of(pods, struct remote, pods);
}

static void let_go(struct remote *r)
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

/* ---- one try ---- */

static void connect_next(struct place *p);

static void on_poll_closed(uv_handle_t *handle)
{
	free(handle);
}

static void stop_poll(struct place *p)
{
	uv_poll_t *poll = TAKE_PTR(p->poll);

	if (poll)
		uv_close((uv_handle_t *)poll, on_poll_closed);
}

static void end_try(struct place *p)
{
	stop_poll(p);
	cleanup_close(&p->fd);
	p->fd = -EBADF;
	if (p->found)
		uv_freeaddrinfo(p->found);
	p->found = p->next = NULL;
}

static void on_place_closed(uv_handle_t *handle)
{
	struct place *p = handle->data;
	struct remote *r = p->remote;

	explicit_bzero(&p->psk, sizeof p->psk);
	free(p);
	let_go(r);
}

static void free_place(struct place *p)
{
	end_try(p);
	list_unlink(&p->link);
	uv_close((uv_handle_t *)&p->timer, on_place_closed);
}

static void try_now(struct place *p);
static void remote_reload(struct pods *pods);

static void on_retry(uv_timer_t *timer)
{
	try_now(timer->data);
}

/* What is new is logged, not every try. */
static void try_later(struct place *p, const struct err *e)
{
	end_try(p);
	p->state = PLACE_WAITING;
	if (p->removed || p->remote->closing) {
		struct remote *r = p->remote;

		free_place(p);
		remote_reload(&r->pods); /* its name may have waited for it to go */
		return;
	}
	if (!str_eq(p->error.msg, e->msg))
		LOG_AT(p->remote->by_hand ? LOG_DEBUG : LOG_WARN, "pods", "could not use a runner",
		       LOG_STR("pod", p->address.name), LOG_STR("host", p->address.host),
		       LOG_STR("port", p->address.port), LOG_STR("reason", e->msg));
	p->error = *e;
	(void)uv_timer_start(&p->timer, on_retry, backoff_next_ms(&p->backoff), 0);
}

static void on_steady(uv_timer_t *timer)
{
	struct place *p = timer->data;

	backoff_reset(&p->backoff);
	p->error.msg[0] = '\0';
}

static void hand_out(struct place *p)
{
	int fd = TAKE_FD(p->fd);

	stop_poll(p);
	end_try(p);
	tcp_set_up(fd);
	p->state = PLACE_CONNECTED;
	(void)uv_timer_start(&p->timer, on_steady, STEADY_MS, 0);
	p->remote->ops->connected(p->remote->ctx, p->address.name, fd, &p->psk);
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
	struct place *p = poll->data;
	int error = 0;
	socklen_t len = sizeof error;

	(void)events;
	if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	/* libuv says EBADF for any error of the socket, which says itself what it is. */
	if (!error && status < 0)
		error = -status;
	if (!error) {
		hand_out(p);
		return;
	}
	(void)err_errno(&p->tried, -error, "could not connect");
	connect_next(p);
}

static void on_connect_timeout(uv_timer_t *timer)
{
	struct place *p = timer->data;

	(void)err_set(&p->tried, -ETIMEDOUT, "could not connect: no answer in %d s",
		      CONNECT_MS / 1000);
	connect_next(p);
}

static int watch(struct place *p)
{
	uv_poll_t *poll = calloc(1, sizeof *poll);
	int r = poll ? uv_poll_init(p->remote->loop, poll, p->fd) : -ENOMEM;

	if (r < 0) {
		free(poll);
		return r;
	}
	poll->data = p;
	p->poll = poll;
	(void)uv_poll_start(poll, UV_WRITABLE, on_writable);
	(void)uv_timer_start(&p->timer, on_connect_timeout, CONNECT_MS, 0);
	return 0;
}

static int connect_to(struct place *p, const struct addrinfo *a)
{
	p->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->fd < 0)
		return -errno;
	if (connect(p->fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
		return -errno;
	return watch(p);
}

/* The last error of those that were tried is the one that is told. */
static void connect_next(struct place *p)
{
	stop_poll(p);
	cleanup_close(&p->fd);
	p->fd = -EBADF;
	while (p->next) {
		const struct addrinfo *a = p->next;
		int r;

		p->next = a->ai_next;
		r = connect_to(p, a);
		if (r == 0)
			return;
		(void)err_errno(&p->tried, r, "could not connect");
		cleanup_close(&p->fd);
		p->fd = -EBADF;
	}
	try_later(p, &p->tried);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
	struct place *p = req->data;
	struct err e = {""};

	let_go(p->remote); /* never the last: the place is held */
	p->state = PLACE_CONNECTING;
	p->found = p->next = found;
	if (status < 0 || p->removed || p->remote->closing) {
		p->next = NULL;
		(void)err_set(&e, status, "could not find the address of \"%s\": %s",
			      p->address.host, status < 0 ? uv_strerror(status) : "not wanted");
		try_later(p, &e);
		return;
	}
	connect_next(p);
}

static void try_now(struct place *p)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
					      .ai_flags = AI_NUMERICSERV};
	struct err e = {""};
	int r;

	p->state = PLACE_RESOLVING;
	p->resolving.data = p;
	r = uv_getaddrinfo(p->remote->loop, &p->resolving, on_resolved, p->address.host,
			   p->address.port, &hints);
	if (r < 0) {
		(void)err_errno(&e, r, "could not look up \"%s\"", p->address.host);
		try_later(p, &e);
		return;
	}
	p->remote->open_handles++;
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

static int add_place(struct remote *r, const struct remote_address *a, const char *identity,
		     struct err *e)
{
	struct place *p = calloc(1, sizeof *p);
	int code = p ? 0 : err_set(e, -ENOMEM, "out of memory");

	if (code == 0)
		code = tls_derive_key(r->secret, r->secret_len, identity, p->psk.key, e);
	if (code < 0) {
		free(p);
		return code;
	}
	(void)str_copy(p->psk.identity, sizeof p->psk.identity, identity);
	p->remote = r;
	p->address = *a;
	p->fd = -EBADF;
	backoff_init(&p->backoff, RETRY_MIN_MS, r->by_hand ? RETRY_SOON_MS : RETRY_MAX_MS);
	(void)uv_timer_init(r->loop, &p->timer);
	p->timer.data = p;
	r->open_handles++;
	list_push_back(&r->places, &p->link);
	(void)uv_timer_start(&p->timer, on_retry, 0, 0);
	return 0;
}

/* A place goes at once where nothing is under way; else with the end of what is. */
static void remove_place(struct place *p)
{
	p->removed = true;
	if (p->state == PLACE_WAITING || p->state == PLACE_CONNECTING)
		free_place(p);
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
			code = add_place(r, &l->all[i], l->all[i].name, e);
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
	let_go(r);
}

static void read_file(uv_work_t *work)
{
	struct remote *r = work->data;

	buf_fini(&r->file);
	buf_init(&r->file, REMOTE_LIST_BYTES_MAX);
	r->error.msg[0] = '\0';
	(void)fs_read_file(AT_FDCWD, r->path, &r->file, &r->error);
}

static void remote_reload(struct pods *pods)
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
	let_go(handle->data);
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
			free_place(p); /* a connection that was handed out is not ours */
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
	if (cfg->secret_len > SECRET_MAX)
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

int remote_put(struct pods *pods, const struct remote_address *a, const char *identity,
	       struct err *e)
{
	return add_place(remote_of(pods), a, identity, e);
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
			try_later(p, &e);
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
