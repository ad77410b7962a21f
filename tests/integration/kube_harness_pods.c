/* SPDX-License-Identifier: Apache-2.0 */

/*
 * "pods URL SLOTS": the whole manager, with this program in the scheduler's place. A pod that is
 * connected counts as greeted at once, with SLOTS slots. One that is to drain is told of, and
 *refuses tasks from then on; that it ends is the test's to do.
 *
 *	waiting LANGUAGE N	so many tasks of it wait
 *	blind 0|1		what waits cannot be said
 *	use POD USED TASKS	what its runner says
 *	refuse POD		its runner takes no more
 *	explain			what pods_explain says
 *	describe		what pods_describe says
 *	reload
 */

#include "kube_harness.h"

#include "base/cleanup.h"
#include "base/list.h"
#include "base/str.h"
#include "pods/pods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LANGUAGES = 64 };

struct held {
	struct list link;
	struct harness *h;
	char pod[POD_NAME_MAX];
	int fd;
	unsigned slots, used;
	uint64_t tasks;
	uv_poll_t poll;
};

struct managed {
	struct pods *pods;
	struct list held;
	unsigned slots;
	bool blind, closing;
	struct {
		char name[64];
		uint64_t n;
	} waiting[LANGUAGES];
};

static struct managed *managed_of(const struct harness *h)
{
	return h->mode;
}

static void on_poll_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void let_go(struct held *one)
{
	list_unlink(&one->link);
	(void)uv_poll_stop(&one->poll);
	(void)close(one->fd);
	uv_close((uv_handle_t *)&one->poll, on_poll_closed);
}

static struct held *find(struct harness *h, const char *pod)
{
	struct held *one;

	LIST_FOREACH (one, &managed_of(h)->held, link)
		if (str_eq(one->pod, pod))
			return one;
	return NULL;
}

static void say_news(struct held *one)
{
	pods_heard(managed_of(one->h)->pods, one->pod, one->slots, one->used, one->tasks);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct held *one = poll->data;
	struct harness *h = one->h;
	char pod[POD_NAME_MAX], byte;

	(void)events;
	if (status == 0 && recv(one->fd, &byte, 1, MSG_DONTWAIT) > 0)
		return;
	memcpy(pod, one->pod, sizeof pod);
	let_go(one);
	harness_say("lost", ",\"pod\":%s", harness_quote(pod));
	pods_connection_lost(managed_of(h)->pods, pod, "the connection was closed");
}

static void on_connected(void *ctx, const char *pod, int fd, const struct tls_psk *psk)
{
	struct harness *h = ctx;
	struct held *one = calloc(1, sizeof *one);

	if (!one)
		abort();
	one->h = h;
	one->fd = fd;
	one->slots = managed_of(h)->slots;
	(void)str_copy(one->pod, sizeof one->pod, pod);
	list_init(&one->link);
	list_push_back(&managed_of(h)->held, &one->link);
	(void)uv_poll_init(&h->loop, &one->poll, fd);
	one->poll.data = one;
	(void)uv_poll_start(&one->poll, UV_READABLE | UV_DISCONNECT, on_readable);
	harness_say("connected", ",\"pod\":%s,\"identity\":%s", harness_quote(pod),
		    harness_quote(psk->identity));
	say_news(one);
}

static void on_retired(void *ctx, const char *pod)
{
	struct held *one = find(ctx, pod);

	harness_say("retired", ",\"pod\":%s", harness_quote(pod));
	if (!one)
		return;
	let_go(one);
	pods_connection_lost(managed_of(ctx)->pods, pod, "it is not wanted any more");
}

static void on_drain(void *ctx, const char *pod)
{
	struct held *one = find(ctx, pod);

	harness_say("drain", ",\"pod\":%s,\"used\":%u", harness_quote(pod), one ? one->used : 0);
	if (!one)
		return;
	one->slots = 0;
	say_news(one);
}

