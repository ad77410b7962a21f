/* SPDX-License-Identifier: Apache-2.0 */
#include "redis/address.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "base/url.h"

#include <errno.h>
#include <string.h>

enum { DEFAULT_PORT = 6379 };

static const char prefix[] = "redis://";

static int parse_credentials(const char *text, size_t len, struct redis_address *a, struct err *e)
{
	const char *colon = memchr(text, ':', len);
	const char *password = colon ? colon + 1 : text + len;

	if (!colon)
		return err_set(
			e, -EINVAL,
			"a redis:// address wants USER:PASSWORD, or :PASSWORD, before the @");
	if (url_decode(text, (size_t)(colon - text), a->user, sizeof a->user) < 0 ||
	    url_decode(password, (size_t)(text + len - password), a->password, sizeof a->password) <
		    0)
		return err_set(e, -EINVAL,
			       "the user or password in the redis:// address is too long, or has a "
			       "%% that is not followed by two hexadecimal digits");
	if (a->user[0] && !a->password[0])
		return err_set(e, -EINVAL, "the redis:// address has a user but no password");
	return 0;
}

/* One HOST[:PORT] of len bytes. */
static int parse_host(const char *text, size_t len, struct redis_host *h)
{
	bool bracketed = len > 0 && *text == '[';
	const char *end = text + len;
	const char *name = bracketed ? text + 1 : text;
	const char *name_end = memchr(text, bracketed ? ']' : ':', len);
	const char *port = bracketed && name_end ? name_end + 1 : name_end;
	char digits[8];
	uint64_t value = DEFAULT_PORT;

	if (bracketed && !name_end)
		return -EINVAL;
	if (!name_end)
		name_end = port = end;
	if (name_end == name || (size_t)(name_end - name) >= sizeof h->name)
		return -EINVAL;
	if (port < end) {
		size_t n = (size_t)(end - port) - 1;

		if (*port != ':' || n >= sizeof digits)
			return -EINVAL;
		memcpy(digits, port + 1, n);
		digits[n] = '\0';
		if (str_to_u64(digits, 1, UINT16_MAX, &value) < 0)
			return -EINVAL;
	}
	memcpy(h->name, name, (size_t)(name_end - name));
	h->name[name_end - name] = '\0';
	h->port = (uint16_t)value;
	return 0;
}

static int parse_hosts(const char *text, size_t len, struct redis_address *a, struct err *e)
{
	const char *end = text + len;

	for (;;) {
		const char *comma = memchr(text, ',', (size_t)(end - text));
		size_t n = (size_t)((comma ? comma : end) - text);

		if (a->n_hosts == REDIS_HOSTS_MAX)
			return err_set(e, -EINVAL, "a redis:// address has at most %d hosts",
				       REDIS_HOSTS_MAX);
		if (parse_host(text, n, &a->hosts[a->n_hosts]) < 0)
			return err_set(e, -EINVAL,
				       "a host in the redis:// address is no HOST:PORT");
		a->n_hosts++;
		if (!comma)
			return 0;
		text = comma + 1;
	}
}

int redis_address_parse(const char *url, struct redis_address *ret_address, struct err *e)
{
	struct redis_address a = {0};
	const char *rest, *at, *slash;
	uint64_t db = 0;
	int r;

	if (!str_has_prefix(url, prefix))
		return err_set(e, -EINVAL,
			       "the address of a Redis is redis://[USER:PASSWORD@]HOST:PORT/DB");
	rest = url + sizeof prefix - 1;
	/* The last @: one in a password that was not written as %40 shall not end up in a message
	 * as part of a host. */
	at = strrchr(rest, '@');
	if (at) {
		r = parse_credentials(rest, (size_t)(at - rest), &a, e);
		if (r < 0)
			return r;
		rest = at + 1;
	}
	slash = strchr(rest, '/');
	if (slash && slash[1] && str_to_u64(slash + 1, 0, REDIS_DB_MAX, &db) < 0)
		return err_set(
			e, -EINVAL,
			"the end of the redis:// address is no number of a database (0 to %d)",
			REDIS_DB_MAX);
	r = parse_hosts(rest, slash ? (size_t)(slash - rest) : strlen(rest), &a, e);
	if (r < 0)
		return r;
	a.db = (unsigned)db;
	*ret_address = a;
	return 0;
}
