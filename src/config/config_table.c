/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config_table.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(struct config, field)
#define KIB	  INT64_C(1024)
#define MIB	  (1024 * KIB)
#define GIB	  (1024 * MIB)
#define HOUR_MS	  (INT64_C(3600) * 1000)
#define DAY_MS	  (24 * HOUR_MS)

#define TEXT(key, field, preset_text, help_text)                                                   \
	{                                                                                          \
		.name = key, .kind = CONFIG_TEXT, .offset = AT(field), .preset = preset_text,      \
		.help = help_text                                                                  \
	}
#define ADDRESS(key, field, preset_text, help_text)                                                \
	{                                                                                          \
		.name = key, .kind = CONFIG_TEXT, .offset = AT(field), .preset = preset_text,      \
		.help = help_text, .address = true                                                 \
	}
#define CHOICE(key, field, preset_text, words, help_text)                                          \
	{                                                                                          \
		.name = key, .kind = CONFIG_CHOICE, .offset = AT(field), .preset = preset_text,    \
		.choices = words, .help = help_text                                                \
	}
#define NUMBER(type, key, field, least, most, preset_text, help_text)                              \
	{                                                                                          \
		.name = key, .kind = type, .offset = AT(field), .min = least, .max = most,         \
		.preset = preset_text, .help = help_text                                           \
	}

/* What a compiler says travels in one frame. */
#define COMPILE_OUTPUT_MOST (960 * KIB)

/* The nine limits, for each of the four structures of them. The lower bounds are where a process
 * can still be started at all. */
#define LIMITS(key, field, what, cpu, wall, memory, procs, output_most, output, disk, file, files, \
	       stack)                                                                              \
	NUMBER(CONFIG_MS, key ".cpu_ms", field.cpu_ms, 1, DAY_MS, cpu, what "CPU time"),           \
		NUMBER(CONFIG_MS, key ".wall_ms", field.wall_ms, 1, DAY_MS, wall,                  \
		       what "time by the clock"),                                                  \
		NUMBER(CONFIG_BYTES, key ".memory_bytes", field.memory_bytes, MIB, 1024 * GIB,     \
		       memory, what "memory of all processes, files in the work directory too"),   \
		NUMBER(CONFIG_INT, key ".processes", field.processes, 1, 32768, procs,             \
		       what "processes and threads together"),                                     \
		NUMBER(CONFIG_BYTES, key ".output_bytes", field.output_bytes, 0, output_most,      \
		       output, what "output of each stream"),                                      \
		NUMBER(CONFIG_BYTES, key ".disk_bytes", field.disk_bytes, 4 * KIB, 64 * GIB, disk, \
		       what "all files that are written"),                                         \
		NUMBER(CONFIG_BYTES, key ".file_bytes", field.file_bytes, 4 * KIB, 64 * GIB, file, \
		       what "one file"),                                                           \
		NUMBER(CONFIG_INT, key ".open_files", field.open_files, 8, 65536, files,           \
		       what "open files of a process"),                                            \
		NUMBER(CONFIG_BYTES, key ".stack_bytes", field.stack_bytes, 64 * KIB, 16 * GIB,    \
		       stack, what "stack of the main thread")

