/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a peer or a damaged row can send: bytes as a Frame, and as the stored messages, through the
 * same decoders that the scheduler, the runner and the stores use.
 */

#include "wire/codec.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_frame(const uint8_t *data, size_t size)
{
	Kiln__Frame *f = kiln__frame__unpack(NULL, size, data);
	struct task_program program = {0};
	struct task_spec holder = {0};

	if (!f)
		return;
	if (f->kind_case == KILN__FRAME__KIND_ASSIGN && f->assign->program)
		(void)codec_get_program(f->assign->program, &program, NULL);
	holder.program = program;
	task_spec_fini(&holder);
	kiln__frame__free_unpacked(f, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct task_result *result = NULL;
	struct task_spec *spec = NULL;
	struct task *task = NULL;

	try_frame(data, size);
	if (codec_unpack_task(data, size, &task, NULL) == 0)
		task_free(task);
	if (codec_unpack_spec(data, size, &spec, NULL) == 0)
		task_spec_free(spec);
	if (codec_unpack_result(data, size, &result, NULL) == 0)
		task_result_free(result);
	return 0;
}
