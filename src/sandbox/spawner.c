/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/spawner.h"

#include "base/cleanup.h"
#include "sandbox/box.h"
#include "sandbox/io.h"
#include "sandbox/message.h"
#include "sandbox/pod.h"
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
	size_t len = strnlen(why, sizeof(event.error.message) - 1);

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
		pod_kill_rest(s, b);
		(void)sys_pidfd_send_signal(b->pidfd, SIGKILL);
		(void)waitid(P_PIDFD, (id_t)b->pidfd, &info, WEXITED);
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

static int enter_namespaces(struct spawner *s, const struct sandbox_configure *request,
			    const struct sandbox_bind *binds, size_t n, struct err *e)
{
	int r = identity_enter(&s->identity, request->uid_base, e);

	if (r == 0)
		r = template_enter(binds, n, e);
	if (r == 0)
		r = netpool_open(&s->netpool, s->limiter.proc_fd, e);
	if (r == 0)
		r = identity_drop(&s->identity, e);
	return r == 0 ? try_namespaces(&s->plan.proc, e) : r;
}

static int configure_steps(struct spawner *s, const struct sandbox_configure *request, int *fds,
			   struct sandbox_reply_configured *ret_in_force, struct err *e)
{
	size_t filters = request->flags & SANDBOX_CONFIGURE_FILTER ? 1 : 0, filter_len = 0;
	AUTO_FREE void *filter = NULL;
	AUTO_FREE void *binds = NULL;
	size_t binds_len;
	int abi = landlock_abi();
	int r = read_whole(fds[0], &binds, sizeof(struct sandbox_bind), SANDBOX_BINDS_MAX,
			   &binds_len, e);

	if (r == 0 && filters)
		r = read_whole(fds[1], &filter, sizeof(struct sock_filter), SANDBOX_FILTER_MAX,
			       &filter_len, e);
	if (r == 0)
		r = limiter_open(&s->limiter, request, fds + 1 + filters, e);
	if (r < 0)
		return r;
	s->configured = true;
	if (abi < 0)
		return err_errno(e, abi, "could not ask for Landlock");
	s->plan.pod = request->flags & SANDBOX_CONFIGURE_POD;
	s->plan.landlock_abi = (uint32_t)abi;
	s->plan.filter_len = (uint16_t)filter_len;
	s->plan.filter = TAKE_PTR(filter); /* as long as we live */
	r = s->plan.pod ? pod_enter(s, e) : enter_namespaces(s, request, binds, binds_len, e);
	if (r < 0)
		return r;
	s->netpool.reuse = !s->plan.pod && !(request->flags & SANDBOX_CONFIGURE_NO_NETPOOL);
	s->plan.two_ids = s->identity.two_ids;
	s->plan.last_capability = caps_last();
	s->plan.binds_len = binds_len;
	s->plan.binds = TAKE_PTR(binds);
	s->boxes_len = request->boxes;
	*ret_in_force = (struct sandbox_reply_configured){
		.rung = request->rung,
		.has = (s->plan.pod ? 0u : SANDBOX_HAS_USERNS | SANDBOX_HAS_NETNS) |
		       s->limiter.has |
		       (s->plan.pod && s->plan.landlock_abi >= 6 ? SANDBOX_HAS_SCOPE : 0u) |
		       (s->netpool.reuse ? SANDBOX_HAS_NETPOOL : 0u) |
		       (filter_len > 0 ? SANDBOX_HAS_SECCOMP : 0u) |
		       (s->identity.two_ids ? SANDBOX_HAS_TWO_IDS : 0u) |
		       (s->plan.proc || s->plan.pod ? SANDBOX_HAS_PROC : 0u) |
		       (s->identity.root ? SANDBOX_HAS_ROOT : 0u),
		.landlock_abi = s->plan.landlock_abi,
		.uid_base = s->identity.uid_base,
		.filter_len = s->plan.filter_len,
		.binds = (uint32_t)binds_len,
		.capabilities = s->identity.capabilities,
	};
	return 0;
}

static void configure(struct spawner *s, const struct sandbox_configure *request, int *fds)
{
	union sandbox_event event = {0};
	struct err e = {0};
	int r = configure_steps(s, request, fds, &event.configured, &e);

	if (r < 0) {
		refuse(s, &request->h, r, e.msg);
		end(s);
	}
	sys_unmap_code();
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

static void on_request(struct spawner *s, union sandbox_request *request, size_t len, int *fds,
		       size_t count)
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
			configure(s, &request->configure, fds);
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
		ssize_t n = message_receive(s->control, &request, sizeof(request), fds,
					    SANDBOX_FDS_MAX, &count, MSG_DONTWAIT);

		if (n < 0 && n != -EAGAIN && io_is_shortage((int)n))
			nap(); /* the request is still there */
		if (n < 0 && io_is_shortage((int)n))
			return;
		if (n <= 0)
			end(s);
		on_request(s, &request, (size_t)n, fds, count);
		for (size_t i = 0; i < count; i++)
			cleanup_close(&fds[i]);
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
	static const int keys[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
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
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		(void)sigaction(keys[i], &ign, NULL);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		_exit(1);
	(void)fcntl(control_fd, F_SETFD, FD_CLOEXEC);
	for (int fd = 3; fd < control_fd; fd++)
		(void)close(fd);
	(void)sys_close_range((unsigned int)control_fd + 1, ~0u, 0);
}

/* Nothing is in these pages. */
__asm__(".pushsection .text\n.balign 4096\nspare_code: .skip 4096\n.popsection");
extern char spare_code[] __attribute__((visibility("hidden")));
static const char spare_constants[4096] __attribute__((aligned(4096)));

int spawner_serve(struct spawner *s)
{
	cpu_set_t cpus;

	reset_process(s->control);
	/* Boxes are forks: each of their processes would fault for every 64 KiB of code and
	 * constants that it touches, a tenth of what a box costs. */
	sys_copy_tables_on_fork((uintptr_t)spare_code);
	sys_copy_tables_on_fork((uintptr_t)spare_constants);
	/* A machine with more than fit the set: to think of too many only means to look early. */
	s->cpus = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned int)CPU_COUNT(&cpus)
								 : CPU_SETSIZE;
	for (unsigned int i = 0; i < SANDBOX_BOXES_MAX; i++)
		box_init(&s->boxes[i], i);
	for (;;)
		wait_and_serve(s);
}
