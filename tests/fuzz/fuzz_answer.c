/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as what a resident compiler answers: no crash, all that is read lies within them, and
 * what is packed is an archive of no more files than there were. */
#include "runner/answer.h"
#include "sandbox/archive.h"

#include <assert.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void pack(const struct answer *a)
{
	static char classes[] = "*.class", *const produces[] = {classes, NULL};
	struct archive_reader reader;
	struct archive_entry entry;
	const void *packed;
	size_t len;
	uint32_t n = 0;
	int fd, r = answer_pack(a, produces, &fd, NULL);

	assert(r == 0);
	r = archive_map(fd, &packed, &len, NULL);
	assert(r == 0);
	r = archive_open(&reader, packed, len);
	assert(r == 0);
	while ((r = archive_next(&reader, &entry)) > 0)
		n++;
	assert(r == 0 && n <= a->n_files);
	(void)munmap((void *)(uintptr_t)packed, len);
	(void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = data + size;
	struct answer a;

	if (answer_read(data, size, &a) < 0)
		return 0;
	assert((const uint8_t *)a.text >= data && a.text_len <= (size_t)(end - data));
	assert(a.files >= (const uint8_t *)a.text + a.text_len && a.files + a.files_len == end);
	assert(a.n_files <= ANSWER_FILES_MAX);
	pack(&a);
	return 0;
}
