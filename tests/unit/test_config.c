/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "config/config.h"
#include "config/config_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { ARGS_MAX = 8 };

/* What a server is started with: flags and variables are NULL-terminated; file may be NULL. */
struct start {
	const char *file;
	const char *flags[ARGS_MAX];
	const char *env[ARGS_MAX];
};

static char file_path[64]; /* of this process: several builds are tested side by side */

static int load(const struct start *s, struct config **ret_config, struct err *e)
{
	char *argv[ARGS_MAX + 3] = {NULL}, *env[ARGS_MAX + 1] = {NULL};
	int argc = 0, r;

	argv[argc++] = strdup("serve");
	if (s->file) {
		FILE *f = fopen(file_path, "we");

		assert_non_null(f);
		assert_true(fputs(s->file, f) >= 0);
		assert_int_equal(fclose(f), 0);
		assert_true(asprintf(&argv[argc++], "--config=%s", file_path) > 0);
	}
	for (size_t i = 0; i < ARGS_MAX && s->flags[i]; i++)
		argv[argc++] = strdup(s->flags[i]);
	for (size_t i = 0; i < ARGS_MAX && s->env[i]; i++)
		env[i] = strdup(s->env[i]);
	r = config_load(argc, argv, env, ret_config, e);
	for (int i = 0; i < argc; i++)
		free(argv[i]);
	for (size_t i = 0; env[i]; i++)
		free(env[i]);
	if (s->file)
		assert_int_equal(unlink(file_path), 0);
	return r;
}

static struct config *load_ok(const struct start *s)
{
	struct config *c = NULL;
	struct err e = {""};

	if (load(s, &c, &e) < 0)
		fail_msg("%s", e.msg);
	return c;
}

static void load_nothing_gives_defaults(void **state)
{
	AUTO(config_free) struct config *c = load_ok(&(struct start){.env = {"HOME=/home/x"}});

	(void)state;
	assert_string_equal(c->listen, "127.0.0.1:8080");
	assert_string_equal(c->data_dir,
			    geteuid() == 0 ? "/var/lib/kiln" : "/home/x/.local/share/kiln");
	assert_true(c->slots >= 2);
	assert_false(c->open);
	assert_null(c->hosts[0]);
	assert_true(c->limits.cpu_ms == 5000);
	assert_true(c->limits.memory_bytes == 256 << 20);
	assert_true(c->compile_limits.memory_bytes == 1 << 30);
	assert_true(c->weights[TASK_CLASS_HIGH] == 8);
	assert_true(c->retention_ms == INT64_C(7) * 86400 * 1000);
}

static void load_later_source_wins(void **state)
{
	AUTO(config_free)
	struct config *c = load_ok(&(struct start){
		.file = "slots: 3\nslots_per_runner: 4\nlimits: {cpu_ms: 2s, wall_ms: 3s}\n"
			"hosts: [a, b]\n",
		.env = {"KILN_SLOTS_PER_RUNNER=5", "KILN_LIMITS_CPU_MS=2500", "KILN_SERVER=x",
			"OTHER=1"},
		.flags = {"--limits.cpu-ms=2750ms", "--data-dir", "/d", "--open"},
	});

	(void)state;
	assert_true(c->slots == 3);
	assert_true(c->slots_per_runner == 5);
	assert_true(c->limits.cpu_ms == 2750);
	assert_true(c->limits.wall_ms == 3000);
	assert_string_equal(c->hosts[1], "b");
	assert_string_equal(c->store, "sqlite:/d/kiln.db");
	assert_true(c->open);
}

/* `eval "$(tools/stack.sh env)"` must not make every command fail. */
static void load_lets_variables_of_scripts_through(void **state)
{
	AUTO(config_free)
	struct config *c = load_ok(&(struct start){
		.env = {"KILN_BUILD=/b", "KILN_TEST_REDIS_URL=redis://h", "KILN_STACK_DIR=/s",
			"KILN_STACK_PORT=1"},
	});

	(void)state;
	assert_non_null(c);
	for (size_t i = 0; i < config_keys_count; i++) {
		assert_false(str_has_prefix(config_keys[i].name, "build"));
		assert_false(str_has_prefix(config_keys[i].name, "test"));
		assert_false(str_has_prefix(config_keys[i].name, "stack"));
	}
}

