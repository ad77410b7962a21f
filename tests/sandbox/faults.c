/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every system call of a sandbox's life fails, once with each of ENOMEM, EMFILE, ENOSPC and EAGAIN,
 * and with ENOMEM for a while:
 *
 *	faults [RUNG] [--all] [--only-start]
 *
 * After each, the runner has been told an outcome that is not taken for the program's own, nothing
 * is left (descriptors, children, mounts, groups), the same spawner goes on, and the same box works
 * when it is used again. A scenario is one way through a box's life; the start of a spawner is
 * another, where errors take turns unless --all is given. Output is TAP.
 */

#include "base/cleanup.h"
#include "holdings.h"
#include "sandbox/archive.h"
#include "sandbox/client.h"
#include "sandbox/host.h"
#include "sandbox/seccomp.h"
#include "tamper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 30000, WRONG_SHOWN = 8, A_WHILE = 10 };

static const uint32_t HAS_OF_GROUPS = SANDBOX_HAS_SWAP_LIMIT | SANDBOX_HAS_MEMORY_PEAK |
				      SANDBOX_HAS_CGROUP_KILL | SANDBOX_HAS_CPU_RATE;

static const int errors[] = {ENOMEM, EMFILE, ENOSPC, EAGAIN};

/* ---- one box, start to end ---- */

struct scenario {
	const char *name;
	const char *argv[4];
	unsigned int roles; /* whose calls fail: where they are others than in the first */
	bool start, collect;
	uint64_t wall_usec; /* set while it runs */
	uint64_t cpu_usec;  /* another than it was prepared with */
	enum sandbox_outcome outcome;
	enum sandbox_limit limit;
};

static const struct scenario scenarios[] = {
	{"a program that is collected from",
	 {"/bin/cp", "given", "made", NULL},
	 .roles = 1 << TAMPER_SPAWNER | 1 << TAMPER_INIT | 1 << TAMPER_TASK | 1 << TAMPER_COLLECTOR,
	 .start = true,
	 .collect = true,
	 .outcome = SANDBOX_EXITED},
	{"a program that the clock stops",
	 {"/bin/sleep", "60", NULL},
	 .roles = 1 << TAMPER_SPAWNER,
	 .start = true,
	 .wall_usec = 30000,
	 .outcome = SANDBOX_LIMITED,
	 .limit = SANDBOX_LIMIT_WALL},
	{"a program that computes for too long",
	 {"/bin/sh", "-c", "while :; do :; done", NULL},
	 .roles = 1 << TAMPER_SPAWNER,
	 .start = true,
	 .cpu_usec = 20000,
	 .outcome = SANDBOX_LIMITED,
	 .limit = SANDBOX_LIMIT_CPU},
	{"a program that wants more memory",
	 {"/usr/bin/tail", "/dev/zero", NULL},
	 .roles = 1 << TAMPER_SPAWNER | 1 << TAMPER_INIT,
	 .start = true,
	 .outcome = SANDBOX_LIMITED,
	 .limit = SANDBOX_LIMIT_MEMORY},
	{"a box that is given back",
	 {"/bin/true", NULL},
	 .roles = 1 << TAMPER_SPAWNER,
	 .outcome = 0},
};

struct world {
	const char *sandbox;
	enum sandbox_rung rung;
	struct sandbox_client *client;
	struct tamper *tamper;
	struct sandbox_bind *binds;
	size_t bind_count;
	int filter, signals;
	uint64_t cookie;
	struct holdings before;
	struct sandbox_reply_configured in_force;
};

struct told {
	bool limited; /* STARTED comes again when LIMIT is in force */
	bool released, exited, refused, died;
	struct sandbox_event_exited x;
	char content[16]; /* of what was collected */
};

static const struct sandbox_limits prepared_limits = {
	.cpu_usec = 5000000, .wall_usec = 10000000, .memory_bytes = 64 << 20, .processes = 8};

static uint64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void must(int r, const struct err *e)
{
	if (r >= 0)
		return;
	(void)printf("Bail out! %s\n", e->msg);
	exit(1);
}

static int make_input(void)
{
	AUTO(archive_writer_free) struct archive_writer *w = NULL;
	struct err e = {0};
	int fd = -EBADF;

	must(archive_writer_new(&w, &e), &e);
	must(archive_add(w, "given", 0644, "products", 8, &e), &e);
	must(archive_finish(w, &fd, &e), &e);
	return fd;
}

