/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/defer.h"

#include <errno.h>
#include <stdlib.h>

/* The check handle runs right after the poll phase, where nearly everything happens; the idle
 * handle, active only while something waits, keeps the poll from sleeping when a call was put off
 * from another phase. */
struct defer {
	uv_check_t check;
	uv_idle_t idle;
	struct list queue;
	int open_handles;
};

static void run(struct defer *d)
{
	struct deferred *call;

	while ((call = LIST_FIRST(&d->queue, struct deferred, link))) {
		list_unlink(&call->link);
		call->call(call);
	}
	(void)uv_idle_stop(&d->idle);
}

static void on_check(uv_check_t *check)
{
	run(check->data);
}

/* Only there to make the poll phase return at once. */
static void on_idle(uv_idle_t *idle)
{
	(void)idle;
}

int defer_new(uv_loop_t *loop, struct defer **ret_defer)
{
	struct defer *d = calloc(1, sizeof *d);

	if (!d)
		return -ENOMEM;
	list_init(&d->queue);
	(void)uv_check_init(loop, &d->check);
	(void)uv_idle_init(loop, &d->idle);
	d->check.data = d->idle.data = d;
	d->open_handles = 2;
	(void)uv_check_start(&d->check, on_check);
	/* Deferred calls alone do not keep a loop alive: whoever asked has a handle of its own. */
	uv_unref((uv_handle_t *)&d->check);
	*ret_defer = d;
	return 0;
}

void defer_call(struct defer *d, struct deferred *call)
{
	if (!list_empty(&call->link))
		return;
	list_push_back(&d->queue, &call->link);
	(void)uv_idle_start(&d->idle, on_idle);
}

void defer_cancel(struct deferred *call)
{
	list_unlink(&call->link);
}

static void on_closed(uv_handle_t *handle)
{
	struct defer *d = handle->data;

	if (--d->open_handles == 0)
		free(d);
}

void defer_close(struct defer *d)
{
	if (!d)
		return;
	run(d);
	uv_close((uv_handle_t *)&d->check, on_closed);
	uv_close((uv_handle_t *)&d->idle, on_closed);
}