static void load_wrong_input_refused_with_place(void **state)
{
	static const struct {
		struct start start;
		const char *message;
	} cases[] = {
		{{.file = "slot: 3\n"},
		 "kiln-test-config.yaml:1:1: unknown key \"slot\" (did you mean \"slots\"?)"},
		{{.file = "limits:\n  cpu: 3s\n"},
		 "kiln-test-config.yaml:2:3: unknown key \"cpu\" (did you mean \"cpu_ms\"?)"},
		{{.file = "limits.cpu_ms: 3s\n"}, ":1:1: unknown key \"limits.cpu_ms\""},
		{{.file = "limits: 5\n"}, ":1:9: expected a mapping, found a single value"},
		{{.file = "slots: many\n"},
		 ":1:8: \"many\" is no value for slots, expected a whole number"},
		{{.file = "slots: 0\n"}, ":1:8: slots must be from 1 to 1024, not 0"},
		{{.file = "slots: '3'\n"}, ":1:8: expected a value without quotes"},
		{{.env = {"KILN_SLOT=3"}}, "unknown variable KILN_SLOT (did you mean KILN_SLOTS?)"},
		{{.env = {"KILN_BUILDS=x"}}, "unknown variable KILN_BUILDS"},
		{{.env = {"KILN_TEST=x"}}, "unknown variable KILN_TEST"},
		{{.env = {"KILN_SLOTS=x"}}, "KILN_SLOTS: \"x\" is no value for slots"},
		{{.flags = {"--slot=3"}}, "unknown option --slot (did you mean --slots?)"},
		{{.flags = {"--slots"}}, "--slots needs a value"},
		{{.flags = {"run.py"}}, "unexpected argument \"run.py\""},
		{{.flags = {"--open=maybe"}}, "--open: \"maybe\" is no value for open"},
		{{.flags = {"--sandbox.limits=cgroup"}},
		 "\"cgroup\" is no value for sandbox.limits, expected auto cgroup2 cgroup1 rlimit"},
		{{.flags = {"--limits.cpu-ms=90s"}},
		 "limits.cpu_ms is 90000, above ceilings.cpu_ms, which is 60000"},
		{{.flags = {"--listen=nowhere"}},
		 "--listen: listen: \"nowhere\" is no ADDRESS:PORT"},
		{{.flags = {"--config=/does/not/exist"}}, "could not open \"/does/not/exist\""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config *c = NULL;
		struct err e = {""};

		if (load(&cases[i].start, &c, &e) >= 0)
			fail_msg("taken, expected %s", cases[i].message);
		assert_null(c);
		if (!strstr(e.msg, cases[i].message))
			fail_msg("expected %s, got %s", cases[i].message, e.msg);
	}
}

static char *print(const struct config *c)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	config_print(c, f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void print_names_origin_and_masks_password(void **state)
{
	AUTO(config_free)
	struct config *c = load_ok(&(struct start){
		.file = "slots: 3\n",
		.env = {"KILN_LIMITS_CPU_MS=2500"},
		.flags = {"--store=postgresql://me:secret@db/kiln"},
	});
	AUTO_FREE char *text = print(c);

	(void)state;
	assert_non_null(strstr(text, "slots: 3 "));
	assert_non_null(strstr(text, file_path));
	assert_non_null(strstr(text, "  cpu_ms: 2500ms "));
	assert_non_null(strstr(text, "# KILN_LIMITS_CPU_MS\n"));
	assert_non_null(strstr(text, "\"postgresql://***@db/kiln\""));
	assert_null(strstr(text, "me:secret"));
}

static void print_can_be_loaded_again(void **state)
{
	AUTO(config_free)
	struct config *first = load_ok(&(struct start){
		.flags = {"--hosts=a.example,b.example", "--data-dir=/x \"y\"", "--open",
			  "--limits.memory-bytes=100MB", "--log-level=warn"}});
	AUTO_FREE char *text = print(first);
	AUTO(config_free) struct config *second = load_ok(&(struct start){.file = text});

	(void)state;
	assert_string_equal(second->data_dir, "/x \"y\"");
	assert_string_equal(second->hosts[1], "b.example");
	assert_true(second->limits.memory_bytes == 100000000);
	assert_true(second->open);
	assert_int_equal(second->log_level, LOG_WARN);
	assert_memory_equal(&second->ceilings, &first->ceilings, sizeof first->ceilings);
	assert_string_equal(second->store, first->store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(load_nothing_gives_defaults),
		cmocka_unit_test(load_later_source_wins),
		cmocka_unit_test(load_lets_variables_of_scripts_through),
		cmocka_unit_test(load_wrong_input_refused_with_place),
		cmocka_unit_test(print_names_origin_and_masks_password),
		cmocka_unit_test(print_can_be_loaded_again),
	};

	(void)snprintf(file_path, sizeof file_path, "/tmp/%d-kiln-test-config.yaml", (int)getpid());
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