static int make_job(const struct scenario *s)
{
	static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};
	static const char *const collect[] = {"made", NULL};
	const struct archive_entry file = {
		.name = "sub/more", .name_len = 8, .mode = 0600, .data = "x", .size = 1};
	const struct job_spec spec = {.argv = s->argv, .envp = envp, .collect = collect};
	struct err e = {0};
	int fd = -EBADF;

	must(job_write(&spec, &file, 1, &fd, &e), &e);
	return fd;
}

static void read_collected(int fd, struct told *t)
{
	struct archive_reader reader;
	struct archive_entry entry;
	const void *data;
	size_t len;

	if (archive_map(fd, &data, &len, NULL) < 0 || len == 0)
		return;
	if (archive_open(&reader, data, len) == 0 && archive_next(&reader, &entry) == 1 &&
	    entry.size < sizeof(t->content))
		memcpy(t->content, entry.data, entry.size);
	(void)munmap((void *)(uintptr_t)data, len);
}

static void start_box(struct world *w, const struct scenario *s, const int fds[4])
{
	static const uint8_t targets[] = {1, 2};
	const int mapped[] = {fds[3], fds[3]};
	struct sandbox_task task = {.limits = prepared_limits,
				    .job_fd = fds[0],
				    .output_fd = s->collect ? fds[2] : -EBADF,
				    .input_fds = &fds[1],
				    .input_count = 1,
				    .map_fds = mapped,
				    .map_targets = targets,
				    .map_count = 2};
	struct err e = {0};

	task.limits.disk_bytes = 16 << 20; /* another than it was prepared with */
	task.limits.memory_bytes = 24 << 20;
	if (s->cpu_usec)
		task.limits.cpu_usec = s->cpu_usec;
	must(sandbox_client_start(w->client, 0, w->cookie, &task, &e), &e);
}

static void on_event(struct world *w, const struct scenario *s, const int fds[4],
		     const union sandbox_event *event, struct told *t)
{
	struct sandbox_limits limits = prepared_limits;
	struct err e = {0};

	switch (event->h.type) {
	case SANDBOX_EVENT_PREPARED:
		if (s->start)
			start_box(w, s, fds);
		else
			must(sandbox_client_release(w->client, 0, w->cookie, &e), &e);
		break;
	case SANDBOX_EVENT_STARTED:
		limits.wall_usec = s->wall_usec;
		if (s->wall_usec && !t->limited)
			must(sandbox_client_limit(w->client, 0, w->cookie, &limits, &e), &e);
		t->limited = true;
		break;
	case SANDBOX_EVENT_EXITED:
		t->exited = true;
		t->x = event->exited;
		break;
	case SANDBOX_EVENT_RELEASED:
		t->released = true;
		break;
	case SANDBOX_REPLY_ERROR:
		t->refused = true;
		/* As the runner does. */
		if (event->error.request == SANDBOX_PREPARE)
			t->released = true;
		else
			must(sandbox_client_release(w->client, 0, w->cookie, &e), &e);
		break;
	}
}

static void drain(int signals)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) > 0)
		;
}

static struct told use_box(struct world *w, const struct scenario *s)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int fds[4] = {make_job(s), make_input(), -EBADF, null};
	uint64_t end = now_ms() + PATIENCE_MS;
	struct told t = {0};
	struct err e = {0};

	must(archive_output_new(&fds[2], &e), &e);
	must(sandbox_client_prepare(w->client, 0, ++w->cookie, &prepared_limits, &e), &e);
	while (!t.released && !t.died && now_ms() < end) {
		struct pollfd p[2] = {{.fd = sandbox_client_fd(w->client), .events = POLLIN},
				      {.fd = w->signals, .events = POLLIN}};
		union sandbox_event event;
		int r;

		(void)poll(p, 2, 100);
		drain(w->signals);
		t.died = !tamper_step(w->tamper);
		while ((r = sandbox_client_receive(w->client, &event, &e)) > 0)
			if (event.h.cookie == w->cookie)
				on_event(w, s, fds, &event, &t);
		t.died = t.died || r < 0;
	}
	if (t.exited && t.x.collected_files > 0)
		read_collected(fds[2], &t);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		(void)close(fds[i]);
	return t;
}

/* ---- what is right ---- */

