/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/str.h"
#include "cmd/cmd.h"
#include "cmd/store_session.h"
#include "crypto/digest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { KEY_BYTES = 32, KEY_TEXT_MAX = 8 + 2 * KEY_BYTES };

const char cmd_keys_usage[] =
	"usage: kiln keys add NAME [--tenant TENANT] [OPTIONS]\n"
	"       kiln keys list [OPTIONS]\n"
	"       kiln keys revoke NAME [OPTIONS]\n"
	"       kiln keys unlock [OPTIONS]\n\n"
	"A server that has keys asks for one: \"Authorization: Bearer KEY\". add prints the key,\n"
	"this once: only a hash of it is kept. Tasks belong to the key's tenant; keys of other\n"
	"tenants do not see them. A tenant is called like its key, or as --tenant says: it may\n"
	"have several keys. To replace one without a gap, add a second, use it, revoke the first:\n"
	"\n"
	"  kiln keys add alice\n"
	"  kiln keys add alice-2 --tenant alice\n"
	"  kiln keys revoke alice\n"
	"\n"
	"The name of a revoked key may be added again, as another key. A server that runs takes\n"
	"note of a new key at once, and of all else within five seconds.\n"
	"\n"
	"Once there was a key, one is asked for, also when all are revoked. unlock forgets the\n"
	"revoked ones, where none is in force: servers ask for none then, from their next start\n"
	"on, and let everybody in who reaches them.\n"
	"\n"
	"The options are those of `kiln serve` that say where its store is: --data-dir, --store,\n"
	"--config.\n";

/* What stands behind the action; NULL where it does not. */
struct words {
	const char *name, *tenant;
};

static int make_key(char text[static KEY_TEXT_MAX], uint8_t hash[static STORE_HASH_SIZE],
		    struct err *e)
{
	uint8_t bytes[KEY_BYTES];
	char hex[2 * KEY_BYTES + 1];

	if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return err_errno(e, -errno, "could not make a key");
	hex_encode(bytes, sizeof bytes, hex);
	(void)snprintf(text, KEY_TEXT_MAX, "kiln_%s", hex);
	if (digest_bytes(text, strlen(text), hash) < 0)
		return err_set(e, -EIO, "could not hash the key");
	return 0;
}

static int key_add(struct store_session *s, const struct words *w, struct err *e)
{
	struct store_key_add r = {.req = {.done = store_session_done, .ctx = s}};
	char text[KEY_TEXT_MAX];
	int code = make_key(text, r.key.hash, e);

	if (code < 0)
		return code;
	(void)str_copy(r.key.name, sizeof r.key.name, w->name);
	(void)str_copy(r.key.tenant, sizeof r.key.tenant, w->tenant);
	r.key.created_us = clock_wall_us();
	store_key_add(s->store, &r);
	(void)store_session_wait(s);
	if (s->code == -EEXIST)
		return err_set(e, s->code,
			       "there is a key \"%s\" already: a further one of its tenant needs a "
			       "name of its own and --tenant TENANT",
			       w->name);
	if (s->code < 0)
		return err_errno(e, s->code, "could not add the key");
	(void)fprintf(stderr, "The key \"%s\" of tenant \"%s\"; it cannot be shown again:\n",
		      w->name, w->tenant);
	(void)printf("%s\n", text);
	return 0;
}

static int key_revoke(struct store_session *s, const struct words *w, struct err *e)
{
	struct store_key_revoke r = {.req = {.done = store_session_done, .ctx = s},
				     .name = w->name,
				     .now_us = clock_wall_us()};

	store_key_revoke(s->store, &r);
	(void)store_session_wait(s);
	if (s->code == -ENOENT)
		return err_set(e, s->code, "there is no key \"%s\"", w->name);
	if (s->code < 0)
		return err_errno(e, s->code, "could not revoke the key");
	(void)printf("\"%s\" is revoked\n", w->name);
	return 0;
}

