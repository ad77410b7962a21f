/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/pods-private.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "loop/backoff.h"
#include "observe/metrics.h"
#include "pods/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { RESTART_MIN_MS = 50, RESTART_MAX_MS = 5000, STEADY_MS = 10000 };

/* Life of a place: a runner process is wanted in each, always. */
enum place_state { PLACE_EMPTY, PLACE_STARTING, PLACE_RUNNING };

struct place {
	struct local *local;
	unsigned index;
	unsigned slots;
	enum place_state state;
	struct backoff backoff;
	uv_timer_t timer; /* until the next try, or until the runner counts as steady */
};

struct local {
	struct pods pods;
	const struct pods_ops *ops;
	void *ctx;
	int keeper_fd;
	uv_poll_t poll;
	struct place *places;
	unsigned n;
	bool closing;
	uv_timer_t close_timer;
	unsigned open_handles;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static void place_name(const struct place *p, char dst[POD_NAME_MAX])
{
	(void)snprintf(dst, POD_NAME_MAX, "local-%u", p->index);
}

static void ask(struct local *l, const struct keeper_message *m)
{
	if (send(l->keeper_fd, m, sizeof *m, MSG_NOSIGNAL) < 0)
		log_error("pods", "could not reach the keeper", LOG_STR("reason", err_text(errno)));
}

static void start_runner(struct place *p)
{
	struct keeper_message m = {.verb = KEEPER_SPAWN, .index = p->index, .slots = p->slots};

	p->state = PLACE_STARTING;
	ask(p->local, &m);
}

static void signal_runner(struct place *p, int signo)
{
	struct keeper_message m = {.verb = KEEPER_SIGNAL, .index = p->index, .number = signo};

	if (p->state != PLACE_EMPTY)
		ask(p->local, &m);
}

static void on_restart(uv_timer_t *timer)
{
	struct place *p = timer->data;

	if (!p->local->closing)
		start_runner(p);
}

static void on_steady(uv_timer_t *timer)
{
	struct place *p = timer->data;

	backoff_reset(&p->backoff);
}

static void start_later(struct place *p)
{
	p->state = PLACE_EMPTY;
	if (!p->local->closing)
		(void)uv_timer_start(&p->timer, on_restart, backoff_next_ms(&p->backoff), 0);
}

/* ---- closing ---- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct local *l = handle->data;
	void (*closed)(void *) = l->closed;
	void *ctx = l->closed_ctx;

	if (--l->open_handles)
		return;
	(void)close(l->keeper_fd);
	free(l->places);
	free(l);
	if (closed)
		closed(ctx);
}

static void on_place_closed(uv_handle_t *handle)
{
	struct place *p = handle->data;

	handle->data = p->local;
	on_handle_closed(handle);
}

static void shut(struct local *l)
{
	if (uv_is_closing((uv_handle_t *)&l->poll))
		return;
	for (unsigned i = 0; i < l->n; i++)
		uv_close((uv_handle_t *)&l->places[i].timer, on_place_closed);
	uv_close((uv_handle_t *)&l->poll, on_handle_closed);
	uv_close((uv_handle_t *)&l->close_timer, on_handle_closed);
}

static void check_closed(struct local *l)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->places[i].state != PLACE_EMPTY)
			return;
	if (l->closing)
		shut(l);
}

/* ---- what the keeper says ---- */

static void on_spawned(struct place *p, const struct keeper_message *m, int fd)
{
	char name[POD_NAME_MAX];

	if (m->number < 0 || fd < 0) {
		log_error("pods", "could not start a runner",
			  LOG_STR("reason", err_text(m->number)));
		start_later(p);
		return;
	}
	place_name(p, name);
	p->state = PLACE_RUNNING;
	(void)uv_timer_start(&p->timer, on_steady, STEADY_MS, 0);
	if (p->local->closing) {
		(void)close(fd);
		signal_runner(p, SIGTERM);
		return;
	}
	p->local->ops->connected(p->local->ctx, name, fd, NULL);
}

static void on_exited(struct place *p, const struct keeper_message *m)
{
	char name[POD_NAME_MAX], reason[64];
	int status = m->number;

	place_name(p, name);
	if (WIFSIGNALED(status))
		(void)snprintf(reason, sizeof reason, "killed by signal %d", WTERMSIG(status));
	else
		(void)snprintf(reason, sizeof reason, "exit status %d", WEXITSTATUS(status));
	if (!p->local->closing) {
		log_warn("pods", "runner has ended", LOG_STR("pod", name),
			 LOG_STR("reason", reason));
		metric_add(METRIC_RUNNER_RESTARTS, 1);
	}
	start_later(p);
	p->local->ops->gone(p->local->ctx, name, reason);
	check_closed(p->local);
}

/* One message with at most one descriptor. 0 at the end, negative when nothing is there. */
static ssize_t receive(int fd, struct keeper_message *m, int *ret_fd)
{
	struct iovec iov = {.iov_base = m, .iov_len = sizeof *m};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes,
	};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	*ret_fd = -EBADF;
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(c), sizeof *ret_fd);
	return n;
}

