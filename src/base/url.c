/* SPDX-License-Identifier: Apache-2.0 */
#include "base/url.h"

#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

bool url_scheme_is(const char *url, const char *scheme, const char **ret_rest)
{
	size_t len = strlen(scheme);

	if (strncmp(url, scheme, len) != 0 || url[len] != ':')
		return false;
	if (ret_rest)
		*ret_rest = url + len + 1;
	return true;
}

int url_decode(const char *text, size_t len, char *dst, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (c == '%') {
			if (len - i < 3 || hex_decode(text + i + 1, 2, &c) < 0 || c == '\0')
				return -EINVAL;
			i += 2;
		}
		if (n + 1 >= size)
			return -EINVAL;
		dst[n++] = c;
	}
	dst[n] = '\0';
	return 0;
}

/* Splits "HOST:PORT" or "[HOST]:PORT" into host and port; *ret_v6 tells which of them. An IPv6
 * address without brackets does not say which colon is the port's. */
static int split(const char *text, char *host, size_t size, const char **ret_port, bool *ret_v6)
{
	const char *colon = strrchr(text, ':');
	const char *start = text, *end = colon;

	if (!colon)
		return -EINVAL;
	*ret_v6 = *text == '[';
	if (*ret_v6) {
		start = text + 1;
		end = colon - 1;
		if (end < start || *end != ']')
			return -EINVAL;
	}
	if ((size_t)(end - start) >= size)
		return -EINVAL;
	memcpy(host, start, (size_t)(end - start));
	host[end - start] = '\0';
	*ret_port = colon + 1;
	return 0;
}

int url_parse_listen(const char *text, struct sockaddr_storage *ret_addr, socklen_t *ret_len,
		     struct err *e)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	char host[INET6_ADDRSTRLEN];
	const char *port_text;
	uint64_t port = 0;
	bool is_v6;

	if (split(text, host, sizeof host, &port_text, &is_v6) < 0 ||
	    str_to_u64(port_text, 0, UINT16_MAX, &port) < 0)
		return err_set(e, -EINVAL, "\"%s\" is no ADDRESS:PORT", text);
	if (!is_v6 &&
	    inet_pton(AF_INET, str_eq(host, "localhost") ? "127.0.0.1" : host, &v4.sin_addr) == 1) {
		v4.sin_port = htons((uint16_t)port);
		memset(ret_addr, 0, sizeof *ret_addr);
		memcpy(ret_addr, &v4, sizeof v4);
		*ret_len = sizeof v4;
		return 0;
	}
	if (is_v6 && inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
		v6.sin6_port = htons((uint16_t)port);
		memset(ret_addr, 0, sizeof *ret_addr);
		memcpy(ret_addr, &v6, sizeof v6);
		*ret_len = sizeof v6;
		return 0;
	}
	return err_set(e, -EINVAL, "\"%s\" is no numeric address", host);
}

bool url_is_loopback(const struct sockaddr_storage *addr)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	if (addr->ss_family == AF_INET) {
		memcpy(&v4, addr, sizeof v4);
		return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
	}
	memcpy(&v6, addr, sizeof v6);
	return addr->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

uint16_t url_addr_port(const struct sockaddr_storage *addr)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	if (addr->ss_family == AF_INET) {
		memcpy(&v4, addr, sizeof v4);
		return ntohs(v4.sin_port);
	}
	memcpy(&v6, addr, sizeof v6);
	return ntohs(v6.sin6_port);
}

void url_format_addr(const struct sockaddr_storage *addr, char *dst, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	if (addr->ss_family == AF_INET) {
		memcpy(&v4, addr, sizeof v4);
		(void)inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
		(void)snprintf(dst, size, "%s:%u", host, url_addr_port(addr));
		return;
	}
	memcpy(&v6, addr, sizeof v6);
	(void)inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
	(void)snprintf(dst, size, "[%s]:%u", host, url_addr_port(addr));
}
