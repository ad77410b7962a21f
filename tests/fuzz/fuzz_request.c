/* SPDX-License-Identifier: Apache-2.0 */

/* Bodies of POST /submit, from anybody: strict JSON, the fields, encodings, names, limits. */

#include "api/request.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct language_registry *languages;
static struct task_limits defaults, ceilings;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct err e;

	(void)argc;
	(void)argv;
	if (language_registry_load(KILN_SOURCE_ROOT "/languages", &languages, &e) < 0)
		abort();
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		*task_limit_at(&defaults, &task_limit_fields[i]) = 1 << 20;
		*task_limit_at(&ceilings, &task_limit_fields[i]) = 1 << 30;
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct request_rules rules = {
		.languages = languages,
		.run_defaults = &defaults,
		.run_ceilings = &ceilings,
		.compile_defaults = &defaults,
		.compile_ceilings = &ceilings,
		.now_us = 1700000000000000,
	};
	struct request *request = NULL;
	struct task_spec *spec = NULL;
	struct problem problem = {0};

	if (request_read((const char *)data, size, &request, &problem) < 0)
		return 0;
	if (request_resolve(request, &rules, &spec, &problem) == 0) {
		/* What is accepted keeps what later stages rely on. */
		if (!spec->program.language || spec->program.n_files == 0 || spec->n_runs != 1)
			abort();
		for (size_t i = 0; i < task_limit_fields_count; i++) {
			int64_t v = task_limit_get(&spec->runs[0].limits, &task_limit_fields[i]);

			if (v < 0 || v > 1 << 30)
				abort();
		}
	}
	task_spec_free(spec);
	request_free(request);
	return 0;
}
