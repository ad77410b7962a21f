/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "base/cleanup.h"
#include "runner/toolchain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder with a compiler, "cc", and a language that is compiled with it. */
struct world {
	char dir[64];
	char *program[2], *patterns[4];
	struct language language;
	struct toolchain *toolchain;
};

static char *path_of(const struct world *w, const char *name)
{
	char *path = NULL;

	assert_true(asprintf(&path, "%s/%s", w->dir, name) > 0);
	return path;
}

static void write_file(const struct world *w, const char *name, const char *text)
{
	AUTO_FREE char *path = path_of(w, name);
	AUTO_FD int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0755);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* As package managers do it: another file takes the name, with the old one's size and time. */
static void replace_file(const struct world *w, const char *name, const char *text)
{
	AUTO_FREE char *path = path_of(w, name), *fresh = path_of(w, "fresh");
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, strlen(text));
	write_file(w, "fresh", text);
	assert_int_equal(
		utimensat(AT_FDCWD, fresh, (struct timespec[2]){st.st_atim, st.st_mtim}, 0), 0);
	assert_int_equal(rename(fresh, path), 0);
}

static void remove_file(const struct world *w, const char *name)
{
	AUTO_FREE char *path = path_of(w, name);

	assert_int_equal(unlink(path), 0);
}

static void make_folder(const struct world *w, const char *name)
{
	AUTO_FREE char *path = path_of(w, name);

	assert_int_equal(mkdir(path, 0755), 0);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	(void)snprintf(w->dir, sizeof(w->dir), "/tmp/kiln-test-toolchain-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	write_file(w, "cc", "driver");
	make_folder(w, "lib");
	make_folder(w, "lib/1");
	write_file(w, "lib/1/cc1", "compiler");
	w->program[0] = path_of(w, "cc");
	w->patterns[0] = path_of(w, "lib/*/cc1");
	w->patterns[1] = path_of(w, "as");
	w->patterns[2] = path_of(w, "lib");
	w->language.name = (char *)(uintptr_t) "odd";
	w->language.compile.argv = w->program;
	w->language.compile.toolchain = w->patterns;
	w->toolchain = toolchain_new(&w->language, "1.0", 3);
	assert_non_null(w->toolchain);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const files[] = {"cc", "as", "lib/1/cc1", "lib/2/cc1", "lib/cc1"};
	static const char *const folders[] = {"lib/1", "lib/2", "lib", ""};
	struct world *w = *state;

	toolchain_free(w->toolchain);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		AUTO_FREE char *path = path_of(w, files[i]);

		(void)unlink(path);
	}
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		AUTO_FREE char *path = path_of(w, folders[i]);

		(void)rmdir(path);
	}
	free(w->program[0]);
	for (size_t i = 0; w->patterns[i]; i++)
		free(w->patterns[i]);
	free(w);
	return 0;
}

