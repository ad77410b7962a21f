/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/client.h"

#include "base/fs.h"
#include "base/str.h"
#include "base/url.h"
#include "cmd/cmd.h"
#include "config/config.h"
#include "loop/backoff.h"
#include "json/reader.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

enum {
	ANSWER_MAX = 64 * 1024 * 1024,
	KEY_FILE_MAX = 4096,
	CONNECT_TIMEOUT_S = 10,
	CALL_TIMEOUT_S = 120, /* longer than the longest ?wait= */
	TRIES = 8,	      /* some ten seconds */
	STEP_MS = 1000,
};

static const char default_server[] = "http://127.0.0.1:8080";

struct client {
	char *server;		   /* without a slash at its end */
	char shown[URL_SHOWN_MAX]; /* of it: what may be told */
	char *key;		   /* or NULL */
	CURLM *multi;		   /* keeps the connections */
	CURL *curl;
	struct interrupt *interrupt; /* or NULL */
	bool reached;		     /* the server has answered before: it is worth waiting for */
};

static int read_key(const struct client_options *o, char **ret_key, struct err *e)
{
	const char *from_env = config_env("KILN_API_KEY");
	struct buf b;
	int r;

	if (!o->key_file) {
		*ret_key = from_env ? strdup(from_env) : NULL;
		return 0;
	}
	buf_init(&b, KEY_FILE_MAX);
	r = fs_read_file(AT_FDCWD, o->key_file, &b, e);
	if (r >= 0) {
		*ret_key = strndup(b.data, strcspn(b.data, "\r\n"));
		r = *ret_key ? 0 : err_errno(e, -ENOMEM, "could not read the key");
	}
	buf_fini(&b);
	return r;
}

int client_new(const struct client_options *o, struct client **ret_client, struct err *e)
{
	AUTO(client_free) struct client *c = calloc(1, sizeof *c);
	const char *server = o->server ? o->server : config_env("KILN_SERVER");
	int r;

	if (!c)
		return err_errno(e, -ENOMEM, "could not start a client");
	if (!server)
		server = default_server;
	(void)url_show(server, c->shown, sizeof c->shown);
	if (!str_has_prefix(server, "http://") && !str_has_prefix(server, "https://"))
		return err_set(e, -EINVAL, "\"%s\" is no address of a server: http://HOST:PORT",
			       c->shown);
	if (!(c->server = strdup(server)) || !(c->multi = curl_multi_init()) ||
	    !(c->curl = curl_easy_init()))
		return err_errno(e, -ENOMEM, "could not start a client");
	while (c->server[0] && c->server[strlen(c->server) - 1] == '/')
		c->server[strlen(c->server) - 1] = '\0';
	r = read_key(o, &c->key, e);
	if (r < 0)
		return r;
	*ret_client = TAKE_PTR(c);
	return 0;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	if (c->curl)
		curl_easy_cleanup(c->curl);
	if (c->multi)
		(void)curl_multi_cleanup(c->multi);
	free(c->server);
	free(c->key);
	free(c);
}

void client_set_interrupt(struct client *c, struct interrupt *i)
{
	c->interrupt = i;
}

static bool is_interrupted(struct client *c)
{
	return c->interrupt && interrupt_reached(c->interrupt);
}

/* Waits, but not longer than until there are enough signals. */
static void wait_between_tries(struct client *c, int ms)
{
	struct pollfd p = {.fd = c->interrupt ? c->interrupt->fd : -1, .events = POLLIN};

	(void)poll(&p, 1, ms);
}

static size_t on_body(char *bytes, size_t size, size_t n, void *ctx)
{
	struct buf *b = ctx;

	return buf_append(b, bytes, size * n) < 0 ? 0 : size * n;
}

static int add_header(struct curl_slist **list, const char *name, const char *value)
{
	AUTO_FREE char *line = NULL;
	struct curl_slist *longer;

	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return -ENOMEM;
	}
	longer = curl_slist_append(*list, line);
	if (!longer)
		return -ENOMEM;
	*list = longer;
	return 0;
}

static int make_headers(const struct client *c, const char *body, const char *idempotency_key,
			struct curl_slist **list)
{
	int r = 0;

	if (body)
		r = add_header(list, "Content-Type", "application/json");
	/* curl would wait for "100 Continue" before a larger body. */
	if (r >= 0 && body)
		r = add_header(list, "Expect", "");
	if (r >= 0 && idempotency_key)
		r = add_header(list, "Idempotency-Key", idempotency_key);
	if (r >= 0 && c->key) {
		AUTO_FREE char *bearer = NULL;

		if (asprintf(&bearer, "Bearer %s", c->key) < 0) {
			bearer = NULL;
			return -ENOMEM;
		}
		r = add_header(list, "Authorization", bearer);
	}
	return r;
}

/* curl_easy_perform that can be interrupted: CURLE_ABORTED_BY_CALLBACK then. */
static CURLcode transfer(struct client *c)
{
	struct curl_waitfd more = {.fd = c->interrupt ? c->interrupt->fd : -1,
				   .events = CURL_WAIT_POLLIN};
	CURLcode code = CURLE_ABORTED_BY_CALLBACK;
	int running = 1, left = 0;
	const CURLMsg *m;

	if (curl_multi_add_handle(c->multi, c->curl) != CURLM_OK)
		return CURLE_OUT_OF_MEMORY;
	while (running && !is_interrupted(c)) {
		if (curl_multi_perform(c->multi, &running) != CURLM_OK ||
		    (running && curl_multi_poll(c->multi, &more, c->interrupt ? 1 : 0, STEP_MS,
						NULL) != CURLM_OK)) {
			code = CURLE_OUT_OF_MEMORY;
			break;
		}
	}
	while ((m = curl_multi_info_read(c->multi, &left)))
		if (m->msg == CURLMSG_DONE)
			code = m->data.result;
	(void)curl_multi_remove_handle(c->multi, c->curl);
	return code;
}