static bool on_waiting(void *ctx, const char *language, uint64_t *ret_waiting)
{
	const struct managed *m = managed_of(ctx);

	for (size_t i = 0; i < LANGUAGES; i++)
		if (str_eq(m->waiting[i].name, language))
			*ret_waiting = m->waiting[i].n;
	return !m->blind;
}

static void on_offered(void *ctx, const char *language, bool yes)
{
	(void)ctx;
	harness_say("offered", ",\"language\":%s,\"yes\":%d", harness_quote(language), yes);
}

static void set_waiting(struct managed *m, const char *language, uint64_t n)
{
	size_t i = 0;

	while (i < LANGUAGES - 1 && *m->waiting[i].name && !str_eq(m->waiting[i].name, language))
		i++;
	(void)str_copy(m->waiting[i].name, sizeof m->waiting[i].name, language);
	m->waiting[i].n = n;
}

static uint64_t number(char **line)
{
	uint64_t n = 0;

	if (str_to_u64(harness_word(line), 0, UINT64_MAX, &n) < 0)
		abort();
	return n;
}

static void explain(struct harness *h)
{
	CLEANUP(buf_fini) struct buf b;

	buf_init(&b, 4096);
	pods_explain(managed_of(h)->pods, &b);
	harness_say("explained", ",\"text\":%s", harness_quote(b.data));
}

static void describe(struct harness *h)
{
	CLEANUP(buf_fini) struct buf b;

	buf_init(&b, 1024 * 1024);
	if (pods_describe(managed_of(h)->pods, &b) < 0)
		abort();
	harness_say("described", ",\"all\":%s", b.data);
}

static void pods_command(struct harness *h, char *line)
{
	struct managed *m = h->mode;
	const char *verb = harness_word(&line);
	struct held *one = NULL;

	if (str_eq(verb, "explain")) {
		explain(h);
	} else if (str_eq(verb, "describe")) {
		describe(h);
	} else if (str_eq(verb, "reload")) {
		pods_reload(m->pods);
	} else if (str_eq(verb, "blind")) {
		m->blind = number(&line) != 0;
	} else if (str_eq(verb, "waiting")) {
		const char *language = harness_word(&line);

		set_waiting(m, language, number(&line));
	} else {
		one = find(h, harness_word(&line));
	}
	if (!one)
		return;
	if (str_eq(verb, "refuse")) {
		one->slots = 0;
	} else {
		one->used = (unsigned)number(&line);
		one->tasks = number(&line);
	}
	say_news(one);
}

static void on_pods_closed(void *ctx)
{
	struct harness *h = ctx;
	struct managed *m = h->mode;
	struct held *one, *tmp;

	LIST_FOREACH_SAFE (one, tmp, &m->held, link)
		let_go(one);
	free(m);
}

static void pods_end(struct harness *h)
{
	pods_close(managed_of(h)->pods, 0, on_pods_closed, h);
}

int harness_pods(struct harness *h, int argc, char **argv)
{
	static const struct pods_ops ops = {
		.connected = on_connected,
		.retired = on_retired,
		.drain = on_drain,
		.waiting = on_waiting,
		.offered = on_offered,
	};
	static const char secret[] = "0123456789abcdef0123456789abcdef";
	struct managed *m = calloc(1, sizeof *m);
	struct pods_config cfg = {.secret = secret, .secret_len = sizeof secret - 1};
	struct err e = {""};
	uint64_t slots = 0;

	if (!m || argc != 2 || str_to_u64(argv[1], 1, 64, &slots) < 0)
		goto failed;
	cfg.url = argv[0];
	m->slots = (unsigned)slots;
	list_init(&m->held);
	h->mode = m;
	if (pods_open(&h->loop, &cfg, &ops, h, &m->pods, &e) < 0)
		goto failed;
	h->command = pods_command;
	h->end = pods_end;
	return 0;
failed:
	(void)fprintf(stderr, "pods URL SLOTS: %s\n", e.msg);
	free(m);
	return -1;
}
