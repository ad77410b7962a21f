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
	"usage: kiln keys add NAME [OPTIONS]\n"
	"       kiln keys list [OPTIONS]\n"
	"       kiln keys revoke NAME [OPTIONS]\n\n"
	"A server that has keys asks for one: \"Authorization: Bearer KEY\". add prints the key, "
	"this\n"
	"once: only a hash of it is kept. Tasks belong to the key's name; other keys do not see "
	"them.\n"
	"The options are those of `kiln serve` that say where its store is: --data-dir, --store,\n"
	"--config. A server that runs takes note within seconds.\n";

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

static int key_add(struct store_session *s, const char *name, struct err *e)
{
	struct store_key_add r = {.req = {.done = store_session_done, .ctx = s}};
	char text[KEY_TEXT_MAX];
	int code = make_key(text, r.key.hash, e);

	if (code < 0)
		return code;
	(void)str_copy(r.key.name, sizeof r.key.name, name);
	(void)str_copy(r.key.tenant, sizeof r.key.tenant, name);
	r.key.created_us = clock_wall_us();
	store_key_add(s->store, &r);
	(void)store_session_wait(s);
	if (s->code == -EEXIST)
		return err_set(e, s->code, "there is a key \"%s\" already", name);
	if (s->code < 0)
		return err_errno(e, s->code, "could not add the key");
	(void)fprintf(stderr, "The key of \"%s\"; it cannot be shown again:\n", name);
	(void)printf("%s\n", text);
	return 0;
}

static int key_revoke(struct store_session *s, const char *name, struct err *e)
{
	struct store_key_revoke r = {.req = {.done = store_session_done, .ctx = s},
				     .name = name,
				     .now_us = clock_wall_us()};

	store_key_revoke(s->store, &r);
	(void)store_session_wait(s);
	if (s->code == -ENOENT)
		return err_set(e, s->code, "there is no key \"%s\"", name);
	if (s->code < 0)
		return err_errno(e, s->code, "could not revoke the key");
	(void)printf("\"%s\" is revoked\n", name);
	return 0;
}

static int key_list(struct store_session *s, const char *name, struct err *e)
{
	struct store_key_list r = {.req = {.done = store_session_done, .ctx = s}};

	(void)name;
	store_key_list(s->store, &r);
	(void)store_session_wait(s);
	if (s->code < 0)
		return err_errno(e, s->code, "could not list the keys");
	for (size_t i = 0; i < r.n; i++) {
		char created[CLOCK_RFC3339_MAX], revoked[CLOCK_RFC3339_MAX] = "";

		clock_format(r.keys[i].created_us, created);
		if (r.keys[i].revoked_us)
			clock_format(r.keys[i].revoked_us, revoked);
		(void)printf("%-24s %s%s%s\n", r.keys[i].name, created,
			     *revoked ? "  revoked " : "", revoked);
	}
	if (!r.n)
		(void)fputs("There are no keys.\n", stderr);
	free(r.keys);
	return 0;
}

static const struct {
	const char *name;
	bool takes_name;
	int (*run)(struct store_session *s, const char *name, struct err *e);
} actions[] = {{"add", true, key_add}, {"list", false, key_list}, {"revoke", true, key_revoke}};

static int run_action(int (*action)(struct store_session *, const char *, struct err *),
		      const char *name, const struct config *c, struct err *e)
{
	struct store_session s = {0};
	int r = store_session_open(&s, c, e);

	if (r < 0)
		return r;
	r = action(&s, name, e);
	store_session_close(&s);
	return r;
}

int cmd_keys(int argc, char **argv)
{
	AUTO(config_free) struct config *c = NULL;
	struct err e = {""};
	size_t i = 0;
	int skip, r;

	while (argc > 1 && i < ARRAY_SIZE(actions) && !str_eq(argv[1], actions[i].name))
		i++;
	if (argc < 2 || i == ARRAY_SIZE(actions) || (actions[i].takes_name && argc < 3)) {
		(void)fputs(cmd_keys_usage, stderr);
		return EXIT_WRONG_USE;
	}
	skip = actions[i].takes_name ? 2 : 1;
	if (actions[i].takes_name && store_session_check_name(argv[2], &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	if (config_load(argc - skip, argv + skip, environ, &c, &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	r = run_action(actions[i].run, skip == 2 ? argv[2] : NULL, c, &e);
	return r < 0 ? cmd_fail(EXIT_FAILED, &e) : EXIT_OK;
}
