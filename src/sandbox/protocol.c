/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/protocol.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

static const uint8_t permits[SANDBOX_LIMIT + 1][_SANDBOX_BOX_STATE_MAX] = {
	[SANDBOX_PREPARE] = {[SANDBOX_BOX_EMPTY] = SANDBOX_ALLOWED},
	/* The box may have failed by itself after the runner read PREPARED. */
	[SANDBOX_START] = {[SANDBOX_BOX_EMPTY] = SANDBOX_CROSSED,
			   [SANDBOX_BOX_READY] = SANDBOX_ALLOWED,
			   [SANDBOX_BOX_DYING] = SANDBOX_CROSSED},
	[SANDBOX_KILL] = {[SANDBOX_BOX_EMPTY] = SANDBOX_CROSSED,
			  [SANDBOX_BOX_RUNNING] = SANDBOX_ALLOWED,
			  [SANDBOX_BOX_COLLECTING] = SANDBOX_ALLOWED,
			  [SANDBOX_BOX_DYING] = SANDBOX_CROSSED},
	[SANDBOX_RELEASE] = {[SANDBOX_BOX_EMPTY] = SANDBOX_CROSSED,
			     [SANDBOX_BOX_PREPARING] = SANDBOX_ALLOWED,
			     [SANDBOX_BOX_READY] = SANDBOX_ALLOWED,
			     [SANDBOX_BOX_RUNNING] = SANDBOX_ALLOWED,
			     [SANDBOX_BOX_COLLECTING] = SANDBOX_ALLOWED,
			     [SANDBOX_BOX_DYING] = SANDBOX_CROSSED},
	[SANDBOX_LIMIT] = {[SANDBOX_BOX_EMPTY] = SANDBOX_CROSSED,
			   [SANDBOX_BOX_RUNNING] = SANDBOX_ALLOWED,
			   [SANDBOX_BOX_COLLECTING] = SANDBOX_CROSSED,
			   [SANDBOX_BOX_DYING] = SANDBOX_CROSSED},
};

static const size_t sizes[SANDBOX_LIMIT + 1] = {
	[SANDBOX_CONFIGURE] = sizeof(struct sandbox_configure),
	[SANDBOX_PREPARE] = sizeof(struct sandbox_prepare),
	[SANDBOX_START] = sizeof(struct sandbox_start),
	[SANDBOX_KILL] = sizeof(struct sandbox_simple),
	[SANDBOX_RELEASE] = sizeof(struct sandbox_simple),
	[SANDBOX_LIMIT] = sizeof(struct sandbox_prepare),
};

enum sandbox_permit sandbox_permit(unsigned int type, unsigned int state)
{
	if (type >= ARRAY_SIZE(permits) || state >= _SANDBOX_BOX_STATE_MAX)
		return SANDBOX_FORBIDDEN;
	return (enum sandbox_permit)permits[type][state];
}

static int start_check(const struct sandbox_start *start, size_t fds)
{
	size_t want = 1;
	uint64_t seen = 0;

	if (start->flags & ~(uint32_t)SANDBOX_START_OUTPUT || start->inputs > SANDBOX_INPUTS_MAX ||
	    start->mapped > SANDBOX_MAP_MAX)
		return -EBADMSG;
	for (unsigned int i = 0; i < start->mapped; i++) {
		if (start->target[i] >= SANDBOX_TARGET_FD_MAX ||
		    seen & UINT64_C(1) << start->target[i])
			return -EBADMSG;
		seen |= UINT64_C(1) << start->target[i];
	}
	want += start->flags & SANDBOX_START_OUTPUT ? 1 : 0;
	want += start->inputs;
	want += start->mapped;
	return want == fds ? 0 : -EBADMSG;
}

