/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/client.h"

#include "sandbox/host.h"
#include "sandbox/message.h"
#include "sandbox/nursery.h"
#include "sandbox/verdict.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct sandbox_client {
	struct sandbox_child child;
	struct sandbox_reply_configured in_force;
	struct nursery *nursery;
	char no_nursery[ERR_MSG_MAX];
};

/* What a spawner tells are facts. */
static void decide(struct sandbox_event_exited *x)
{
	const struct verdict_facts facts = {
		.has_status = x->has_status,
		.status = x->status,
		.step = x->step,
		.error = x->error,
		.killed_for = (enum sandbox_limit)x->limit,
		.oom_kills = x->oom_kills,
		.cpu_usec = x->cpu_usec,
		.cpu_limit_usec = x->cpu_limit_usec,
		.wall_usec = x->wall_usec,
		.wall_limit_usec = x->wall_limit_usec,
	};

	verdict_decide(&facts, x);
}

int sandbox_child_start(struct sandbox_child *c, const char *program, const char *command,
			struct err *e)
{
	char *argv[] = {(char *)(uintptr_t) "kiln-sandbox", (char *)(uintptr_t)command, NULL};
	/* With restartable sequences, which nothing there uses, the kernel writes to each process
	 * that is scheduled, and so copies a page for each that was forked. */
	char *envp[] = {(char *)(uintptr_t) "GLIBC_TUNABLES=glibc.pthread.rseq=0", NULL};
	posix_spawn_file_actions_t actions;
	AUTO_FD int theirs = -EBADF;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(e, -errno, "could not make a socket pair");
	c->sock = pair[0];
	theirs = pair[1];
	r = -posix_spawn_file_actions_init(&actions);
	if (r < 0)
		return err_errno(e, r, "could not start \"%s\"", program);
	r = -posix_spawn_file_actions_adddup2(&actions, theirs, SANDBOX_CONTROL_FD);
	if (r == 0)
		r = -posix_spawn(&c->pid, program, &actions, NULL, argv, envp);
	(void)posix_spawn_file_actions_destroy(&actions);
	return r < 0 ? err_errno(e, r, "could not start \"%s\"", program) : 0;
}

void sandbox_child_end(struct sandbox_child *c)
{
	AUTO_FD int pidfd = -EBADF;
	struct pollfd p = {.events = POLLIN};

	cleanup_close(&c->sock);
	if (c->pid <= 0)
		return;
	pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0u);
	p.fd = pidfd;
	if (pidfd < 0 || poll(&p, 1, 2000) <= 0)
		(void)kill(c->pid, SIGKILL);
	while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
		;
	c->pid = 0;
}

static int send_request(struct sandbox_client *c, void *request, size_t size, uint16_t type,
			unsigned int box, uint64_t cookie, const int *fds, size_t count,
			struct err *e)
{
	struct sandbox_header *h = request;
	int r;

	*h = (struct sandbox_header){.magic = SANDBOX_MAGIC,
				     .version = SANDBOX_PROTOCOL_VERSION,
				     .type = type,
				     .box = (uint16_t)box,
				     .cookie = cookie};
	if (count > SANDBOX_FDS_MAX)
		return err_set(e, -E2BIG, "too many descriptors for a sandbox");
	r = message_send(c->child.sock, request, size, fds, count, MSG_DONTWAIT);
	return r < 0 ? err_errno(e, r, "could not talk to the sandbox spawner") : 0;
}

