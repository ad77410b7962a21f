/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "config/config_table.h"

#include <string.h>

enum { COLUMN = 44 };

static const void *field_of(const struct config *c, const struct config_key *k)
{
	return (const char *)c + k->offset;
}

static int put_escaped(FILE *out, const char *text, size_t len)
{
	int n = 0;

	for (const char *p = text; p < text + len; p++)
		n += fprintf(out, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
	return n;
}

/* A text in double quotes, as YAML and people read it. */
static int put_quoted(FILE *out, const char *text)
{
	int n = fprintf(out, "\"");

	n += put_escaped(out, text, strlen(text));
	return n + fprintf(out, "\"");
}

/* The end of an address, without what stands behind "password=" in its options. */
static int put_options(FILE *out, const char *text)
{
	static const char option[] = "password=";
	const char *found;
	int n = 0;

	while ((found = strstr(text, option))) {
		found += sizeof option - 1;
		n += put_escaped(out, text, (size_t)(found - text)) + fprintf(out, "***");
		text = found + strcspn(found, "&");
	}
	return n + put_escaped(out, text, strlen(text));
}

/* "scheme://user:password@host" without the password. */
static int put_address(FILE *out, const char *text)
{
	const char *slashes = strstr(text, "://");
	const char *at = slashes ? strrchr(slashes, '@') : NULL;
	const char *colon = at ? memchr(slashes + 3, ':', (size_t)(at - slashes - 3)) : NULL;
	int n;

	if (!slashes)
		return put_quoted(out, text);
	n = fprintf(out, "\"");
	if (colon)
		n += put_escaped(out, text, (size_t)(colon - text)) + fprintf(out, ":***");
	n += put_options(out, colon ? at : text);
	return n + fprintf(out, "\"");
}

/* "Name: value" without the value. */
static int put_header(FILE *out, const char *text)
{
	return fprintf(out, "\"%.*s: ***\"", (int)strcspn(text, ":"), text);
}

static int put_list(FILE *out, char *const *items, bool secret)
{
	int n = fprintf(out, "[");

	for (size_t i = 0; items && items[i]; i++) {
		n += fprintf(out, "%s", i ? ", " : "");
		n += secret ? put_header(out, items[i]) : put_quoted(out, items[i]);
	}
	return n + fprintf(out, "]");
}

/* The largest unit that leaves a whole number. */
static int put_number(FILE *out, const struct config_key *k, int64_t value)
{
	static const struct {
		const char *suffix;
		int64_t factor;
	} ms[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}},
	  bytes[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1024}};

	for (size_t i = 0; k->kind == CONFIG_MS && value && i < ARRAY_SIZE(ms); i++) {
		if (value % ms[i].factor == 0)
			return fprintf(out, "%lld%s", (long long)(value / ms[i].factor),
				       ms[i].suffix);
	}
	for (size_t i = 0; k->kind == CONFIG_BYTES && value && i < ARRAY_SIZE(bytes); i++) {
		if (value % bytes[i].factor == 0)
			return fprintf(out, "%lld%s", (long long)(value / bytes[i].factor),
				       bytes[i].suffix);
	}
	return fprintf(out, "%lld", (long long)value);
}

static int put_value(FILE *out, const struct config *c, const struct config_key *k)
{
	const void *field = field_of(c, k);

	switch (k->kind) {
	case CONFIG_TEXT:
	case CONFIG_CHOICE:
		return k->address ? put_address(out, *(char *const *)field)
				  : put_quoted(out, *(char *const *)field);
	case CONFIG_LIST:
		return put_list(out, *(char **const *)field, k->address);
	case CONFIG_BOOL:
		return fprintf(out, "%s", *(const bool *)field ? "true" : "false");
	case CONFIG_LOGLEVEL:
		return fprintf(out, "%s", log_level_name(*(const enum log_level *)field));
	default:
		return put_number(out, k, *(const int64_t *)field);
	}
}

void config_print(const struct config *c, FILE *out)
{
	const char *section = "";
	size_t section_len = 0;

	for (size_t i = 0; i < config_keys_count; i++) {
		const struct config_key *k = &config_keys[i];
		const char *dot = strchr(k->name, '.');
		size_t len = dot ? (size_t)(dot - k->name) : 0;
		int n;

		if (len && (len != section_len || strncmp(section, k->name, len) != 0))
			(void)fprintf(out, "%.*s:\n", (int)len, k->name);
		section = k->name;
		section_len = len;
		n = fprintf(out, "%s%s: ", dot ? "  " : "", dot ? dot + 1 : k->name);
		n += put_value(out, c, k);
		(void)fprintf(out, "%*s# %s\n", n < COLUMN ? COLUMN - n : 1, "",
			      c->origins[i].text);
	}
}

void config_print_keys(FILE *out)
{
	static const char *const kinds[] = {
		[CONFIG_TEXT] = "text",	      [CONFIG_LIST] = "a,b,...",  [CONFIG_CHOICE] = "word",
		[CONFIG_BOOL] = "true|false", [CONFIG_INT] = "number",	  [CONFIG_BYTES] = "size",
		[CONFIG_MS] = "duration",     [CONFIG_LOGLEVEL] = "word",
	};

	for (size_t i = 0; i < config_keys_count; i++) {
		const struct config_key *k = &config_keys[i];

		(void)fprintf(out, "%s  (%s%s%s)\n    %s\n", k->name, kinds[k->kind],
			      k->preset && *k->preset ? ", " : "", k->preset ? k->preset : "",
			      k->help);
	}
}
