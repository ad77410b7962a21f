/* SPDX-License-Identifier: Apache-2.0 */
#include "outbox/private.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t make_key(const struct queue_message *m, char *dst, size_t size)
{
	int n = snprintf(dst, size, "%s\n%s\n%d", m->tenant, m->language, (int)m->class);

	return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

struct stream *stream_get(struct publisher *p, const struct queue_message *m)
{
	char key[sizeof((struct stream *)0)->key];
	size_t len = make_key(m, key, sizeof key);
	struct stream *s = len ? map_get(&p->streams, key, len) : NULL;

	if (s || !len)
		return s;
	s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	(void)str_copy(s->tenant, sizeof s->tenant, m->tenant);
	(void)str_copy(s->language, sizeof s->language, m->language);
	s->class = m->class;
	memcpy(s->key, key, len);
	s->key_len = len;
	s->room = p->cfg.admit_max;
	if (map_put(&p->streams, s->key, len, s) < 0) {
		free(s);
		return NULL;
	}
	return s;
}

void stream_drop_if_idle(struct publisher *p, struct stream *s)
{
	if (s->n || s->backlog)
		return;
	(void)map_remove(&p->streams, s->key, s->key_len);
	free(s);
}

void stream_set_backlog(struct publisher *p, struct stream *s, struct publication *newest)
{
	s->backlog = true;
	s->left_us = clock_monotonic_us();
	if (!newest)
		return;
	if (s->left)
		publication_free(s->left);
	s->left = NULL;
	/* A sweeper of this process may have been faster. */
	if (map_put(&p->known, &newest->request.message.id, sizeof(struct uuid), newest) < 0) {
		publication_free(newest);
		return;
	}
	s->left = newest;
	newest->known = true;
	newest->state = PUB_LEFT;
	newest->stream = s;
	newest->checked_us = s->left_us;
	list_push_back(&p->checks, &newest->link);
}

void stream_clear_backlog(struct publisher *p, struct stream *s)
{
	struct publication *left = s->left;

	s->backlog = false;
	s->left = NULL;
	if (left)
		publication_free(left);
	stream_drop_if_idle(p, s);
}

int publication_count_in(struct publication *pub, struct stream *s)
{
	struct publisher *p = pub->publisher;
	int r = map_put(&p->known, &pub->request.message.id, sizeof(struct uuid), pub);

	if (r < 0)
		return r;
	pub->known = true;
	pub->stream = s;
	pub->checked_us = clock_monotonic_us();
	list_push_back(&p->checks, &pub->link);
	s->n++;
	return 0;
}

static void forget(struct publication *pub)
{
	if (pub->known)
		(void)map_remove(&pub->publisher->known, &pub->request.message.id,
				 sizeof(struct uuid));
	pub->known = false;
}

void publication_count_out(struct publication *pub)
{
	struct publisher *p = pub->publisher;
	struct stream *s = pub->stream;

	forget(pub);
	list_unlink(&pub->link);
	pub->stream = NULL;
	if (!s || pub->state == PUB_LEFT)
		return;
	s->n--;
	sweep_room_freed(p, s);
	stream_drop_if_idle(p, s);
}

void publication_free(struct publication *pub)
{
	publication_count_out(pub);
	free(pub);
}

void on_task_finished(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		      size_t len)
{
	struct publisher *p = ctx;
	struct publication *pub = map_get(&p->known, id, sizeof *id);

	(void)topic;
	(void)payload;
	(void)len;
	if (!pub)
		return;
	switch (pub->state) {
	case PUB_LEFT: /* and so nearly all that was left before it */
		stream_clear_backlog(p, pub->stream);
		return;
	case PUB_ADMITTED:
	case PUB_SENT: /* ends when the queue has answered */
		publication_count_out(pub);
		return;
	case PUB_CONFIRMED:
		publication_free(pub);
		return;
	}
}
