/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"

#include "base/fs.h"
#include "base/str.h"
#include "base/url.h"
#include "config/config_table.h"
#include "yaml/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_MAX_BYTES = 64 };

/* What clients read, where the file itself is named, and what tests run: no keys of the table. */
static const char *const other_variables[] = {"KILN_SERVER", "KILN_API_KEY", "KILN_CONFIG",
					      "KILN_BUILD"};

/* What the scripts of the source tree read. Keys must not begin so. */
static const char *const other_prefixes[] = {"KILN_TEST_", "KILN_STACK_"};

static void set_origin(struct config *c, const struct config_key *k, const char *origin)
{
	(void)str_copy(c->origins[k - config_keys].text, CONFIG_ORIGIN_MAX, origin);
}

static const struct config_key *find_key(const char *name)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		if (str_eq(config_keys[i].name, name))
			return &config_keys[i];
	}
	return NULL;
}

/* Errors get the origin in front. */
static int set_from(struct config *c, const struct config_key *k, const char *text,
		    const char *origin, struct err *e)
{
	int r = config_set(c, k, text, e);

	if (r < 0)
		return err_wrap(e, r, "%s", origin);
	set_origin(c, k, origin);
	return 0;
}

static int set_presets(struct config *c, struct err *e)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		const struct config_key *k = &config_keys[i];
		int r = 0;

		if (k->preset)
			r = set_from(c, k, k->preset, "default", e);
		else
			set_origin(c, k, "default");
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- the file ---- */

/* The words that may stand at one level of the file: the parts of all keys behind the prefix. */
static size_t known_words(const char *prefix, char words[][NAME_MAX_BYTES], const char **list)
{
	size_t n = 0;

	for (size_t i = 0; i < config_keys_count; i++) {
		const char *rest = config_keys[i].name;
		size_t len;

		if (!str_has_prefix(rest, prefix))
			continue;
		rest += strlen(prefix);
		len = strcspn(rest, ".");
		if (n && strlen(words[n - 1]) == len && !strncmp(words[n - 1], rest, len))
			continue;
		memcpy(words[n], rest, len);
		words[n][len] = '\0';
		list[n] = words[n];
		n++;
	}
	return n;
}

static bool is_section(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < config_keys_count; i++) {
		if (str_has_prefix(config_keys[i].name, name) && config_keys[i].name[len] == '.')
			return true;
	}
	return false;
}

static int set_from_value(struct config *c, const struct config_key *k, const struct yaml_value *v,
			  const char *path, struct err *e)
{
	char origin[CONFIG_ORIGIN_MAX];
	const char *text = NULL;
	char **items = NULL;
	struct err inner;
	int r;

	(void)snprintf(origin, sizeof origin, "%s:%u", path, yaml_line(v));
	if (k->kind == CONFIG_LIST) {
		r = yaml_as_texts(v, &items, e);
		if (r >= 0)
			r = config_set_list(c, k, items, e);
		yaml_texts_free(items);
	} else {
		bool quotes = k->kind == CONFIG_TEXT || k->kind == CONFIG_CHOICE;

		r = quotes ? yaml_as_text(v, &text, e) : yaml_as_plain(v, &text, e);
		if (r >= 0 && config_set(c, k, text, &inner) < 0)
			r = yaml_error(v, e, "%s", inner.msg);
	}
	if (r >= 0)
		set_origin(c, k, origin);
	return r;
}

static int load_section(struct config *c, const struct yaml_value *section, const char *prefix,
			const char *path, struct err *e)
{
	int r = yaml_expect(section, YAML_MAPPING, e);

	for (size_t i = 0; r >= 0 && i < yaml_count(section); i++) {
		char name[NAME_MAX_BYTES];
		const struct yaml_value *v = yaml_item(section, i);
		const struct config_key *k = NULL;
		size_t len;

		len = (size_t)snprintf(name, sizeof name, "%s%s", prefix, yaml_key(section, i));
		if (len + 1 < sizeof name && !strchr(yaml_key(section, i), '.'))
			k = find_key(name);
		if (k) {
			r = set_from_value(c, k, v, path, e);
		} else if (len + 1 < sizeof name && !*prefix && is_section(name)) {
			name[len] = '.';
			name[len + 1] = '\0';
			r = load_section(c, v, name, path, e);
		} else {
			char words[CONFIG_KEYS_MAX][NAME_MAX_BYTES];
			const char *list[CONFIG_KEYS_MAX];

			r = yaml_unknown_key(section, i, list, known_words(prefix, words, list), e);
		}
	}
	return r;
}

static int load_file(struct config *c, const char *path, struct err *e)
{
	AUTO(yaml_doc_free) struct yaml_doc *d = NULL;
	int r = yaml_doc_load_file(path, CONFIG_FILE_MAX, &d, e);

	return r < 0 ? r : load_section(c, yaml_doc_root(d), "", path, e);
}

/* ---- the environment ---- */

