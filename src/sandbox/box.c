/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/box.h"

#include "base/cleanup.h"
#include "sandbox/io.h"
#include "sandbox/message.h"
#include "sandbox/pod.h"
#include "sandbox/syscalls.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MSEC UINT64_C(1000000)

enum {
	PREPARE_MAX_MSEC = 10000, /* a box that is not ready by then never will be */
	COLLECT_MAX_MSEC = 30000,
	REMOVE_RETRY_MSEC = 1, /* a dead process leaves its group a moment after it was reaped */
};

static const uint8_t moves[_SANDBOX_BOX_STATE_MAX][_SANDBOX_BOX_STATE_MAX] = {
	[SANDBOX_BOX_EMPTY] = {[SANDBOX_BOX_PREPARING] = 1},
	[SANDBOX_BOX_PREPARING] = {[SANDBOX_BOX_READY] = 1, [SANDBOX_BOX_DYING] = 1},
	[SANDBOX_BOX_READY] = {[SANDBOX_BOX_RUNNING] = 1, [SANDBOX_BOX_DYING] = 1},
	[SANDBOX_BOX_RUNNING] = {[SANDBOX_BOX_COLLECTING] = 1, [SANDBOX_BOX_DYING] = 1},
	[SANDBOX_BOX_COLLECTING] = {[SANDBOX_BOX_DYING] = 1},
	[SANDBOX_BOX_DYING] = {[SANDBOX_BOX_EMPTY] = 1},
};

static void move_to(struct box *b, enum sandbox_box_state state)
{
	if (!moves[b->state][state])
		abort(); /* a fault of ours: everything inside dies with us */
	b->state = state;
	b->due_nsec = 0;
}

void box_init(struct box *b, unsigned int index)
{
	*b = (struct box){.index = index,
			  .sock = -EBADF,
			  .pidfd = -EBADF,
			  .context = -EBADF,
			  .job = -EBADF,
			  .output = -EBADF,
			  .netns = -1};
	leaf_init(&b->leaf, index);
}

/* Everything of it is gone. */
static void released(struct spawner *s, struct box *b)
{
	union sandbox_event event = {0};
	struct leaf leaf;

	spawner_send(s, &event, sizeof(event.released), SANDBOX_EVENT_RELEASED, b);
	cleanup_close(&b->sock);
	cleanup_close(&b->pidfd);
	cleanup_close(&b->context);
	cleanup_close(&b->job);
	cleanup_close(&b->output);
	if (b->netns >= 0)
		netpool_put(&s->netpool, b->netns);
	move_to(b, SANDBOX_BOX_EMPTY);
	leaf = b->leaf;
	box_init(b, b->index);
	b->leaf = leaf; /* what of it is used again */
}

static void try_release(struct spawner *s, struct box *b)
{
	if (b->step == SANDBOX_STEP_CGROUP || b->step == SANDBOX_STEP_CLONE)
		b->leaf.failed = true;
	/* Whatever the reason is: with an old group the box must not be used again. */
	if (leaf_remove(&s->limiter, &b->leaf) < 0)
		b->due_nsec = io_now_nsec() + REMOVE_RETRY_MSEC * MSEC;
	else
		released(s, b);
}

static void signal_init(struct spawner *s, struct box *b)
{
	if (b->pidfd < 0)
		return;
	pod_kill_rest(s, b);
	(void)sys_pidfd_send_signal(b->pidfd, SIGKILL);
	/* A bonus, unless init has said that nothing else is left. */
	if (b->state == SANDBOX_BOX_RUNNING && !b->has_status)
		leaf_kill(&s->limiter, &b->leaf);
}

/* Once: what is used afterwards does not count. Without it nobody knows what ended the task. */
static void read_usage(struct spawner *s, struct box *b)
{
	int r;

	if (b->has_usage || !b->leaf.made)
		return;
	r = leaf_usage(&s->limiter, &b->leaf, &b->usage);
	b->has_usage = r == 0;
	if (r < 0 && b->step == SANDBOX_STEP_NONE) {
		b->step = SANDBOX_STEP_CGROUP;
		b->error = -r;
	}
}