static void keeper_gone(struct local *l)
{
	(void)uv_poll_stop(&l->poll);
	for (unsigned i = 0; i < l->n; i++)
		l->places[i].state = PLACE_EMPTY;
	/* Without a keeper there is nobody to start runners, and nobody to be told by: end. */
	if (!l->closing) {
		log_error("pods", "the keeper is gone; shutting down");
		(void)kill(getpid(), SIGTERM);
	}
	check_closed(l);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct local *l = poll->data;

	(void)status;
	(void)events;
	for (;;) {
		struct keeper_message m;
		int fd;
		ssize_t n = receive(l->keeper_fd, &m, &fd);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n != (ssize_t)sizeof m) {
			keeper_gone(l);
			return;
		}
		if (m.index >= l->n)
			continue;
		if (m.verb == KEEPER_SPAWNED)
			on_spawned(&l->places[m.index], &m, fd);
		else if (m.verb == KEEPER_EXITED)
			on_exited(&l->places[m.index], &m);
		if (uv_is_closing((uv_handle_t *)poll))
			return;
	}
}

/* ---- verbs ---- */

static int make_places(struct local *l, uv_loop_t *loop, const struct pods_config *cfg)
{
	unsigned left = cfg->slots;

	l->n = (cfg->slots + cfg->slots_per_pod - 1) / cfg->slots_per_pod;
	l->places = calloc(l->n, sizeof *l->places);
	if (!l->places)
		return -ENOMEM;
	for (unsigned i = 0; i < l->n; i++) {
		struct place *p = &l->places[i];

		p->local = l;
		p->index = i;
		p->slots = left / (l->n - i); /* as even as can be */
		left -= p->slots;
		backoff_init(&p->backoff, RESTART_MIN_MS, RESTART_MAX_MS);
		(void)uv_timer_init(loop, &p->timer);
		p->timer.data = p;
		l->open_handles++;
	}
	return 0;
}

static int local_open(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops,
		      void *ctx, struct pods **ret_pods, struct err *e)
{
	AUTO_FREE struct local *l = NULL;
	int r;

	if (!cfg->slots || !cfg->slots_per_pod ||
	    cfg->slots > cfg->slots_per_pod * KEEPER_RUNNERS_MAX)
		return err_set(e, -EINVAL, "the number of slots must be from 1 to %u",
			       cfg->slots_per_pod * KEEPER_RUNNERS_MAX);
	l = calloc(1, sizeof *l);
	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->pods.impl = &pods_local;
	l->ops = ops;
	l->ctx = ctx;
	l->keeper_fd = cfg->keeper_fd;
	r = uv_poll_init(loop, &l->poll, l->keeper_fd);
	if (r < 0)
		return err_errno(e, r, "could not watch the keeper");
	l->poll.data = l;
	(void)uv_timer_init(loop, &l->close_timer);
	l->close_timer.data = l;
	l->open_handles = 2;
	if (make_places(l, loop, cfg) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	(void)uv_poll_start(&l->poll, UV_READABLE, on_poll);
	for (unsigned i = 0; i < l->n; i++)
		start_runner(&l->places[i]);
	*ret_pods = &TAKE_PTR(l)->pods;
	return 0;
}

static void local_connection_lost(struct pods *pods, const char *pod, const char *reason)
{
	struct local *l = container_of(pods, struct local, pods);
	char name[POD_NAME_MAX];

	(void)reason; /* the scheduler has told it */
	/* A runner lives for its one connection: without it, it is replaced. */
	for (unsigned i = 0; i < l->n; i++) {
		place_name(&l->places[i], name);
		if (str_eq(name, pod))
			signal_runner(&l->places[i], l->closing ? SIGTERM : SIGKILL);
	}
}

static void on_close_timer(uv_timer_t *timer)
{
	struct local *l = timer->data;

	for (unsigned i = 0; i < l->n; i++)
		signal_runner(&l->places[i], SIGKILL);
}

static void local_close(struct pods *pods, int64_t grace_ms, void (*closed)(void *ctx), void *ctx)
{
	struct local *l = container_of(pods, struct local, pods);

	l->closing = true;
	l->closed = closed;
	l->closed_ctx = ctx;
	for (unsigned i = 0; i < l->n; i++)
		signal_runner(&l->places[i], SIGTERM);
	(void)uv_timer_start(&l->close_timer, on_close_timer, (uint64_t)grace_ms, 0);
	check_closed(l);
}

const struct pods_impl pods_local = {
	.scheme = "local",
	.open = local_open,
	.connection_lost = local_connection_lost,
	.close = local_close,
};
