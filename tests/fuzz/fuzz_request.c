/* SPDX-License-Identifier: Apache-2.0 */

/* Bodies of POST /submit, from anybody: strict JSON, the fields, encodings, names, limits. */

#include "api/request.h"
#include "base/str.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

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

/* What is accepted keeps what later stages rely on. */
static void check_file(const struct task_program *p, size_t i)
{
	const char *name = p->files[i].name;

	assert(*name && strlen(name) <= TASK_FILE_NAME_MAX);
	assert(!strchr(name, '/') && !str_eq(name, ".") && !str_eq(name, ".."));
	for (size_t k = 0; k < i; k++)
		assert(!str_eq(name, p->files[k].name));
}

static void check(const struct task_spec *s)
{
	size_t entries = 0;

	assert(language_find(languages, s->program.language));
	assert(s->program.n_files >= 1 && s->program.n_files <= TASK_FILES_MAX + 1);
	for (size_t i = 0; i < s->program.n_files; i++) {
		check_file(&s->program, i);
		entries += str_eq(s->program.files[i].name, s->program.entry);
	}
	assert(entries == 1);
	assert(s->n_runs == 1 && s->runs[0].n_args <= TASK_ARGS_MAX);
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		int64_t value = task_limit_get(&s->runs[0].limits, &task_limit_fields[i]);

		assert(value > 0 && value <= task_limit_get(&ceilings, &task_limit_fields[i]));
	}
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
	int r = request_read((const char *)data, size, &request, &problem);

	if (!r)
		r = request_resolve(request, &rules, &spec, &problem);
	if (r < 0)
		assert(problem_status(problem.kind) >= 400 && problem_status(problem.kind) < 500);
	else
		check(spec);
	task_spec_free(spec);
	request_free(request);
	return 0;
}