static CURLcode perform(struct client *c, const char *method, const char *url, const char *body,
			struct curl_slist *headers, struct client_answer *answer)
{
	CURL *h = c->curl;
	CURLcode code;

	curl_easy_reset(h);
	buf_clear(&answer->body);
	(void)curl_easy_setopt(h, CURLOPT_URL, url);
	(void)curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
	(void)curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
	(void)curl_easy_setopt(h, CURLOPT_TIMEOUT, (long)CALL_TIMEOUT_S);
	(void)curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(h, CURLOPT_WRITEDATA, &answer->body);
	(void)curl_easy_setopt(h, CURLOPT_USERAGENT, "kiln/" KILN_VERSION);
	if (body) {
		(void)curl_easy_setopt(h, CURLOPT_POSTFIELDS, body);
		(void)curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
	}
	code = transfer(c);
	if (code == CURLE_OK)
		(void)curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &answer->status);
	return code;
}

static int tell(const struct client *c, CURLcode code, struct err *e)
{
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		return err_set(e, -ECONNREFUSED,
			       "no server at %s: start one with `kiln serve`, or name one with "
			       "--server or KILN_SERVER",
			       c->shown);
	case CURLE_COULDNT_RESOLVE_HOST:
		return err_set(e, -ECONNREFUSED, "could not find the host of %s", c->shown);
	case CURLE_WRITE_ERROR:
		return err_set(e, -EFBIG, "the answer of %s is too large", c->shown);
	case CURLE_ABORTED_BY_CALLBACK:
		return err_set(e, -EINTR, "interrupted");
	case CURLE_OUT_OF_MEMORY:
		return err_set(e, -ENOMEM, "could not ask %s: out of memory", c->shown);
	default:
		return err_set(e, -EIO, "could not ask %s: %s", c->shown, curl_easy_strerror(code));
	}
}

static bool worth_another_try(const struct client *c, CURLcode code)
{
	return code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR ||
	       code == CURLE_PARTIAL_FILE || (code == CURLE_COULDNT_CONNECT && c->reached);
}

int client_call(struct client *c, const char *method, const char *path, const char *body,
		const char *idempotency_key, struct client_answer *answer, struct err *e)
{
	AUTO_FREE char *url = NULL;
	struct curl_slist *headers = NULL;
	struct backoff wait;
	CURLcode code = CURLE_OUT_OF_MEMORY;

	if (asprintf(&url, "%s%s", c->server, path) < 0)
		url = NULL;
	backoff_init(&wait, 100, 2000);
	if (url && make_headers(c, body, idempotency_key, &headers) >= 0) {
		for (int tries = 0; tries < TRIES; tries++) {
			code = perform(c, method, url, body, headers, answer);
			if (code == CURLE_OK)
				c->reached = true;
			if (!worth_another_try(c, code))
				break;
			wait_between_tries(c, (int)backoff_next_ms(&wait));
		}
	}
	curl_slist_free_all(headers);
	return code == CURLE_OK ? 0 : tell(c, code, e);
}

/* RFC 9457: what the server says of this case, else of all such, and a near name where it tells
 * one. */
static int tell_problem(const struct client *c, long status, const json_t *problem, struct err *e)
{
	const char *title = json_string_value(json_object_get(problem, "title"));
	const char *detail = json_string_value(json_object_get(problem, "detail"));
	const json_t *near = json_object_get(problem, "near");
	const char *first = json_string_value(json_array_get(near, 0));

	if (!title && !detail)
		return err_set(e, -EPROTO, "%s answered with status %ld: is it a Kiln server?",
			       c->shown, status);
	if (status == 401)
		return err_set(e, -EACCES, "%s (name a key with --key-file or KILN_API_KEY)",
			       detail ? detail : title);
	return err_set(e, -EPROTO, "%s%s%s%s", detail ? detail : title,
		       first ? " (did you mean \"" : "", first ? first : "", first ? "\"?)" : "");
}

int client_json(struct client *c, const char *method, const char *path, const char *body,
		const char *idempotency_key, json_t **ret_object, struct buf *ret_text,
		struct err *e)
{
	static const struct json_bounds bounds = {.depth = 16, .values = 1000000};
	struct client_answer answer = {0};
	AUTO(json_cleanup) json_t *object = NULL;
	int r;

	buf_init(&answer.body, ANSWER_MAX);
	r = client_call(c, method, path, body, idempotency_key, &answer, e);
	if (r >= 0 && (json_decode(answer.body.data, answer.body.len, &bounds, &object, NULL) < 0 ||
		       !json_is_object(object)))
		r = tell_problem(c, answer.status, NULL, e);
	if (r >= 0 && (answer.status < 200 || answer.status > 299))
		r = tell_problem(c, answer.status, object, e);
	if (r >= 0 && ret_text && buf_append(ret_text, answer.body.data, answer.body.len) < 0)
		r = err_errno(e, -ENOMEM, "could not read the answer");
	buf_fini(&answer.body);
	if (r < 0)
		return r;
	*ret_object = TAKE_PTR(object);
	return (int)answer.status;
}

int client_exit_status(int code)
{
	if (code == -EINVAL)
		return EXIT_WRONG_USE;
	return code == -ECONNREFUSED || code == -EIO ? EXIT_NO_SERVER : EXIT_FAILED;
}