static int profile_memfd(const struct sandbox_bind *binds, size_t count, struct err *e)
{
	AUTO_FD int fd = memfd_create("kiln-profile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	AUTO_FREE struct sandbox_bind *seen = calloc(count + 1, sizeof(*seen));
	size_t size;
	int r;

	if (!seen)
		return err_set(e, -ENOMEM, "could not allocate the sandbox profile");
	r = profile_look(binds, count, seen, &count, e);
	if (r < 0)
		return r;
	size = count * sizeof(*seen);
	if (fd < 0 || (size > 0 && write(fd, seen, size) != (ssize_t)size) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return err_errno(e, -errno, "could not write the sandbox profile");
	return TAKE_FD(fd);
}

static int configure(struct sandbox_client *c, struct sandbox_configure *request,
		     const struct groups *g, int profile_fd, int seccomp_fd, struct err *e)
{
	int fds[2 + 2 * _SANDBOX_TREE_MAX] = {profile_fd};
	size_t n = 1;

	request->rung = g->rung;
	request->has = g->has;
	memcpy(request->group, g->name, sizeof(request->group));
	if (seccomp_fd >= 0) {
		request->flags |= SANDBOX_CONFIGURE_FILTER;
		fds[n++] = seccomp_fd;
	}
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++) {
		if (g->own[i] < 0)
			continue;
		request->trees |= 1u << i;
		fds[n++] = g->own[i];
		fds[n++] = g->parent[i];
	}
	return send_request(c, request, sizeof(*request), SANDBOX_CONFIGURE, 0, 0, fds, n, e);
}

static int await_configured(struct sandbox_client *c, int timeout_ms, struct err *e)
{
	struct pollfd p = {.fd = c->child.sock, .events = POLLIN};
	union sandbox_event event;
	int r = poll(&p, 1, timeout_ms > 0 ? timeout_ms : 10000);

	if (r < 0)
		return err_errno(e, -errno, "could not wait for the sandbox spawner");
	if (r == 0)
		return err_set(e, -ETIMEDOUT, "the sandbox spawner did not answer");
	r = sandbox_client_receive(c, &event, e);
	if (r < 0)
		return r;
	if (r > 0 && event.h.type == SANDBOX_REPLY_ERROR)
		return err_set(e, -event.error.error, "%s", event.error.message);
	if (r == 0 || event.h.type != SANDBOX_REPLY_CONFIGURED)
		return err_set(e, -EPROTO, "the sandbox spawner gave a wrong answer");
	c->in_force = event.configured;
	return 0;
}

static unsigned int ids_of(const struct sandbox_client_options *o)
{
	return 2 * o->boxes + (o->places ? nursery_ids(o->places, o->place_boxes) : 0);
}

/* A runner does without, and says why. */
static void open_nursery(struct sandbox_client *c, const struct sandbox_client_options *o,
			 const struct groups *g, int profile_fd)
{
	const struct sandbox_reply_configured *f = &c->in_force;
	const struct nursery_options options = {
		.program = o->program,
		.places = o->places,
		.boxes = o->place_boxes,
		.uid_first = f->has & SANDBOX_HAS_TWO_IDS ? f->uid_base + 2 * o->boxes : 0,
		.profile_fd = profile_fd,
		.seccomp_fd = o->seccomp_fd,
	};
	struct err e = {0};
	int r = 0;

	if (geteuid() == 0 && options.uid_first == 0)
		r = err_set(&e, -EPERM, "there is no range of ids for them");
	if (r == 0)
		r = nursery_new(&options, g, &c->nursery, &e);
	if (r < 0)
		(void)snprintf(c->no_nursery, sizeof(c->no_nursery), "%s", e.msg);
}

static int start_spawner(struct sandbox_client *c, const struct sandbox_client_options *o,
			 const struct groups *g, struct err *e)
{
	struct sandbox_configure request = {.boxes = o->boxes, .flags = o->flags};
	AUTO_FD int profile = profile_memfd(o->binds, o->bind_count, e);
	int r = profile < 0 ? profile : ids_choose(o->uid_base, ids_of(o), &request.uid_base, e);

	if (r == 0)
		r = configure(c, &request, g, profile, o->seccomp_fd, e);
	if (r == 0)
		r = await_configured(c, o->timeout_ms, e);
	if (r == 0 && o->places)
		open_nursery(c, o, g, profile);
	return r;
}

int sandbox_client_new(const struct sandbox_client_options *o, struct sandbox_client **ret_client,
		       struct err *e)
{
	struct sandbox_client *c = calloc(1, sizeof(*c));
	struct groups_options where = {.rung = o->rung, .parent = o->cgroup_parent};
	struct groups groups;
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "could not allocate a sandbox client");
	c->child = SANDBOX_CHILD_NONE;
	r = sandbox_child_start(&c->child, o->program, "serve", e);
	where.spawner = c->child.pid;
	if (r == 0)
		r = groups_open(&groups, &where, e);
	if (r < 0) {
		sandbox_client_free(c);
		return r;
	}
	r = start_spawner(c, o, &groups, e);
	memcpy(c->in_force.cgroup, groups.path, sizeof(c->in_force.cgroup));
	if (r == 0) {
		groups_close(&groups);
		*ret_client = c;
		return 0;
	}
	sandbox_client_free(c);
	groups_remove(&groups); /* where the spawner has not */
	return r;
}