static int key_list(struct store_session *s, const struct words *w, struct err *e)
{
	struct store_key_list r = {.req = {.done = store_session_done, .ctx = s}};

	(void)w;
	store_key_list(s->store, &r);
	(void)store_session_wait(s);
	if (s->code < 0)
		return err_errno(e, s->code, "could not list the keys");
	if (r.n)
		(void)printf("%-24s %-24s %-27s %s\n", "NAME", "TENANT", "CREATED", "REVOKED");
	for (size_t i = 0; i < r.n; i++) {
		char created[CLOCK_RFC3339_MAX], revoked[CLOCK_RFC3339_MAX] = "-";

		clock_format(r.keys[i].created_us, created);
		if (r.keys[i].revoked_us)
			clock_format(r.keys[i].revoked_us, revoked);
		(void)printf("%-24s %-24s %-27s %s\n", r.keys[i].name, r.keys[i].tenant, created,
			     revoked);
	}
	if (!r.n)
		(void)fputs("There are no keys.\n", stderr);
	free(r.keys);
	return 0;
}

static int key_unlock(struct store_session *s, const struct words *w, struct err *e)
{
	struct store_key_forget r = {.req = {.done = store_session_done, .ctx = s}};

	(void)w;
	store_key_forget(s->store, &r);
	(void)store_session_wait(s);
	if (s->code == -EBUSY)
		return err_set(e, s->code,
			       "a key is in force: revoke it first (see `kiln keys list`)");
	if (s->code < 0)
		return err_errno(e, s->code, "could not forget the keys");
	(void)fputs(r.n ? "No key is asked for any more, from the next start of a server on.\n"
			: "There are no keys: nothing is locked.\n",
		    stderr);
	return 0;
}

static const struct action {
	const char *name;
	bool takes_name, takes_tenant;
	int (*run)(struct store_session *s, const struct words *w, struct err *e);
} actions[] = {
	{"add", true, true, key_add},
	{"list", false, false, key_list},
	{"revoke", true, false, key_revoke},
	{"unlock", false, false, key_unlock},
};

/* Takes "--tenant TENANT" out; the rest is the configuration's. argv[0] is the last word. */
static int take_tenant(int *argc, char **argv, const char **ret_tenant, struct err *e)
{
	static const char option[] = "--tenant";
	int n = 0;

	for (int i = 0; i < *argc; i++) {
		if (str_has_prefix(argv[i], option) && argv[i][sizeof option - 1] == '=')
			*ret_tenant = argv[i] + sizeof option;
		else if (str_eq(argv[i], option) && i + 1 < *argc && argv[i + 1][0] != '-')
			*ret_tenant = argv[++i];
		else if (str_eq(argv[i], option))
			return err_set(e, -EINVAL, "%s needs a value", option);
		else
			argv[n++] = argv[i];
	}
	*argc = n;
	return 0;
}

/* What is wrong with the words is said before a store is opened. argv[0] is the last word. */
static int read_words(const struct action *a, int *argc, char **argv, struct words *w,
		      struct err *e)
{
	if (take_tenant(argc, argv, &w->tenant, e) < 0)
		return -EINVAL;
	if (w->tenant && !a->takes_tenant)
		return err_set(e, -EINVAL, "`kiln keys %s` takes no --tenant: only add does",
			       a->name);
	if (!a->takes_name)
		return 0;
	w->name = argv[0];
	if (!w->tenant)
		w->tenant = w->name;
	if (store_session_check_name(w->name, e) < 0 || store_session_check_name(w->tenant, e) < 0)
		return -EINVAL;
	return 0;
}

static int run(const struct action *a, const struct words *w, const struct config *c, struct err *e)
{
	struct store_session s = {0};
	int r = store_session_open(&s, c, e);

	if (r < 0)
		return r;
	r = a->run(&s, w, e);
	store_session_close(&s);
	return r;
}

int cmd_keys(int argc, char **argv)
{
	AUTO(config_free) struct config *c = NULL;
	const struct action *a = NULL;
	struct words w = {0};
	struct err e = {""};
	int skip;

	if (argc > 2 && (str_eq(argv[2], "--help") || str_eq(argv[2], "-h"))) {
		(void)fputs(cmd_keys_usage, stdout);
		return EXIT_OK;
	}
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(actions); i++)
		if (str_eq(argv[1], actions[i].name))
			a = &actions[i];
	/* A forgotten name: the option behind it is not meant as one. */
	if (!a || (a->takes_name && (argc < 3 || argv[2][0] == '-'))) {
		(void)fputs(cmd_keys_usage, stderr);
		return EXIT_WRONG_USE;
	}
	skip = a->takes_name ? 2 : 1;
	argc -= skip;
	argv += skip;
	if (read_words(a, &argc, argv, &w, &e) < 0 || config_load(argc, argv, environ, &c, &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	return run(a, &w, c, &e) < 0 ? cmd_fail(EXIT_FAILED, &e) : EXIT_OK;
}
