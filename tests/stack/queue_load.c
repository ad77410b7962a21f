/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A load over a queue, and the accounts of it.
 *
 *	queue-load URL SECONDS WINDOW [PER_SECOND]
 *
 * Publishes with up to WINDOW messages unanswered, at most PER_SECOND of them, and consumes at the
 * same time, handing back one of fifty. After SECONDS it publishes nothing more, and waits until
 * everything that was confirmed was delivered, a minute at most. Prints one JSON object. Exits with
 * 1 where a confirmed message did not come.
 */

#include "base/clock.h"
#include "base/map.h"
#include "base/str.h"
#include "queue/queue.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PREFETCH = 256,
	HAND_BACK_EACH = 50,
	FAILED_PAUSE_MS = 20,
	PATIENCE_US = 60 * 1000 * 1000,
	LATENCIES = 1 << 20,
};

struct entry {
	struct queue_publish r;
	struct load *load;
	int64_t began_us;
	bool confirmed;
	bool to_hand_back; /* once, when it comes */
	unsigned delivered;
};

struct load {
	uv_loop_t loop;
	struct queue *queue;
	uv_timer_t tick;
	uv_signal_t sigterm;
	struct map entries; /* by id */
	int64_t begin_us, end_us;
	size_t window, per_second;
	size_t flight, published, confirmed, failed, delivered, missing, duplicates, handed;
	int64_t pause_until_us, slowest_us;
	int lost, back;
	uint32_t *latencies_us;
	size_t n_latencies;
	int64_t last_confirmed_us, last_delivered_us;
	bool closed;
};

static void publish_more(struct load *l);

static void on_published(struct queue_publish *r, int code)
{
	struct entry *e = container_of(r, struct entry, r);
	struct load *l = e->load;
	int64_t now_us = clock_monotonic_us(), took_us = now_us - e->began_us;

	l->flight--;
	if (took_us > l->slowest_us)
		l->slowest_us = took_us;
	if (code == 0) {
		e->confirmed = true;
		l->confirmed++;
		l->missing += !e->delivered;
		l->last_confirmed_us = now_us;
		if (l->n_latencies < LATENCIES)
			l->latencies_us[l->n_latencies++] = (uint32_t)took_us;
	} else {
		l->failed++;
		l->pause_until_us = now_us + FAILED_PAUSE_MS * 1000;
	}
	publish_more(l);
}

static void publish_one(struct load *l)
{
	struct entry *e = calloc(1, sizeof *e);

	if (!e)
		abort();
	e->load = l;
	e->to_hand_back = l->published % HAND_BACK_EACH == 0;
	uuid7_new(&e->r.message.id);
	e->r.message.class = (enum task_class)(l->published % _TASK_CLASS_MAX);
	e->r.message.enqueued_us = clock_wall_us();
	(void)str_copy(e->r.message.language, TASK_LANGUAGE_MAX, "python");
	(void)str_copy(e->r.message.tenant, TASK_TENANT_MAX, "load");
	e->r.done = on_published;
	e->began_us = clock_monotonic_us();
	if (map_put(&l->entries, &e->r.message.id, sizeof(struct uuid), e) < 0)
		abort();
	l->published++;
	l->flight++;
	queue_publish(l->queue, &e->r);
}

static void publish_more(struct load *l)
{
	int64_t now_us = clock_monotonic_us();

	while (l->flight < l->window && now_us < l->end_us && now_us >= l->pause_until_us) {
		if (l->per_second &&
		    (int64_t)l->published * 1000000 / (int64_t)l->per_second > now_us - l->begin_us)
			return;
		publish_one(l);
		now_us = clock_monotonic_us();
	}
}

static void on_delivered(void *ctx, struct queue_delivery *d)
{
	struct load *l = ctx;
	struct entry *e = map_get(&l->entries, &d->message.id, sizeof d->message.id);

	if (e && e->to_hand_back) {
		e->to_hand_back = false;
		l->handed++;
		queue_hand_back(l->queue, d);
		return;
	}
	l->delivered++;
	l->last_delivered_us = clock_monotonic_us();
	if (e && e->delivered++)
		l->duplicates++;
	else if (e && e->confirmed)
		l->missing--;
	queue_ack(l->queue, d);
}

static void on_state(void *ctx, int code, const char *message)
{
	struct load *l = ctx;

	(void)fprintf(stderr, "queue-load: %s\n", code ? message : "back");
	l->lost += code < 0;
	l->back += code == 0;
}

