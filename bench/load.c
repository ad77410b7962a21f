/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A load generator for servers that speak HTTP/1.1 over plain sockets with keep-alive: one epoll
 * loop, one request body that is sent again and again, or a list of paths that are read in turn.
 *
 *	load --port N --body FILE [--path PATH] [--clients N] [--seconds S] [--requests N]
 *	     [--rate PER_SECOND] [--status CODE] [--expect TEXT [--output POINTER]]
 *	     [--unique TEXT] [--apart TEXT] [--host ADDRESS] [--method NAME] [--header LINE]...
 *	load --port N --gets FILE ...
 *
 * --port may come several times: the clients are spread over the servers. --gets names a file with
 * one path per line. --unique names a text of at least 16 characters in the body: each request has
 * another number there, so that no server has seen it before.
 *
 * Closed loop (no --rate): each client sends its next request when it has its answer. Paced
 * (--rate): requests fall due at random, independent moments (a Poisson process with a fixed seed)
 * whether or not earlier ones were answered; a request that finds all clients busy waits for one,
 * and its latency counts from the moment at which it was due. That is the wait that a user has,
 * which a closed loop hides ("coordinated omission").
 *
 * Prints one JSON object. An answer with another status, or without the text of --expect (anywhere,
 * or as the string that the JSON pointer of --output leads to), counts as an error and is not among
 * the latencies. With --apart the object has a second set of figures: of the answers that have that
 * text anywhere.
 */

#include "answer.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"
#include "samples.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

enum {
	CLIENTS_MAX = 4096,
	PORTS_MAX = 8,
	HEADERS_MAX = 8,
	UNIQUE_MIN = 16, /* digits of a number that no run has twice */
	ANSWER_MAX = 16 * 1024 * 1024,
	REQUESTS_BYTES_MAX = 256 << 20,
	EVENTS_MAX = 256,
	BACKLOG_MAX = 1 << 20
};

struct options {
	uint64_t ports[PORTS_MAX], clients, requests, status;
	const char *headers[HEADERS_MAX];
	size_t n_ports, n_headers;
	double rate;
	int64_t ms;
	const char *host, *method, *path, *body, *gets, *expect, *output, *unique, *apart;
};

/* A part of the text of all requests. */
struct piece {
	size_t offset, len;
};

struct client {
	int fd;
	bool busy;
	struct piece request;
	char *own; /* its copy of the request, where each is another one */
	size_t sent;
	int64_t due_ns;
	struct buf answer;
};

struct load {
	struct options o;
	struct buf text; /* of all requests, one after the other */
	struct piece *requests;
	size_t n_requests;
	struct piece number; /* in the only request: what is another one in each */
	uint64_t next_number;
	struct in_addr address;
	struct client *clients;
	size_t *idle; /* indices of clients without a request, as a stack */
	size_t n_idle;
	int64_t *backlog; /* ring of the moments at which unsent requests were due */
	size_t backlog_head, n_backlog;
	int epoll_fd, timer_fd;
	int64_t begin_ns, end_ns, next_ns;
	uint64_t random;
	uint64_t started, errors, dropped;
	struct samples samples, apart;
	char first_error[800];
};

static int fail(const char *what, int code)
{
	(void)fprintf(stderr, "load: could not %s: %s\n", what, err_text(code));
	return code;
}

/* xorshift64*, Vigna 2016; a number in (0, 1]. */
static double next_random(struct load *l)
{
	l->random ^= l->random >> 12;
	l->random ^= l->random << 25;
	l->random ^= l->random >> 27;
	return (double)((l->random * 0x2545f4914f6cdd1dULL >> 11) + 1) / 9007199254740992.0;
}

static void note_error(struct load *l, const struct buf *answer)
{
	const char *body = strstr(answer->data, "\r\n\r\n");

	if (l->errors++ == 0)
		(void)snprintf(l->first_error, sizeof l->first_error, "%.12s: %s", answer->data,
			       body ? body + 4 : "");
	for (char *c = l->first_error; *c; c++) /* goes into JSON */
		if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
			*c = ' ';
}

