/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a request to the spawner: what passes the check keeps every bound that the spawner
 * relies on afterwards. The first byte says how many descriptors come with it, the second whether
 * the bytes are taken as they are, or as what follows a right header, which chance does not make.
 */
#include "sandbox/protocol.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const size_t sizes[] = {
	[SANDBOX_CONFIGURE] = sizeof(struct sandbox_configure),
	[SANDBOX_PREPARE] = sizeof(struct sandbox_prepare),
	[SANDBOX_START] = sizeof(struct sandbox_start),
	[SANDBOX_KILL] = sizeof(struct sandbox_simple),
	[SANDBOX_RELEASE] = sizeof(struct sandbox_simple),
	[SANDBOX_LIMIT] = sizeof(struct sandbox_prepare),
};

enum { BOXES = 8, KINDS = sizeof(sizes) / sizeof(sizes[0]) };

static void limits_are_bounded(struct sandbox_limits limits)
{
	if (sandbox_limits_check(&limits) < 0)
		return;
	assert(limits.wall_usec > 0 && limits.cpu_usec > 0 && limits.processes > 0);
	assert(limits.disk_bytes > 0 && limits.disk_bytes <= limits.memory_bytes);
	assert(limits.file_bytes <= limits.disk_bytes && limits.inodes > 0 &&
	       limits.open_files > 0);
	/* What is computed of them fits. */
	assert(limits.wall_usec <= UINT64_MAX / 1000000 && limits.cpu_usec <= UINT64_MAX / 1000000);
}

static void configure_is_bounded(const struct sandbox_configure *c, size_t fds)
{
	assert(c->boxes > 0 && c->boxes <= SANDBOX_BOXES_MAX);
	assert(c->rung > SANDBOX_RUNG_AUTO && c->rung < _SANDBOX_RUNG_MAX);
	assert(c->trees < 1u << _SANDBOX_TREE_MAX);
	assert(memchr(c->group, 0, SANDBOX_GROUP_MAX) && !strchr(c->group, '/'));
	assert(c->uid_base == 0 || c->uid_base >= SANDBOX_UID_MIN);
	assert(fds == (c->flags & SANDBOX_CONFIGURE_FILTER ? 2u : 1u) +
			      2u * (unsigned)__builtin_popcount(c->trees));
}

static void start_is_bounded(const struct sandbox_start *s, size_t fds)
{
	assert(s->inputs <= SANDBOX_INPUTS_MAX && s->mapped <= SANDBOX_MAP_MAX);
	assert(fds == 1u + (s->flags & SANDBOX_START_OUTPUT) + s->inputs + s->mapped);
	for (unsigned int i = 0; i < s->mapped; i++)
		assert(s->target[i] < SANDBOX_TARGET_FD_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	union sandbox_request r = {0};
	size_t fds, len;

	if (size < 2)
		return 0;
	fds = data[0] % (SANDBOX_FDS_MAX + 1);
	len = size - 2 < sizeof(r) ? size - 2 : sizeof(r);
	memcpy(&r, data + 2, len);
	if (data[1] % KINDS && sizes[data[1] % KINDS]) {
		r.h.magic = SANDBOX_MAGIC;
		r.h.version = SANDBOX_PROTOCOL_VERSION;
		r.h.type = data[1] % KINDS;
		r.h.box %= 2 * BOXES;
		len = sizes[r.h.type];
		/* A name with the right beginning is as rare. */
		if (r.h.type == SANDBOX_CONFIGURE && data[0] & 0x80)
			memcpy(r.configure.group, SANDBOX_GROUP_PREFIX,
			       strlen(SANDBOX_GROUP_PREFIX));
	}
	if (sandbox_request_check(&r, len, fds, BOXES) < 0)
		return 0;
	if (r.h.type == SANDBOX_CONFIGURE) {
		configure_is_bounded(&r.configure, fds);
		return 0;
	}
	assert(r.h.box < BOXES);
	if (r.h.type == SANDBOX_START)
		start_is_bounded(&r.start, fds);
	if (r.h.type == SANDBOX_START)
		limits_are_bounded(r.start.limits);
	if (r.h.type == SANDBOX_PREPARE || r.h.type == SANDBOX_LIMIT)
		limits_are_bounded(r.prepare.limits);
	for (unsigned int state = 0; state < _SANDBOX_BOX_STATE_MAX; state++)
		assert(sandbox_permit(r.h.type, state) <= SANDBOX_CROSSED);
	return 0;
}