int sandbox_client_new_placed(int sock, const struct sandbox_site *where,
			      struct sandbox_client **ret_client, struct err *e)
{
	struct sandbox_configure request = {.boxes = where->boxes, .uid_base = where->uid_base};
	AUTO(sandbox_client_free) struct sandbox_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		(void)close(sock);
		return err_set(e, -ENOMEM, "could not allocate a sandbox client");
	}
	c->child.sock = sock;
	r = configure(c, &request, where->groups, where->profile_fd, where->seccomp_fd, e);
	if (r == 0)
		*ret_client = TAKE_PTR(c);
	return r;
}

void sandbox_client_free(struct sandbox_client *c)
{
	if (!c)
		return;
	nursery_free(c->nursery);
	sandbox_child_end(&c->child);
	free(c);
}

void sandbox_client_end(struct sandbox_client *c)
{
	(void)shutdown(c->child.sock, SHUT_WR);
}

struct nursery *sandbox_client_nursery(const struct sandbox_client *c)
{
	return c->nursery;
}

const char *sandbox_client_no_nursery(const struct sandbox_client *c)
{
	return c->no_nursery;
}

const struct sandbox_reply_configured *sandbox_client_in_force(const struct sandbox_client *c)
{
	return &c->in_force;
}

int sandbox_client_fd(const struct sandbox_client *c)
{
	return c->child.sock;
}

pid_t sandbox_client_pid(const struct sandbox_client *c)
{
	return c->child.pid;
}

int sandbox_client_prepare(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			   const struct sandbox_limits *expected, struct err *e)
{
	struct sandbox_prepare request = {.limits = *expected};

	return send_request(c, &request, sizeof(request), SANDBOX_PREPARE, box, cookie, NULL, 0, e);
}

int sandbox_client_limit(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			 const struct sandbox_limits *limits, struct err *e)
{
	struct sandbox_prepare request = {.limits = *limits};

	return send_request(c, &request, sizeof(request), SANDBOX_LIMIT, box, cookie, NULL, 0, e);
}

int sandbox_client_start(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			 const struct sandbox_task *task, struct err *e)
{
	struct sandbox_start request = {.limits = task->limits,
					.flags = task->output_fd >= 0 ? SANDBOX_START_OUTPUT : 0,
					.inputs = (uint8_t)task->input_count,
					.mapped = (uint8_t)task->map_count};
	int fds[SANDBOX_FDS_MAX];
	size_t n = 0;

	if (task->input_count > SANDBOX_INPUTS_MAX || task->map_count > SANDBOX_MAP_MAX)
		return err_set(e, -E2BIG, "too many descriptors for a sandbox");
	fds[n++] = task->job_fd;
	if (task->output_fd >= 0)
		fds[n++] = task->output_fd;
	for (size_t i = 0; i < task->input_count; i++)
		fds[n++] = task->input_fds[i];
	for (size_t i = 0; i < task->map_count; i++) {
		request.target[i] = task->map_targets[i];
		fds[n++] = task->map_fds[i];
	}
	return send_request(c, &request, sizeof(request), SANDBOX_START, box, cookie, fds, n, e);
}

