/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The bytes of archives and jobs (archive.h), for the two that write them: the runner's writer and
 * the collector inside the sandbox. Native byte order; every part is padded to 8 bytes. */

#include <stdint.h>

#define ARCHIVE_MAGIC 0x31414b4cu /* "LKA1" */
#define JOB_MAGIC     0x314a4b4cu /* "LKJ1" */

struct archive_head {
	uint32_t magic;
	uint32_t files;
};

struct archive_file { /* then the name, then the bytes */
	uint32_t name_len;
	uint32_t mode;
	uint64_t size;
};

struct job_head { /* then the strings, then an archive */
	uint32_t magic;
	uint32_t argc, envc, collectc;
	uint32_t strings_len;
	uint32_t reserved;
};
