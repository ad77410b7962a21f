/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/spawner.h"

#include "base/cleanup.h"
#include "sandbox/box.h"
#include "sandbox/io.h"
#include "sandbox/syscalls.h"
#include "sandbox/template.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

ssize_t spawner_receive(int sock, void *buf, size_t size, int *fds, size_t fds_max, size_t *ret_fds)
{
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(sizeof(int) * SANDBOX_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c;
	ssize_t n;
	size_t count = 0;

	*ret_fds = 0;
	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (count < fds_max)
				fds[count++] = fd;
			else
				(void)close(fd);
		}
	}
	*ret_fds = count;
	/* A message that was cut short is no message: its size will not fit. */
	return msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? (ssize_t)size + 1 : n;
}

int spawner_forward(int sock, const void *buf, size_t size, const int *fds, size_t count)
{
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(sizeof(int) * SANDBOX_FDS_MAX)];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (count > 0) {
		control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int) * count),
						.cmsg_level = SOL_SOCKET,
						.cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * count);
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static _Noreturn void end(struct spawner *s);

enum { SEND_TRIES = 1000 };

/* Until there is something again of what the machine lacks. */
static void nap(void)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	(void)nanosleep(&moment, NULL);
}

void spawner_send(struct spawner *s, union sandbox_event *event, size_t size, uint16_t type,
		  const struct box *b)
{
	event->h = (struct sandbox_header){.magic = SANDBOX_MAGIC,
					   .version = SANDBOX_PROTOCOL_VERSION,
					   .type = type,
					   .box = (uint16_t)(b ? b->index : 0),
					   .cookie = b ? b->cookie : 0};
	/* The number of unread events is bounded by the boxes, and fits the buffer of the socket:
	 * a runner that leaves it full has stopped working. */
	for (int tries = 0; send(s->control, event, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0; tries++)
		if (tries == SEND_TRIES || !io_is_shortage(-errno))
			end(s);
		else
			nap();
}

static void refuse(struct spawner *s, const struct sandbox_header *h, int error, const char *why)
{
	union sandbox_event event = {
		.error = {.request = h->type, .error = error < 0 ? -error : error}};
	struct box named = {.index = h->box, .cookie = h->cookie};
	size_t len;

	len = strnlen(why, sizeof(event.error.message) - 1);
	memcpy(event.error.message, why, len);
	spawner_send(s, &event, sizeof(event.error), SANDBOX_REPLY_ERROR, &named);
}

/* The runner is gone: nothing may be left behind. */
static _Noreturn void end(struct spawner *s)
{
	for (unsigned int i = 0; i < s->boxes_len; i++) {
		struct box *b = &s->boxes[i];
		siginfo_t info;

		if (b->pidfd < 0)
			continue;
		(void)sys_pidfd_send_signal(b->pidfd, SIGKILL);
		(void)waitid(P_PIDFD, (id_t)b->pidfd, &info, WEXITED);
	}
	for (unsigned int i = 0; i < s->boxes_len; i++) {
		for (int tries = 0; tries < 1000 && s->configured &&
				    leaf_remove(&s->limiter, &s->boxes[i].leaf) < 0;
		     tries++)
			nap();
	}
	if (s->configured) {
		if (s->identity.capabilities)
			identity_raise_for_cleanup(&s->identity);
		limiter_close(&s->limiter);
	}
	_exit(0);
}

static int read_whole(int fd, void **ret_data, size_t unit, size_t max, size_t *ret_count,
		      struct err *e)
{
	AUTO_FREE char *data = NULL;
	struct stat st;
	size_t size;

	if (fstat(fd, &st) < 0)
		return err_errno(e, -errno, "could not read a configuration file");
	size = (size_t)st.st_size;
	if (size % unit || size / unit > max)
		return err_set(e, -EINVAL, "a configuration file has a wrong size");
	data = malloc(size + 1);
	if (!data)
		return err_set(e, -ENOMEM, "could not allocate the configuration");
	if (pread(fd, data, size, 0) != (ssize_t)size)
		return err_set(e, -EIO, "could not read a configuration file");
	*ret_data = TAKE_PTR(data);
	*ret_count = size / unit;
	return 0;
}

/* Tries once what every box will do, so that a host that cannot is told so at start. Returns
 * whether a box may mount its own /proc. */
static int try_namespaces(bool *ret_proc, struct err *e)
{
	struct clone_args args = {.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS |
					   CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
				  .exit_signal = SIGCHLD};
	int status;
	pid_t pid = sys_clone3(&args);

	if (pid < 0)
		return err_errno(e, -errno, "could not make namespaces (see `kiln-sandbox probe`)");
	if (pid == 0)
		_exit(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0
			      ? errno
			      : 0);
	if (waitpid(pid, &status, 0) < 0)
		return err_errno(e, -errno, "could not wait for a child");
	status = WIFEXITED(status) ? WEXITSTATUS(status) : EAGAIN;
	if (io_is_shortage(-status))
		return err_errno(e, -status, "could not try to mount \"/proc\"");
	*ret_proc = status == 0;
	return 0;
}

static int configure_steps(struct spawner *s, const struct sandbox_configure *request,
			   const int *fds, size_t count, uint32_t *ret_binds, struct err *e)
{
	struct limiter_options o = {.rung = (enum sandbox_rung)request->rung,
				    .parent = request->cgroup_parent};
	AUTO_FREE void *filter = NULL;
	AUTO_FREE void *binds = NULL;
	size_t filter_len = 0, binds_len;
	int abi;
	int r = read_whole(fds[count - 1], &binds, sizeof(struct sandbox_bind), SANDBOX_BINDS_MAX,
			   &binds_len, e);

	if (r == 0 && count == 2)
		r = read_whole(fds[0], &filter, sizeof(struct sock_filter), SANDBOX_FILTER_MAX,
			       &filter_len, e);
	if (r == 0)
		r = limiter_open(&s->limiter, &o, e);
	if (r < 0)
		return r;
	s->configured = true;
	r = identity_enter(&s->identity, request->uid_base, request->boxes, e);
	if (r == 0)
		r = template_enter(binds, binds_len, ret_binds, e);
	if (r == 0)
		r = netpool_open(&s->netpool, s->limiter.proc_fd, e);
	if (r == 0)
		r = identity_drop(&s->identity, e);
	if (r == 0)
		r = try_namespaces(&s->plan.proc, e);
	if (r < 0)
		return r;
	abi = landlock_abi();
	if (abi < 0)
		return err_errno(e, abi, "could not ask for Landlock");
	s->netpool.reuse = !(request->flags & SANDBOX_CONFIGURE_NO_NETPOOL);
	s->plan.two_ids = s->identity.two_ids;
	s->plan.landlock_abi = (uint32_t)abi;
	s->plan.filter_len = (uint16_t)filter_len;
	s->plan.filter = TAKE_PTR(filter); /* as long as we live */
	s->plan.last_capability = caps_last();
	return 0;
}

static void describe(struct spawner *s, uint32_t binds)
{
	struct sandbox_reply_configured *f = &s->in_force;
	const struct {
		bool has;
		uint32_t flag;
	} flags[] = {
		{true, SANDBOX_HAS_USERNS | SANDBOX_HAS_NETNS},
		{s->netpool.reuse, SANDBOX_HAS_NETPOOL},
		{s->plan.filter_len > 0, SANDBOX_HAS_SECCOMP},
		{s->identity.two_ids, SANDBOX_HAS_TWO_IDS},
		{s->limiter.has_swap, SANDBOX_HAS_SWAP_LIMIT},
		{s->limiter.has_cpu_rate, SANDBOX_HAS_CPU_RATE},
		{s->limiter.has_peak, SANDBOX_HAS_MEMORY_PEAK},
		{s->plan.proc, SANDBOX_HAS_PROC},
		{s->limiter.has_kill, SANDBOX_HAS_CGROUP_KILL},
		{s->identity.root, SANDBOX_HAS_ROOT},
	};

	*f = (struct sandbox_reply_configured){
		.rung = s->limiter.rung,
		.landlock_abi = s->plan.landlock_abi,
		.uid_base = s->identity.uid_base,
		.filter_len = s->plan.filter_len,
		.binds = binds,
		.capabilities = s->identity.capabilities,
	};
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		f->has |= flags[i].has ? flags[i].flag : 0;
	(void)snprintf(f->cgroup, sizeof(f->cgroup), "%s", s->limiter.path);
}

static void configure(struct spawner *s, const struct sandbox_configure *request, const int *fds,
		      size_t count)
{
	union sandbox_event event = {0};
	uint32_t binds = 0;
	struct err e = {0};
	int r = configure_steps(s, request, fds, count, &binds, &e);

	if (r < 0) {
		refuse(s, &request->h, r, e.msg);
		end(s);
	}
	s->boxes_len = request->boxes;
	describe(s, binds);
	event.configured = s->in_force;
	spawner_send(s, &event, sizeof(event.configured), SANDBOX_REPLY_CONFIGURED, NULL);
}

static void tell_started(struct spawner *s, struct box *b)
{
	union sandbox_event event = {.started = {.started_nsec = b->began_nsec}};

	spawner_send(s, &event, sizeof(event.started), SANDBOX_EVENT_STARTED, b);
}

/* A request for a box, permitted by its state. */
static void on_box_request(struct spawner *s, union sandbox_request *request, const int *fds,
			   size_t count)
{
	struct box *b = &s->boxes[request->h.box];
	enum sandbox_limit reason;
	int r;

	switch (request->h.type) {
	case SANDBOX_PREPARE:
		if (sandbox_limits_check(&request->prepare.limits) < 0)
			refuse(s, &request->h, EINVAL, "a limit is missing or too big");
		else
			box_prepare(s, b, &request->prepare);
		return;
	case SANDBOX_START:
		if (sandbox_limits_check(&request->start.limits) < 0)
			refuse(s, &request->h, EINVAL, "a limit is missing or too big");
		else if (box_start(s, b, &request->start, fds, count) > 0)
			tell_started(s, b);
		return;
	case SANDBOX_LIMIT:
		r = sandbox_limits_check(&request->prepare.limits);
		if (r == 0)
			r = box_limit(s, b, &request->prepare);
		if (r < 0)
			refuse(s, &request->h, r, "could not set these limits");
		else
			tell_started(s, b);
		return;
	default:
		reason = (enum sandbox_limit)request->simple.reason;
		box_kill(s, b,
			 request->h.type == SANDBOX_KILL && reason != SANDBOX_LIMIT_NONE
				 ? reason
				 : SANDBOX_LIMIT_REQUESTED);
	}
}

static void on_request(struct spawner *s, union sandbox_request *request, size_t len,
		       const int *fds, size_t count)
{
	struct box *b;
	enum sandbox_permit permit;
	unsigned int state;

	if (sandbox_request_check(request, len, count, s->boxes_len) < 0) {
		refuse(s, &request->h, EBADMSG, "malformed request");
		return;
	}
	if (request->h.type == SANDBOX_CONFIGURE || !s->configured) {
		if (request->h.type == SANDBOX_CONFIGURE && !s->configured)
			configure(s, &request->configure, fds, count);
		else
			refuse(s, &request->h, EPROTO, "configure comes once, and first");
		return;
	}
	b = &s->boxes[request->h.box];
	/* Meant for an earlier use of this box, which has ended meanwhile. */
	state = request->h.type != SANDBOX_PREPARE && request->h.cookie != b->cookie
			? SANDBOX_BOX_EMPTY
			: b->state;
	permit = sandbox_permit(request->h.type, state);
	if (permit == SANDBOX_ALLOWED)
		on_box_request(s, request, fds, count);
	else if (permit == SANDBOX_FORBIDDEN)
		refuse(s, &request->h, EPROTO, "not permitted in the state of the box");
}

static void on_control(struct spawner *s)
{
	for (;;) {
		union sandbox_request request = {0};
		int fds[SANDBOX_FDS_MAX];
		size_t count;
		ssize_t n = spawner_receive(s->control, &request, sizeof(request), fds,
					    SANDBOX_FDS_MAX, &count);

		if (n < 0 && n != -EAGAIN && io_is_shortage((int)n))
			nap(); /* the request is still there */
		if (n < 0 && io_is_shortage((int)n))
			return;
		if (n <= 0)
			end(s);
		on_request(s, &request, (size_t)n, fds, count);
		for (size_t i = 0; i < count; i++)
			(void)close(fds[i]);
	}
}

static size_t fill_poll(struct spawner *s, struct pollfd *polls, uint64_t *ret_due)
{
	size_t n = 0;

	*ret_due = 0;
	polls[n++] = (struct pollfd){.fd = s->control, .events = POLLIN};
	for (unsigned int i = 0; i < s->boxes_len; i++) {
		const struct box *b = &s->boxes[i];

		polls[n++] = (struct pollfd){.fd = b->sock, .events = POLLIN};
		polls[n++] = (struct pollfd){.fd = b->pidfd, .events = POLLIN};
		if (b->due_nsec && (*ret_due == 0 || b->due_nsec < *ret_due))
			*ret_due = b->due_nsec;
	}
	return n;
}

static void wait_and_serve(struct spawner *s)
{
	struct pollfd polls[1 + 2 * SANDBOX_BOXES_MAX];
	struct timespec wait;
	uint64_t due, now;
	size_t n = fill_poll(s, polls, &due);

	if (due) {
		now = io_now_nsec();
		now = due > now ? due - now : 0;
		wait = (struct timespec){.tv_sec = (time_t)(now / 1000000000),
					 .tv_nsec = (long)(now % 1000000000)};
	}
	if (ppoll(polls, (nfds_t)n, due ? &wait : NULL, NULL) < 0)
		return; /* EINTR: nothing else can be wrong with it */
	now = due ? io_now_nsec() : 0;
	for (unsigned int i = 0; i < s->boxes_len; i++) {
		struct box *b = &s->boxes[i];

		if (polls[1 + 2 * i].revents && b->sock >= 0)
			box_on_message(s, b);
		if (polls[2 + 2 * i].revents && b->pidfd >= 0)
			box_on_exit(s, b);
		if (b->due_nsec && now >= b->due_nsec)
			box_on_time(s, b, now);
	}
	/* Last, since it may change what the array was about. */
	if (polls[0].revents)
		on_control(s);
}

static void reset_process(int control_fd)
{
	const struct sigaction ign = {.sa_handler = SIG_IGN};
	const struct {
		uint64_t handler, flags, restorer, mask;
	} dfl = {0}; /* the kernel's own struct: libc keeps two signals to itself */
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)syscall(SYS_rt_sigaction, sig, &dfl, NULL, sizeof(uint64_t));
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	/* A terminal's keys reach the whole group; it is the runner who decides. */
	(void)sigaction(SIGINT, &ign, NULL);
	(void)sigaction(SIGTERM, &ign, NULL);
	(void)sigaction(SIGHUP, &ign, NULL);
	(void)sigaction(SIGQUIT, &ign, NULL);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		_exit(1);
	(void)fcntl(control_fd, F_SETFD, FD_CLOEXEC);
	for (int fd = 3; fd < control_fd; fd++)
		(void)close(fd);
	(void)sys_close_range((unsigned int)control_fd + 1, ~0u, 0);
}

int spawner_serve(int control_fd)
{
	static struct spawner s;
	cpu_set_t cpus;

	reset_process(control_fd);
	s.control = control_fd;
	/* A machine with more than fit the set: to think of too many only means to look early. */
	s.cpus = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned int)CPU_COUNT(&cpus)
								: CPU_SETSIZE;
	for (unsigned int i = 0; i < SANDBOX_BOXES_MAX; i++)
		box_init(&s.boxes[i], i);
	for (;;)
		wait_and_serve(&s);
}