static int configure_check(const struct sandbox_configure *c, size_t fds)
{
	static const uint32_t memory = 1u << SANDBOX_TREE_MEMORY | 1u << SANDBOX_TREE_PIDS,
			      trees[_SANDBOX_RUNG_MAX][2] = {
				      [SANDBOX_RUNG_CGROUP2] = {1u << SANDBOX_TREE_V2,
								1u << SANDBOX_TREE_V2},
				      [SANDBOX_RUNG_CGROUP1] = {memory | 1u << SANDBOX_TREE_V2,
								memory |
									1u << SANDBOX_TREE_CPUACCT},
			      };
	size_t want = c->flags & SANDBOX_CONFIGURE_FILTER ? 2 : 1;

	if (c->boxes == 0 || c->boxes > SANDBOX_BOXES_MAX || c->rung == SANDBOX_RUNG_AUTO ||
	    c->rung >= _SANDBOX_RUNG_MAX ||
	    (c->trees != trees[c->rung][0] && c->trees != trees[c->rung][1]) ||
	    memchr(c->group, 0, sizeof(c->group)) == NULL || strchr(c->group, '/') ||
	    strncmp(c->group, SANDBOX_GROUP_PREFIX, strlen(SANDBOX_GROUP_PREFIX)) != 0 ||
	    (c->uid_base != 0 && c->uid_base < SANDBOX_UID_MIN) ||
	    c->uid_base > UINT32_MAX - 2 * SANDBOX_BOXES_MAX)
		return -EBADMSG;
	return fds == want + 2 * (size_t)__builtin_popcount(c->trees) ? 0 : -EBADMSG;
}

int sandbox_request_check(const void *buf, size_t len, size_t fds, unsigned int boxes)
{
	union sandbox_request r;

	if (len < sizeof(r.h) || len > sizeof(r))
		return -EBADMSG;
	memset(&r, 0, sizeof(r));
	memcpy(&r, buf, len);
	if (r.h.magic != SANDBOX_MAGIC || r.h.version != SANDBOX_PROTOCOL_VERSION ||
	    r.h.type >= ARRAY_SIZE(sizes) || sizes[r.h.type] == 0 || sizes[r.h.type] != len)
		return -EBADMSG;
	switch (r.h.type) {
	case SANDBOX_CONFIGURE:
		return configure_check(&r.configure, fds);
	case SANDBOX_START:
		if (r.h.box >= boxes)
			return -EBADMSG;
		return start_check(&r.start, fds);
	case SANDBOX_KILL:
	case SANDBOX_RELEASE:
		if (r.simple.reason >= _SANDBOX_LIMIT_MAX)
			return -EBADMSG;
		break;
	default:
		break;
	}
	return r.h.box < boxes && fds == 0 ? 0 : -EBADMSG;
}

static const struct {
	size_t offset;
	uint64_t fallback, max; /* no fallback: 0 is refused */
} bounds[] = {
#define BOUND(field, fallback, max)                                                                \
	{                                                                                          \
		offsetof(struct sandbox_limits, field), fallback, max                              \
	}
	BOUND(cpu_usec, 0, UINT64_C(86400) * 1000000),
	BOUND(wall_usec, 0, UINT64_C(86400) * 1000000),
	BOUND(memory_bytes, 0, UINT64_C(1) << 44),
	BOUND(disk_bytes, UINT64_C(64) << 20, UINT64_C(1) << 44),
	BOUND(file_bytes, UINT64_MAX, UINT64_C(1) << 44),
	BOUND(stack_bytes, UINT64_C(8) << 20, UINT64_C(1) << 40),
	BOUND(collect_bytes, UINT64_C(64) << 20, UINT64_C(1) << 32),
#undef BOUND
};

int sandbox_limits_check(struct sandbox_limits *limits)
{
	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		uint64_t v;

		memcpy(&v, (char *)limits + bounds[i].offset, sizeof(v));
		if ((v == 0 && bounds[i].fallback == 0) || v > bounds[i].max)
			return -EINVAL;
		if (v == 0)
			v = bounds[i].fallback;
		memcpy((char *)limits + bounds[i].offset, &v, sizeof(v));
	}
	if (limits->processes == 0 || limits->processes > 65536 || limits->inodes > 1u << 24 ||
	    limits->open_files > 1u << 20 || limits->cpu_rate_permille > 1000u * 1024)
		return -EINVAL;
	if (limits->disk_bytes > limits->memory_bytes)
		limits->disk_bytes = limits->memory_bytes;
	if (limits->file_bytes > limits->disk_bytes)
		limits->file_bytes = limits->disk_bytes;
	if (limits->inodes == 0)
		limits->inodes = 4096;
	if (limits->open_files == 0)
		limits->open_files = 256;
	if (limits->collect_files == 0)
		limits->collect_files = 256;
	return 0;
}
