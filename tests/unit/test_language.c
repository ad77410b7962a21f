/* SPDX-License-Identifier: Apache-2.0 */
#include "task/language.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define RUN "run: {argv: [/bin/x, \"{entry}\"]}\n"

/* A folder of language files that lives for one test. */
struct folder {
	char path[64];
	char *files[4];
	size_t n;
};

static void folder_init(struct folder *f)
{
	*f = (struct folder){.path = "/tmp/kiln-test-language-XXXXXX"};
	assert_non_null(mkdtemp(f->path));
}

static void folder_add(struct folder *f, const char *name, const char *text)
{
	FILE *file;

	assert_true(asprintf(&f->files[f->n], "%s/%s", f->path, name) > 0);
	file = fopen(f->files[f->n++], "we");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void folder_fini(struct folder *f)
{
	for (size_t i = 0; i < f->n; i++) {
		assert_int_equal(unlink(f->files[i]), 0);
		free(f->files[i]);
	}
	assert_int_equal(rmdir(f->path), 0);
}

static void load_whole_file_fills_language(void **state)
{
	AUTO(language_registry_free) struct language_registry *r = NULL;
	struct folder f;
	struct err e = {""};
	struct language *l;

	(void)state;
	folder_init(&f);
	folder_add(&f, "cpp.yaml",
		   "name: cpp\ntitle: C++ 17\naliases: [c++]\nextensions: [.cpp, .cc]\n"
		   "source: main.cpp\nversion: {argv: [/usr/bin/g++, -v]}\n"
		   "install: {debian: g++}\n"
		   "compile: {argv: [/usr/bin/g++, -o, main, \"{sources}\"], produces: [main],\n"
		   "  toolchain: [/usr/bin/as, \"/usr/lib/*/cc1\"],\n"
		   "  limits: {memory_bytes: 1GiB, cpu_ms: 15s}}\n"
		   "run: {argv: [./main], limits: {processes: 9}}\n"
		   "env: {LANG: C.UTF-8}\nmounts: [/opt/x]\n"
		   "setup:\n  files: {a/x.h: \"int x;\"}\n"
		   "  commands: [[/usr/bin/g++, a/x.h], [/bin/true]]\n"
		   "  produces: [a/x.h.gch]\n"
		   "check:\n  hello: {code: x, stdout: \"hi\\n\"}\n"
		   "  three: {code: y, args: [a], stdin: s, exit_code: 3}\n"
		   "  slow: {code: z, outcome: time_limit, limits: {cpu_ms: 300}}\n");
	if (language_registry_load(f.path, &r, &e) < 0)
		fail_msg("%s", e.msg);
	l = language_find(r, "c++");
	assert_non_null(l);
	assert_ptr_equal(l, language_at(r, 0));
	assert_string_equal(l->title, "C++ 17");
	assert_string_equal(l->compile.toolchain[1], "/usr/lib/*/cc1");
	assert_null(l->compile.toolchain[2]);
	assert_true(l->compile.limits.memory_bytes == 1 << 30);
	assert_true(l->compile.limits.cpu_ms == 15000);
	assert_true(l->compile.limits.wall_ms == TASK_LIMIT_UNSET);
	assert_true(l->run.limits.processes == 9);
	assert_int_equal(l->setup.n_files, 1);
	assert_string_equal(l->setup.files[0].name, "a/x.h");
	assert_string_equal(l->setup.files[0].text, "int x;");
	assert_string_equal(l->setup.commands[0][1], "a/x.h");
	assert_string_equal(l->setup.commands[1][0], "/bin/true");
	assert_null(l->setup.commands[2]);
	assert_string_equal(l->setup.produces[0], "a/x.h.gch");
	assert_string_equal(l->env[0].value, "C.UTF-8");
	assert_int_equal(strlen(l->revision), 64);
	assert_int_equal(l->n_checks, 3);
	assert_int_equal(l->checks[0].expect_outcome, TASK_OUTCOME_OK);
	assert_int_equal(l->checks[0].expect_exit_code, 0);
	assert_int_equal(l->checks[1].expect_outcome, TASK_OUTCOME_RUNTIME_ERROR);
	assert_int_equal(l->checks[2].expect_outcome, TASK_OUTCOME_TIME_LIMIT);
	assert_int_equal(l->checks[2].expect_exit_code, -1);
	assert_true(l->checks[2].limits.cpu_ms == 300);
	assert_ptr_equal(language_find_by_extension(r, "a.b/x.cc"), l);
	assert_null(language_find_by_extension(r, "a.cc/x"));
	folder_fini(&f);
}

static void load_wrong_file_tells_place(void **state)
{
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {
		{"name: x\nsource: m\n" RUN "titel: T\n",
		 "/x.yaml:4:1: unknown key \"titel\" (did you mean \"title\"?)"},
		{"name: x\n" RUN, "/x.yaml:1:1: the key \"source\" is missing"},
		{"name: X\nsource: m\n" RUN, "/x.yaml:1:7: \"X\" is no name"},
		{"name: x\nsource: a/m\n" RUN, "/x.yaml:2:9: \"a/m\" is no plain file name"},
		{"name: x\nsource: m\nrun: {argv: [python3]}\n",
		 "/x.yaml:3:14: a command starts with an absolute path"},
		{"name: x\nsource: m\nrun: {argv: [./../x]}\n", "/x.yaml:3:14: a command starts"},
		{"name: x\nsource: m\nrun: {argv: []}\n", "/x.yaml:3:13: the command is empty"},
		{"name: x\nsource: m\nrun: {argv: [./main]}\n",
		 "/x.yaml:3:6: \"./main\" is run, but there is no compile step"},
		{"name: x\nsource: m\nrun: {argv: [/x, \"a{entri}\"]}\n",
		 "/x.yaml:3:18: \"a{entri}\": only {entry}"},
		{"name: x\nsource: m\n" RUN "compile: {argv: [/x]}\n",
		 "/x.yaml:4:10: the key \"produces\" is missing"},
		{"name: x\nsource: m\n" RUN "compile: {argv: [/x], produces: [../y]}\n",
		 "/x.yaml:4:34: \"../y\" is no pattern"},
		{"name: x\nsource: m\n" RUN
		 "compile: {argv: [/x], produces: [y], toolchain: [as]}\n",
		 "/x.yaml:4:50: \"as\" is no absolute path, or pattern of such"},
		{"name: x\nsource: m\nrun: {argv: [/x], limits: {memory_bytes: 1GiG}}\n",
		 "/x.yaml:3:42: \"1GiG\" is no value for memory_bytes"},
		{"name: x\nsource: m\nrun: {argv: [/x], limits: {cpu_ms: 0}}\n",
		 "/x.yaml:3:36: \"0\" is no value for cpu_ms"},
		{"name: x\nsource: m\n" RUN
		 "setup: {commands: [[/x, \"{entry}\"]], produces: [y]}\n",
		 "/x.yaml:4:20: a command of \"setup\" has an absolute path, and no placeholders"},
		{"name: x\nsource: m\n" RUN
		 "setup: {files: {../y: z}, commands: [[/x]], produces: [y]}\n",
		 "/x.yaml:4:17: \"../y\" is no name of a file"},
		{"name: x\nsource: m\nextensions: [py]\n" RUN,
		 "/x.yaml:3:14: \"py\" is no file name"},
		{"name: x\nsource: m\n" RUN "env: {A=B: c}\n", "/x.yaml:4:7: \"A=B\" is no name"},
		{"name: x\nsource: m\n" RUN "check: {a: {code: c, outcome: fine}}\n",
		 "/x.yaml:4:31: \"fine\" is no outcome"},
		{"name: x\nsource: m\n" RUN "check: {a: {stdout: c}}\n",
		 "/x.yaml:4:12: the key \"code\" is missing"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct language_registry *r = NULL;
		struct folder f;
		struct err e = {""};

		folder_init(&f);
		folder_add(&f, "x.yaml", cases[i].text);
		assert_true(language_registry_load(f.path, &r, &e) < 0);
		assert_null(r);
		if (!strstr(e.msg, cases[i].message))
			fail_msg("expected ...%s, got %s", cases[i].message, e.msg);
		folder_fini(&f);
	}
}

static void load_name_twice_refused(void **state)
{
	static const char *const second[] = {
		"name: a\nsource: m\n" RUN,
		"name: b\naliases: [a]\nsource: m\n" RUN,
		"name: b\nextensions: [.a]\nsource: m\n" RUN,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(second); i++) {
		struct language_registry *r = NULL;
		struct folder f;
		struct err e = {""};

		folder_init(&f);
		folder_add(&f, "1.yaml", "name: a\nextensions: [.a]\nsource: m\n" RUN);
		folder_add(&f, "2.yaml", second[i]);
		assert_int_equal(language_registry_load(f.path, &r, &e), -EINVAL);
		assert_non_null(strstr(e.msg, "belongs to \"a\" already"));
		folder_fini(&f);
	}
}

static void load_empty_folder_refused(void **state)
{
	struct language_registry *r = NULL;
	struct folder f;
	struct err e;

	(void)state;
	folder_init(&f);
	folder_add(&f, "README.md", "no language");
	assert_int_equal(language_registry_load(f.path, &r, &e), -ENOENT);
	folder_fini(&f);
	assert_int_equal(language_registry_load(f.path, &r, &e), -ENOENT);
}

static void shipped_languages_load_and_have_checks(void **state)
{
	static const char *const wanted[] = {"bash", "c",	   "cpp",    "go",
					     "java", "javascript", "python", "ruby"};
	AUTO(language_registry_free) struct language_registry *r = NULL;
	struct err e = {""};

	(void)state;
	if (language_registry_load(KILN_SOURCE_ROOT "/languages", &r, &e) < 0)
		fail_msg("%s", e.msg);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		const struct language *l = language_find(r, wanted[i]);
		unsigned seen = 0;

		assert_non_null(l);
		for (size_t k = 0; k < l->n_checks; k++)
			seen |= 1u << l->checks[k].expect_outcome;
		assert_true(seen & 1u << TASK_OUTCOME_OK);
		assert_true(seen & 1u << TASK_OUTCOME_RUNTIME_ERROR);
		assert_true(seen & 1u << TASK_OUTCOME_TIME_LIMIT);
		assert_true(seen & 1u << TASK_OUTCOME_MEMORY_LIMIT);
		assert_true(!l->compile.argv || seen & 1u << TASK_OUTCOME_COMPILE_ERROR);
	}
}

static void near_unknown_name_tells_nearest_first(void **state)
{
	AUTO(language_registry_free) struct language_registry *r = NULL;
	const char *names[3];

	(void)state;
	assert_int_equal(language_registry_load(KILN_SOURCE_ROOT "/languages", &r, NULL), 0);
	assert_true(language_near(r, "pyton", names, 3) >= 1);
	assert_string_equal(names[0], "python");
	assert_true(language_near(r, "javascrip", names, 3) >= 1);
	assert_string_equal(names[0], "javascript");
	assert_int_equal(language_near(r, "fortran-77-strict", names, 3), 0);
}

static void argv_placeholders_replaced(void **state)
{
	char *step_argv[] = {(char[]){"/x"},	     (char[]){"-m{memory_mib}"},
			     (char[]){"{stem}.out"}, (char[]){"{sources}"},
			     (char[]){""},	     NULL};
	char *extensions[] = {(char[]){".c"}, NULL};
	char *args[] = {(char[]){"{entry}"}};
	struct task_file files[] = {{.name = (char[]){"b.c"}},
				    {.name = (char[]){"d/main.c"}},
				    {.name = (char[]){"b.h"}}};
	struct task_program program = {.entry = (char[]){"d/main.c"}, .files = files, .n_files = 3};
	struct language l = {.extensions = extensions, .run.argv = step_argv};
	static const char *const expected[] = {"/x",  "-m64", "d/main.out", "d/main.c",
					       "b.c", "",     "{entry}"};
	struct language_words words = {.memory_bytes = 64 << 20};
	char **argv = NULL;

	(void)state;
	assert_int_equal(language_argv(&l, &l.run, &program, &words, args, 1, &argv), 0);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		assert_string_equal(argv[i], expected[i]);
	assert_null(argv[ARRAY_SIZE(expected)]);
	language_argv_free(argv);
	assert_int_equal(language_argv(&l, &l.compile, &program, &words, args, 1, &argv), -EINVAL);
}

static void argv_setup_is_left_out_where_there_is_none(void **state)
{
	char *step_argv[] = {(char[]){"/x"}, (char[]){"-I{setup}/a:{setup}"}, (char[]){"-c"}, NULL};
	struct task_program program = {.entry = (char[]){"main.c"}};
	struct language l = {.run.argv = step_argv};
	struct language_words words = {.setup = "/setup/c-1"};
	char **argv = NULL;

	(void)state;
	assert_int_equal(language_argv(&l, &l.run, &program, &words, NULL, 0, &argv), 0);
	assert_string_equal(argv[1], "-I/setup/c-1/a:/setup/c-1");
	assert_string_equal(argv[2], "-c");
	language_argv_free(argv);
	words.setup = NULL;
	assert_int_equal(language_argv(&l, &l.run, &program, &words, NULL, 0, &argv), 0);
	assert_string_equal(argv[0], "/x");
	assert_string_equal(argv[1], "-c");
	assert_null(argv[2]);
	language_argv_free(argv);
}

static void set_status_copies_version(void **state)
{
	struct language l = {0};

	(void)state;
	assert_int_equal(language_set_status(&l, true, "3.11"), 0);
	assert_true(l.installed);
	assert_string_equal(l.version, "3.11");
	assert_int_equal(language_set_status(&l, false, NULL), 0);
	assert_null(l.version);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(load_whole_file_fills_language),
		cmocka_unit_test(load_wrong_file_tells_place),
		cmocka_unit_test(load_name_twice_refused),
		cmocka_unit_test(load_empty_folder_refused),
		cmocka_unit_test(shipped_languages_load_and_have_checks),
		cmocka_unit_test(near_unknown_name_tells_nearest_first),
		cmocka_unit_test(argv_placeholders_replaced),
		cmocka_unit_test(argv_setup_is_left_out_where_there_is_none),
		cmocka_unit_test(set_status_copies_version),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