/* Since START; 0 where it was not read. */
static uint64_t used_cpu(const struct box *b, const struct usage *u)
{
	return u->cpu_usec > b->cpu_before_usec ? u->cpu_usec - b->cpu_before_usec : 0;
}

static void tell_exited(struct spawner *s, struct box *b)
{
	union sandbox_event event = {0};
	struct sandbox_event_exited *x = &event.exited;

	if (b->ended_nsec == 0)
		b->ended_nsec = io_now_nsec();
	read_usage(s, b); /* may be the step that failed */
	*x = (struct sandbox_event_exited){
		.limit = b->killed_for,
		.step = b->step,
		.error = b->error,
		.oom_kills = b->usage.oom_kills,
		.memory_peak_bytes = b->has_usage ? b->usage.memory_peak_bytes : -1,
		.collected_files = b->collected.files,
		.collected_bytes = b->collected.bytes,
		.collect_error = b->collected.error,
		.has_status = b->has_status,
		.status = b->status,
		.cpu_limit_usec = b->limits.cpu_usec,
		.wall_limit_usec = b->limits.wall_usec,
	};
	/* Before START nothing of a user ran: no time limit can be hit. */
	if (b->state == SANDBOX_BOX_RUNNING || b->state == SANDBOX_BOX_COLLECTING) {
		x->wall_usec = (b->ended_nsec - b->began_nsec) / 1000;
		x->cpu_usec = used_cpu(b, &b->usage);
	}
	b->told = true;
	spawner_send(s, &event, sizeof(*x), SANDBOX_EVENT_EXITED, b);
}

/* The result is known and told; what is left of it dies. */
static void finish(struct spawner *s, struct box *b)
{
	tell_exited(s, b);
	signal_init(s, b);
	cleanup_close(&b->sock); /* its end is of no interest, and would be one more to look at */
	move_to(b, SANDBOX_BOX_DYING);
	if (b->pidfd < 0)
		try_release(s, b);
}

static void fail(struct spawner *s, struct box *b, enum sandbox_step step, int error)
{
	b->step = (uint32_t)step;
	b->error = error < 0 ? -error : error;
	finish(s, b);
}

static pid_t clone_init(struct spawner *s, struct box *b, int *ret_sock)
{
	int pair[2], group = leaf_clone_fd(&b->leaf), pidfd = -EBADF;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC |
			 CLONE_NEWUTS | (group >= 0 ? CLONE_INTO_CGROUP : 0u),
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = group >= 0 ? (unsigned int)group : 0,
	};
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = s->plan.pod ? pod_clone_init(&pidfd) : sys_clone3(&args);
	if (pid == 0)
		inside_init(&s->plan, &b->limits, &b->leaf, pair[1]);
	if (pid < 0) {
		pid = -errno;
		(void)close(pair[0]);
	} else {
		b->pidfd = pidfd;
		*ret_sock = pair[0];
	}
	(void)close(pair[1]);
	return pid;
}