static bool is_as_planned(const struct scenario *s, const struct told *t)
{
	if (t->refused || t->exited != s->start)
		return false;
	if (!s->start)
		return true;
	if (t->x.outcome != s->outcome)
		return false;
	if (s->limit)
		return t->x.limit == (uint32_t)s->limit;
	return t->x.code == 0 && t->x.collected_files == 1 && strcmp(t->content, "products") == 0;
}

/* A failure that is told as one, with its reason. */
static bool is_told(const struct told *t, long call, int error)
{
	if (t->refused)
		return true;
	if (!t->exited)
		return false;
	if (t->x.outcome == SANDBOX_FAILED)
		return t->x.step != SANDBOX_STEP_NONE;
	/* Indistinguishable from a program that is too big for its limit. */
	return t->x.outcome == SANDBOX_LIMITED && t->x.limit == SANDBOX_LIMIT_MEMORY &&
	       error == ENOMEM && call == SYS_execve;
}

static const char *complaint(const struct scenario *s, const struct told *t, long call, int error)
{
	if (t->died)
		return "the spawner died";
	if (!t->released)
		return "it hangs";
	if (!is_as_planned(s, t) && !is_told(t, call, error))
		return "a wrong outcome";
	return NULL;
}

/* ---- the spawner ---- */

/* The last descriptors are closed after RELEASED, and each call is a stop. */
static void settle(struct world *w)
{
	for (int i = 0; i < 50; i++) {
		drain(w->signals);
		(void)tamper_step(w->tamper);
		(void)poll(NULL, 0, 1);
	}
}

static void open_world(struct world *w)
{
	struct sandbox_client_options o = {.program = w->sandbox,
					   .boxes = 1,
					   .rung = w->rung,
					   .seccomp_fd = w->filter,
					   .binds = w->binds,
					   .bind_count = w->bind_count};
	struct err e = {0};

	must(sandbox_client_new(&o, &w->client, &e), &e);
	w->tamper = tamper_new(sandbox_client_pid(w->client), TAMPER_RUNS);
	if (!w->tamper) {
		(void)printf("Bail out! could not trace: %s\n", err_text(errno));
		exit(1);
	}
	holdings_find_groups(sandbox_client_pid(w->client));
	/* What is made once is made. The last is the first, which comes after each fault too. */
	for (size_t i = 0; i < ARRAY_SIZE(scenarios) + 1; i++) {
		const struct scenario *s = &scenarios[i % ARRAY_SIZE(scenarios)];
		struct told t = use_box(w, s);

		if (t.died || !t.released || !is_as_planned(s, &t)) {
			(void)printf("Bail out! without a fault, %s: outcome %u, step %s, %s\n",
				     s->name, t.x.outcome, sandbox_step_name(t.x.step),
				     err_text(t.x.error));
			exit(1);
		}
	}
	settle(w);
	w->before = holdings_of(sandbox_client_pid(w->client));
	w->in_force = *sandbox_client_in_force(w->client);
}

static void close_world(struct world *w)
{
	pid_t pid = sandbox_client_pid(w->client);

	/* The tracer lets it end: it is stopped at each call until then. */
	(void)kill(pid, SIGKILL);
	while (tamper_step(w->tamper))
		(void)poll(NULL, 0, 1);
	tamper_free(TAKE_PTR(w->tamper));
	sandbox_client_free(TAKE_PTR(w->client));
}

/* Waits for what ends a moment after RELEASED. */
static bool holds_what_it_held(struct world *w, struct holdings *h)
{
	for (int i = 0; i < 50; i++) {
		*h = holdings_of(sandbox_client_pid(w->client));
		if (memcmp(h, &w->before, sizeof(*h)) == 0)
			return true;
		drain(w->signals);
		(void)tamper_step(w->tamper);
		(void)poll(NULL, 0, 2);
	}
	return false;
}

struct count {
	unsigned int faults, told, unharmed, wrong;
};

static void show(struct count *c, const char *role, unsigned int n, long call, int error,
		 const char *what, const struct told *t)
{
	if (c->wrong++ < WRONG_SHOWN)
		(void)printf(
			"# %s's call %u (number %ld) fails with %s: %s; outcome %u code %d limit %s"
			" step %s (%s) collect error %d\n",
			role, n, call, strerrorname_np(error), what, t->x.outcome, t->x.code,
			sandbox_limit_name(t->x.limit), sandbox_step_name(t->x.step),
			err_text(t->x.error), t->x.collect_error);
}

