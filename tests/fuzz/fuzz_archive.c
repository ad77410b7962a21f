/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What comes out of a sandbox is an archive written under the eyes of user code, and what goes in
 * is a job: both readers take any bytes, and everything that they hand out must lie inside them.
 */

#include "sandbox/archive.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static void touch(const void *bytes, size_t len)
{
	if (len) {
		sink = ((const uint8_t *)bytes)[0];
		sink = ((const uint8_t *)bytes)[len - 1];
	}
}

static void walk(struct archive_reader *r)
{
	struct archive_entry entry;

	while (archive_next(r, &entry) == 1) {
		if (!archive_name_valid(entry.name, entry.name_len))
			abort();
		touch(entry.name, entry.name_len);
		touch(entry.data, entry.size);
	}
}

static void try_job(const uint8_t *data, size_t size)
{
	struct job job;
	const char **texts;
	size_t n;

	if (job_open(&job, data, size) < 0)
		return;
	n = (size_t)job.argc + job.envc + job.collectc + 3;
	texts = calloc(n, sizeof *texts);
	if (!texts)
		abort();
	if (job_strings(&job, texts, texts + job.argc + 1, texts + job.argc + job.envc + 2) == 0)
		for (size_t i = 0; i < n; i++)
			if (texts[i])
				touch(texts[i], strlen(texts[i]) + 1);
	free(texts);
	walk(&job.files);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct archive_reader reader;
	uint64_t *aligned;

	/* Both are read from mappings, which begin at a page. */
	aligned = malloc(size ? size : 1);
	if (!aligned)
		abort();
	if (size)
		memcpy(aligned, data, size);
	if (archive_open(&reader, aligned, size) == 0)
		walk(&reader);
	try_job((const uint8_t *)aligned, size);
	free(aligned);
	return 0;
}