static int client_connect(struct load *l, size_t i)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)l->o.ports[i % l->o.n_ports]),
		.sin_addr = l->address,
	};
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = i};
	struct client *c = &l->clients[i];
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0)
		return fail("connect", -errno);
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
		return fail("watch a connection", -errno);
	return 0;
}

static int client_reconnect(struct load *l, size_t i)
{
	cleanup_close(&l->clients[i].fd);
	return client_connect(l, i);
}

static int client_write(struct load *l, struct client *c)
{
	while (c->busy && c->sent < c->request.len) {
		const char *text = c->own ? c->own : l->text.data + c->request.offset;
		ssize_t n = send(c->fd, text + c->sent, c->request.len - c->sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0)
			return fail("send", -errno);
		c->sent += (size_t)n;
	}
	return 0;
}

/* Other clients may still be sending theirs: each has a copy to write its number into. */
static int client_number(struct load *l, struct client *c)
{
	char text[UNIQUE_MIN + 1];

	if (!c->own)
		c->own = malloc(c->request.len);
	if (!c->own)
		return fail("copy a request", -ENOMEM);
	memcpy(c->own, l->text.data + c->request.offset, c->request.len);
	(void)snprintf(text, sizeof text, "%0*llu", UNIQUE_MIN,
		       (unsigned long long)(l->next_number++ % 10000000000000000ULL));
	memset(c->own + l->number.offset, '0', l->number.len);
	memcpy(c->own + l->number.offset, text, UNIQUE_MIN);
	return 0;
}

static int client_start(struct load *l, size_t i, int64_t due_ns)
{
	struct client *c = &l->clients[i];

	c->busy = true;
	c->request = l->requests[l->started % l->n_requests];
	if (l->number.len > 0 && client_number(l, c) < 0)
		return -ENOMEM;
	c->sent = 0;
	c->due_ns = due_ns;
	buf_clear(&c->answer);
	l->started++;
	return client_write(l, c);
}

static bool answer_is_good(const struct load *l, struct buf *b)
{
	char head[16];
	const char *body;
	size_t len;

	(void)snprintf(head, sizeof head, "HTTP/1.1 %u", (unsigned)l->o.status);
	if (!str_has_prefix(b->data, head))
		return false;
	if (!l->o.expect)
		return true;
	if (!l->o.output)
		return strstr(b->data, l->o.expect);
	body = answer_body(b, &len);
	return answer_has(body, len, l->o.output, l->o.expect);
}

static int answer_count(struct load *l, struct buf *b, int64_t ns)
{
	bool apart = l->o.apart && strstr(b->data, l->o.apart);

	if (!answer_is_good(l, b)) {
		note_error(l, b);
		return 0;
	}
	if (samples_add(&l->samples, ns) < 0 || (apart && samples_add(&l->apart, ns) < 0))
		return fail("keep a sample", -ENOMEM);
	return 0;
}

static bool may_start(const struct load *l, int64_t now)
{
	return now < l->end_ns && (l->o.requests == 0 || l->started < l->o.requests);
}

/* The client has its whole answer: count it, and go on with what is due. */
static int client_finish(struct load *l, size_t i)
{
	struct client *c = &l->clients[i];
	int64_t now = now_ns();
	int r;

	c->busy = false;
	r = answer_count(l, &c->answer, now - c->due_ns);
	if (r < 0)
		return r;
	if (l->n_backlog > 0) {
		int64_t due = l->backlog[l->backlog_head];

		l->backlog_head = (l->backlog_head + 1) % BACKLOG_MAX;
		l->n_backlog--;
		return client_start(l, i, due);
	}
	if (l->o.rate <= 0 && may_start(l, now))
		return client_start(l, i, now);
	l->idle[l->n_idle++] = i;
	return 0;
}

