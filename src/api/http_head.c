/* SPDX-License-Identifier: Apache-2.0 */
#include "api/http_private.h"
#include "api/problem.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const header_names[_HTTP_HEADER_MAX] = {
	[HTTP_HOST] = "Host",
	[HTTP_ORIGIN] = "Origin",
	[HTTP_SEC_FETCH_SITE] = "Sec-Fetch-Site",
	[HTTP_SEC_FETCH_MODE] = "Sec-Fetch-Mode",
	[HTTP_AUTHORIZATION] = "Authorization",
	[HTTP_CONTENT_TYPE] = "Content-Type",
	[HTTP_CONTENT_LENGTH] = "Content-Length",
	[HTTP_TRANSFER_ENCODING] = "Transfer-Encoding",
	[HTTP_EXPECT] = "Expect",
	[HTTP_IDEMPOTENCY_KEY] = "Idempotency-Key",
	[HTTP_TRACEPARENT] = "traceparent",
};

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *name,
				 size_t name_len, const char *value, size_t len)
{
	struct http_request *r = cls;

	(void)kind;
	(void)name_len;
	for (size_t i = 0; i < _HTTP_HEADER_MAX; i++) {
		if (strcasecmp(name, header_names[i]) != 0)
			continue;
		if (r->headers[i] || !value || strlen(value) != len)
			r->repeated = header_names[i];
		r->headers[i] = value ? value : "";
		break;
	}
	return MHD_YES;
}

static enum MHD_Result on_param(void *cls, enum MHD_ValueKind kind, const char *name,
				size_t name_len, const char *value, size_t len)
{
	struct http_request *r = cls;

	(void)kind;
	if (r->n_query == HTTP_QUERY_MAX) {
		r->too_many_params = true;
		return MHD_NO;
	}
	/* A decoded NUL would hide what follows it. */
	if (strlen(name) != name_len || (value && strlen(value) != len))
		r->too_many_params = true;
	r->query[r->n_query++] = (struct http_param){.name = name, .value = value};
	return MHD_YES;
}

void http_target_read(struct http_target *ret_target, const char *text)
{
	static const char *const schemes[] = {"http://", "https://"};
	size_t path_len = strcspn(text, "?"), scheme = 0, len;
	const char *zero = strstr(text, "%00");

	*ret_target = (struct http_target){.bad = NULL};
	/* Decoded, a NUL would hide what follows it. That of the query is seen by on_param. */
	if (zero && zero < text + path_len)
		ret_target->bad = "the path holds a NUL";
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (strncasecmp(text, schemes[i], strlen(schemes[i])) == 0)
			scheme = strlen(schemes[i]);
	if (!scheme)
		return;
	len = strcspn(text + scheme, "/?#");
	if (!len || len >= HTTP_AUTHORITY_MAX || text[scheme] == ':' ||
	    strcspn(text + scheme, "@%\\") < len) {
		ret_target->bad = "the host in the request target is not one";
		return;
	}
	memcpy(ret_target->authority, text + scheme, len);
	ret_target->path_at = scheme + len;
}

/* What two readers of the same bytes could understand differently is refused. */
static void check_framing(struct http_request *r, const char *version)
{
	const char *length = r->headers[HTTP_CONTENT_LENGTH];
	const char *encoding = r->headers[HTTP_TRANSFER_ENCODING];

	r->chunked = encoding != NULL;
	if (r->repeated) {
		problem_send(r, PROBLEM_BAD_REQUEST, "%s is given twice or holds a NUL",
			     r->repeated);
		http_reply_last(r);
	} else if (length && encoding) {
		problem_send(r, PROBLEM_BAD_REQUEST,
			     "Content-Length and Transfer-Encoding exclude each other");
		http_reply_last(r);
	} else if (encoding &&
		   (strcasecmp(encoding, "chunked") != 0 || str_eq(version, "HTTP/1.0"))) {
		problem_send(r, PROBLEM_BAD_REQUEST,
			     "the only Transfer-Encoding is chunked, from HTTP/1.1 on");
		http_reply_last(r);
	} else if (length && str_to_u64(length, 0, INT64_MAX, &r->length) < 0) {
		problem_send(r, PROBLEM_BAD_REQUEST, "Content-Length is not a number");
		http_reply_last(r);
	} else if (!r->headers[HTTP_HOST] && !str_eq(version, "HTTP/1.0")) {
		problem_send(r, PROBLEM_BAD_REQUEST, "the Host header is missing");
		http_reply_last(r);
	}
}

/* True where the path is the pattern's; *ret_arg is then what stands for the braces: all of the
 * rest, so that an id with a slash in it is answered as the bad id that it is. */
static bool pattern_matches(const char *pattern, const char *path, const char **ret_arg)
{
	const char *brace = strchr(pattern, '{');
	size_t fixed;

	*ret_arg = "";
	if (!brace)
		return str_eq(pattern, path);
	fixed = (size_t)(brace - pattern);
	if (strncmp(pattern, path, fixed) != 0)
		return false;
	*ret_arg = path + fixed;
	return true;
}

