/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

static const char shape[] =
	"it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE, where / ? @ : and %"
	" in user and password are written %2F %3F %40 %3A and %25";

const char *pg_url_get(const struct pg_url *u, const char *keyword)
{
	for (const PQconninfoOption *o = u->options; o && o->keyword; o++)
		if (str_eq(o->keyword, keyword))
			return o->val && *o->val ? o->val : NULL;
	return NULL;
}

/* Whether there is an @ where only a password can have put it that has an @ or a / itself: then its
 * end is in what libpq takes for the host or the database, and must not be shown. A socket's name
 * may begin with one. */
static bool is_torn(const char *url, const char *host, const char *database)
{
	const char *slashes = strstr(url, "//");
	const char *slash = slashes ? strchr(slashes + 2, '/') : NULL;
	const char *at = slash ? strchr(slash, '@') : NULL;

	for (const char *h = host; (h = strchr(h, '@')); h++)
		if (h > host && h[-1] != ',')
			return true;
	return strchr(database, '@') && at && at < slash + strcspn(slash, "?");
}

/* Takes libpq's reason, which may quote a part of the password. */
static int unreadable(const char *url, char *reason, struct err *e)
{
	bool may_tell = reason && !strchr(url, '@');
	int r = err_set(e, reason ? -EINVAL : -ENOMEM, "the store's URL is no PostgreSQL URL: %.*s",
			may_tell ? (int)strcspn(reason, "\n") : (int)sizeof shape,
			may_tell ? reason : shape);

	PQfreemem(reason);
	return r;
}

int pg_url_parse(const char *url, struct pg_url *ret_url, struct err *e)
{
	char *reason = NULL;
	struct pg_url u = {0};
	const char *host, *port, *database;
	int r = 0;

	u.options = PQconninfoParse(url, &reason);
	if (!u.options)
		return unreadable(url, reason, e);
	host = pg_url_get(&u, "host");
	port = pg_url_get(&u, "port");
	database = pg_url_get(&u, "dbname");
	if (!host)
		host = pg_url_get(&u, "hostaddr");
	if (!host || !database)
		r = err_set(e, -EINVAL,
			    "the store's URL names no %s: postgresql://USER@HOST:PORT/DATABASE",
			    host ? "database" : "host");
	else if (is_torn(url, host, database))
		r = err_set(e, -EINVAL, "the store's URL is no PostgreSQL URL: %s", shape);
	if (r < 0) {
		PQconninfoFree(u.options);
		return r;
	}
	(void)snprintf(u.shown, sizeof u.shown, "%s:%s/%s", host, port ? port : "5432", database);
	*ret_url = u;
	return 0;
}

void pg_url_fini(struct pg_url *u)
{
	PQconninfoFree(u->options);
	u->options = NULL;
}

/* The n-th part of a list with commas; the last one counts on where there are fewer. */
static void part_of(const char *list, size_t n, char *dst, size_t size)
{
	const char *at = list ? list : "";
	size_t len;

	for (; n > 0 && strchr(at, ','); n--)
		at = strchr(at, ',') + 1;
	len = strcspn(at, ",");
	if (len >= size)
		len = size - 1;
	memcpy(dst, at, len);
	dst[len] = '\0';
}

static size_t parts_in(const char *list)
{
	size_t n = 1;

	for (const char *at = list; (at = strchr(at, ',')); at++)
		n++;
	return n;
}

int pg_url_hosts(const struct pg_url *u, struct pg_target hosts[static PG_TARGETS_MAX],
		 struct err *e)
{
	const char *names = pg_url_get(u, "host"), *addrs = pg_url_get(u, "hostaddr");
	const char *ports = pg_url_get(u, "port");
	size_t n = parts_in(names ? names : addrs);

	if (n > PG_TARGETS_MAX)
		return err_set(e, -EINVAL, "the store's URL names more than %d hosts",
			       PG_TARGETS_MAX);
	for (size_t i = 0; i < n; i++) {
		hosts[i] = (struct pg_target){.port = "5432"};
		if (names)
			part_of(names, i, hosts[i].host, sizeof hosts[i].host);
		if (addrs)
			part_of(addrs, i, hosts[i].addr, sizeof hosts[i].addr);
		if (ports)
			part_of(ports, i, hosts[i].port, sizeof hosts[i].port);
	}
	return (int)n;
}

bool pg_target_is_numeric(const struct pg_target *host)
{
	struct in6_addr addr;

	return host->addr[0] || !host->host[0] || host->host[0] == '/' || host->host[0] == '@' ||
	       inet_pton(AF_INET, host->host, &addr) == 1 ||
	       inet_pton(AF_INET6, host->host, &addr) == 1;
}

void pg_targets_add(struct pg_target *targets, size_t *n, const struct pg_target *host,
		    const struct addrinfo *found)
{
	if (!found && *n < PG_TARGETS_MAX)
		targets[(*n)++] = *host;
	for (; found && *n < PG_TARGETS_MAX; found = found->ai_next) {
		struct pg_target *t = &targets[*n];

		*t = *host;
		if (getnameinfo(found->ai_addr, found->ai_addrlen, t->addr, sizeof t->addr, NULL, 0,
				NI_NUMERICHOST) == 0)
			(*n)++;
	}
}

/* What the URL may override. A peer that is gone without a word is noticed by these. */
static const struct {
	const char *keyword, *value;
} defaults[] = {
	{"fallback_application_name", "kiln"},
	{"target_session_attrs", "read-write"},
	{"keepalives_idle", "10"},
	{"keepalives_interval", "5"},
	{"keepalives_count", "3"},
	{"tcp_user_timeout", "15000"},
};

PGconn *pg_connect_start(const struct pg_url *u, const struct pg_target *t)
{
	enum { MAX = 64 };
	const char *keywords[MAX + 1], *values[MAX + 1];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(defaults); i++) {
		keywords[n] = defaults[i].keyword;
		values[n++] = defaults[i].value;
	}
	/* Of two values for a word the later one counts. */
	for (const PQconninfoOption *o = u->options; o->keyword && n < MAX - 3; o++) {
		if (!o->val || str_eq(o->keyword, "host") || str_eq(o->keyword, "hostaddr") ||
		    str_eq(o->keyword, "port"))
			continue;
		keywords[n] = o->keyword;
		values[n++] = o->val;
	}
	keywords[n] = "host";
	values[n++] = t->host;
	keywords[n] = "hostaddr";
	values[n++] = t->addr;
	keywords[n] = "port";
	values[n++] = t->port;
	keywords[n] = NULL;
	return PQconnectStartParams(keywords, values, 0);
}

void pg_reason(const PGconn *pg, char *dst, size_t size)
{
	const char *text = pg ? PQerrorMessage(pg) : "out of memory";
	size_t len = strcspn(text, "\n");

	if (len >= size)
		len = size - 1;
	memcpy(dst, len ? text : "", len);
	dst[len] = '\0';
	if (!len)
		(void)str_copy(dst, size, "no answer");
}
