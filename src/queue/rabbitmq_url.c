/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include "base/str.h"
#include "base/url.h"

#include <errno.h>
#include <string.h>

enum { PORT = 5672, HEARTBEAT_S = 10, HEARTBEAT_MAX_S = 600 };

static const char shape[] = "amqp://USER:PASSWORD@HOST:PORT,HOST2:PORT/VHOST";

static int parse_user(const char *text, size_t len, struct rabbit_url *u)
{
	const char *colon = memchr(text, ':', len);
	size_t user_len = colon ? (size_t)(colon - text) : len;
	int r = url_decode(text, user_len, u->user, sizeof u->user);

	if (r == 0 && colon)
		r = url_decode(colon + 1, len - user_len - 1, u->password, sizeof u->password);
	return r;
}

/* "HOST", "HOST:PORT", "[V6]:PORT". */
static int parse_host(const char *text, size_t len, struct rabbit_url *u, struct err *e)
{
	char copy[RABBIT_NAME_MAX], *colon, *name = copy;
	uint64_t port = PORT;

	if (u->n_hosts == RABBIT_HOSTS_MAX)
		return err_set(e, -EINVAL, "more than %d hosts", RABBIT_HOSTS_MAX);
	if (!len || len >= sizeof copy)
		return err_set(e, -EINVAL, "a host is missing or too long");
	memcpy(copy, text, len);
	copy[len] = '\0';
	colon = strrchr(copy, ':');
	if (*copy == '[') {
		char *end = strchr(copy, ']');

		if (!end || (end[1] && end[1] != ':'))
			return err_set(e, -EINVAL, "\"%s\" is no [ADDRESS]:PORT", copy);
		colon = end[1] ? end + 1 : NULL;
		*end = '\0';
		name++;
	}
	if (colon && str_to_u64(colon + 1, 1, UINT16_MAX, &port) < 0)
		return err_set(e, -EINVAL, "\"%s\" is no port", colon + 1);
	if (colon)
		*colon = '\0';
	if (!*name)
		return err_set(e, -EINVAL, "a host is missing");
	(void)str_copy(u->hosts[u->n_hosts].name, RABBIT_NAME_MAX, name);
	u->hosts[u->n_hosts++].port = (int)port;
	return 0;
}

static int parse_hosts(const char *text, size_t len, struct rabbit_url *u, struct err *e)
{
	int r = 0;

	for (size_t at = 0; r == 0 && at <= len;) {
		const char *comma = memchr(text + at, ',', len - at);
		size_t n = comma ? (size_t)(comma - text) - at : len - at;

		r = parse_host(text + at, n, u, e);
		at += n + 1;
	}
	return r;
}

/* Queue names begin with it. */
static bool is_prefix(const char *text)
{
	size_t len =
		strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");

	return len && !text[len] && len < RABBIT_PREFIX_MAX;
}

static int parse_option(const char *text, size_t len, struct rabbit_url *u, struct err *e)
{
	char name[RABBIT_NAME_MAX], *value;
	uint64_t heartbeat;

	if (url_decode(text, len, name, sizeof name) < 0 || !(value = strchr(name, '=')))
		return err_set(e, -EINVAL, "an option is not NAME=VALUE");
	*value++ = '\0';
	if (str_eq(name, "prefix")) {
		if (!is_prefix(value))
			return err_set(e, -EINVAL,
				       "\"%s\" is no prefix: up to %d letters, digits, - and _",
				       value, RABBIT_PREFIX_MAX - 1);
		(void)str_copy(u->prefix, sizeof u->prefix, value);
		return 0;
	}
	if (str_eq(name, "heartbeat")) {
		if (str_to_u64(value, 1, HEARTBEAT_MAX_S, &heartbeat) < 0)
			return err_set(e, -EINVAL, "heartbeat must be from 1 to %d seconds",
				       HEARTBEAT_MAX_S);
		u->heartbeat_s = (int)heartbeat;
		return 0;
	}
	return err_set(e, -EINVAL, "there is no option \"%s\": known are prefix and heartbeat",
		       name);
}

static int parse_options(const char *text, struct rabbit_url *u, struct err *e)
{
	int r = 0;

	while (r == 0 && *text) {
		size_t len = strcspn(text, "&");

		r = parse_option(text, len, u, e);
		text += len;
		text += *text == '&';
	}
	return r;
}

static int parse(const char *text, struct rabbit_url *u, struct err *e)
{
	size_t len = strcspn(text, "?"), host_len;
	const char *slash, *at = strrchr(text, '@');
	int r;

	/* The end of a password would be taken for something else, and be shown. */
	if (at && strcspn(text, "/?") < (size_t)(at - text))
		return err_set(
			e, -EINVAL,
			"a / ? or @ is in user, password or virtual host, where it is written "
			"%%2F %%3F or %%40");
	slash = memchr(text, '/', len);
	host_len = slash ? (size_t)(slash - text) : len;
	at = memrchr(text, '@', host_len);
	if (at && parse_user(text, (size_t)(at - text), u) < 0)
		return err_set(e, -EINVAL, "the user or password is not written as in a URL");
	if (slash && len - host_len > 1 &&
	    url_decode(slash + 1, len - host_len - 1, u->vhost, sizeof u->vhost) < 0)
		return err_set(e, -EINVAL, "the virtual host is not written as in a URL");
	if (at) {
		host_len -= (size_t)(at + 1 - text);
		r = parse_hosts(at + 1, host_len, u, e);
	} else {
		r = parse_hosts(text, host_len, u, e);
	}
	return r == 0 && text[len] ? parse_options(text + len + 1, u, e) : r;
}

int rabbit_url_parse(const char *rest, struct rabbit_url *ret_url, struct err *e)
{
	struct rabbit_url u = {
		.user = "guest",
		.password = "guest",
		.vhost = "/",
		.prefix = "kiln",
		.heartbeat_s = HEARTBEAT_S,
	};
	int r;

	if (!str_has_prefix(rest, "//"))
		return err_set(e, -EINVAL, "the URL of a RabbitMQ is %s", shape);
	r = parse(rest + 2, &u, e);
	if (r < 0)
		return err_wrap(e, r, "the URL of the RabbitMQ is not like %s", shape);
	*ret_url = u;
	return 0;
}
