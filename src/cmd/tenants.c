/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "cmd/cmd.h"
#include "cmd/store_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char cmd_tenants_usage[] =
	"usage: kiln tenants set NAME LIMIT=N... [OPTIONS]\n"
	"       kiln tenants unset NAME [OPTIONS]\n"
	"       kiln tenants list [OPTIONS]\n\n"
	"A tenant is who a key belongs to (`kiln keys list`), or \"default\" where there are no\n"
	"keys. set gives it limits of its own, in place of those that the configuration has for\n"
	"all tenants; unset takes them away again. One that has no key is warned of, but done:\n"
	"limits may come before the key.\n"
	"\n"
	"  rate=N     submissions a minute             (tenant_rate)\n"
	"  burst=N    of these at once                 (tenant_burst)\n"
	"  queued=N   tasks that wait                  (tenant_queued_max)\n"
	"  running=N  tasks that run at one time       (tenant_running_max)\n"
	"\n"
	"N is 0 for no limit, or \"default\". Limits that are not named stay as they are. The "
	"options\n"
	"are those of `kiln serve` that say where its store is: --data-dir, --store, --config.\n"
	"A server that runs takes note within seconds.\n";

static const char *const limit_names[_TENANT_LIMIT_MAX] = {
	[TENANT_RATE] = "rate",
	[TENANT_BURST] = "burst",
	[TENANT_QUEUED] = "queued",
	[TENANT_RUNNING] = "running",
};

enum { LIMIT_MOST = 1000000000 };

static int read_limit(const char *text, struct store_tenant *t, struct err *e)
{
	const char *value = strchr(text, '=');
	size_t len = value ? (size_t)(value - text) : 0;
	uint64_t n = 0;

	for (int i = 0; value && i < _TENANT_LIMIT_MAX; i++) {
		if (strlen(limit_names[i]) != len || strncmp(limit_names[i], text, len) != 0)
			continue;
		if (str_eq(value + 1, "default"))
			t->limits[i] = STORE_TENANT_UNSET;
		else if (str_to_u64(value + 1, 0, LIMIT_MOST, &n) == 0)
			t->limits[i] = (int64_t)n;
		else
			return err_set(e, -EINVAL,
				       "\"%s\": expected a number up to %d, or \"default\"", text,
				       LIMIT_MOST);
		return 0;
	}
	return err_set(e, -EINVAL, "\"%s\": expected rate=N, burst=N, queued=N or running=N", text);
}

static int read_all(struct store_session *s, struct store_tenant_list *r, struct err *e)
{
	*r = (struct store_tenant_list){.req = {.done = store_session_done, .ctx = s}};
	store_tenant_list(s->store, r);
	return store_session_wait(s) < 0 ? err_errno(e, s->code, "could not read the tenants") : 0;
}

/* A name that was mistyped would be kept without a word. */
static int warn_without_key(struct store_session *s, const char *tenant, struct err *e)
{
	struct store_key_list r = {.req = {.done = store_session_done, .ctx = s}};
	bool found;

	store_key_list(s->store, &r);
	if (store_session_wait(s) < 0)
		return err_errno(e, s->code, "could not read the keys");
	found = !r.n && str_eq(tenant, "default");
	for (size_t i = 0; i < r.n; i++)
		found = found || (!r.keys[i].revoked_us && str_eq(r.keys[i].tenant, tenant));
	if (!found)
		(void)fprintf(stderr,
			      "kiln: warning: no key of tenant \"%s\" is in force (see `kiln keys "
			      "list`)\n",
			      tenant);
	free(r.keys);
	return 0;
}

static int write_one(struct store_session *s, const struct store_tenant *t, struct err *e)
{
	struct store_tenant_set r = {.req = {.done = store_session_done, .ctx = s}, .tenant = *t};

	store_tenant_set(s->store, &r);
	if (store_session_wait(s) < 0)
		return err_errno(e, s->code, "could not change the tenant");
	return warn_without_key(s, t->name, e);
}