static void variable_name(const struct config_key *k, char dst[static NAME_MAX_BYTES])
{
	size_t n = (size_t)snprintf(dst, NAME_MAX_BYTES, "KILN_%s", k->name);

	for (size_t i = 0; i < n && i < NAME_MAX_BYTES; i++)
		dst[i] = dst[i] == '.' ? '_' : (char)toupper((unsigned char)dst[i]);
}

static int unknown_variable(const char *name, struct err *e)
{
	char names[CONFIG_KEYS_MAX][NAME_MAX_BYTES];
	const char *list[CONFIG_KEYS_MAX] = {NULL};
	const char *near;

	for (size_t i = 0; i < config_keys_count; i++) {
		variable_name(&config_keys[i], names[i]);
		list[i] = names[i];
	}
	near = str_nearest(name, list, config_keys_count);
	if (near)
		return err_set(e, -EINVAL, "unknown variable %s (did you mean %s?)", name, near);
	return err_set(e, -EINVAL, "unknown variable %s: `kiln config --keys` lists all", name);
}

static bool is_other_variable(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(other_variables); i++) {
		if (str_eq(name, other_variables[i]))
			return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(other_prefixes); i++) {
		if (str_has_prefix(name, other_prefixes[i]))
			return true;
	}
	return false;
}

static int load_variable(struct config *c, const char *variable, struct err *e)
{
	char name[NAME_MAX_BYTES], known[NAME_MAX_BYTES];
	const char *equals = strchr(variable, '=');
	size_t len = equals ? (size_t)(equals - variable) : 0;

	if (!len || len >= sizeof name || !str_has_prefix(variable, "KILN_"))
		return 0;
	memcpy(name, variable, len);
	name[len] = '\0';
	if (is_other_variable(name))
		return 0;
	for (size_t i = 0; i < config_keys_count; i++) {
		variable_name(&config_keys[i], known);
		if (str_eq(name, known))
			return set_from(c, &config_keys[i], equals + 1, name, e);
	}
	return unknown_variable(name, e);
}

static const char *find_variable(char **env, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; env && env[i]; i++) {
		if (!strncmp(env[i], name, len) && env[i][len] == '=')
			return env[i][len + 1] ? env[i] + len + 1 : NULL;
	}
	return NULL;
}