/* One fault and what follows. false: there is no such call. */
static bool fail_one(struct world *w, const struct scenario *s, enum tamper_role role,
		     unsigned int n, unsigned int length, int error, struct count *c)
{
	const char *who = tamper_role_name(role), *wrong;
	struct holdings h;
	struct told t, next = {0};
	long call;

	tamper_arm(w->tamper, role, n, length, error);
	t = use_box(w, s);
	if (!tamper_fired(w->tamper, &call)) {
		tamper_arm(w->tamper, role, 0, 0, 0);
		return false;
	}
	tamper_arm(w->tamper, role, 0, 0, 0);
	c->faults++;
	c->unharmed += is_as_planned(s, &t);
	c->told += !is_as_planned(s, &t);
	wrong = complaint(s, &t, call, error);
	if (!wrong) {
		next = use_box(w, &scenarios[0]);
		if (next.died || !next.released || !is_as_planned(&scenarios[0], &next))
			wrong = "the next use goes wrong";
		else if (!holds_what_it_held(w, &h))
			wrong = "something is left";
	}
	if (!wrong)
		return true;
	show(c, who, n, call, error, wrong, next.released || next.died ? &next : &t);
	if (c->wrong <= WRONG_SHOWN && strcmp(wrong, "something is left") == 0)
		(void)printf("#   descriptors %u (%u), mounts %u (%u), children %u (%u), groups %u "
			     "(%u)\n",
			     h.descriptors, w->before.descriptors, h.mounts, w->before.mounts,
			     h.children, w->before.children, h.groups, w->before.groups);
	close_world(w);
	open_world(w);
	return true;
}

static struct count fail_all(struct world *w, const struct scenario *s, enum tamper_role role)
{
	struct count c = {0};
	unsigned int n;

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		for (n = 1; n < 1000 && fail_one(w, s, role, n, 1, errors[i], &c); n++)
			;
	for (n = 1; n < 1000 && fail_one(w, s, role, n, A_WHILE, ENOMEM, &c); n++)
		;
	return c;
}

/* ---- the start of a spawner ---- */

/* Without a word to anybody it must not be less than without the fault. */
static bool has_all_walls(const struct world *w, const struct sandbox_reply_configured *f)
{
	const struct sandbox_reply_configured *full = &w->in_force;

	return f->rung == full->rung && f->has == full->has && f->binds == full->binds &&
	       f->landlock_abi == full->landlock_abi && f->filter_len == full->filter_len &&
	       f->uid_base == full->uid_base && f->capabilities == full->capabilities;
}

/* The client, in a process of its own since it waits. 0: all went well; 3: an error was told; 4:
 * the box failed and said so. */
static int start_and_use(struct world *w, const char *self)
{
	struct sandbox_client_options o = {.program = self,
					   .boxes = 1,
					   .rung = w->rung,
					   .seccomp_fd = w->filter,
					   .binds = w->binds,
					   .bind_count = w->bind_count,
					   .timeout_ms = PATIENCE_MS};
	union sandbox_event event;
	struct err e = {0};
	int r = sandbox_client_new(&o, &w->client, &e);

	if (r < 0)
		return r == -ETIMEDOUT ? 5 : e.msg[0] ? 3 : 6;
	if (!has_all_walls(w, sandbox_client_in_force(w->client)))
		return 9;
	must(sandbox_client_prepare(w->client, 0, 1, &prepared_limits, &e), &e);
	while ((r = sandbox_client_receive(w->client, &event, &e)) >= 0) {
		struct pollfd p = {.fd = sandbox_client_fd(w->client), .events = POLLIN};

		if (r > 0 && event.h.type == SANDBOX_EVENT_PREPARED)
			break;
		if (r > 0 && event.h.type == SANDBOX_EVENT_EXITED)
			return event.exited.step ? 4 : 7;
		if (r == 0 && poll(&p, 1, PATIENCE_MS) == 0)
			return 5;
	}
	sandbox_client_free(w->client);
	return r < 0 ? 8 : 0;
}

static bool is_stopped(pid_t pid)
{
	char path[32], text[128] = "";
	const char *p;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return false;
	p = strrchr(text, ')');
	return p && p[1] && p[2] == 'T';
}

