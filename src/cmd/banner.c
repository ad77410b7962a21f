/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/banner.h"

#include "base/str.h"

#include <stdio.h>

static void print_languages(const struct language_registry *r)
{
	const char *sep = "";

	printf("  languages  ");
	for (size_t i = 0; i < language_count(r); i++) {
		const struct language *l = language_at(r, i);

		if (!l->installed)
			continue;
		printf("%s%s", sep, l->name);
		if (l->version)
			printf(" (%s)", l->version);
		sep = ", ";
	}
	printf("%s\n", *sep ? "" : "none: see \"kiln languages\"");
	sep = "  missing    ";
	for (size_t i = 0; i < language_count(r); i++) {
		const struct language *l = language_at(r, i);

		if (l->installed)
			continue;
		printf("%s%s", sep, l->name);
		sep = ", ";
	}
	if (str_eq(sep, ", "))
		printf("  (\"kiln languages\" says how to install)\n");
}

static void print_isolation(const struct task_isolation *i)
{
	if (!i) {
		printf("  isolation  unknown: no runner is connected\n");
		return;
	}
	printf("  isolation  %s, limits by %s, seccomp %s, landlock ", i->level, i->limits,
	       i->seccomp ? "on" : "OFF");
	if (i->landlock)
		printf("ABI %d\n", i->landlock);
	else
		printf("absent\n");
	if (i->limits && str_eq(i->limits, "rlimit"))
		printf("             (weaker limits: \"kiln doctor\" says why)\n");
}

static const char *const keys_texts[_KEY_STATE_MAX] = {
	[KEYS_NONE] = "none (anybody who reaches the address may run code)",
	[KEYS_NEEDED] = "required",
	[KEYS_REVOKED] = "required, but none is in force (see \"kiln help keys\")",
};

void banner_print(const char *address, const struct language_registry *languages,
		  const struct task_isolation *isolation, enum key_state keys, int64_t took_ms)
{
	printf("kiln %s is ready after %lld ms\n", KILN_VERSION, (long long)took_ms);
	printf("  address    http://%s\n", address);
	print_languages(languages);
	print_isolation(isolation);
	printf("  keys       %s\n", keys_texts[keys]);
	printf("\nTry:\n  curl -s 'http://%s/submit?wait=10' -H 'Content-Type: application/json' "
	       "\\\n"
	       "%s       -d '{\"language\": \"python\", \"code\": \"print(6 * 7)\"}'\n\n",
	       address, keys ? "       -H \"Authorization: Bearer $KILN_API_KEY\" \\\n" : "");
	(void)fflush(stdout);
}

void banner_print_role(const char *role, const char *address_name, const char *address,
		       enum key_state keys)
{
	printf("kiln %s %s\n  %-9s  http://%s\n", role, KILN_VERSION, address_name, address);
	if (keys != KEYS_NEEDED)
		printf("  keys       %s\n", keys_texts[keys]);
	(void)fflush(stdout);
}