const struct config_key config_keys[] = {
	TEXT("listen", listen, "127.0.0.1:8080", "address and port of the HTTP API"),
	TEXT("metrics_listen", metrics_listen, "127.0.0.1:9465",
	     "address and port of /healthz, /readyz, /metrics and /pods of a scheduler on its own"),
	TEXT("data_dir", data_dir, NULL,
	     "folder for what is kept; /var/lib/kiln for root, else ~/.local/share/kiln"),
	NUMBER(CONFIG_INT, "slots", slots, 1, 1024, NULL,
	       "tasks that run at one time; the number of CPUs, at least 2"),
	NUMBER(CONFIG_INT, "slots_per_runner", slots_per_runner, 1, 8, "8",
	       "a host with more slots gets further runners"),
	ADDRESS("store", store, NULL,
		"sqlite:PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE; "
		"sqlite:DATA_DIR/kiln.db where not given"),
	ADDRESS("queue", queue, "memory:", "memory: or amqp://USER:PASSWORD@HOST:PORT/VHOST"),
	ADDRESS("cache", cache, "memory:", "memory: or redis://[USER:PASSWORD@]HOST:PORT/DB"),
	TEXT("pods", pods, "local:",
	     "local:, or runners:NAME@HOST:PORT,... or runners:file=PATH for runners that listen, "
	     "or "
	     "kubernetes:NAMESPACE for pods of Kubernetes"),
	TEXT("cluster_secret_file", cluster_secret_file, "",
	     "file with the secret that the keys of listening runners are derived from"),
	TEXT("languages", languages, NULL,
	     "folder of the language files; beside the program or /usr/share/kiln/languages"),
	TEXT("setup_dir", setup_dir, NULL,
	     "folder of what languages make beforehand; /var/cache/kiln for root, else "
	     "DATA_DIR/setup; none: nothing is made"),
	{.name = "open",
	 .kind = CONFIG_BOOL,
	 .offset = AT(open),
	 .preset = "false",
	 .help = "serve other machines although no keys were made: anybody may run code"},
	{.name = "hosts",
	 .kind = CONFIG_LIST,
	 .offset = AT(hosts),
	 .preset = "",
	 .help = "names, besides the address, under which browsers may reach the API"},
	{.name = "log_level",
	 .kind = CONFIG_LOGLEVEL,
	 .offset = AT(log_level),
	 .preset = "info",
	 .help = "debug, info, warn or error"},
	ADDRESS("otlp_endpoint", otlp_endpoint, "",
		"collector of spans by OTLP/HTTP, as http://HOST:4318; nothing is traced without"),
	{.name = "otlp_headers",
	 .kind = CONFIG_LIST,
	 .offset = AT(otlp_headers),
	 .preset = "",
	 .help = "headers for the collector, each \"Name: value\"",
	 .address = true},
	NUMBER(CONFIG_INT, "trace_percent", trace_percent, 0, 100, "100",
	       "traced share of the submissions that come without a traceparent"),
	TEXT("user", user, "", "user of the server when started as root; chosen where not given"),
	TEXT("runner_user", runner_user, "", "user of the runner, likewise"),

	LIMITS("limits", limits, "default of a run: ", "5s", "15s", "256MiB", "64", GIB, "1MiB",
	       "64MiB", "64MiB", "256", "64MiB"),
	LIMITS("compile_limits", compile_limits, "default of a compile step: ", "15s", "30s",
	       "1GiB", "128", COMPILE_OUTPUT_MOST, "512KiB", "256MiB", "256MiB", "256", "64MiB"),
	LIMITS("ceilings", ceilings, "most that a run may ask for: ", "60s", "120s", "2GiB", "512",
	       GIB, "16MiB", "1GiB", "1GiB", "4096", "1GiB"),
	LIMITS("compile_ceilings", compile_ceilings,
	       "most that a compile step may ask for: ", "60s", "120s", "4GiB", "512",
	       COMPILE_OUTPUT_MOST, "960KiB", "1GiB", "1GiB", "4096", "1GiB"),

	NUMBER(CONFIG_BYTES, "body_max_bytes", body_max_bytes, KIB, GIB, "8MiB",
	       "largest request; above: 413"),
	NUMBER(CONFIG_INT, "queue_max", queue_max, 1, 10000000, "10000",
	       "tasks that may wait; above: 429"),
	NUMBER(CONFIG_INT, "admit_max", admit_max, 1, 10000, "64",
	       "tasks of one tenant, language and priority that each server lets into a broker"),
	NUMBER(CONFIG_INT, "tenant_running_max", tenant_running_max, 0, 100000, "0",
	       "tasks of one tenant that each scheduler runs at one time; 0: as many as there are"),
	NUMBER(CONFIG_INT, "tenant_queued_max", tenant_queued_max, 0, 10000000, "0",
	       "tasks of one tenant that may wait; above: 429; 0: as many as there are"),
	NUMBER(CONFIG_INT, "tenant_rate", tenant_rate, 0, 1000000000, "0",
	       "submissions a minute of one tenant; above: 429; 0: any number"),
	NUMBER(CONFIG_INT, "tenant_burst", tenant_burst, 1, 1000000, "10", "of these at once"),
	NUMBER(CONFIG_BYTES, "cache_max_bytes", cache_max_bytes, 0, 64 * GIB, "16MiB",
	       "memory for finished results"),
	NUMBER(CONFIG_BYTES, "compile_cache_bytes", compile_cache_bytes, 0, 1024 * GIB, "256MiB",
	       "compiled programs that each runner keeps; 0: none"),
	{.name = "compile_cache_shared",
	 .kind = CONFIG_BOOL,
	 .offset = AT(compile_cache_shared),
	 .preset = "false",
	 .help = "tenants share what was compiled: a hit then tells that somebody sent the same"},
	NUMBER(CONFIG_BYTES, "standby_bytes", standby_bytes, 0, 1024 * GIB, "0",
	       "memory of each runner for interpreters that are started beforehand; 0: none"),
	NUMBER(CONFIG_BYTES, "fork_bytes", fork_bytes, 0, 1024 * GIB, "128MiB",
	       "memory of each runner for interpreters that tasks are forked of; 0: none"),
	NUMBER(CONFIG_INT, "resident_compilers", resident_compilers, 0, 1000000, "0",
	       "programs of one tenant that a compiler is used for, where its language has such "
	       "(java); takes from standby_bytes; 0: one"),
	NUMBER(CONFIG_INT, "connection_max", connection_max, 1, 100000, "1000",
	       "open connections of clients"),
	NUMBER(CONFIG_INT, "connection_max_per_address", connection_max_per_address, 0, 100000, "0",
	       "of these from one address; 0: as many as in all"),
	NUMBER(CONFIG_INT, "waiters_max", waiters_max, 1, 100000, "1000",
	       "requests that wait for a result at one time"),
	NUMBER(CONFIG_MS, "retention", retention_ms, 0, 3650 * DAY_MS, "7d",
	       "finished tasks are removed after this time; 0: kept"),
	NUMBER(CONFIG_MS, "idempotency_ttl", idempotency_ttl_ms, 1000, 365 * DAY_MS, "24h",
	       "how long an Idempotency-Key is remembered"),
	NUMBER(CONFIG_MS, "lease_ms", lease_ms, 500, HOUR_MS, "10s",
	       "tasks of a scheduler that is silent for so long run again elsewhere"),
	NUMBER(CONFIG_MS, "drain_ms", drain_ms, 0, HOUR_MS, "30s",
	       "at SIGTERM: time for the tasks that run"),
	NUMBER(CONFIG_INT, "weights.high", weights[TASK_CLASS_HIGH], 1, 1000, "8",
	       "share of tasks of priority high"),
	NUMBER(CONFIG_INT, "weights.normal", weights[TASK_CLASS_NORMAL], 1, 1000, "4",
	       "share of tasks of priority normal"),
	NUMBER(CONFIG_INT, "weights.low", weights[TASK_CLASS_LOW], 1, 1000, "1",
	       "share of tasks of priority low"),
	CHOICE("sandbox.limits", sandbox_limits, "auto", "auto cgroup2 cgroup1 rlimit",
	       "what enforces memory and processes; auto: the best that works"),
	TEXT("sandbox.min_isolation", sandbox_min_isolation, "netns,seccomp",
	     "refuse to run code without these: cgroup2, cgroup, userns, netns, seccomp, landlock, "
	     "two-ids; or none"),
	NUMBER(CONFIG_INT, "sandbox.uid_base", sandbox_uid_base, 0, 4000000000, "0",
	       "first of the user ids that sandboxes run as; 0: chosen"),
};
const size_t config_keys_count = ARRAY_SIZE(config_keys);
_Static_assert(ARRAY_SIZE(config_keys) <= CONFIG_KEYS_MAX, "CONFIG_KEYS_MAX is too small");

