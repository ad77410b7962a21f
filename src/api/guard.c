/* SPDX-License-Identifier: Apache-2.0 */
#include "api/private.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

enum { HOST_MAX = 256 };

/* The host of "host", "host:port", "[v6]" or "[v6]:port", without brackets. */
static bool host_of(const char *authority, char dst[HOST_MAX])
{
	const char *start = authority, *end = authority + strcspn(authority, ":");

	if (*authority == '[') {
		start = authority + 1;
		end = strchr(start, ']');
		if (!end || (end[1] && end[1] != ':'))
			return false;
	}
	if (end == start || (size_t)(end - start) >= HOST_MAX)
		return false;
	memcpy(dst, start, (size_t)(end - start));
	dst[end - start] = '\0';
	return true;
}

static bool is_loopback_name(const char *host)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (strcasecmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool is_extra_host(const struct api *a, const char *host)
{
	for (const char *const *h = a->cfg.hosts; h && *h; h++)
		if (strcasecmp(*h, host) == 0)
			return true;
	return false;
}

/* A name that resolves to loopback but is not ours is how a web page would come in ("DNS
 * rebinding"). Where others may reach the server its names are not known to it. */
static bool host_is_ours(const struct api *a, const char *authority)
{
	char host[HOST_MAX];

	if (!a->loopback)
		return true;
	return authority && host_of(authority, host) &&
	       (is_loopback_name(host) || is_extra_host(a, host));
}

static bool origin_is_ours(const struct api *a, const char *origin, const char *authority)
{
	char host[HOST_MAX];
	const char *rest = strstr(origin, "://");

	if (!rest)
		return false; /* "null" among others */
	rest += 3;
	return (authority && strcasecmp(rest, authority) == 0) ||
	       (host_of(rest, host) && is_extra_host(a, host));
}

/* Requests for images, scripts and the like carry no Origin, but browsers mark them. Following a
 * link to us is no attack. */
static bool is_cross_site(struct http_request *r)
{
	const char *site = http_header(r, HTTP_SEC_FETCH_SITE);
	const char *mode = http_header(r, HTTP_SEC_FETCH_MODE);

	return site && str_eq(site, "cross-site") && !(mode && str_eq(mode, "navigate"));
}

void guard_check(struct http_request *r, void *ctx)
{
	const char *authority = http_header(r, HTTP_HOST);
	const char *origin = http_header(r, HTTP_ORIGIN);
	const struct api *a = ctx;

	if (authority && !host_is_ours(a, authority))
		problem_send(r, PROBLEM_FOREIGN_HOST,
			     "this server does not answer to the Host \"%.200s\"", authority);
	else if (origin && !origin_is_ours(a, origin, authority))
		problem_send(r, PROBLEM_FOREIGN_ORIGIN,
			     "the Origin \"%.200s\" is not this server's", origin);
	else if (!origin && is_cross_site(r))
		problem_send(r, PROBLEM_FOREIGN_ORIGIN, "pages of other sites are not answered");
}
