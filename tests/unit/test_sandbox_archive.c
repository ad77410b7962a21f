/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "sandbox/archive.h"
#include "sandbox/format.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

static void written_archive_reads_back(void **state)
{
	static char big[100000];
	AUTO(archive_writer_free) struct archive_writer *w = NULL;
	AUTO_FD int fd = -EBADF;
	struct archive_reader r;
	struct archive_entry entry;
	const void *data;
	size_t len;

	(void)state;
	memset(big, 'x', sizeof(big));
	assert_int_equal(archive_writer_new(&w, NULL), 0);
	assert_int_equal(archive_add(w, "a/b.txt", 0644, "hello", 5, NULL), 0);
	assert_int_equal(archive_add(w, "empty", 0600, NULL, 0, NULL), 0);
	assert_int_equal(archive_add(w, "big", 0755, big, sizeof(big), NULL), 0);
	assert_int_equal(archive_finish(w, &fd, NULL), 0);
	assert_int_equal(archive_map(fd, &data, &len, NULL), 0);
	assert_int_equal(archive_open(&r, data, len), 0);
	assert_int_equal(archive_next(&r, &entry), 1);
	assert_int_equal(entry.name_len, 7);
	assert_memory_equal(entry.name, "a/b.txt", 7);
	assert_int_equal(entry.mode, 0644);
	assert_memory_equal(entry.data, "hello", 5);
	assert_int_equal(archive_next(&r, &entry), 1);
	assert_int_equal(entry.size, 0);
	assert_int_equal(archive_next(&r, &entry), 1);
	assert_int_equal(entry.size, sizeof(big));
	assert_memory_equal(entry.data, big, sizeof(big));
	assert_int_equal(archive_next(&r, &entry), 0);
	assert_int_equal(munmap((void *)(uintptr_t)data, len), 0);
}

static void finished_archive_is_sealed(void **state)
{
	AUTO(archive_writer_free) struct archive_writer *w = NULL;
	AUTO_FD int fd = -EBADF;

	(void)state;
	assert_int_equal(archive_writer_new(&w, NULL), 0);
	assert_int_equal(archive_finish(w, &fd, NULL), 0);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
}

static void bad_names_are_refused(void **state)
{
	static const char *const bad[] = {"",	"/",   "/a",   "a/",	"a//b", ".",
					  "..", "./a", "a/..", "a/./b", "../a", "a/../../b"};
	static const char *const good[] = {"a", ".a", "...", "a/b", "..a", "a b", "\xff\n"};
	char deep[64] = "", longer[1200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(archive_name_valid(bad[i], strlen(bad[i])));
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(archive_name_valid(good[i], strlen(good[i])));
	assert_false(archive_name_valid("a\0b", 3));
	for (int i = 0; i < ARCHIVE_DEPTH_MAX; i++)
		memcpy(deep + 2 * i, "a/", 2);
	assert_true(archive_name_valid(deep, 2 * ARCHIVE_DEPTH_MAX - 1));
	memcpy(deep + 2 * ARCHIVE_DEPTH_MAX, "a", 1);
	assert_false(archive_name_valid(deep, 2 * ARCHIVE_DEPTH_MAX + 1));
	memset(longer, 'a', sizeof(longer));
	assert_false(archive_name_valid(longer, 256));
	assert_true(archive_name_valid(longer, 255));
}

/* One entry "a" with 8 bytes, then broken in one place each. */
struct image {
	struct archive_head head;
	struct archive_file file;
	char name[8];
	char data[8];
};

static int read_all(const void *data, size_t len)
{
	struct archive_reader r;
	struct archive_entry entry;
	int code = archive_open(&r, data, len);

	while (code == 0 && (code = archive_next(&r, &entry)) > 0)
		code = 0;
	return code;
}

static void hostile_archives_are_refused(void **state)
{
	const struct image good = {.head = {ARCHIVE_MAGIC, 1},
				   .file = {.name_len = 1, .mode = 0644, .size = 8},
				   .name = "a"};
	struct image bad;

	(void)state;
	assert_int_equal(read_all(&good, sizeof(good)), 0);
	for (size_t len = 0; len < sizeof(good); len++)
		assert_int_equal(read_all(&good, len), -EBADMSG);
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		bad = good;                                                                        \
		bad.change;                                                                        \
		assert_int_equal(read_all(&bad, sizeof(bad)), -EBADMSG);                           \
	} while (0)
	REFUSED(head.magic = 0);
	REFUSED(head.files = 2);
	REFUSED(head.files = UINT32_MAX);
	REFUSED(file.name_len = 0);
	REFUSED(file.name_len = 17);
	REFUSED(file.name_len = UINT32_MAX);
	REFUSED(file.mode = 04755);
	REFUSED(file.size = 9);
	REFUSED(file.size = UINT64_MAX);
	REFUSED(file.size = UINT64_MAX - 6);
	REFUSED(name[0] = '/');
	REFUSED(name[0] = '.');
	REFUSED(name[0] = 0);
#undef REFUSED
}

static void job_reads_back(void **state)
{
	static const char *const argv[] = {"./main", "", "two words", NULL};
	static const char *const envp[] = {"A=1", NULL};
	static const char *const collect[] = {"*.class", NULL};
	const struct job_spec spec = {argv, envp, collect};
	const struct archive_entry file = {
		.name = "f", .name_len = 1, .mode = 0600, .data = "x", .size = 1};
	const char *a[4], *v[2], *c[2];
	AUTO_FD int fd = -EBADF;
	struct archive_entry entry;
	struct job job;
	const void *data;
	size_t len;

	(void)state;
	assert_int_equal(job_write(&spec, &file, 1, &fd, NULL), 0);
	assert_int_equal(archive_map(fd, &data, &len, NULL), 0);
	assert_int_equal(job_open(&job, data, len), 0);
	assert_int_equal(job.argc, 3);
	assert_int_equal(job_strings(&job, a, v, c), 0);
	for (int i = 0; i < 3; i++)
		assert_string_equal(a[i], argv[i]);
	assert_null(a[3]);
	assert_string_equal(v[0], "A=1");
	assert_string_equal(c[0], "*.class");
	assert_int_equal(archive_next(&job.files, &entry), 1);
	for (size_t cut = 0; cut < len; cut++) {
		struct job part;

		if (job_open(&part, data, cut) == 0 && job_strings(&part, a, v, c) == 0)
			assert_int_equal(archive_next(&part.files, &entry), -EBADMSG);
	}
	assert_int_equal(munmap((void *)(uintptr_t)data, len), 0);
}

static void job_without_program_is_refused(void **state)
{
	static const char *const none[] = {NULL};
	const struct job_spec spec = {none, none, NULL};
	int fd = -EBADF;

	(void)state;
	assert_int_equal(job_write(&spec, NULL, 0, &fd, NULL), -EINVAL);
	assert_int_equal(fd, -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_archive_reads_back),
		cmocka_unit_test(finished_archive_is_sealed),
		cmocka_unit_test(bad_names_are_refused),
		cmocka_unit_test(hostile_archives_are_refused),
		cmocka_unit_test(job_reads_back),
		cmocka_unit_test(job_without_program_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
