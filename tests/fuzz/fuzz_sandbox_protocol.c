/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a request to the spawner: what passes the check keeps every bound that the spawner
 * relies on afterwards. */
#include "sandbox/protocol.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	union sandbox_request r = {0};
	size_t fds;

	if (size < 1)
		return 0;
	fds = data[0] % (SANDBOX_FDS_MAX + 1);
	data++;
	size--;
	if (sandbox_request_check(data, size, fds, 8) < 0)
		return 0;
	memcpy(&r, data, size);
	if (r.h.type == SANDBOX_CONFIGURE) {
		assert(r.configure.boxes <= SANDBOX_BOXES_MAX);
		assert(memchr(r.configure.cgroup_parent, 0, SANDBOX_PATH_MAX));
		return 0;
	}
	assert(r.h.box < 8);
	if (r.h.type == SANDBOX_START) {
		assert(r.start.inputs <= SANDBOX_INPUTS_MAX && r.start.mapped <= SANDBOX_MAP_MAX);
		for (unsigned int i = 0; i < r.start.mapped; i++)
			assert(r.start.target[i] < SANDBOX_TARGET_FD_MAX);
		if (sandbox_limits_check(&r.start.limits) == 0)
			assert(r.start.limits.wall_usec > 0 && r.start.limits.processes > 0 &&
			       r.start.limits.disk_bytes <= r.start.limits.memory_bytes);
	}
	for (unsigned int state = 0; state < _SANDBOX_BOX_STATE_MAX; state++)
		(void)sandbox_permit(r.h.type, state);
	return 0;
}
