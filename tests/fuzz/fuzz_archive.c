/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a job and as an archive: no crash, and all that is read lies within them. */
#include "sandbox/archive.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_files(struct archive_reader *r, const uint8_t *data, size_t size)
{
	struct archive_entry entry;

	while (archive_next(r, &entry) > 0) {
		const uint8_t *name = (const void *)entry.name, *bytes = entry.data;

		assert(name >= data && name + entry.name_len <= data + size);
		assert(bytes >= data && entry.size <= (uint64_t)(data + size - bytes));
		assert(archive_name_valid(entry.name, entry.name_len));
		assert(!memchr(entry.name, 0, entry.name_len) && entry.mode <= 0777);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *argv[JOB_STRINGS_MAX + 1], *envp[JOB_STRINGS_MAX + 1],
		*collect[JOB_COLLECT_MAX + 1];
	struct archive_reader r;
	struct job job;

	if (archive_open(&r, data, size) == 0)
		read_files(&r, data, size);
	if (job_open(&job, data, size) < 0)
		return 0;
	if (job_strings(&job, argv, envp, collect) == 0)
		for (uint32_t i = 0; i < job.argc; i++)
			assert(argv[i] + strlen(argv[i]) < (const char *)data + size);
	read_files(&job.files, data, size);
	return 0;
}
