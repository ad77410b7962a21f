/* SPDX-License-Identifier: Apache-2.0 */
#include "cut_proxy.h"

#include "unit.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS_MAX = 64, TICK_MS = 10 };

struct pair {
	int fds[2];
};

struct cut_proxy {
	int listener;
	uint16_t port, target;
	pthread_t thread;
	atomic_int mode;
	atomic_bool cut, stop;
	struct pair pairs[PAIRS_MAX];
	size_t n;
};

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons(port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void drop(struct cut_proxy *p, size_t i)
{
	const struct linger reset = {.l_onoff = 1};

	for (int k = 0; k < 2; k++) {
		(void)setsockopt(p->pairs[i].fds[k], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		(void)close(p->pairs[i].fds[k]);
	}
	p->pairs[i] = p->pairs[--p->n];
}

static void accept_one(struct cut_proxy *p)
{
	struct sockaddr_in to = loopback(p->target);
	int in = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC), out;

	if (in < 0)
		return;
	out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->n == PAIRS_MAX || atomic_load(&p->mode) == CUT_REFUSE ||
	    connect(out, (struct sockaddr *)&to, sizeof to) < 0) {
		(void)close(in);
		(void)close(out);
		return;
	}
	p->pairs[p->n++] = (struct pair){{in, out}};
}

/* What one side has sent, to the other. False where the pair is through. */
static bool pass(int from, int to)
{
	char bytes[65536];
	ssize_t n = recv(from, bytes, sizeof bytes, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN;
	for (ssize_t at = 0; at < n;) {
		ssize_t sent = send(to, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);

		if (sent < 0)
			return false;
		at += sent;
	}
	return n > 0;
}

static void turn(struct cut_proxy *p)
{
	struct pollfd fds[1 + 2 * PAIRS_MAX] = {{.fd = p->listener, .events = POLLIN}};
	bool stalled = atomic_load(&p->mode) == CUT_STALL;
	size_t n = p->n;

	for (size_t i = 0; i < 2 * n; i++)
		fds[1 + i] = (struct pollfd){.fd = stalled ? -1 : p->pairs[i / 2].fds[i % 2],
					     .events = POLLIN};
	(void)poll(fds, 1 + 2 * n, TICK_MS);
	for (size_t i = n; i-- > 0;) {
		bool ok = true;

		for (size_t k = 0; ok && k < 2; k++)
			if (fds[1 + 2 * i + k].revents)
				ok = pass(p->pairs[i].fds[k], p->pairs[i].fds[1 - k]);
		if (!ok)
			drop(p, i);
	}
	if (fds[0].revents)
		accept_one(p);
}

static void *run(void *arg)
{
	struct cut_proxy *p = arg;

	while (!atomic_load(&p->stop)) {
		if (atomic_exchange(&p->cut, false))
			while (p->n)
				drop(p, 0);
		turn(p);
	}
	while (p->n)
		drop(p, 0);
	return NULL;
}

struct cut_proxy *cut_proxy_new(uint16_t port)
{
	struct cut_proxy *p = calloc(1, sizeof *p);
	struct sockaddr_in at = loopback(0);
	socklen_t len = sizeof at;

	assert_non_null(p);
	p->target = port;
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(p->listener >= 0);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(p->listener, PAIRS_MAX), 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&at, &len), 0);
	p->port = ntohs(at.sin_port);
	assert_int_equal(pthread_create(&p->thread, NULL, run, p), 0);
	return p;
}

void cut_proxy_free(struct cut_proxy *p)
{
	atomic_store(&p->stop, true);
	(void)pthread_join(p->thread, NULL);
	(void)close(p->listener);
	free(p);
}

uint16_t cut_proxy_port(const struct cut_proxy *p)
{
	return p->port;
}

void cut_proxy_set(struct cut_proxy *p, enum cut_mode mode)
{
	atomic_store(&p->mode, mode);
}

void cut_proxy_cut(struct cut_proxy *p)
{
	atomic_store(&p->cut, true);
}