/* Asks, and demands the answer 1 (another one) or 0 (the same). */
static void ask(struct world *w, int answer, uint8_t *ret_identity)
{
	struct err e = {""};
	int r = toolchain_identity(w->toolchain, ret_identity, &e);

	if (r < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(r, answer);
}

/* That something which just happened makes one other identity, which then stays. */
static void demand_change(struct world *w, uint8_t *identity)
{
	uint8_t next[DIGEST_SIZE], again[DIGEST_SIZE];

	ask(w, 1, next);
	assert_memory_not_equal(identity, next, DIGEST_SIZE);
	ask(w, 0, again);
	assert_memory_equal(next, again, DIGEST_SIZE);
	memcpy(identity, next, DIGEST_SIZE);
}

static void identity_asked_again_is_the_same(void **state)
{
	struct world *w = *state;
	uint8_t one[DIGEST_SIZE], two[DIGEST_SIZE], zero[DIGEST_SIZE] = {0};

	ask(w, 1, one);
	ask(w, 0, two);
	assert_memory_equal(one, two, DIGEST_SIZE);
	assert_memory_not_equal(one, zero, DIGEST_SIZE);
}

static void identity_of_two_that_look_at_the_same_is_the_same(void **state)
{
	struct world *w = *state;
	uint8_t one[DIGEST_SIZE], two[DIGEST_SIZE];

	ask(w, 1, one);
	toolchain_free(w->toolchain);
	w->toolchain = toolchain_new(&w->language, "1.0", 3);
	ask(w, 1, two);
	assert_memory_equal(one, two, DIGEST_SIZE);
}

static void identity_of_another_version_is_another(void **state)
{
	struct world *w = *state;
	uint8_t one[DIGEST_SIZE], two[DIGEST_SIZE];

	ask(w, 1, one);
	toolchain_free(w->toolchain);
	w->toolchain = toolchain_new(&w->language, "1.1", 3);
	ask(w, 1, two);
	assert_memory_not_equal(one, two, DIGEST_SIZE);
}

static void identity_follows_files_that_change(void **state)
{
	struct world *w = *state;
	uint8_t identity[DIGEST_SIZE];

	ask(w, 1, identity);
	write_file(w, "cc", "driver, and more of it");
	demand_change(w, identity);
	replace_file(w, "lib/1/cc1", "COMPILER");
	demand_change(w, identity);
}

static void identity_follows_files_that_come_and_go(void **state)
{
	struct world *w = *state;
	uint8_t identity[DIGEST_SIZE];

	ask(w, 1, identity);
	write_file(w, "as", "assembler");
	demand_change(w, identity);
	remove_file(w, "as");
	demand_change(w, identity);
	remove_file(w, "lib/1/cc1");
	demand_change(w, identity);
	/* The folder of the pattern is named too, so that what matches it newly is found. */
	make_folder(w, "lib/2");
	write_file(w, "lib/2/cc1", "another");
	demand_change(w, identity);
	replace_file(w, "lib/2/cc1", "ANOTHER");
	demand_change(w, identity);
}

static void identity_without_the_compiler_cannot_be_told(void **state)
{
	struct world *w = *state;
	uint8_t identity[DIGEST_SIZE];
	struct err e = {""};

	ask(w, 1, identity);
	remove_file(w, "cc");
	assert_int_equal(toolchain_identity(w->toolchain, identity, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "/cc\""));
	assert_int_equal(toolchain_identity(w->toolchain, identity, &e), -ENOENT);
	write_file(w, "cc", "driver");
	ask(w, 1, identity);
	ask(w, 0, identity);
}

static void identity_of_files_that_cannot_be_looked_at_cannot_be_told(void **state)
{
	struct world *w = *state;
	uint8_t identity[DIGEST_SIZE];
	struct err e = {""};

	/* A file where a folder should be: an error that root gets as well. */
	free(w->patterns[1]);
	w->patterns[1] = path_of(w, "cc/as");
	assert_int_equal(toolchain_identity(w->toolchain, identity, &e), -ENOTDIR);
	assert_non_null(strstr(e.msg, "/cc/as\""));
}

static void identity_of_too_many_files_cannot_be_told(void **state)
{
	struct world *w = *state;
	char *many[TOOLCHAIN_FILES_MAX + 1] = {NULL};
	uint8_t identity[DIGEST_SIZE];

	for (size_t i = 0; i < TOOLCHAIN_FILES_MAX; i++)
		many[i] = w->patterns[1];
	w->language.compile.toolchain = many;
	assert_int_equal(toolchain_identity(w->toolchain, identity, NULL), -E2BIG);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static const struct CMUnitTest tests[] = {
	IN_WORLD(identity_asked_again_is_the_same),
	IN_WORLD(identity_of_two_that_look_at_the_same_is_the_same),
	IN_WORLD(identity_of_another_version_is_another),
	IN_WORLD(identity_follows_files_that_change),
	IN_WORLD(identity_follows_files_that_come_and_go),
	IN_WORLD(identity_without_the_compiler_cannot_be_told),
	IN_WORLD(identity_of_files_that_cannot_be_looked_at_cannot_be_told),
	IN_WORLD(identity_of_too_many_files_cannot_be_told),
};

UNIT_MAIN(tests)
