/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/answer.h"

#include "base/cleanup.h"
#include "sandbox/archive.h"

#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEAD_BYTES = 4 + 8 }; /* exit code and time */

struct bytes_out {
	uint8_t data[4096];
	size_t len;
};

static void put_number(struct bytes_out *b, uint32_t n)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		b->data[b->len++] = (uint8_t)(n >> shift);
}

static void put_bytes(struct bytes_out *b, const void *bytes, size_t len)
{
	put_number(b, (uint32_t)len);
	memcpy(b->data + b->len, bytes, len);
	b->len += len;
}

static void put_text(struct bytes_out *b, const char *text)
{
	put_bytes(b, text, strlen(text));
}

/* Of a compiler that warned and made these. */
static struct bytes_out answer_with(const char *const *names, uint32_t n)
{
	struct bytes_out b = {0};

	put_number(&b, 1);
	put_number(&b, 0);
	put_number(&b, 1500);
	put_text(&b, "warning\n");
	put_number(&b, n);
	for (uint32_t i = 0; i < n; i++) {
		put_text(&b, names[i]);
		put_text(&b, "content");
	}
	return b;
}

static const char *const good[] = {"A.class", "p/q/B$1.class", "notes.txt"};

static void answer_is_read_whole(void **state)
{
	const struct bytes_out b = answer_with(good, 3);
	struct answer a;

	(void)state;
	assert_int_equal(answer_read(b.data, b.len, &a), 0);
	assert_int_equal(a.exit_code, 1);
	assert_int_equal(a.cpu_usec, 1500);
	assert_int_equal(a.text_len, 8);
	assert_memory_equal(a.text, "warning\n", 8);
	assert_int_equal(a.n_files, 3);
}

static void negative_code_is_one(void **state)
{
	struct bytes_out b = answer_with(good, 0);
	struct answer a;

	(void)state;
	memset(b.data, 0xff, 4);
	assert_int_equal(answer_read(b.data, b.len, &a), 0);
	assert_int_equal(a.exit_code, ANSWER_DECLINED);
}

static void only_products_are_packed(void **state)
{
	static char classes[] = "*.class", *const produces[] = {classes, NULL};
	const struct bytes_out b = answer_with(good, 3);
	struct archive_reader reader;
	struct archive_entry entry;
	const void *data;
	struct answer a;
	size_t len;
	int fd;

	(void)state;
	assert_int_equal(answer_read(b.data, b.len, &a), 0);
	assert_int_equal(answer_pack(&a, produces, &fd, NULL), 0);
	assert_int_equal(archive_map(fd, &data, &len, NULL), 0);
	assert_int_equal(archive_open(&reader, data, len), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(archive_next(&reader, &entry), 1);
		assert_int_equal(entry.name_len, strlen(good[i]));
		assert_memory_equal(entry.name, good[i], entry.name_len);
		assert_int_equal(entry.mode, 0644);
		assert_int_equal(entry.size, 7);
		assert_memory_equal(entry.data, "content", 7);
	}
	assert_int_equal(archive_next(&reader, &entry), 0);
	(void)munmap((void *)(uintptr_t)data, len);
	(void)close(fd);
}

/* Each prefix of a good answer, and each that has a byte more. */
static void any_other_length_is_refused(void **state)
{
	struct bytes_out b = answer_with(good, 3);
	struct answer a;

	(void)state;
	for (size_t len = 0; len < b.len; len++)
		assert_int_equal(answer_read(b.data, len, &a), -EBADMSG);
	assert_int_equal(answer_read(b.data, b.len + 1, &a), -EBADMSG);
}

static void names_that_lead_elsewhere_are_refused(void **state)
{
	static const char *const bad[] = {"",		"/A.class",  "../A.class", "a/../A.class",
					  "a//A.class", "./A.class", "a/"};
	struct answer a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct bytes_out b = answer_with(&bad[i], 1);

		assert_int_equal(answer_read(b.data, b.len, &a), -EBADMSG);
	}
}

static void too_many_files_are_refused(void **state)
{
	static const uint32_t numbers[] = {4, ANSWER_FILES_MAX + 1, UINT32_MAX};
	const size_t at = HEAD_BYTES + 4 + 8;
	struct answer a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct bytes_out b = answer_with(good, 3);

		for (int k = 0; k < 4; k++)
			b.data[at + (size_t)k] = (uint8_t)(numbers[i] >> (24 - 8 * k));
		assert_int_equal(answer_read(b.data, b.len, &a), -EBADMSG);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(answer_is_read_whole),
	cmocka_unit_test(negative_code_is_one),
	cmocka_unit_test(only_products_are_packed),
	cmocka_unit_test(any_other_length_is_refused),
	cmocka_unit_test(names_that_lead_elsewhere_are_refused),
	cmocka_unit_test(too_many_files_are_refused),
};

UNIT_MAIN(tests)
