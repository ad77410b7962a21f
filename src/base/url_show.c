/* SPDX-License-Identifier: Apache-2.0 */
#include "base/url.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

#define DIGITS	"0123456789"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static const char mask[] = "***";

static bool is_port(const char *text, size_t len)
{
	char copy[8] = "";
	uint64_t port;

	if (len >= sizeof copy)
		return false;
	memcpy(copy, text, len);
	return str_to_u64(copy, 0, UINT16_MAX, &port) == 0;
}

/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT". */
static bool is_host(const char *text, size_t len)
{
	size_t n;

	if (len && *text == '[') {
		n = 1 + strspn(text + 1, DIGITS LETTERS ":.%");
		if (n == 1 || n >= len || text[n++] != ']')
			return false;
	} else {
		n = strspn(text, DIGITS LETTERS "._-");
	}
	if (!n || n >= len)
		return n && n == len;
	return text[n] == ':' && is_port(text + n + 1, len - n - 1);
}

/* Hosts with commas between; none at all is one too. */
static bool are_hosts(const char *text, size_t len)
{
	for (size_t at = 0; len && at <= len;) {
		const char *comma = memchr(text + at, ',', len - at);
		size_t n = comma ? (size_t)(comma - text) - at : len - at;

		if (!is_host(text + at, n))
			return false;
		at += n + 1;
	}
	return true;
}

/* What stands whole in an address that holds no secret. */
static bool is_harmless(const char *url)
{
	return str_eq(url, "memory:") || str_eq(url, "local:") ||
	       (url_scheme_is(url, "sqlite", NULL) && !strstr(url, "://"));
}

static bool print(char *dst, size_t size, int len)
{
	if (len >= 0 && (size_t)len < size)
		return true;
	(void)str_copy(dst, size, mask);
	return false;
}

bool url_show(const char *url, char *dst, size_t size)
{
	size_t scheme_len = strspn(url, DIGITS LETTERS "+.-"), len, path_len;
	const char *authority, *at, *hosts, *path, *options;

	if (is_harmless(url))
		return print(dst, size, snprintf(dst, size, "%s", url));
	if (!scheme_len || !str_has_prefix(url + scheme_len, "://")) {
		(void)str_copy(dst, size, mask);
		return false;
	}
	authority = url + scheme_len + strlen("://");
	len = strcspn(authority, "/?#");
	path = authority + len;
	at = memrchr(authority, '@', len);
	hosts = at ? at + 1 : authority;
	len -= (size_t)(hosts - authority);
	path_len = *path == '/' ? strspn(path, DIGITS LETTERS "/._~%-") : 0;
	options = path + path_len;
	/* An @ behind the hosts may be the end of a password that has a / ? or # in it: what stands
	 * before is a part of it then. */
	if (strchr(path, '@') || !are_hosts(hosts, len) || (*options && *options != '?')) {
		(void)print(dst, size,
			    snprintf(dst, size, "%.*s://%s", (int)scheme_len, url, mask));
		return false;
	}
	return print(dst, size,
		     snprintf(dst, size, "%.*s://%s%.*s%.*s%s", (int)scheme_len, url,
			      at ? "***@" : "", (int)len, hosts, (int)path_len, path,
			      *options ? "?***" : ""));
}
