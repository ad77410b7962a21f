/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "base/cleanup.h"
#include "runner/compile.h"
#include "sandbox/archive.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *text(const char *t)
{
	return (char *)(uintptr_t)t;
}

/* All that a key is made of, with something in each part. */
struct parts {
	struct intake in;
	struct task_file files[2];
	struct language language;
	char *argv[4];
	const char *envp[3];
	uint8_t identity[DIGEST_SIZE];
	bool shared;
};

static void parts_init(struct parts *p)
{
	*p = (struct parts){
		.files = {{.name = text("main.c"), .content = {text("ab"), 2}},
			  {.name = text("x.h"), .content = {text("cd"), 2}}},
		.language = {.name = text("c"), .revision = "r1"},
		.argv = {text("/cc"), text("-O2"), text("{sources}"), NULL},
		.envp = {"A=1", "B=2", NULL},
		.identity = {1},
	};
	(void)snprintf(p->in.tenant, sizeof(p->in.tenant), "alice");
	p->in.program.entry = text("main.c");
	p->in.program.files = p->files;
	p->in.program.n_files = 2;
	p->language.compile.argv = p->argv;
}

static void key_of(const struct parts *p, uint8_t *ret_key)
{
	assert_int_equal(
		compile_key(&p->in, &p->language, p->identity, p->shared, p->envp, ret_key), 0);
}

static void other_tenant(struct parts *p)
{
	p->in.tenant[0] = 'b';
}

static void other_language(struct parts *p)
{
	p->language.name = text("d");
}

static void other_revision(struct parts *p)
{
	p->language.revision[1] = '2';
}

static void other_toolchain(struct parts *p)
{
	p->identity[DIGEST_SIZE - 1] = 1;
}

static void other_environment(struct parts *p)
{
	p->envp[1] = "B=3";
}

static void less_environment(struct parts *p)
{
	p->envp[1] = NULL;
}

static void other_flag(struct parts *p)
{
	p->argv[1] = text("-O3");
}

static void variable_that_became_a_flag(struct parts *p)
{
	p->envp[1] = NULL;
	p->argv[0] = text("B=2");
	p->argv[1] = text("/cc");
	p->argv[2] = text("-O2");
}

static void other_entry(struct parts *p)
{
	p->in.program.entry = text("x.h");
}

static void other_content(struct parts *p)
{
	p->files[1].content.data = text("cD");
}

static void other_file_name(struct parts *p)
{
	p->files[1].name = text("y.h");
}

static void less_files(struct parts *p)
{
	p->in.program.n_files = 1;
}

static void byte_that_moved_from_content_to_name(struct parts *p)
{
	p->files[1].name = text("x.hc");
	p->files[1].content = (struct bytes){text("d"), 1};
}

static void content_that_moved_between_files(struct parts *p)
{
	p->files[0].content = (struct bytes){text("abc"), 3};
	p->files[1].content = (struct bytes){text("d"), 1};
}

static void key_differs_in_each_part(void **state)
{
	static void (*const changes[])(struct parts *) = {
		other_tenant,
		other_language,
		other_revision,
		other_toolchain,
		other_environment,
		less_environment,
		other_flag,
		variable_that_became_a_flag,
		other_entry,
		other_content,
		other_file_name,
		less_files,
		byte_that_moved_from_content_to_name,
		content_that_moved_between_files,
	};
	uint8_t keys[ARRAY_SIZE(changes) + 1][DIGEST_SIZE];
	struct parts p;

	(void)state;
	parts_init(&p);
	key_of(&p, keys[0]);
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		parts_init(&p);
		changes[i](&p);
		key_of(&p, keys[i + 1]);
		for (size_t k = 0; k <= i; k++) {
			if (memcmp(keys[k], keys[i + 1], DIGEST_SIZE) == 0)
				fail_msg("change %zu has the key of %zu", i, k);
		}
	}
}

static void key_of_the_same_is_the_same(void **state)
{
	uint8_t one[DIGEST_SIZE], two[DIGEST_SIZE];
	struct parts p, q;

	(void)state;
	parts_init(&p);
	parts_init(&q);
	key_of(&p, one);
	/* Nothing that a build does not depend on. */
	q.in.program.compile_limits.memory_bytes = 12345;
	q.in.id.bytes[0] = 7;
	key_of(&q, two);
	assert_memory_equal(one, two, DIGEST_SIZE);
}

static void key_that_tenants_share_is_without_the_tenant(void **state)
{
	uint8_t one[DIGEST_SIZE], two[DIGEST_SIZE], apart[DIGEST_SIZE];
	struct parts p;

	(void)state;
	parts_init(&p);
	key_of(&p, apart);
	p.shared = true;
	key_of(&p, one);
	other_tenant(&p);
	key_of(&p, two);
	assert_memory_equal(one, two, DIGEST_SIZE);
	assert_memory_not_equal(one, apart, DIGEST_SIZE);
	other_content(&p);
	key_of(&p, two);
	assert_memory_not_equal(one, two, DIGEST_SIZE);
}

/* ---- what a compiler made ---- */

/* The files of an archive as the inside of a sandbox hands them out. */
static int new_archive(const char *name, const char *content)
{
	AUTO(archive_writer_free) struct archive_writer *w = NULL;
	AUTO_FD int sealed = -EBADF;
	int fd = -EBADF;
	const void *data;
	size_t len;
	struct err e;

	assert_int_equal(archive_writer_new(&w, &e), 0);
	assert_int_equal(archive_add(w, name, 0755, content, strlen(content), &e), 0);
	assert_int_equal(archive_finish(w, &sealed, &e), 0);
	assert_int_equal(archive_map(sealed, &data, &len, &e), 0);
	assert_int_equal(archive_output_new(&fd, &e), 0);
	assert_int_equal(write(fd, data, len), len);
	assert_int_equal(munmap((void *)(uintptr_t)data, len), 0);
	return fd;
}

static void products_that_were_checked_cannot_be_changed(void **state)
{
	static char *const produces[] = {(char *)(uintptr_t) "ma*", NULL};
	const struct sandbox_event_exited exited = {.collected_files = 1};
	AUTO_FD int fd = new_archive("main", "program");
	struct buf notes;
	size_t size = 0;

	(void)state;
	buf_init(&notes, COMPILE_NOTE_MAX);
	assert_int_equal(compile_check_products(fd, produces, &exited, &size, &notes), 0);
	assert_true(size > strlen("program"));
	assert_int_equal(pwrite(fd, "X", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, (off_t)size + 1), -1);
	assert_ptr_equal(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	buf_fini(&notes);
}

static void products_that_are_missing_are_named(void **state)
{
	static char *const produces[] = {(char *)(uintptr_t) "main", (char *)(uintptr_t) "*.class",
					 NULL};
	const struct sandbox_event_exited exited = {.collected_files = 1};
	AUTO_FD int fd = new_archive("main", "program");
	struct buf notes;
	size_t size = 0;

	(void)state;
	buf_init(&notes, COMPILE_NOTE_MAX);
	assert_int_equal(compile_check_products(fd, produces, &exited, &size, &notes), -ENOENT);
	assert_non_null(strstr(notes.data, "made no \"*.class\""));
	buf_fini(&notes);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(key_differs_in_each_part),
	cmocka_unit_test(key_of_the_same_is_the_same),
	cmocka_unit_test(key_that_tenants_share_is_without_the_tenant),
	cmocka_unit_test(products_that_were_checked_cannot_be_changed),
	cmocka_unit_test(products_that_are_missing_are_named),
};

UNIT_MAIN(tests)