static void prepare_steps(struct spawner *s, struct box *b)
{
	int r = leaf_make(&s->limiter, &b->leaf);

	if (r == 0)
		r = leaf_set(&s->limiter, &b->leaf, &b->limits);
	if (r < 0) {
		fail(s, b, SANDBOX_STEP_CGROUP, r);
		return;
	}
	b->netns = s->plan.pod ? -1 : netpool_enter(&s->netpool);
	if (b->netns < 0 && !s->plan.pod) {
		fail(s, b, SANDBOX_STEP_NETNS, b->netns);
		return;
	}
	b->init = clone_init(s, b, &b->sock);
	r = s->plan.pod ? 0 : netpool_leave(&s->netpool);
	if (b->init < 0 || r < 0) {
		fail(s, b, SANDBOX_STEP_CLONE, b->init < 0 ? b->init : r);
		return;
	}
	b->leaf.init = b->init;
	r = s->plan.pod ? pod_enter_group(b)
			: identity_map(&s->identity, s->limiter.proc_fd, b->index, b->init);
	if (r < 0) {
		fail(s, b, s->plan.pod ? SANDBOX_STEP_CGROUP : SANDBOX_STEP_ID_MAP, r);
		return;
	}
	if (send(b->sock, "g", 1, MSG_NOSIGNAL) != 1)
		fail(s, b, SANDBOX_STEP_MESSAGE, errno);
	else
		b->due_nsec = b->began_nsec + PREPARE_MAX_MSEC * MSEC;
}

void box_prepare(struct spawner *s, struct box *b, const struct sandbox_prepare *request)
{
	b->cookie = request->h.cookie;
	b->limits = request->limits;
	b->began_nsec = io_now_nsec();
	move_to(b, SANDBOX_BOX_PREPARING);
	prepare_steps(s, b);
}

/* Sizes that differ from those it was prepared with. The context is the kernel's handle on the
 * mount that init made; no path is involved. */
