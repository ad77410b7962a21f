/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/queue-private.h"

#include "base/url.h"

#include <errno.h>
#include <string.h>

static const struct queue_ops *const implementations[] = {
	&queue_memory_ops,
	&queue_rabbitmq_ops,
};

int queue_open(uv_loop_t *loop, const struct queue_config *cfg, struct queue **ret_queue,
	       struct err *e)
{
	char shown[URL_SHOWN_MAX];
	const char *rest;

	for (size_t i = 0; i < ARRAY_SIZE(implementations); i++) {
		const struct queue_ops *ops = implementations[i];
		int r;

		if (!url_scheme_is(cfg->url, ops->scheme, &rest))
			continue;
		r = ops->open(loop, cfg, rest, ret_queue, e);
		if (r >= 0)
			(*ret_queue)->ops = ops;
		return r;
	}
	(void)url_show(cfg->url, shown, sizeof shown);
	return err_set(e, -EINVAL, "\"%s\" is no queue: known are memory: and amqp://", shown);
}

void queue_close(struct queue *q, void (*closed)(void *ctx), void *ctx)
{
	q->ops->close(q, closed, ctx);
}

int queue_check(const struct queue *q, struct err *e)
{
	return q->ops->check ? q->ops->check(q, e) : 0;
}

bool queue_is_durable(const struct queue *q)
{
	return q->ops->durable;
}

int queue_reserve(struct queue *q, const char *language, enum task_class class)
{
	return q->ops->reserve(q, language, class);
}

void queue_unreserve(struct queue *q, const char *language, enum task_class class)
{
	q->ops->unreserve(q, language, class);
}

void queue_set_outside(struct queue *q, size_t n)
{
	q->outside = n;
}

void queue_publish(struct queue *q, struct queue_publish *r)
{
	list_init(&r->deferred.link);
	q->ops->publish(q, r);
}

void queue_set_consumer(struct queue *q, const struct queue_consumer_ops *ops, void *ctx)
{
	q->ops->set_consumer(q, ops, ctx);
}

int queue_follow(struct queue *q, const char *language, bool follow)
{
	return q->ops->follow ? q->ops->follow(q, language, follow) : 0;
}

int queue_consume(struct queue *q, const char *language, size_t prefetch, struct err *e)
{
	return q->ops->consume(q, language, prefetch, e);
}

void queue_ack(struct queue *q, struct queue_delivery *d)
{
	q->ops->ack(q, d);
}

void queue_hand_back(struct queue *q, struct queue_delivery *d)
{
	q->ops->hand_back(q, d);
}

void queue_get_depth(const struct queue *q, const char *language, enum task_class class,
		     struct queue_depth *ret_depth)
{
	q->ops->get_depth(q, language, class, ret_depth);
}

int64_t queue_horizon(const struct queue *q, const char *language, enum task_class class,
		      int64_t now_us)
{
	return q->ops->horizon ? q->ops->horizon(q, language, class, now_us) : 0;
}

size_t queue_dead_count(const struct queue *q)
{
	return q->ops->dead_count ? q->ops->dead_count(q) : 0;
}

int queue_retry_after(const struct queue *q)
{
	return q->ops->retry_after(q);
}