static int client_read(struct load *l, size_t i)
{
	struct client *c = &l->clients[i];
	char chunk[65536];

	for (;;) {
		ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
		int64_t length;

		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0)
			return fail("receive", -errno);
		if (n == 0 && !c->busy) /* it was silent for as long as a server bears */
			return client_reconnect(l, i);
		if (n == 0)
			return fail("go on: the server closed a connection", -ECONNRESET);
		if (!c->busy || buf_append(&c->answer, chunk, (size_t)n) < 0)
			return fail("take an answer", -EBADMSG);
		length = answer_length(&c->answer);
		if (length < 0)
			return fail("read an answer", -EBADMSG);
		if (length > 0) {
			int r = client_finish(l, i);

			if (r < 0)
				return r;
		}
	}
}

static void arm_timer(struct load *l)
{
	struct itimerspec at = {
		.it_value = {.tv_sec = l->next_ns / 1000000000, .tv_nsec = l->next_ns % 1000000000},
	};

	(void)timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* Starts what has fallen due, or notes it as waiting for a client. */
static int arrivals(struct load *l)
{
	uint64_t ticks;

	(void)!read(l->timer_fd, &ticks, sizeof ticks);
	while (l->next_ns <= now_ns() && may_start(l, l->next_ns)) {
		int r = 0;

		if (l->n_idle > 0)
			r = client_start(l, l->idle[--l->n_idle], l->next_ns);
		else if (l->n_backlog < BACKLOG_MAX)
			l->backlog[(l->backlog_head + l->n_backlog++) % BACKLOG_MAX] = l->next_ns;
		else
			l->dropped++;
		if (r < 0)
			return r;
		l->next_ns += (int64_t)(-log(next_random(l)) / l->o.rate * 1e9);
	}
	if (may_start(l, l->next_ns))
		arm_timer(l);
	return 0;
}

static bool finished(const struct load *l)
{
	return l->n_idle == l->o.clients && l->n_backlog == 0 &&
	       !may_start(l, l->o.rate > 0 ? l->next_ns : now_ns());
}

static int run(struct load *l)
{
	struct epoll_event events[EVENTS_MAX];
	int r = 0;

	l->begin_ns = l->next_ns = now_ns();
	l->end_ns = l->begin_ns + l->o.ms * 1000000;
	if (l->o.rate > 0)
		r = arrivals(l);
	else
		while (r == 0 && l->n_idle > 0 && may_start(l, now_ns()))
			r = client_start(l, l->idle[--l->n_idle], now_ns());
	while (r == 0 && !finished(l)) {
		int n = epoll_wait(l->epoll_fd, events, EVENTS_MAX, 60000);

		if (n == 0)
			return fail("go on: no answer for a minute", -ETIMEDOUT);
		for (int i = 0; r == 0 && i < n; i++) {
			size_t index = events[i].data.u64;

			if (index == CLIENTS_MAX) {
				r = arrivals(l);
				continue;
			}
			if (events[i].events & EPOLLOUT)
				r = client_write(l, &l->clients[index]);
			if (r == 0 && (events[i].events & ~(uint32_t)EPOLLOUT))
				r = client_read(l, index);
		}
	}
	return r;
}

/* What was appended to the text since the last piece becomes the next. */
static int end_request(struct load *l, size_t offset)
{
	struct piece *grown;

	if (buf_error(&l->text) < 0)
		return buf_error(&l->text);
	grown = reallocarray(l->requests, l->n_requests + 1, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	l->requests = grown;
	l->requests[l->n_requests++] = (struct piece){offset, l->text.len - offset};
	return 0;
}

static void add_head(struct load *l, const char *method, const char *path)
{
	(void)buf_printf(&l->text, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, l->o.host);
	for (size_t i = 0; i < l->o.n_headers; i++)
		(void)buf_printf(&l->text, "%s\r\n", l->o.headers[i]);
}

/* Where in the request, which is the only one, each has its own number: from the present time in
 * microseconds on, so that a run has no number of the one before. */
static int find_number(struct load *l)
{
	size_t len = strlen(l->o.unique);
	struct timespec now;
	const char *at = len < UNIQUE_MIN ? NULL : strstr(l->text.data, l->o.unique);

	if (!at)
		return fail("number the requests: the text is not there, or too short", -EINVAL);
	l->number = (struct piece){(size_t)(at - l->text.data), len};
	(void)clock_gettime(CLOCK_REALTIME, &now);
	l->next_number = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	return 0;
}

static int add_post(struct load *l, const struct buf *body)
{
	size_t offset = l->text.len;
	int r;

	add_head(l, l->o.method, l->o.path);
	(void)buf_printf(&l->text, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
			 body->len);
	(void)buf_append(&l->text, body->data, body->len);
	r = end_request(l, offset);
	return r == 0 && l->o.unique ? find_number(l) : r;
}

static int add_gets(struct load *l, char *paths)
{
	char *save = NULL;
	int r = 0;

	for (char *path = strtok_r(paths, "\n", &save); r == 0 && path;
	     path = strtok_r(NULL, "\n", &save)) {
		size_t offset = l->text.len;

		add_head(l, "GET", path);
		(void)buf_append_str(&l->text, "\r\n");
		r = end_request(l, offset);
	}
	return r == 0 && l->n_requests == 0 ? -ENODATA : r;
}

static int make_requests(struct load *l)
{
	struct buf file;
	struct err e;
	int r;

	buf_init(&file, REQUESTS_BYTES_MAX);
	buf_init(&l->text, REQUESTS_BYTES_MAX);
	r = fs_read_file(AT_FDCWD, l->o.gets ? l->o.gets : l->o.body, &file, &e);
	if (r < 0)
		(void)fprintf(stderr, "load: %s\n", e.msg);
	else if (!l->o.gets)
		r = add_post(l, &file);
	else if (file.len > 0)
		r = add_gets(l, file.data);
	else
		r = fail("read the paths: the file is empty", -ENODATA);
	buf_fini(&file);
	return r;
}

static int open_all(struct load *l)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = CLIENTS_MAX};
	int r = 0;

	l->clients = calloc(l->o.clients, sizeof *l->clients);
	l->idle = calloc(l->o.clients, sizeof *l->idle);
	l->backlog = calloc(BACKLOG_MAX, sizeof *l->backlog);
	if (!l->clients || !l->idle || !l->backlog)
		return fail("start", -ENOMEM);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (l->epoll_fd < 0 || l->timer_fd < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->timer_fd, &event) < 0)
		return fail("start", -errno);
	for (size_t i = 0; i < l->o.clients; i++) {
		buf_init(&l->clients[i].answer, ANSWER_MAX);
		l->clients[i].fd = -EBADF;
		l->idle[l->n_idle++] = i;
	}
	for (size_t i = 0; r == 0 && i < l->o.clients; i++)
		r = client_connect(l, i);
	return r;
}