static int resize_work(struct box *b, const struct sandbox_limits *limits)
{
	char size[24], inodes[24];

	if (b->context < 0 ||
	    (limits->disk_bytes == b->limits.disk_bytes && limits->inodes == b->limits.inodes))
		return 0;
	(void)snprintf(size, sizeof(size), "%llu", (unsigned long long)limits->disk_bytes);
	(void)snprintf(inodes, sizeof(inodes), "%u", limits->inodes + 4);
	if (fsconfig(b->context, FSCONFIG_SET_STRING, "size", size, 0) < 0 ||
	    fsconfig(b->context, FSCONFIG_SET_STRING, "nr_inodes", inodes, 0) < 0 ||
	    fsconfig(b->context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		return -errno;
	return 0;
}

/* When a running box must be looked at next: its CPU time cannot be used up before that. One that
 * waits for its task costs nothing meanwhile. */
static void schedule_look(struct spawner *s, struct box *b, uint64_t now, uint64_t cpu_usec)
{
	uint64_t cpus = s->cpus < b->limits.processes ? s->cpus : b->limits.processes;
	uint64_t left = b->limits.cpu_usec > cpu_usec ? b->limits.cpu_usec - cpu_usec : 0;
	uint64_t wall_due = b->began_nsec + b->limits.wall_usec * 1000;
	uint64_t poll = b->limits.waits ? 0 : s->limiter.ops->poll_usec;
	uint64_t wait_usec = left / cpus;

	if (poll && wait_usec > poll)
		wait_usec = poll;
	if (wait_usec < 1000)
		wait_usec = 1000;
	b->due_nsec = now + wait_usec * 1000;
	if (b->due_nsec > wall_due)
		b->due_nsec = wall_due;
}

int box_start(struct spawner *s, struct box *b, const struct sandbox_start *request, const int *fds,
	      size_t count)
{
	int forward[SANDBOX_FDS_MAX], r;
	size_t n = 0;
	bool collect = request->flags & SANDBOX_START_OUTPUT;

	r = resize_work(b, &request->limits);
	if (r == 0)
		r = leaf_set(&s->limiter, &b->leaf, &request->limits);
	if (r == -EBUSY) {
		/* Less memory than an empty sandbox holds: the limit's fault, not the sandbox's. */
		b->killed_for = SANDBOX_LIMIT_MEMORY;
		finish(s, b);
		return 0;
	}
	if (r < 0) {
		fail(s, b, SANDBOX_STEP_LIMITS, r);
		return 0;
	}
	b->limits = request->limits;
	for (size_t i = 0; i < count; i++)
		if (!(collect && i == 1))
			forward[n++] = fds[i];
	if (collect) {
		b->job = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
		b->output = b->job < 0 ? -EBADF : fcntl(fds[1], F_DUPFD_CLOEXEC, 0);
		if (b->output < 0) {
			fail(s, b, SANDBOX_STEP_DESCRIPTORS, errno);
			return 0;
		}
		b->collect = true;
	}
	b->began_nsec = io_now_nsec();
	r = message_send(b->sock, request, sizeof(*request), forward, n, MSG_DONTWAIT);
	if (r < 0) {
		fail(s, b, SANDBOX_STEP_MESSAGE, r);
		return 0;
	}
	move_to(b, SANDBOX_BOX_RUNNING);
	schedule_look(s, b, b->began_nsec, 0);
	cleanup_close(&b->context);
	return 1;
}

int box_limit(struct spawner *s, struct box *b, const struct sandbox_prepare *request)
{
	int r = leaf_set(&s->limiter, &b->leaf, &request->limits);

	if (r == 0)
		r = leaf_cpu(&s->limiter, &b->leaf, &b->cpu_before_usec);
	if (r < 0)
		return r;
	b->limits = request->limits;
	b->began_nsec = io_now_nsec();
	schedule_look(s, b, b->began_nsec, 0);
	return 0;
}

void box_kill(struct spawner *s, struct box *b, enum sandbox_limit reason)
{
	if (b->killed_for == SANDBOX_LIMIT_NONE)
		b->killed_for = reason;
	if (b->state == SANDBOX_BOX_PREPARING || b->state == SANDBOX_BOX_READY) {
		/* Nothing ran: nothing to tell but that it is gone. */
		signal_init(s, b);
		b->told = true;
		move_to(b, SANDBOX_BOX_DYING);
		return;
	}
	if (b->ended_nsec == 0)
		b->ended_nsec = io_now_nsec();
	signal_init(s, b);
	b->due_nsec = 0;
}

static void on_prepared(struct spawner *s, struct box *b)
{
	union sandbox_event event = {0};
	/* Of this box until now, and where the group is kept of those before. */
	int r = leaf_cpu(&s->limiter, &b->leaf, &b->cpu_before_usec);

	if (r < 0) {
		fail(s, b, SANDBOX_STEP_CGROUP, r);
		return;
	}
	event.prepared.prepare_usec = (io_now_nsec() - b->began_nsec) / 1000;
	event.prepared.init_pid = (uint32_t)b->init;
	move_to(b, SANDBOX_BOX_READY);
	spawner_send(s, &event, sizeof(event.prepared), SANDBOX_EVENT_PREPARED, b);
}

static int collect_order(struct box *b)
{
	struct inside_message order = {.type = INSIDE_COLLECT,
				       .bytes = b->limits.collect_bytes,
				       .files = b->limits.collect_files};
	int fds[2] = {b->job, b->output};

	return message_send(b->sock, &order, sizeof(order), fds, 2, MSG_DONTWAIT);
}

static void on_exited(struct spawner *s, struct box *b, int status)
{
	int r;

	b->has_status = true;
	b->status = status;
	pod_kill_rest(s, b);
	if (b->state == SANDBOX_BOX_RUNNING && b->collect && status == 0 &&
	    b->step == SANDBOX_STEP_NONE && b->killed_for == SANDBOX_LIMIT_NONE) {
		b->ended_nsec = io_now_nsec();
		read_usage(s, b);
		r = collect_order(b);
		if (r == 0) {
			move_to(b, SANDBOX_BOX_COLLECTING);
			b->due_nsec = b->ended_nsec + COLLECT_MAX_MSEC * MSEC;
			return;
		}
		b->step = SANDBOX_STEP_COLLECT;
		b->error = -r;
	}
	finish(s, b);
}

/* Returns whether there was a message. */
static bool read_message(struct spawner *s, struct box *b)
{
	struct inside_message m;
	int fd[1];
	size_t fds;
	ssize_t n = message_receive(b->sock, &m, sizeof(m), fd, 1, &fds, MSG_DONTWAIT);

	if (n != (ssize_t)sizeof(m)) {
		/* End of file: the pidfd tells the rest. */
		if (n >= 0)
			cleanup_close(&b->sock);
		return false;
	}
	if (m.type == INSIDE_PREPARED && fds == (s->plan.pod ? 0 : 1) &&
	    b->state == SANDBOX_BOX_PREPARING) {
		if (fds == 1)
			b->context = fd[0];
		on_prepared(s, b);
		return true;
	}
	if (fds == 1)
		(void)close(fd[0]);
	if (m.type == INSIDE_FAILED && b->step == SANDBOX_STEP_NONE && !b->told &&
	    m.step < _SANDBOX_STEP_MAX) {
		b->step = m.step;
		b->error = m.error;
	} else if (m.type == INSIDE_EXITED && !b->told && !b->has_status) {
		on_exited(s, b, m.status);
	} else if (m.type == INSIDE_COLLECTED && b->state == SANDBOX_BOX_COLLECTING) {
		b->collected = m;
		finish(s, b);
	}
	return true;
}

void box_on_message(struct spawner *s, struct box *b)
{
	while (b->sock >= 0 && read_message(s, b))
		;
}

/* The products count as the task's memory: too big for its limit they are its own fault. */
static void died_collecting(struct spawner *s, struct box *b)
{
	struct usage now;

	if (leaf_usage(&s->limiter, &b->leaf, &now) == 0 && now.oom_kills > b->usage.oom_kills)
		b->collected.error = ENOMEM;
	else if (b->step == SANDBOX_STEP_NONE)
		b->step = SANDBOX_STEP_INIT_DIED;
}

void box_on_exit(struct spawner *s, struct box *b)
{
	siginfo_t info = {0};

	/* Its last words first. */
	box_on_message(s, b);
	/* Not ours to reap yet while somebody traces it. */
	if (waitid(P_PIDFD, (id_t)b->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
		return;
	cleanup_close(&b->pidfd);
	if (b->state == SANDBOX_BOX_COLLECTING && b->collected.error == 0)
		died_collecting(s, b);
	if (b->state != SANDBOX_BOX_DYING)
		finish(s, b);
	else
		try_release(s, b);
}

void box_on_time(struct spawner *s, struct box *b, uint64_t now)
{
	struct usage usage;
	uint64_t cpu;

	b->due_nsec = 0;
	if (b->state == SANDBOX_BOX_DYING) {
		try_release(s, b);
		return;
	}
	if (b->state == SANDBOX_BOX_PREPARING) {
		fail(s, b, SANDBOX_STEP_MESSAGE, ETIMEDOUT);
		return;
	}
	if (b->state == SANDBOX_BOX_COLLECTING) {
		b->collected.error = ETIMEDOUT;
		(void)sys_pidfd_send_signal(b->pidfd, SIGKILL);
		return;
	}
	if (b->state != SANDBOX_BOX_RUNNING)
		return;
	if (leaf_usage(&s->limiter, &b->leaf, &usage) < 0)
		usage = (struct usage){0};
	cpu = used_cpu(b, &usage);
	if (usage.oom_kills > 0 || usage.memory_bytes > b->limits.memory_bytes)
		box_kill(s, b, SANDBOX_LIMIT_MEMORY);
	else if (cpu >= b->limits.cpu_usec)
		box_kill(s, b, SANDBOX_LIMIT_CPU);
	else if (now >= b->began_nsec + b->limits.wall_usec * 1000)
		box_kill(s, b, SANDBOX_LIMIT_WALL);
	else
		schedule_look(s, b, now, cpu);
	/* Nothing else bounds their number there: it ends as killed. */
	if (b->leaf.processes_seen > b->limits.processes)
		pod_kill_rest(s, b);
}
