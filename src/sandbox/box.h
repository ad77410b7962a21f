/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One sandbox as the spawner sees it; box.c moves it through its life (protocol.h). */

#include "sandbox/cgroup.h"
#include "sandbox/identity.h"
#include "sandbox/inside.h"
#include "sandbox/netpool.h"

struct box {
	unsigned int index;
	enum sandbox_box_state state;
	uint64_t cookie;
	struct sandbox_limits limits;
	struct leaf leaf;
	int netns; /* index in the pool, -1 none */
	int sock, pidfd, context;
	int job, output; /* kept for the collector only */
	pid_t init;
	uint64_t began_nsec;	  /* PREPARE, then the wall clock's zero */
	uint64_t ended_nsec;	  /* when the result was known */
	uint64_t due_nsec;	  /* next time to look, 0 never */
	uint64_t cpu_before_usec; /* used before START */
	enum sandbox_limit killed_for;
	bool collect, told; /* EXITED was sent */
	bool has_status;
	int status;
	uint32_t step;
	int error;
	struct inside_message collected;
	bool has_usage; /* read before collecting, which is not the task's doing */
	struct usage usage;
};

struct spawner {
	int control;
	bool configured;
	unsigned int boxes_len;
	unsigned int cpus;
	struct inside_plan plan;
	struct identity identity;
	struct limiter limiter;
	struct netpool netpool;
	struct box boxes[SANDBOX_BOXES_MAX];
};

void box_init(struct box *b, unsigned int index);
void box_prepare(struct spawner *s, struct box *b, const struct sandbox_prepare *request);
/* Takes none of the descriptors. 0, or a negative errno and nothing has changed. */
int box_start(struct spawner *s, struct box *b, const struct sandbox_start *request, const int *fds,
	      size_t count);
int box_limit(struct spawner *s, struct box *b, const struct sandbox_prepare *request);
void box_kill(struct spawner *s, struct box *b, enum sandbox_limit reason);
/* Its socket, its pidfd or its time has come. */
void box_on_message(struct spawner *s, struct box *b);
void box_on_exit(struct spawner *s, struct box *b);
void box_on_time(struct spawner *s, struct box *b, uint64_t now);

/* spawner.c: fills the header and sends; ends the process where the runner is gone. */
void spawner_send(struct spawner *s, union sandbox_event *event, size_t size, uint16_t type,
		  const struct box *b);