static const struct queue_consumer_ops consumer = {.delivered = on_delivered, .state = on_state};

static void on_closed(void *ctx)
{
	*(bool *)ctx = true;
}

static void on_tick(uv_timer_t *timer)
{
	struct load *l = timer->data;
	int64_t now_us = clock_monotonic_us();

	publish_more(l);
	if (now_us < l->end_us)
		return;
	if ((l->missing || l->flight) && now_us < l->end_us + PATIENCE_US)
		return;
	uv_close((uv_handle_t *)timer, NULL);
	uv_close((uv_handle_t *)&l->sigterm, NULL);
	queue_close(l->queue, on_closed, &l->closed);
}

static void on_sigterm(uv_signal_t *handle, int signo)
{
	struct load *l = handle->data;

	(void)signo;
	l->end_us = clock_monotonic_us();
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void report(struct load *l)
{
	double publish_s = (double)(l->last_confirmed_us - l->begin_us) / 1e6;
	double deliver_s = (double)(l->last_delivered_us - l->begin_us) / 1e6;
	size_t n = l->n_latencies;

	qsort(l->latencies_us, n, sizeof *l->latencies_us, by_size);
	(void)printf(
		"{\"published\": %zu, \"confirmed\": %zu, \"failed\": %zu, \"delivered\": %zu, "
		"\"missing\": %zu, \"duplicates\": %zu, \"handed_back\": %zu, \"lost\": %d, "
		"\"back\": %d, \"slowest_ms\": %.1f, \"p50_ms\": %.2f, \"p99_ms\": %.2f, "
		"\"confirmed_per_s\": %.0f, \"delivered_per_s\": %.0f}\n",
		l->published, l->confirmed, l->failed, l->delivered, l->missing, l->duplicates,
		l->handed, l->lost, l->back, (double)l->slowest_us / 1e3,
		n ? l->latencies_us[n / 2] / 1e3 : 0, n ? l->latencies_us[n * 99 / 100] / 1e3 : 0,
		publish_s > 0 ? (double)l->confirmed / publish_s : 0,
		deliver_s > 0 ? (double)l->delivered / deliver_s : 0);
}

static int run(struct load *l, const char *url, uint64_t seconds)
{
	const struct queue_config cfg = {.url = url, .max_tasks = 10000000};
	struct err e = {""};

	if (uv_loop_init(&l->loop) || queue_open(&l->loop, &cfg, &l->queue, &e) < 0) {
		(void)fprintf(stderr, "queue-load: %s\n", e.msg);
		return 2;
	}
	map_init(&l->entries);
	queue_set_consumer(l->queue, &consumer, l);
	(void)queue_consume(l->queue, "python", PREFETCH, NULL);
	(void)uv_timer_init(&l->loop, &l->tick);
	l->tick.data = l;
	(void)uv_signal_init(&l->loop, &l->sigterm);
	l->sigterm.data = l;
	(void)uv_signal_start(&l->sigterm, on_sigterm, SIGTERM);
	(void)uv_timer_start(&l->tick, on_tick, 0, 5);
	l->begin_us = clock_monotonic_us();
	l->end_us = l->begin_us + (int64_t)seconds * 1000000;
	while (!l->closed)
		(void)uv_run(&l->loop, UV_RUN_ONCE);
	(void)uv_run(&l->loop, UV_RUN_DEFAULT);
	return 0;
}

int main(int argc, char **argv)
{
	struct load l = {0};
	uint64_t seconds, window, per_second = 0;
	struct entry *e;
	size_t cursor;
	int r;

	if (argc < 4 || str_to_u64(argv[2], 1, 3600, &seconds) < 0 ||
	    str_to_u64(argv[3], 1, 100000, &window) < 0 ||
	    (argc > 4 && str_to_u64(argv[4], 1, 1000000, &per_second) < 0)) {
		(void)fprintf(stderr, "usage: queue-load URL SECONDS WINDOW [PER_SECOND]\n");
		return 2;
	}
	l.window = window;
	l.per_second = per_second;
	l.latencies_us = calloc(LATENCIES, sizeof *l.latencies_us);
	r = l.latencies_us ? run(&l, argv[1], seconds) : 2;
	if (r == 0) {
		report(&l);
		MAP_FOREACH (e, cursor, &l.entries)
			free(e);
		map_fini(&l.entries);
		(void)uv_loop_close(&l.loop);
	}
	free(l.latencies_us);
	return r ? r : l.missing != 0;
}
