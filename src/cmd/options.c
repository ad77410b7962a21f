/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/options.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <string.h>

enum { ROWS_MAX = 32 };

static int unknown(const char *arg, const struct option_row *rows, size_t n, struct err *e)
{
	const char *names[ROWS_MAX] = {NULL};
	const char *near;

	for (size_t i = 0; i < n && i < ROWS_MAX; i++)
		names[i] = rows[i].name;
	near = str_nearest(arg + strspn(arg, "-"), names, n < ROWS_MAX ? n : ROWS_MAX);
	if (near)
		return err_set(e, -EINVAL, "unknown option %s (did you mean --%s?)", arg, near);
	return err_set(e, -EINVAL, "unknown option %s", arg);
}

static const struct option_row *find(const char *name, size_t len, const struct option_row *rows,
				     size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (strlen(rows[i].name) == len && !strncmp(rows[i].name, name, len))
			return &rows[i];
	}
	return NULL;
}

static int take(const struct option_row *row, const char *value, struct err *e)
{
	if (row->text) {
		*row->text = value;
		return 0;
	}
	if (row->list->n == OPTION_LIST_MAX)
		return err_set(e, -E2BIG, "--%s was given too often", row->name);
	row->list->items[row->list->n++] = value;
	return 0;
}

int options_parse(int argc, char **argv, const struct option_row *rows, size_t n,
		  enum option_order order, struct err *e)
{
	int rest = 1, r = 0;
	bool ended = false;

	for (int i = 1; i < argc; i++) {
		char *arg = argv[i];
		size_t len = strcspn(arg, "=");
		const struct option_row *row;

		if (!ended && str_eq(arg, "--")) {
			ended = true;
			continue;
		}
		if (ended || arg[0] != '-' || !arg[1]) {
			ended = ended || order == OPTIONS_FIRST;
			argv[rest++] = arg;
			continue;
		}
		row = arg[1] == '-' ? find(arg + 2, len - 2, rows, n) : NULL;
		if (!row)
			return unknown(arg, rows, n, e);
		if (row->flag) {
			if (arg[len])
				return err_set(e, -EINVAL, "--%s takes no value", row->name);
			*row->flag = true;
			continue;
		}
		if (!arg[len] && i + 1 >= argc)
			return err_set(e, -EINVAL, "--%s needs a value", row->name);
		r = take(row, arg[len] ? arg + len + 1 : argv[++i], e);
		if (r < 0)
			return r;
	}
	return rest - 1;
}