int sandbox_client_kill(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			enum sandbox_limit reason, struct err *e)
{
	struct sandbox_simple request = {.reason = (uint32_t)reason};

	return send_request(c, &request, sizeof(request), SANDBOX_KILL, box, cookie, NULL, 0, e);
}

int sandbox_client_release(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			   struct err *e)
{
	struct sandbox_simple request = {0};

	return send_request(c, &request, sizeof(request), SANDBOX_RELEASE, box, cookie, NULL, 0, e);
}

static size_t event_size(unsigned int type)
{
	static const size_t sizes[] = {
		[SANDBOX_REPLY_CONFIGURED] = sizeof(struct sandbox_reply_configured),
		[SANDBOX_EVENT_PREPARED] = sizeof(struct sandbox_event_prepared),
		[SANDBOX_EVENT_STARTED] = sizeof(struct sandbox_event_started),
		[SANDBOX_EVENT_EXITED] = sizeof(struct sandbox_event_exited),
		[SANDBOX_EVENT_RELEASED] = sizeof(struct sandbox_header),
		[SANDBOX_REPLY_ERROR] = sizeof(struct sandbox_reply_error),
	};

	return type < ARRAY_SIZE(sizes) ? sizes[type] : 0;
}

int sandbox_client_receive(struct sandbox_client *c, union sandbox_event *ret_event, struct err *e)
{
	union sandbox_event event = {0};
	ssize_t n;

	do {
		n = recv(c->child.sock, &event, sizeof(event), MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		return err_set(e, -EPIPE, "the sandbox spawner ended");
	if ((size_t)n < sizeof(event.h) || event.h.magic != SANDBOX_MAGIC ||
	    event.h.version != SANDBOX_PROTOCOL_VERSION || event_size(event.h.type) != (size_t)n)
		return err_set(e, -EPROTO, "the sandbox spawner sent something else");
	if (event.h.type == SANDBOX_REPLY_ERROR)
		event.error.message[SANDBOX_PATH_MAX - 1] = 0;
	if (event.h.type == SANDBOX_EVENT_EXITED)
		decide(&event.exited);
	*ret_event = event;
	return 1;
}

/* What languages read of a Debian-like host; "*" is expanded here, since these names carry
 * versions. */
static const char *const default_binds[] = {
	"/usr",
	"/bin",
	"/sbin",
	"/lib",
	"/lib32",
	"/lib64",
	"/libx32",
	"/etc/ld.so.cache",
	"/etc/ld.so.conf",
	"/etc/ld.so.conf.d",
	"/etc/alternatives",
	"/etc/localtime",
	"/etc/java-*",
	"/etc/python3*",
	"/etc/R",
	"/etc/mono",
	"/etc/php",
	"/etc/ssl/openssl.cnf",
	"/etc/ssl/certs",
	"/etc/perl",
};

int sandbox_profile_default(struct sandbox_bind **ret_binds, size_t *ret_count, struct err *e)
{
	AUTO_FREE struct sandbox_bind *binds = calloc(SANDBOX_BINDS_MAX, sizeof(*binds));
	size_t n = 0;

	if (!binds)
		return err_set(e, -ENOMEM, "could not allocate the sandbox profile");
	for (size_t i = 0; i < ARRAY_SIZE(default_binds); i++) {
		glob_t found;

		if (glob(default_binds[i], 0, NULL, &found) != 0)
			continue;
		for (size_t k = 0; k < found.gl_pathc && n < SANDBOX_BINDS_MAX; k++) {
			if (strlen(found.gl_pathv[k]) >= SANDBOX_PATH_MAX)
				continue;
			binds[n].flags = SANDBOX_BIND_OPTIONAL;
			(void)snprintf(binds[n].source, SANDBOX_PATH_MAX, "%s", found.gl_pathv[k]);
			n++;
		}
		globfree(&found);
	}
	*ret_binds = TAKE_PTR(binds);
	*ret_count = n;
	return 0;
}
