/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void closed(uv_handle_t *h)
{
	free(h->data);
}

int watch_new_consume(uv_loop_t *loop, int fd, uv_poll_cb readable, void *owner,
		      struct watch **ret_watch, struct err *e)
{
	AUTO_FD int reader = fd;
	struct watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	/* This makes it non-blocking. */
	r = uv_poll_init(loop, &w->poll, reader);
	if (r < 0) {
		free(w);
		return err_errno(e, r, "could not watch a pipe");
	}
	w->fd = TAKE_FD(reader);
	w->owner = owner;
	w->poll.data = w;
	*ret_watch = w;
	(void)uv_poll_start(&w->poll, UV_READABLE, readable);
	return 0;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	w->owner = NULL;
	(void)uv_poll_stop(&w->poll);
	(void)close(TAKE_FD(w->fd));
	uv_close((uv_handle_t *)&w->poll, closed);
}
