/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/worker.h"

#include "base/cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

struct worker {
	const struct worker_ops *ops;
	void *ctx;
	uv_poll_t wake; /* of wake_fd */
	int wake_fd;	/* eventfd, not uv_async: libuv 1.44 spins when the sender is preempted */
	pthread_t thread;
	size_t pending; /* loop side only */
	void (*freed)(void *ctx);

	/* Shared, under the lock. */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct list todo;
	struct list done;
	bool stopping;

	/* Start-up hand-shake. */
	bool started;
	int start_code;
	struct err start_err;
};

static void deadline_in(int ms, struct timespec *ret)
{
	(void)clock_gettime(CLOCK_MONOTONIC, ret);
	ret->tv_sec += ms / 1000;
	ret->tv_nsec += (long)(ms % 1000) * 1000000;
	if (ret->tv_nsec >= 1000000000) {
		ret->tv_sec++;
		ret->tv_nsec -= 1000000000;
	}
}

/* Waits, under the lock, for something to do. False when idle_ms went by without. */
static bool wait_for_work(struct worker *w, bool idle_ran)
{
	struct timespec until;

	if (!w->ops->idle || !w->ops->idle_ms || idle_ran) {
		while (list_empty(&w->todo) && !w->stopping)
			(void)pthread_cond_wait(&w->cond, &w->lock);
		return true;
	}
	deadline_in(w->ops->idle_ms, &until);
	while (list_empty(&w->todo) && !w->stopping)
		if (pthread_cond_timedwait(&w->cond, &w->lock, &until) == ETIMEDOUT)
			return !list_empty(&w->todo) || w->stopping;
	return true;
}

/* Takes batch after batch until told to stop and nothing is left. */
static void serve(struct worker *w)
{
	bool idle_ran = false;
	struct list batch;

	list_init(&batch);
	(void)pthread_mutex_lock(&w->lock);
	for (;;) {
		if (!wait_for_work(w, idle_ran)) {
			idle_ran = true;
			(void)pthread_mutex_unlock(&w->lock);
			w->ops->idle(w->ctx);
			(void)pthread_mutex_lock(&w->lock);
			continue;
		}
		if (list_empty(&w->todo))
			break;
		idle_ran = false;
		list_move_all(&batch, &w->todo);
		(void)pthread_mutex_unlock(&w->lock);
		w->ops->batch(w->ctx, &batch);
		(void)pthread_mutex_lock(&w->lock);
		list_move_all(&w->done, &batch);
		(void)pthread_mutex_unlock(&w->lock);
		(void)eventfd_write(w->wake_fd, 1);
		(void)pthread_mutex_lock(&w->lock);
	}
	(void)pthread_mutex_unlock(&w->lock);
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;
	struct err e = {0};
	int r = w->ops->start ? w->ops->start(w->ctx, &e) : 0;

	(void)pthread_mutex_lock(&w->lock);
	w->started = true;
	w->start_code = r;
	w->start_err = e;
	(void)pthread_cond_broadcast(&w->cond);
	(void)pthread_mutex_unlock(&w->lock);
	if (r >= 0)
		serve(w);
	if (w->ops->stop)
		w->ops->stop(w->ctx);
	return NULL;
}

/* Hands finished requests back. Their callbacks may submit, or close the worker. */
static void hand_back(struct worker *w)
{
	struct list done, *node;

	list_init(&done);
	(void)pthread_mutex_lock(&w->lock);
	list_move_all(&done, &w->done);
	(void)pthread_mutex_unlock(&w->lock);
	while (!list_empty(&done)) {
		node = done.next;
		list_unlink(node);
		w->pending--;
		w->ops->done(w->ctx, container_of(node, struct work, link));
	}
}

static void on_wake(uv_poll_t *wake, int status, int events)
{
	struct worker *w = wake->data;
	eventfd_t count;

	(void)status;
	(void)events;
	(void)eventfd_read(w->wake_fd, &count);
	hand_back(w);
}

static void free_worker(struct worker *w)
{
	(void)pthread_cond_destroy(&w->cond);
	(void)pthread_mutex_destroy(&w->lock);
	cleanup_close(&w->wake_fd);
	free(w);
}

static void on_closed(uv_handle_t *handle)
{
	struct worker *w = handle->data;
	void (*freed)(void *) = w->freed;
	void *ctx = w->ctx;

	free_worker(w);
	if (freed)
		freed(ctx);
}

/* Signals are the loop's affair: the thread starts with all of them blocked. */
static int start_thread(struct worker *w, const char *name)
{
	sigset_t all, old;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&w->thread, NULL, thread_main, w);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0)
		(void)pthread_setname_np(w->thread, name);
	return r;
}

static void init_lock(struct worker *w)
{
	pthread_condattr_t attr;

	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&w->cond, &attr);
	(void)pthread_condattr_destroy(&attr);
}

int worker_new(uv_loop_t *loop, const char *name, const struct worker_ops *ops, void *ctx,
	       struct worker **ret_worker, struct err *e)
{
	struct worker *w = calloc(1, sizeof *w);
	int r;

	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	w->ops = ops;
	w->ctx = ctx;
	w->wake.data = w;
	list_init(&w->todo);
	list_init(&w->done);
	init_lock(w);
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = w->wake_fd < 0 ? -errno : start_thread(w, name);
	if (r < 0) {
		free_worker(w);
		return err_errno(e, r, "could not start a thread");
	}
	(void)pthread_mutex_lock(&w->lock);
	while (!w->started)
		(void)pthread_cond_wait(&w->cond, &w->lock);
	(void)pthread_mutex_unlock(&w->lock);
	if (w->start_code < 0) {
		r = w->start_code;
		(void)pthread_join(w->thread, NULL);
		if (e)
			*e = w->start_err;
		free_worker(w);
		return r;
	}
	/* Only now: a handle cannot be taken back without a turn of the loop. Nothing is submitted
	 * before this function returns, so the thread does not need it earlier. */
	r = uv_poll_init(loop, &w->wake, w->wake_fd);
	if (r == 0)
		r = uv_poll_start(&w->wake, UV_READABLE, on_wake);
	if (r < 0) {
		w->stopping = true;
		(void)pthread_cond_broadcast(&w->cond);
		(void)pthread_join(w->thread, NULL);
		free_worker(w);
		return err_errno(e, r, "could not start a thread");
	}
	*ret_worker = w;
	return 0;
}

void worker_submit(struct worker *w, struct work *work)
{
	bool first;

	w->pending++;
	(void)pthread_mutex_lock(&w->lock);
	first = list_empty(&w->todo);
	list_push_back(&w->todo, &work->link);
	(void)pthread_mutex_unlock(&w->lock);
	if (first)
		(void)pthread_cond_signal(&w->cond);
}

size_t worker_pending(const struct worker *w)
{
	return w->pending;
}

void worker_close(struct worker *w, void (*freed)(void *ctx))
{
	w->freed = freed;
	(void)pthread_mutex_lock(&w->lock);
	w->stopping = true;
	(void)pthread_mutex_unlock(&w->lock);
	(void)pthread_cond_broadcast(&w->cond);
	(void)pthread_join(w->thread, NULL);
	hand_back(w);
	uv_close((uv_handle_t *)&w->wake, on_closed);
}