static const struct {
	const char *text;
	const char *allow;
	enum http_method method;
} methods[] = {
	{"GET", "GET, HEAD", HTTP_GET},
	{"HEAD", NULL, HTTP_GET},
	{"POST", "POST", HTTP_POST},
	{"DELETE", "DELETE", HTTP_DELETE},
};

static bool method_is(const char *text, enum http_method method)
{
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (methods[i].method == method && str_eq(methods[i].text, text))
			return true;
	return false;
}

static void refuse_method(struct http_request *r, const char *method, unsigned allowed)
{
	char list[64] = "";
	size_t len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (!methods[i].allow || !(allowed & 1u << methods[i].method))
			continue;
		len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", len ? ", " : "",
					methods[i].allow);
	}
	problem_send(r, PROBLEM_METHOD_NOT_ALLOWED, "%.32s is not allowed here, but %s", method,
		     list);
	http_reply_header(r, "Allow", list);
}

static void find_route(struct http_request *r, const char *url, const char *method)
{
	const struct http_config *cfg = &r->server->cfg;
	const char *path = url, *arg;
	unsigned allowed = 0;

	if (str_has_prefix(url, "/v1/"))
		path = url + strlen("/v1");
	for (size_t i = 0; i < cfg->n_routes; i++) {
		const struct http_route *route = &cfg->routes[i];

		if (!pattern_matches(route->pattern, path, &arg))
			continue;
		if (method_is(method, route->method)) {
			r->route = route;
			r->path_arg = arg;
			return;
		}
		allowed |= 1u << route->method;
	}
	if (allowed)
		refuse_method(r, method, allowed);
	else
		problem_send(r, PROBLEM_NOT_FOUND, "there is nothing at this path");
}

static bool knows_param(const struct http_route *route, const char *name)
{
	for (const char *const *p = route->query; p && *p; p++)
		if (str_eq(*p, name))
			return true;
	return false;
}

static void check_query(struct http_request *r)
{
	if (r->too_many_params) {
		problem_send(r, PROBLEM_INVALID_PARAMETER,
			     "the query holds more than this call knows");
		return;
	}
	for (size_t i = 0; i < r->n_query; i++) {
		const char *name = r->query[i].name;

		if (!knows_param(r->route, name)) {
			problem_send(r, PROBLEM_INVALID_PARAMETER,
				     "\"%.100s\" is not a parameter of this call", name);
			return;
		}
		for (size_t k = 0; k < i; k++) {
			if (!str_eq(r->query[k].name, name))
				continue;
			problem_send(r, PROBLEM_INVALID_PARAMETER, "\"%s\" is given twice", name);
			return;
		}
	}
}

static bool is_json(const char *type)
{
	static const char json[] = "application/json";

	if (!type || strncasecmp(type, json, strlen(json)) != 0)
		return false;
	type += strlen(json);
	return *type == '\0' || *type == ';' || *type == ' ' || *type == '\t';
}

static void check_body(struct http_request *r)
{
	size_t max = r->server->cfg.body_max_bytes;

	if (!r->route->body) {
		if (r->length || r->chunked)
			problem_send(r, PROBLEM_BAD_REQUEST, "this call takes no body");
		return;
	}
	if (!is_json(r->headers[HTTP_CONTENT_TYPE])) {
		problem_send(r, PROBLEM_UNSUPPORTED_MEDIA_TYPE,
			     "the body needs \"Content-Type: application/json\"");
		return;
	}
	if (r->length > max) {
		struct problem p;

		(void)problem_set(&p, PROBLEM_BODY_TOO_LARGE,
				  "the body has %llu bytes, at most %zu are taken",
				  (unsigned long long)r->length, max);
		p.ceiling = (int64_t)max;
		problem_reply(r, &p);
	}
}

/* After the framing, which needs the Host that was sent also where it does not count. */
static void apply_target(struct http_request *r, const struct http_target *t, const char **url)
{
	if (t->bad) {
		problem_send(r, PROBLEM_BAD_REQUEST, "%s", t->bad);
		return;
	}
	if (!t->authority[0])
		return;
	r->headers[HTTP_HOST] = t->authority;
	*url += t->path_at;
	if (!**url)
		*url = "/";
}

void http_head_read(struct http_request *r, const struct http_target *target, const char *url,
		    const char *method, const char *version)
{
	const struct http_config *cfg = &r->server->cfg;

	(void)MHD_get_connection_values_n(r->connection, MHD_HEADER_KIND, on_header, r);
	(void)MHD_get_connection_values_n(r->connection, MHD_GET_ARGUMENT_KIND, on_param, r);
	check_framing(r, version);
	if (!r->response)
		apply_target(r, target, &url);
	if (!r->response && cfg->guard)
		cfg->guard(r, cfg->ctx);
	if (!r->response)
		find_route(r, url, method);
	if (!r->response) {
		r->admitted = r->route->open || !cfg->recognise;
		if (!r->admitted)
			r->admitted = cfg->recognise(r, cfg->ctx) > 0;
	}
	if (!r->response)
		check_query(r);
	if (!r->response)
		check_body(r);
}
