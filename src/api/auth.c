/* SPDX-License-Identifier: Apache-2.0 */
#include "api/auth.h"

#include "api/private.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"
#include "crypto/digest.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	REFRESH_MS = AUTH_FRESH_MS / 2,
	WATCH_MS = AUTH_FRESH_MS - 1000, /* and a second for the answer */
	KEY_MAX = 256,
	SMALL_BODY = 64 * 1024, /* what is read for somebody who may turn out to be unknown */
};

/* Somebody who came while the list was too old. */
struct pending {
	struct list link;
	struct http_request *request;
};

struct auth {
	struct api *api;
	bool needed; /* never false again */
	uv_timer_t watch;
	struct store_key_list query;
	bool reading, failed;
	int64_t asked_us, read_us; /* monotonic times of the last question and answer, 0: none */
	struct store_key *keys;
	size_t n;
	struct list pending;
};

int auth_new(struct api *a, bool needed, struct auth **ret_auth)
{
	struct auth *auth = calloc(1, sizeof *auth);

	if (!auth)
		return -ENOMEM;
	auth->api = a;
	auth->needed = needed;
	list_init(&auth->pending);
	*ret_auth = auth;
	return 0;
}

void auth_free(struct auth *auth)
{
	if (!auth)
		return;
	free(auth->keys);
	free(auth);
}

static int64_t ms_since(int64_t then_us)
{
	return then_us ? (clock_monotonic_us() - then_us) / 1000 : INT64_MAX;
}

/* Every key is looked at, whichever fits: how long it takes tells nothing. */
static const struct store_key *find_key(const struct auth *auth, const char *text, size_t len)
{
	const struct store_key *found = NULL;
	uint8_t hash[DIGEST_SIZE];

	if (digest_bytes(text, len, hash) < 0)
		return NULL;
	for (size_t i = 0; i < auth->n; i++) {
		bool fits = digest_eq(auth->keys[i].hash, hash, sizeof hash);

		if (fits && !auth->keys[i].revoked_us)
			found = &auth->keys[i];
	}
	return found;
}

static int refuse(struct http_request *r, const char *detail)
{
	problem_send(r, PROBLEM_UNAUTHORIZED, "%s", detail);
	return -EACCES;
}

/* The key inside the header, or NULL. */
static const char *presented_key(struct http_request *r)
{
	static const char scheme[] = "Bearer ";
	const char *value = http_header(r, HTTP_AUTHORIZATION);

	if (!value || strncasecmp(value, scheme, strlen(scheme)) != 0)
		return NULL;
	value += strlen(scheme);
	return *value && strnlen(value, KEY_MAX) < KEY_MAX ? value : NULL;
}

static const struct store_key *key_of(struct auth *auth, struct http_request *r)
{
	const char *text = presented_key(r);

	return find_key(auth, text, strlen(text));
}

/* NULL: refuses. */
static int take_key(struct http_request *r, const struct store_key *key)
{
	if (!key)
		return refuse(r, "the API key is not in force");
	http_set_tenant(r, key->tenant);
	return 1;
}

/* A revoked key counts too: who had one in force relied on it. */
static void lock(struct auth *auth)
{
	if (auth->needed || !auth->n)
		return;
	auth->needed = true;
	(void)uv_timer_stop(&auth->watch);
	log_info("api", "there is a key: keys are needed from now on");
}

static void keep(struct auth *auth, int code)
{
	/* Looked for in vain every few seconds: said once. */
	if (code < 0 && !auth->failed)
		log_error("api", "could not read the API keys", LOG_STR("error", err_text(code)));
	auth->failed = code < 0;
	if (code < 0)
		return;
	free(auth->keys);
	auth->keys = TAKE_PTR(auth->query.keys);
	auth->n = auth->query.n;
	auth->read_us = clock_monotonic_us();
	lock(auth);
}

static void on_keys(struct store_req *req, int code)
{
	struct auth *auth = req->ctx;
	struct pending *p, *tmp;

	auth->reading = false;
	keep(auth, code);
	LIST_FOREACH_SAFE (p, tmp, &auth->pending, link) {
		struct http_request *r = p->request;

		list_unlink(&p->link);
		free(p);
		if (code < 0)
			api_reply_failure(auth->api, r, code, "read the API keys");
		else if (take_key(r, key_of(auth, r)) > 0)
			http_go_on(r);
	}
	api_end_operation(auth->api);
}

static void refresh(struct auth *auth)
{
	if (auth->reading)
		return;
	auth->reading = true;
	auth->asked_us = clock_monotonic_us();
	auth->query = (struct store_key_list){.req = {.done = on_keys, .ctx = auth}};
	api_begin_operation(auth->api);
	store_key_list(auth->api->cfg.store, &auth->query);
}

/* Whether a key that is not in the list may have been added since: it is being read again then. Who
 * has no key can bring about no more of this than AUTH_AGAIN_MS allows, and none of it adds up. */
static bool look_again(struct auth *auth)
{
	if (!auth->reading && ms_since(auth->asked_us) < AUTH_AGAIN_MS)
		return false;
	refresh(auth);
	return true;
}

static bool has_small_body(struct http_request *r)
{
	const char *length = http_header(r, HTTP_CONTENT_LENGTH);
	uint64_t n;

	return !http_header(r, HTTP_TRANSFER_ENCODING) &&
	       (!length || str_to_u64(length, 0, SMALL_BODY, &n) == 0);
}

static void on_watch(uv_timer_t *timer)
{
	refresh(timer->data);
}

void auth_start(struct auth *auth)
{
	api_begin_operation(auth->api);
	(void)uv_timer_init(auth->api->loop, &auth->watch);
	auth->watch.data = auth;
	if (!auth->needed)
		(void)uv_timer_start(&auth->watch, on_watch, WATCH_MS, WATCH_MS);
}

static void on_watch_closed(uv_handle_t *handle)
{
	api_end_operation(((struct auth *)handle->data)->api);
}

void auth_stop(struct auth *auth)
{
	uv_close((uv_handle_t *)&auth->watch, on_watch_closed);
}

int auth_recognise(struct http_request *r, void *ctx)
{
	struct auth *auth = ((struct api *)ctx)->auth;
	int64_t age_ms = ms_since(auth->read_us);
	const struct store_key *key;

	if (!auth->needed)
		return 1;
	if (!presented_key(r))
		return refuse(r, "send \"Authorization: Bearer KEY\"");
	if (age_ms >= REFRESH_MS)
		refresh(auth);
	if (age_ms >= AUTH_FRESH_MS)
		return 0;
	key = key_of(auth, r);
	if (!key && look_again(auth) && has_small_body(r))
		return 0;
	return take_key(r, key);
}

static void wait_for_keys(struct auth *auth, struct http_request *r)
{
	struct pending *p = calloc(1, sizeof *p);

	if (!p) {
		api_reply_failure(auth->api, r, -ENOMEM, "read the API keys");
		return;
	}
	p->request = r;
	list_push_back(&auth->pending, &p->link);
	refresh(auth);
}

void auth_admit(struct http_request *r, void *ctx)
{
	struct auth *auth = ((struct api *)ctx)->auth;
	bool fresh = ms_since(auth->read_us) < AUTH_FRESH_MS;
	const struct store_key *key = fresh ? key_of(auth, r) : NULL;

	if (!key && (!fresh || look_again(auth)))
		wait_for_keys(auth, r);
	else if (take_key(r, key) > 0)
		http_go_on(r);
}