const char *config_env(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* ---- flags ---- */

struct flag {
	char name[NAME_MAX_BYTES]; /* as the key: "_" for "-" */
	char origin[NAME_MAX_BYTES];
	const char *value; /* NULL: none was given */
};

static int unknown_flag(const struct flag *f, struct err *e)
{
	const char *list[CONFIG_KEYS_MAX] = {NULL};
	const char *near;

	for (size_t i = 0; i < config_keys_count; i++)
		list[i] = config_keys[i].name;
	near = str_nearest(f->name, list, config_keys_count);
	if (near)
		return err_set(e, -EINVAL, "unknown option %s (did you mean --%s?)", f->origin,
			       near);
	return err_set(e, -EINVAL, "unknown option %s: `kiln config --keys` lists all", f->origin);
}

/* Reads the flag at argv[*i] and moves on; takes the next argument as value where the flag needs
 * one and has none. */
static int next_flag(int argc, char **argv, int *i, struct flag *f, struct err *e)
{
	const char *arg = argv[(*i)++];
	size_t len = strcspn(arg, "=");
	const struct config_key *k;

	if (!str_has_prefix(arg, "--") || len < 3 || len >= sizeof f->origin)
		return err_set(e, -EINVAL, "unexpected argument \"%s\"", arg);
	memcpy(f->origin, arg, len);
	f->origin[len] = '\0';
	(void)str_copy(f->name, sizeof f->name, f->origin + 2);
	for (char *p = f->name; *p; p++)
		*p = *p == '-' ? '_' : *p;
	k = find_key(f->name);
	f->value = arg[len] ? arg + len + 1 : NULL;
	if (!k && !str_eq(f->name, "config"))
		return unknown_flag(f, e);
	if (!f->value && k && k->kind == CONFIG_BOOL)
		f->value = "true";
	if (!f->value && *i < argc)
		f->value = argv[(*i)++];
	if (!f->value)
		return err_set(e, -EINVAL, "%s needs a value", f->origin);
	return 0;
}

/* Twice over the flags: for the name of the file, which is read first, and for the rest. */
static int find_file(int argc, char **argv, char **env, const char **ret_path, struct err *e)
{
	*ret_path = find_variable(env, "KILN_CONFIG");
	for (int i = 1; i < argc;) {
		struct flag f;
		int r = next_flag(argc, argv, &i, &f, e);

		if (r < 0)
			return r;
		if (str_eq(f.name, "config"))
			*ret_path = f.value;
	}
	return 0;
}

static int load_flags(struct config *c, int argc, char **argv, struct err *e)
{
	for (int i = 1; i < argc;) {
		struct flag f;
		int r = next_flag(argc, argv, &i, &f, e);

		if (r >= 0 && !str_eq(f.name, "config"))
			r = set_from(c, find_key(f.name), f.value, f.origin, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- what is found out at start ---- */

/* Tasks are mostly busy with the CPU, so more slots than CPUs only make each slower; but with one
 * slot alone a single endless program would hold up everybody. */
static int64_t default_slots(void)
{
	cpu_set_t set;
	int n;

	CPU_ZERO(&set);
	n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
	return n < 2 ? 2 : n;
}

static int default_data_dir(char **env, char **ret_path)
{
	const char *share = find_variable(env, "XDG_DATA_HOME");
	const char *home = find_variable(env, "HOME");
	int n;

	if (geteuid() == 0)
		n = asprintf(ret_path, "/var/lib/kiln");
	else if (share && share[0] == '/')
		n = asprintf(ret_path, "%s/kiln", share);
	else if (home && home[0] == '/')
		n = asprintf(ret_path, "%s/.local/share/kiln", home);
	else
		n = asprintf(ret_path, "./kiln-data");
	return n < 0 ? -ENOMEM : 0;
}

/* Beside the program in the build tree, then where it is installed. */
static int default_languages(char **ret_path)
{
	static const char *const places[] = {"/languages", "/../languages",
					     "/../share/kiln/languages"};
	AUTO_FREE char *self = fs_self_dir();

	for (size_t i = 0; self && i < ARRAY_SIZE(places); i++) {
		char path[PATH_MAX], full[PATH_MAX];
		size_t len = (size_t)snprintf(path, sizeof path, "%s%s", self, places[i]);

		if (len < sizeof path && realpath(path, full)) {
			*ret_path = strdup(full);
			return *ret_path ? 0 : -ENOMEM;
		}
	}
	*ret_path = strdup("/usr/share/kiln/languages");
	return *ret_path ? 0 : -ENOMEM;
}

/* Root makes it below a folder of its own: only there can nobody put another in its place. */
static int default_setup_dir(const char *data_dir, char **ret_path)
{
	int n = geteuid() == 0 ? asprintf(ret_path, "/var/cache/kiln")
			       : asprintf(ret_path, "%s/setup", data_dir);

	return n < 0 ? -ENOMEM : 0;
}

static int fill_in(struct config *c, char **env, struct err *e)
{
	int r = 0;

	if (!c->slots)
		c->slots = default_slots();
	if (!c->data_dir)
		r = default_data_dir(env, &c->data_dir);
	if (r >= 0 && !c->languages)
		r = default_languages(&c->languages);
	if (r >= 0 && !c->store && asprintf(&c->store, "sqlite:%s/kiln.db", c->data_dir) < 0) {
		c->store = NULL;
		r = -ENOMEM;
	}
	if (r >= 0 && !c->setup_dir)
		r = default_setup_dir(c->data_dir, &c->setup_dir);
	return r < 0 ? err_errno(e, r, "could not read the configuration") : 0;
}

/* ---- the whole ---- */

static int check_below(const struct task_limits *limits, const struct task_limits *ceilings,
		       const char *prefix, struct err *e)
{
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		const struct task_limit_field *f = &task_limit_fields[i];
		int64_t value = task_limit_get(limits, f), most = task_limit_get(ceilings, f);

		if (value > most)
			return err_set(e, -EINVAL,
				       "%slimits.%s is %lld, above %sceilings.%s, which is %lld",
				       prefix, f->name, (long long)value, prefix, f->name,
				       (long long)most);
	}
	return 0;
}

/* Here, so that it is told with the place it is from, before anything is started. */
static int check_listen(const struct config *c, const char *key, const char *text, struct err *e)
{
	const struct config_key *k = find_key(key);
	struct sockaddr_storage addr;
	socklen_t len;
	int r = url_parse_listen(text, &addr, &len, e);

	return r < 0 ? err_wrap(e, r, "%s: %s", c->origins[k - config_keys].text, key) : 0;
}

int config_load(int argc, char **argv, char **env, struct config **ret_config, struct err *e)
{
	AUTO(config_free) struct config *c = calloc(1, sizeof *c);
	const char *path = NULL;
	int r;

	if (!c || !(c->origins = calloc(config_keys_count, sizeof *c->origins)))
		return err_errno(e, -ENOMEM, "could not read the configuration");
	r = find_file(argc, argv, env, &path, e);
	if (r >= 0)
		r = set_presets(c, e);
	if (r >= 0 && path)
		r = load_file(c, path, e);
	for (size_t i = 0; r >= 0 && env && env[i]; i++)
		r = load_variable(c, env[i], e);
	if (r >= 0)
		r = load_flags(c, argc, argv, e);
	if (r >= 0)
		r = fill_in(c, env, e);
	if (r >= 0)
		r = check_listen(c, "listen", c->listen, e);
	if (r >= 0)
		r = check_listen(c, "metrics_listen", c->metrics_listen, e);
	if (r >= 0)
		r = check_below(&c->limits, &c->ceilings, "", e);
	if (r >= 0)
		r = check_below(&c->compile_limits, &c->compile_ceilings, "compile_", e);
	if (r < 0)
		return r;
	*ret_config = TAKE_PTR(c);
	return 0;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < config_keys_count; i++)
		config_fini_key(c, &config_keys[i]);
	free(c->origins);
	free(c);
}