/* The child of a process, once it has stopped itself. */
static pid_t stopped_child(pid_t parent)
{
	char path[64], text[32] = "";
	uint64_t end = now_ms() + PATIENCE_MS;
	int pid = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", parent, parent);
	while (now_ms() < end) {
		AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (read(fd, text, sizeof(text) - 1) > 0 && sscanf(text, "%d", &pid) == 1 &&
		    is_stopped(pid))
			return pid;
		(void)poll(NULL, 0, 1);
	}
	return 0;
}

/* Returns what the client said, -1 where it hangs. */
static int start_traced(struct world *w, const char *self, unsigned int n, int error,
			long *ret_call)
{
	uint64_t end = now_ms() + 2 * PATIENCE_MS;
	pid_t client = fork(), spawner;
	struct tamper *t;
	int status = -1;

	if (client == 0)
		_exit(start_and_use(w, self));
	spawner = stopped_child(client);
	t = spawner > 0 ? tamper_new(spawner, TAMPER_WILL_EXECUTE) : NULL;
	*ret_call = -1;
	if (!t)
		return -1;
	tamper_arm(t, TAMPER_SPAWNER, n, 1, error);
	(void)kill(spawner, SIGCONT);
	while ((tamper_step(t) || !tamper_reaped(t, client, &status)) && now_ms() < end) {
		struct pollfd p = {.fd = w->signals, .events = POLLIN};

		(void)poll(&p, 1, 20);
		drain(w->signals);
	}
	(void)tamper_fired(t, ret_call);
	if (!tamper_reaped(t, client, &status)) {
		(void)kill(client, SIGKILL);
		status = -1;
	}
	if (tamper_step(t))
		(void)kill(spawner, SIGKILL), status = -1;
	tamper_free(t);
	holdings_find_groups(spawner);
	return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static struct count fail_start(struct world *w, const char *self, bool all)
{
	static const char *const words[] = {[5] = "it hangs",
					    [6] = "an error without a word",
					    [7] = "a failure without a step",
					    [8] = "the spawner died later",
					    [9] = "walls are missing, and nobody is told"};
	struct count c = {0};
	bool there = true;

	for (unsigned int n = 1; there && n < 5000; n++) {
		for (size_t i = 0; there && i < (all ? ARRAY_SIZE(errors) : 1); i++) {
			int error = errors[(n + i) % ARRAY_SIZE(errors)];
			long call;
			int said = start_traced(w, self, n, error, &call);
			const char *wrong = said < 0 ? words[5] : said > 4 ? words[said] : NULL;

			there = call >= 0;
			c.faults += there;
			c.unharmed += there && said == 0;
			c.told += there && (said == 3 || said == 4);
			if (!wrong && holdings_groups() > 0)
				wrong = "a group is left";
			if (wrong)
				show(&c, "the starting spawner", n, call, error, wrong,
				     &(struct told){0});
		}
	}
	return c;
}

/* ---- what a client makes for a spawner ---- */

/* Without a fault it chooses this rung. 0: it did; 3: an error was told; 9: it chose another. */
static int make_groups(const struct world *w)
{
	struct groups_options o = {.rung = w->rung, .spawner = getpid()};
	struct groups g;
	struct err e = {0};
	uint32_t base = 0;
	bool same;
	int r;

	(void)raise(SIGSTOP);
	r = groups_open(&g, &o, &e);
	if (r < 0)
		return e.msg[0] ? 3 : 6;
	same = g.rung == (enum sandbox_rung)w->in_force.rung &&
	       g.has == (w->in_force.has & HAS_OF_GROUPS);
	groups_remove(&g);
	r = ids_choose(0, 4, &base, &e);
	if (r < 0)
		return e.msg[0] ? 3 : 6;
	return same && (base != 0) == !!(w->in_force.has & SANDBOX_HAS_TWO_IDS) ? 0 : 9;
}

static int groups_traced(struct world *w, unsigned int n, int error, long *ret_call)
{
	uint64_t end = now_ms() + PATIENCE_MS;
	pid_t pid = fork();
	struct tamper *t;
	int status = -1;

	if (pid == 0)
		_exit(make_groups(w));
	while (!is_stopped(pid) && now_ms() < end)
		(void)poll(NULL, 0, 1);
	*ret_call = -1;
	t = tamper_new(pid, TAMPER_ALONE);
	if (!t)
		return -1;
	tamper_arm(t, TAMPER_SPAWNER, n, 1, error);
	(void)kill(pid, SIGCONT);
	while (tamper_step(t) && now_ms() < end) {
		struct pollfd p = {.fd = w->signals, .events = POLLIN};

		(void)poll(&p, 1, 20);
		drain(w->signals);
	}
	(void)tamper_fired(t, ret_call);
	if (tamper_step(t))
		(void)kill(pid, SIGKILL);
	else
		status = tamper_ended(t);
	tamper_free(t);
	holdings_find_groups(pid);
	return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A shortage is told as one: it neither leaves a group nor makes another rung the chosen one. */
static struct count fail_groups(struct world *w)
{
	struct count c = {0};
	bool there = true;

	for (unsigned int n = 1; there && n < 5000; n++) {
		for (size_t i = 0; there && i < ARRAY_SIZE(errors); i++) {
			long call;
			int said = groups_traced(w, n, errors[i], &call);
			const char *wrong = said < 0   ? "it hangs"
					    : said > 3 ? "another rung, and nobody is told"
						       : NULL;

			there = call >= 0;
			c.faults += there;
			c.unharmed += there && said == 0;
			c.told += there && said == 3;
			if (!wrong && holdings_groups() > 0)
				wrong = "a group is left";
			if (wrong)
				show(&c, "the client", n, call, errors[i], wrong,
				     &(struct told){0});
		}
	}
	return c;
}

/* ---- */

/* Started by the client as if it were kiln-sandbox: waits to be traced. */
static int be_spawner(void)
{
	char *argv[] = {(char *)(uintptr_t) "kiln-sandbox", (char *)(uintptr_t) "serve", NULL};
	char *envp[] = {NULL};

	(void)raise(SIGSTOP);
	(void)execve(KILN_SANDBOX, argv, envp);
	return 127;
}

static void report(unsigned int number, const char *name, const char *role, const struct count *c)
{
	(void)printf("%s %u - %s, calls of %s: %u faults, %u told, %u made no difference\n",
		     c->wrong || c->faults == 0 ? "not ok" : "ok", number, name, role, c->faults,
		     c->told, c->unharmed);
	(void)fflush(stdout);
}

static unsigned int run_all(struct world *w, const char *self, bool all, bool only_start)
{
	unsigned int number = 0, bad = 0;
	struct count c;

	open_world(w);
	for (size_t i = 0; !only_start && i < ARRAY_SIZE(scenarios); i++) {
		for (unsigned int role = 0; role < _TAMPER_ROLE_MAX; role++) {
			if (!(scenarios[i].roles >> role & 1))
				continue;
			c = fail_all(w, &scenarios[i], (enum tamper_role)role);
			report(++number, scenarios[i].name,
			       tamper_role_name((enum tamper_role)role), &c);
			bad += c.wrong > 0 || c.faults == 0;
		}
	}
	close_world(w);
	c = fail_start(w, self, all);
	report(++number, "the start of a spawner", "spawner", &c);
	bad += c.wrong > 0 || c.faults == 0;
	c = fail_groups(w);
	report(++number, "what a client makes for a spawner", "client", &c);
	(void)printf("1..%u\n", number);
	return bad + (c.wrong > 0 || c.faults == 0);
}

int main(int argc, char **argv)
{
	struct world w = {.sandbox = KILN_SANDBOX};
	bool all = false, only_start = false;
	struct err e = {0};
	sigset_t mask;

	if (argc > 1 && strcmp(argv[1], "serve") == 0)
		return be_spawner();
	for (int i = 1; i < argc; i++) {
		all = all || strcmp(argv[i], "--all") == 0;
		only_start = only_start || strcmp(argv[i], "--only-start") == 0;
		for (unsigned int r = 0; r < _SANDBOX_RUNG_MAX; r++)
			if (strcmp(argv[i], sandbox_rung_name(r)) == 0)
				w.rung = (enum sandbox_rung)r;
	}
	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	w.signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	must(sandbox_profile_default(&w.binds, &w.bind_count, &e), &e);
	must(sandbox_seccomp_compile(SANDBOX_IN_NAMESPACES, &w.filter, &e), &e);
	/* What a spawner leaves behind becomes a child of ours, and is reaped. */
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	return run_all(&w, "/proc/self/exe", all, only_start) > 0 ? 1 : 0;
}
