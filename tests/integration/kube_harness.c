/* SPDX-License-Identifier: Apache-2.0 */
#include "kube_harness.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "pods/kube/client.h"
#include "json/writer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *harness_word(char **line)
{
	char *word = *line;
	size_t len = strcspn(word, " ");

	*line = word + len + (word[len] != '\0');
	word[len] = '\0';
	return word;
}

const char *harness_quote(const char *text)
{
	static struct buf ring[4];
	static size_t at;
	struct buf *b = &ring[at++ % ARRAY_SIZE(ring)];
	struct json_writer w;

	buf_fini(b);
	buf_init(b, 65536);
	json_writer_init(&w, b);
	json_write_text(&w, text);
	return b->data;
}

void harness_say(const char *event, const char *fmt, ...)
{
	va_list ap;

	(void)printf("{\"event\":\"%s\",\"ms\":%lld", event,
		     (long long)(clock_monotonic_us() / 1000));
	va_start(ap, fmt);
	(void)vprintf(fmt, ap);
	va_end(ap);
	(void)puts("}");
	(void)fflush(stdout);
}

/* ---- calls: "METHOD PATH [BODY]" each ---- */

struct calls {
	struct kube_client *client;
	struct list all;
};

struct one {
	struct list link;
	struct kube_call call;
	int64_t begun_ms;
};

static void on_done(struct kube_call *c, int code)
{
	struct one *one = container_of(c, struct one, call);

	harness_say("done",
		    ",\"code\":%d,\"status\":%d,\"tries\":%u,\"took\":%lld,\"len\":%zu,"
		    "\"error\":%s",
		    code, c->request.status, c->tries,
		    (long long)(clock_monotonic_us() / 1000 - one->begun_ms), c->request.answer.len,
		    harness_quote(code < 0 ? c->request.error.msg : ""));
	list_unlink(&one->link);
	free(one);
}

static const char *method_of(const char *word)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (str_eq(methods[i], word))
			return methods[i];
	return "GET";
}

static void calls_command(struct harness *h, char *line)
{
	struct calls *m = h->mode;
	struct one *one = calloc(1, sizeof *one);
	const char *path;

	if (!one)
		abort();
	list_init(&one->link);
	list_push_back(&m->all, &one->link);
	one->begun_ms = clock_monotonic_us() / 1000;
	one->call.verb = "test";
	one->call.method = method_of(harness_word(&line));
	one->call.timeout_ms = 1000;
	one->call.answer_max = 4096;
	one->call.done = on_done;
	path = harness_word(&line);
	if (kube_call(m->client, &one->call, path, *line ? line : NULL) < 0)
		abort();
}

static void calls_end(struct harness *h)
{
	struct calls *m = h->mode;

	struct one *one, *tmp;

	kube_client_close(m->client, NULL, NULL);
	LIST_FOREACH_SAFE (one, tmp, &m->all, link)
		free(one);
	free(m);
}

int harness_calls(struct harness *h, int argc, char **argv)
{
	struct calls *m = calloc(1, sizeof *m);
	struct kube_access access;
	struct err e = {""};

	if (!m || argc != 1 || kube_access_parse(argv[0], NULL, NULL, &access, &e) < 0 ||
	    kube_client_new(&h->loop, &access, &m->client, &e) < 0) {
		(void)fprintf(stderr, "calls REST-OF-URL: %s\n", e.msg);
		free(m);
		return -1;
	}
	list_init(&m->all);
	h->mode = m;
	h->command = calls_command;
	h->end = calls_end;
	return 0;
}

/* ---- the program ---- */

static int on_line(void *ctx, const char *text, size_t len)
{
	struct harness *h = ctx;
	char *copy = strndup(text, len);

	if (!copy)
		abort();
	h->command(h, copy);
	free(copy);
	return 0;
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	struct harness *h = handle->data;

	(void)size;
	*buf = uv_buf_init(h->chunk, sizeof h->chunk);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct harness *h = stream->data;

	if (n > 0 && kube_lines_feed(&h->lines, buf->base, (size_t)n, on_line, h) < 0)
		abort();
	if (n >= 0)
		return;
	h->end(h);
	uv_close((uv_handle_t *)stream, NULL);
}

int main(int argc, char **argv)
{
	struct harness h = {.mode = NULL};
	int r = -1;

	(void)sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
	(void)uv_loop_init(&h.loop);
	kube_lines_init(&h.lines, 1024 * 1024);
	if (argc > 1 && str_eq(argv[1], "calls"))
		r = harness_calls(&h, argc - 2, argv + 2);
	if (argc > 1 && str_eq(argv[1], "reflect"))
		r = harness_reflect(&h, argc - 2, argv + 2);
	if (argc > 1 && str_eq(argv[1], "pods"))
		r = harness_pods(&h, argc - 2, argv + 2);
	if (r < 0) {
		(void)uv_run(&h.loop, UV_RUN_DEFAULT);
		return 2;
	}
	(void)uv_pipe_init(&h.loop, &h.input, 0);
	h.input.data = &h;
	(void)uv_pipe_open(&h.input, 0);
	(void)uv_read_start((uv_stream_t *)&h.input, on_alloc, on_read);
	harness_say("ready", "%s", "");
	(void)uv_run(&h.loop, UV_RUN_DEFAULT);
	kube_lines_fini(&h.lines);
	for (int i = 0; i < 4; i++)
		(void)harness_quote("");
	if (uv_loop_close(&h.loop) != 0) {
		(void)fprintf(stderr, "something is left on the loop\n");
		return 3;
	}
	return 0;
}