static void close_all(struct load *l)
{
	for (size_t i = 0; l->clients && i < l->o.clients; i++) {
		cleanup_close(&l->clients[i].fd);
		buf_fini(&l->clients[i].answer);
		free(l->clients[i].own);
	}
	cleanup_close(&l->epoll_fd);
	cleanup_close(&l->timer_fd);
	free(l->clients);
	free(l->idle);
	free(l->backlog);
	free(l->requests);
	buf_fini(&l->text);
	samples_fini(&l->samples);
	samples_fini(&l->apart);
}

static int parse_rate(const char *text, double *ret_rate)
{
	int64_t thousandths;
	int r = str_seconds_to_ms(text, 1000000000, &thousandths);

	if (r == 0)
		*ret_rate = (double)thousandths / 1e3;
	return r;
}

static int parse_text(struct options *o, const char *name, const char *value)
{
	static const struct {
		const char *name;
		size_t offset;
	} texts[] = {
		{"--host", offsetof(struct options, host)},
		{"--method", offsetof(struct options, method)},
		{"--path", offsetof(struct options, path)},
		{"--body", offsetof(struct options, body)},
		{"--gets", offsetof(struct options, gets)},
		{"--expect", offsetof(struct options, expect)},
		{"--output", offsetof(struct options, output)},
		{"--unique", offsetof(struct options, unique)},
		{"--apart", offsetof(struct options, apart)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (str_eq(name, texts[i].name)) {
			*(const char **)((char *)o + texts[i].offset) = value;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_one(struct options *o, const char *name, const char *value)
{
	if (str_eq(name, "--port"))
		return o->n_ports < PORTS_MAX ? str_to_u64(value, 1, 65535, &o->ports[o->n_ports++])
					      : -E2BIG;
	if (str_eq(name, "--header")) {
		if (o->n_headers == HEADERS_MAX)
			return -E2BIG;
		o->headers[o->n_headers++] = value;
		return 0;
	}
	if (str_eq(name, "--clients"))
		return str_to_u64(value, 1, CLIENTS_MAX, &o->clients);
	if (str_eq(name, "--requests"))
		return str_to_u64(value, 1, UINT32_MAX, &o->requests);
	if (str_eq(name, "--status"))
		return str_to_u64(value, 100, 599, &o->status);
	if (str_eq(name, "--seconds"))
		return str_seconds_to_ms(value, 86400000, &o->ms);
	if (str_eq(name, "--rate"))
		return parse_rate(value, &o->rate);
	return parse_text(o, name, value);
}

static bool options_fit(const struct options *o)
{
	return o->n_ports > 0 && !o->body != !o->gets && (!o->output || o->expect) &&
	       !(o->unique && o->gets);
}

static void print_figures(struct load *l)
{
	double seconds = (double)(now_ns() - l->begin_ns) / 1e9;

	(void)printf("{\"seconds\": %.3f, \"rps\": %.2f, \"errors\": %llu, \"dropped\": %llu, "
		     "\"first_error\": \"%s\", ",
		     seconds, (double)l->samples.n / seconds, (unsigned long long)l->errors,
		     (unsigned long long)l->dropped, l->first_error);
	samples_print(&l->samples, stdout);
	if (l->o.apart) {
		(void)printf(", \"apart\": {");
		samples_print(&l->apart, stdout);
		(void)printf("}");
	}
	(void)printf("}\n");
}

int main(int argc, char **argv)
{
	struct load l = {
		.o = {.clients = 1,
		      .ms = 10000,
		      .status = 200,
		      .host = "127.0.0.1",
		      .method = "POST",
		      .path = "/submit?wait=60"},
		.epoll_fd = -EBADF,
		.timer_fd = -EBADF,
		.random = 0x9e3779b97f4a7c15ULL,
	};
	int r = argc % 2 == 1 ? 0 : -EINVAL;

	for (int i = 1; r == 0 && i < argc; i += 2)
		r = parse_one(&l.o, argv[i], argv[i + 1]);
	if (r < 0 || !options_fit(&l.o) || inet_pton(AF_INET, l.o.host, &l.address) != 1) {
		(void)fputs("usage: load --port N... (--body FILE [--path PATH] | --gets FILE) "
			    "[--clients N] [--seconds S] [--requests N] [--rate R] "
			    "[--status CODE] [--expect TEXT [--output POINTER]] [--unique TEXT] "
			    "[--apart TEXT] [--host IPV4] [--method NAME] [--header LINE]...\n",
			    stderr);
		return 2;
	}
	r = make_requests(&l);
	if (r == 0)
		r = open_all(&l);
	if (r == 0)
		r = run(&l);
	if (r == 0)
		print_figures(&l);
	close_all(&l);
	return r < 0 ? 1 : 0;
}