static void clear(struct store_tenant *t, const char *name)
{
	(void)str_copy(t->name, sizeof t->name, name);
	for (int i = 0; i < _TENANT_LIMIT_MAX; i++)
		t->limits[i] = STORE_TENANT_UNSET;
}

static int set(struct store_session *s, char **words, size_t n, struct err *e)
{
	struct store_tenant_list list;
	struct store_tenant t;
	int r = read_all(s, &list, e);

	if (r < 0)
		return r;
	clear(&t, words[0]);
	for (size_t i = 0; i < list.n; i++)
		if (str_eq(list.tenants[i].name, t.name))
			t = list.tenants[i];
	free(list.tenants);
	for (size_t i = 1; i < n; i++)
		if (read_limit(words[i], &t, e) < 0)
			return -EINVAL;
	return write_one(s, &t, e);
}

static int unset(struct store_session *s, char **words, size_t n, struct err *e)
{
	struct store_tenant t;

	(void)n;
	clear(&t, words[0]);
	return write_one(s, &t, e);
}

static int list(struct store_session *s, char **words, size_t n, struct err *e)
{
	struct store_tenant_list all;
	int r = read_all(s, &all, e);

	(void)words;
	(void)n;
	if (r < 0)
		return r;
	if (!all.n)
		(void)fputs("No tenant has limits of its own.\n", stderr);
	for (size_t i = 0; i < all.n; i++) {
		(void)printf("%-24s", all.tenants[i].name);
		for (int k = 0; k < _TENANT_LIMIT_MAX; k++)
			if (all.tenants[i].limits[k] != STORE_TENANT_UNSET)
				(void)printf(" %s=%lld", limit_names[k],
					     (long long)all.tenants[i].limits[k]);
		(void)puts("");
	}
	free(all.tenants);
	return 0;
}

static const struct action {
	const char *name;
	size_t words_min;
	bool takes_limits;
	int (*run)(struct store_session *s, char **words, size_t n, struct err *e);
} actions[] = {{"set", 2, true, set}, {"unset", 1, false, unset}, {"list", 0, false, list}};

/* The words before the first option. */
static size_t count_words(int argc, char **argv)
{
	size_t n = 0;

	while ((int)n < argc && argv[n][0] != '-')
		n++;
	return n;
}

/* What is wrong with the words is said before a store is opened. */
static int check(const struct action *a, char **words, size_t n, struct err *e)
{
	struct store_tenant t;

	if (n < a->words_min || (!a->takes_limits && n > a->words_min))
		return err_set(e, -EINVAL, "wrong number of arguments; see `kiln help tenants`");
	if (n > 0 && store_session_check_name(words[0], e) < 0)
		return -EINVAL;
	for (size_t i = 1; i < n; i++)
		if (read_limit(words[i], &t, e) < 0)
			return -EINVAL;
	return 0;
}

static int run(const struct action *a, char **words, size_t n, const struct config *c,
	       struct err *e)
{
	struct store_session s = {0};
	int r = store_session_open(&s, c, e);

	if (r < 0)
		return r;
	r = a->run(&s, words, n, e);
	store_session_close(&s);
	return r;
}

int cmd_tenants(int argc, char **argv)
{
	AUTO(config_free) struct config *c = NULL;
	const struct action *a = NULL;
	struct err e = {""};
	size_t n;

	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(actions); i++)
		if (str_eq(argv[1], actions[i].name))
			a = &actions[i];
	if (!a) {
		(void)fputs(cmd_tenants_usage, stderr);
		return EXIT_WRONG_USE;
	}
	n = count_words(argc - 2, argv + 2);
	if (check(a, argv + 2, n, &e) < 0 ||
	    config_load(argc - 1 - (int)n, argv + 1 + n, environ, &c, &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	return run(a, argv + 2, n, c, &e) < 0 ? cmd_fail(EXIT_FAILED, &e) : EXIT_OK;
}
