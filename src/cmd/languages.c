/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "base/str.h"
#include "cmd/check.h"
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/outcome.h"
#include "json/reader.h"

#include <errno.h>
#include <stdio.h>

enum { TEXT_MAX = 16 * 1024 * 1024, CELL_MAX = 128 };

const char cmd_languages_usage[] =
	"usage: kiln languages [OPTIONS]\n"
	"       kiln languages check [OPTIONS] [NAME...]\n\n"
	"Lists the languages of the server, or runs the check programs of the language "
	"files (all, or\n"
	"those named) in real sandboxes: hello, input, exit code, compile error, limits "
	"and more. The\n"
	"check starts a server of its own on this machine unless one is named.\n\n"
	"  --json              print what the server says\n"
	"  --languages DIR     check: the language files, instead of those of this "
	"installation\n" CLIENT_USAGE "\n"
	"exit status of the check: 0 where every program did what its file promises, else "
	"1.\n";

static void join(const json_t *words, char cell[static CELL_MAX])
{
	size_t i, len = 0;
	const json_t *w;

	cell[0] = '\0';
	json_array_foreach(words, i, w)
	{
		int n = snprintf(cell + len, CELL_MAX - len, "%s%s", i ? ", " : "",
				 json_string_value(w) ? json_string_value(w) : "");

		if (n < 0 || (size_t)n >= CELL_MAX - len)
			break;
		len += (size_t)n;
	}
}

static void print_list(const json_t *answer)
{
	size_t i;
	const json_t *l;

	(void)printf("%-12s %-24s %-28s %s\n", "NAME", "TITLE", "ALSO", "VERSION");
	json_array_foreach(json_object_get(answer, "languages"), i, l)
	{
		const char *version = outcome_text(l, "version");
		char also[CELL_MAX];

		join(json_object_get(l, "aliases"), also);
		if (json_is_false(json_object_get(l, "installed")))
			version = "not installed";
		(void)printf("%-12s %-24s %-28s %s\n", outcome_text(l, "name"),
			     outcome_text(l, "title"), also, version);
	}
}

static int list(const struct client_options *o, bool as_json, struct err *e)
{
	AUTO(client_free) struct client *c = NULL;
	AUTO(json_cleanup) json_t *answer = NULL;
	struct buf text;
	int r;

	buf_init(&text, TEXT_MAX);
	r = client_new(o, &c, e);
	if (r >= 0)
		r = client_json(c, "GET", "/languages", NULL, NULL, &answer, &text, e);
	if (r >= 0 && as_json)
		(void)printf("%s\n", text.data);
	else if (r >= 0)
		print_list(answer);
	buf_fini(&text);
	return r;
}

int cmd_languages(int argc, char **argv)
{
	struct client_options client = {0};
	struct check_options check = {.client = &client};
	bool as_json = false;
	const struct option_row rows[] = {
		CLIENT_OPTION_ROWS(&client),
		{.name = "json", .flag = &as_json},
		{.name = "languages", .text = &check.languages_dir},
	};
	struct err e = {""};
	int r, n = options_parse(argc, argv, rows, ARRAY_SIZE(rows), OPTIONS_ANYWHERE, &e);

	if (n < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	if (n && !str_eq(argv[1], "check"))
		return cmd_fail_text(
			EXIT_WRONG_USE,
			"unexpected argument \"%s\": `kiln languages [check [NAME...]]`", argv[1]);
	if (!n) {
		r = list(&client, as_json, &e);
		return r < 0 ? cmd_fail(client_exit_status(r), &e) : EXIT_OK;
	}
	check.names = argv + 2;
	check.n_names = (size_t)n - 1;
	r = check_languages(&check, &e);
	if (r < 0)
		return cmd_fail(client_exit_status(r), &e);
	return r ? EXIT_FAILED : EXIT_OK;
}