static void *field_of(struct config *c, const struct config_key *k)
{
	return (char *)c + k->offset;
}

static void free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

static int set_text(char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int wrong(const struct config_key *k, const char *text, const char *expected, struct err *e)
{
	return err_set(e, -EINVAL, "\"%s\" is no value for %s, expected %s", text, k->name,
		       expected);
}

static int set_choice(const struct config_key *k, char **field, const char *text, struct err *e)
{
	size_t len = strlen(text);

	for (const char *p = k->choices; len && !strchr(text, ' ') && (p = strstr(p, text)); p++) {
		if ((p == k->choices || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
			return set_text(field, text);
	}
	return wrong(k, text, k->choices, e);
}

static int set_bool(const struct config_key *k, bool *field, const char *text, struct err *e)
{
	if (!str_eq(text, "true") && !str_eq(text, "false"))
		return wrong(k, text, "true or false", e);
	*field = str_eq(text, "true");
	return 0;
}

static int set_number(const struct config_key *k, int64_t *field, const char *text, struct err *e)
{
	uint64_t bytes = 0;
	int64_t value = 0;
	int r;

	if (k->kind == CONFIG_MS) {
		r = str_to_ms(text, &value);
	} else if (k->kind == CONFIG_BYTES) {
		r = str_to_bytes(text, &bytes);
		value = (int64_t)bytes;
	} else {
		r = str_to_i64(text, INT64_MIN, INT64_MAX, &value);
	}
	if (r < 0)
		return wrong(k, text,
			     k->kind == CONFIG_MS      ? "a duration like 500ms, 15s, 24h"
			     : k->kind == CONFIG_BYTES ? "a size like 64KiB, 256MiB, 1GiB"
						       : "a whole number",
			     e);
	if (value < k->min || value > k->max)
		return err_set(e, -ERANGE, "%s must be from %lld to %lld%s, not %s", k->name,
			       (long long)k->min, (long long)k->max,
			       k->kind == CONFIG_MS	 ? " ms"
			       : k->kind == CONFIG_BYTES ? " bytes"
							 : "",
			       text);
	*field = value;
	return 0;
}

/* Words with commas between; the empty text is the empty list. */
static int set_words(struct config *c, const struct config_key *k, const char *text, struct err *e)
{
	char *items[64] = {NULL};
	size_t n = 0;
	int r = 0;

	while (*text && r >= 0) {
		size_t len = strcspn(text, ",");

		if (!len || n + 1 == ARRAY_SIZE(items))
			r = wrong(k, text, "words with commas between", e);
		else if (!(items[n++] = strndup(text, len)))
			r = err_errno(e, -ENOMEM, "could not read %s", k->name);
		text += len + (text[len] == ',');
	}
	if (r >= 0)
		r = config_set_list(c, k, items, e);
	for (size_t i = 0; i < n; i++)
		free(items[i]);
	return r;
}

int config_set_list(struct config *c, const struct config_key *k, char *const *items, struct err *e)
{
	char ***field = field_of(c, k);
	char **copy;
	size_t n = 0;

	while (items[n])
		n++;
	copy = calloc(n + 1, sizeof *copy);
	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(items[i]);
		if (!copy[i]) {
			free_list(copy);
			copy = NULL;
		}
	}
	if (!copy)
		return err_errno(e, -ENOMEM, "could not read %s", k->name);
	free_list(*field);
	*field = copy;
	return 0;
}

int config_set(struct config *c, const struct config_key *k, const char *text, struct err *e)
{
	void *field = field_of(c, k);

	switch (k->kind) {
	case CONFIG_TEXT:
		if (set_text(field, text) < 0)
			return err_errno(e, -ENOMEM, "could not read %s", k->name);
		return 0;
	case CONFIG_LIST:
		return set_words(c, k, text, e);
	case CONFIG_CHOICE:
		return set_choice(k, field, text, e);
	case CONFIG_BOOL:
		return set_bool(k, field, text, e);
	case CONFIG_LOGLEVEL:
		if (log_level_parse(text, field) < 0)
			return wrong(k, text, "debug, info, warn or error", e);
		return 0;
	default:
		return set_number(k, field, text, e);
	}
}

void config_fini_key(struct config *c, const struct config_key *k)
{
	if (k->kind == CONFIG_TEXT || k->kind == CONFIG_CHOICE)
		free(*(char **)field_of(c, k));
	else if (k->kind == CONFIG_LIST)
		free_list(*(char ***)field_of(c, k));
}
