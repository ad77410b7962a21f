/* SPDX-License-Identifier: Apache-2.0 */
#include "redis/redis.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "rate/rate-private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALL_MS = 20, UNSENT_MAX = 1024 * 1024, REPLY_MAX = 64 * 1024, NUMBER_MAX = 24 };

struct shared {
	struct rate base;
	struct redis *redis;
	struct rate_counts counts; /* for as long as Redis does not answer */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* As rate_counts_take, by the clock of Redis, which all processes share. Expires when at rest. */
static const char script[] = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2]"
			     " local even = tonumber(redis.call('GET', KEYS[1]) or 0)"
			     " local interval = tonumber(ARGV[1])"
			     " if even < now then even = now end"
			     " local early = even - now - interval * (tonumber(ARGV[2]) - 1)"
			     " if early > 0 then return early end"
			     " redis.call('SET', KEYS[1], string.format('%d', even + interval),"
			     " 'PX', math.ceil((even + interval - now) / 1000))"
			     " return 0";

static void count_here(struct shared *r, struct rate_take *t)
{
	t->wait_us = rate_counts_take(&r->counts, t->name, &t->limit, clock_monotonic_us());
}

static void on_reply(void *ctx, const struct redisReply *reply)
{
	struct rate_take *t = ctx;

	if (reply && reply->type == REDIS_REPLY_INTEGER)
		t->wait_us = reply->integer;
	else
		count_here(container_of(t->rate, struct shared, base), t);
	t->done(t);
}

static struct redis_arg number(char dst[static NUMBER_MAX], int64_t n)
{
	(void)snprintf(dst, NUMBER_MAX, "%lld", (long long)n);
	return (struct redis_arg){dst, strlen(dst)};
}

static bool shared_take(struct rate *base, struct rate_take *t)
{
	struct shared *r = container_of(base, struct shared, base);
	char key[RATE_NAME_MAX + 16], interval[NUMBER_MAX], burst[NUMBER_MAX];
	int len = snprintf(key, sizeof key, "kiln:rate:%s", t->name);
	const struct redis_arg args[] = {
		REDIS_WORD("EVAL"),
		REDIS_WORD(script),
		REDIS_WORD("1"),
		{key, (size_t)len},
		number(interval, rate_interval_us(&t->limit)),
		number(burst, t->limit.burst),
	};

	if (redis_command(r->redis, args, ARRAY_SIZE(args), on_reply, t, NULL) == 0)
		return false;
	count_here(r, t);
	return true;
}

static int shared_open(uv_loop_t *loop, const char *url, struct rate **ret_rate, struct err *e)
{
	struct shared *r = calloc(1, sizeof *r);
	const struct redis_config cfg = {
		.use = "rate",
		.call_ms = CALL_MS,
		.unsent_max = UNSENT_MAX,
		.reply_max = REPLY_MAX,
		.ctx = r,
	};
	int code;

	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	code = redis_open(loop, url, &cfg, &r->redis, e);
	if (code < 0) {
		free(r);
		return code;
	}
	r->base.impl = &rate_redis;
	rate_counts_init(&r->counts);
	*ret_rate = &r->base;
	return 0;
}

static void on_redis_closed(void *ctx)
{
	struct shared *r = ctx;
	void (*closed)(void *) = r->closed;
	void *closed_ctx = r->closed_ctx;

	rate_counts_fini(&r->counts);
	free(r);
	if (closed)
		closed(closed_ctx);
}

static void shared_close(struct rate *base, void (*closed)(void *ctx), void *ctx)
{
	struct shared *r = container_of(base, struct shared, base);

	r->closed = closed;
	r->closed_ctx = ctx;
	redis_close(r->redis, on_redis_closed, r);
}

const struct rate_impl rate_redis = {
	.scheme = "redis",
	.open = shared_open,
	.take = shared_take,
	.close = shared_close,
};
