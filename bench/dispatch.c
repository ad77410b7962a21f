/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What it costs a scheduler to dispatch a task, by how many pods there are.
 *
 *	bench-dispatch [TASKS] [SCHEDULERS]
 *
 * For each number of pods: that many runners are played by one process, which answers each task at
 * once; each of the schedulers is a process of its own with the real scheduler, an SQLite store and
 * a queue in memory, connected to all of them by Unix sockets, with a bounded number of tasks under
 * way. Measured is the processor time of the scheduler's loop from the first task to the last,
 * heartbeats and leases of all pods in it, and its memory per pod.
 */

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "scheduler/scheduler.h"
#include "wire/codec.h"
#include "wire/conn.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { UNDER_WAY = 32, SLOTS = 4, HEARTBEAT_MS = 5000, SCHEDULERS_MAX = 8 };

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "bench-dispatch: %s: %s\n", what, err_text(errno));
	exit(1);
}

/* ---- the runners, all in one process ---- */

struct peer {
	struct wire_conn *conn;
	struct peer *next;
	uint64_t tasks;
};

struct runners {
	uv_loop_t loop;
	uv_poll_t poll;
	uv_timer_t heartbeat;
	int fd;
	struct peer *peers;
};

static void say(struct peer *p, Kiln__Frame__KindCase kind, void *message)
{
	Kiln__Frame f = KILN__FRAME__INIT;

	f.kind_case = kind;
	f.hello = message; /* a union of pointers */
	if (p->conn)
		(void)wire_conn_send(p->conn, &f);
}

static void run_task(struct peer *p, const Kiln__Assign *a)
{
	Kiln__Accepted accepted = KILN__ACCEPTED__INIT;
	Kiln__RunDone run = KILN__RUN_DONE__INIT;
	Kiln__RunResult result = KILN__RUN_RESULT__INIT;
	Kiln__Done done;

	kiln__done__init(&done);
	accepted.task = run.task = done.task = a->task;
	result.outcome = TASK_OUTCOME_OK;
	run.result = &result;
	p->tasks++;
	say(p, KILN__FRAME__KIND_ACCEPTED, &accepted);
	say(p, KILN__FRAME__KIND_RUN_DONE, &run);
	say(p, KILN__FRAME__KIND_DONE, &done);
}

static void on_frame(void *ctx, const Kiln__Frame *f)
{
	if (f->kind_case == KILN__FRAME__KIND_ASSIGN)
		run_task(ctx, f->assign);
}

static void on_closed(void *ctx, int code, const char *message)
{
	struct peer *p = ctx;

	(void)code;
	(void)message;
	wire_conn_close(p->conn);
	p->conn = NULL;
}

static const struct wire_conn_ops peer_ops = {.frame = on_frame, .closed = on_closed};

static void greet(struct peer *p)
{
	Kiln__LanguageStatus python, *languages[] = {&python};
	Kiln__Isolation isolation;
	Kiln__Hello hello;

	kiln__language_status__init(&python);
	kiln__isolation__init(&isolation);
	kiln__hello__init(&hello);
	python.name = (char[]){"python"};
	python.version = (char[]){"3"};
	python.installed = true;
	isolation.level = (char[]){"sandbox"};
	isolation.limits = (char[]){"cgroup2"};
	hello.protocol = WIRE_PROTOCOL;
	hello.slots = SLOTS;
	hello.languages = languages;
	hello.n_languages = 1;
	hello.isolation = &isolation;
	say(p, KILN__FRAME__KIND_HELLO, &hello);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct runners *r = poll->data;
	int fd = accept4(r->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct peer *p = fd < 0 ? NULL : calloc(1, sizeof *p);

	(void)status;
	(void)events;
	if (fd < 0)
		return;
	must(p && wire_conn_open_consume(&r->loop, fd, NULL, &peer_ops, p, &p->conn, NULL) == 0,
	     "could not play a runner");
	p->next = r->peers;
	r->peers = p;
	greet(p);
}

static void on_heartbeat(uv_timer_t *timer)
{
	const struct runners *r = timer->data;

	for (struct peer *p = r->peers; p; p = p->next) {
		Kiln__Heartbeat m = KILN__HEARTBEAT__INIT;

		m.slots = SLOTS;
		m.tasks = p->tasks;
		say(p, KILN__FRAME__KIND_HEARTBEAT, &m);
	}
}

static _Noreturn void play_runners(int fd)
{
	static struct runners r;

	r.fd = fd;
	must(uv_loop_init(&r.loop) == 0 && uv_poll_init(&r.loop, &r.poll, fd) == 0,
	     "could not make a loop");
	(void)uv_timer_init(&r.loop, &r.heartbeat);
	r.poll.data = r.heartbeat.data = &r;
	(void)uv_poll_start(&r.poll, UV_READABLE, on_connection);
	(void)uv_timer_start(&r.heartbeat, on_heartbeat, HEARTBEAT_MS, HEARTBEAT_MS);
	(void)uv_run(&r.loop, UV_RUN_DEFAULT);
	exit(0);
}

/* ---- a scheduler ---- */

struct bench {
	uv_loop_t loop;
	struct store *store;
	struct queue *queue;
	struct publisher *publisher;
	struct cache *cache;
	struct bus *bus;
	struct language_registry *languages;
	struct scheduler *scheduler;
	struct uuid *ids;
	size_t n, published, finished;
	struct publishing {
		struct queue_publish q;
		bool busy;
	} publishing[UNDER_WAY];
};

struct answer {
	double us_per_task, bytes_per_pod;
};

static void publish_next(struct bench *b);

static void on_published(struct queue_publish *q, int code)
{
	must(code == 0, "could not publish a task");
	((struct publishing *)(void *)q)->busy = false;
}

static void publish_next(struct bench *b)
{
	for (size_t i = 0;
	     i < UNDER_WAY && b->published < b->n && b->published - b->finished < UNDER_WAY; i++) {
		struct publishing *p = &b->publishing[i];

		if (p->busy)
			continue;
		*p = (struct publishing){.busy = true, .q = {.done = on_published, .ctx = b}};
		p->q.message.id = b->ids[b->published++];
		p->q.message.class = TASK_CLASS_NORMAL;
		p->q.message.enqueued_us = clock_wall_us();
		(void)snprintf(p->q.message.language, TASK_LANGUAGE_MAX, "python");
		(void)snprintf(p->q.message.tenant, TASK_TENANT_MAX, "default");
		list_init(&p->q.deferred.link);
		queue_publish(b->queue, &p->q);
	}
}

static void on_finished(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
			size_t len)
{
	struct bench *b = ctx;

	(void)topic;
	(void)id;
	(void)payload;
	(void)len;
	b->finished++;
	publish_next(b);
}

static void open_parts(struct bench *b, const char *path)
{
	struct store_config store = {.busy_timeout_ms = 1000};
	const struct queue_config queue = {.url = "memory:", .max_tasks = 1000000};
	const struct cache_config cache = {.url = "memory:", .max_bytes = 1 << 20};
	struct publisher_config publisher = {.admit_max = 10, .queue_max = 1000000};
	char url[128];
	struct err e = {""};
	int r;

	(void)snprintf(url, sizeof url, "sqlite:%s", path);
	store.url = url;
	r = uv_loop_init(&b->loop);
	if (r == 0)
		r = store_open(&b->loop, &store, &b->store, &e);
	if (r == 0)
		r = queue_open(&b->loop, &queue, &b->queue, &e);
	if (r == 0)
		r = cache_open(&b->loop, &cache, &b->cache, &e);
	if (r == 0)
		r = bus_open(&b->loop, "memory:", &b->bus, &e);
	publisher.store = b->store;
	publisher.queue = b->queue;
	publisher.bus = b->bus;
	if (r == 0)
		r = publisher_open(&b->loop, &publisher, &b->publisher, &e);
	if (r == 0)
		r = language_registry_load(KILN_SOURCE_ROOT "/languages", &b->languages, &e);
	if (r == 0)
		r = bus_subscribe(b->bus, BUS_FINISHED, on_finished, b);
	must(r == 0, e.msg);
}

static void open_scheduler(struct bench *b)
{
	const struct scheduler_config cfg = {.store = b->store,
					     .queue = b->queue,
					     .publisher = b->publisher,
					     .cache = b->cache,
					     .bus = b->bus,
					     .languages = b->languages,
					     .lease_ms = 15000,
					     .weights = {8, 4, 1},
					     .sole_owner = true,
					     .credit_bytes = 4096};

	must(scheduler_new(&b->loop, &cfg, &b->scheduler, NULL) == 0, "could not open a scheduler");
	scheduler_start(b->scheduler);
}

static void on_stored(struct store_req *req, int code)
{
	must(code == 0, "could not store a task");
	++*(size_t *)req->ctx;
}

static void store_tasks(struct bench *b)
{
	struct task_spec *specs = calloc(b->n, sizeof *specs);
	struct store_insert *inserts = calloc(b->n, sizeof *inserts);
	size_t stored = 0;

	must(specs && inserts, "out of memory");
	for (size_t i = 0; i < b->n; i++) {
		struct task_spec *s = &specs[i];

		uuid7_new(&s->id);
		b->ids[i] = s->id;
		s->tenant = strdup("default");
		s->class = TASK_CLASS_NORMAL;
		s->created_us = clock_wall_us();
		s->program.language = strdup("python");
		s->program.entry = strdup("main.py");
		s->program.files = calloc(1, sizeof *s->program.files);
		s->program.n_files = 1;
		s->program.files[0].name = strdup("main.py");
		must(bytes_set(&s->program.files[0].content, "print(1)", 8) == 0, "out of memory");
		task_limits_unset(&s->program.compile_limits);
		s->runs = calloc(1, sizeof *s->runs);
		s->n_runs = 1;
		task_limits_unset(&s->runs[0].limits);
		s->runs[0].limits.output_bytes = 100;
		inserts[i] = (struct store_insert){.req = {.done = on_stored, .ctx = &stored},
						   .spec = s};
		store_insert(b->store, &inserts[i]);
	}
	while (stored < b->n)
		(void)uv_run(&b->loop, UV_RUN_ONCE);
	for (size_t i = 0; i < b->n; i++)
		task_spec_fini(&specs[i]);
	free(specs);
	free(inserts);
}

static double resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long size = 0, resident = 0;

	must(f && fscanf(f, "%ld %ld", &size, &resident) == 2, "could not read /proc/self/statm");
	(void)fclose(f);
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void connect_all(struct bench *b, const struct sockaddr_un *address, size_t pods)
{
	struct scheduler_stats stats;

	for (size_t i = 0; i < pods; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		char name[40];

		must(fd >= 0 && connect(fd, (const void *)address, sizeof *address) == 0,
		     "could not connect to a runner");
		must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "could not set up a connection");
		(void)snprintf(name, sizeof name, "kiln-python-%zu", i);
		scheduler_add_runner(b->scheduler, name, fd, NULL, NULL, NULL);
		(void)uv_run(&b->loop, UV_RUN_NOWAIT);
	}
	do {
		(void)uv_run(&b->loop, UV_RUN_ONCE);
		scheduler_get_stats(b->scheduler, &stats);
	} while (stats.runners < pods);
}

static double thread_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void remove_store(const char *path)
{
	static const char *const tails[] = {"", "-wal", "-shm"};
	char name[128];

	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		(void)snprintf(name, sizeof name, "%s%s", path, tails[i]);
		(void)unlink(name);
	}
}

static _Noreturn void schedule(const struct sockaddr_un *address, size_t pods, size_t tasks,
			       int out)
{
	static struct bench b;
	struct answer a;
	char path[64];
	double before, began;

	(void)snprintf(path, sizeof path, "/tmp/bench-dispatch-%d.db", getpid());
	b.n = tasks;
	b.ids = calloc(tasks, sizeof *b.ids);
	must(b.ids, "out of memory");
	open_parts(&b, path);
	open_scheduler(&b);
	before = resident_bytes();
	connect_all(&b, address, pods);
	a.bytes_per_pod = (resident_bytes() - before) / (double)pods;
	store_tasks(&b);
	began = thread_us();
	publish_next(&b);
	while (b.finished < b.n)
		(void)uv_run(&b.loop, UV_RUN_ONCE);
	a.us_per_task = (thread_us() - began) / (double)tasks;
	remove_store(path);
	must(write(out, &a, sizeof a) == (ssize_t)sizeof a, "could not answer");
	_exit(0);
}

/* ---- all ---- */

static void measure(size_t pods, size_t tasks, size_t schedulers, struct answer *ret)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), pair[2];
	pid_t runners, children[SCHEDULERS_MAX];

	/* Abstract: it ends with its last user. */
	(void)snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "kiln-dispatch-%d-%zu",
		       getpid(), pods);
	must(fd >= 0 && bind(fd, (const void *)&address, sizeof address) == 0 &&
		     listen(fd, 4096) == 0 && pipe(pair) == 0,
	     "could not listen");
	runners = fork();
	if (runners == 0)
		play_runners(fd);
	(void)close(fd);
	for (size_t i = 0; i < schedulers; i++) {
		children[i] = fork();
		if (children[i] == 0)
			schedule(&address, pods, tasks, pair[1]);
	}
	(void)close(pair[1]);
	*ret = (struct answer){0};
	for (size_t i = 0; i < schedulers; i++) {
		struct answer one;

		must(read(pair[0], &one, sizeof one) == (ssize_t)sizeof one, "no answer came");
		ret->us_per_task += one.us_per_task / (double)schedulers;
		ret->bytes_per_pod += one.bytes_per_pod / (double)schedulers;
		(void)waitpid(children[i], NULL, 0);
	}
	(void)close(pair[0]);
	(void)kill(runners, SIGKILL);
	(void)waitpid(runners, NULL, 0);
}

int main(int argc, char **argv)
{
	static const size_t pods[] = {10, 100, 1000, 5000};
	uint64_t tasks = 20000, schedulers = 3;
	struct rlimit files;
	struct answer first = {0};

	if ((argc > 1 && str_to_u64(argv[1], 1, 1000000, &tasks) < 0) ||
	    (argc > 2 && str_to_u64(argv[2], 1, SCHEDULERS_MAX, &schedulers) < 0)) {
		(void)fprintf(stderr, "usage: bench-dispatch [TASKS] [SCHEDULERS, at most %d]\n",
			      SCHEDULERS_MAX);
		return 64;
	}
	log_set_level(LOG_ERROR);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)printf("%" PRIu64 " tasks by each of %" PRIu64 " schedulers\n%8s %14s %8s %14s\n",
		     tasks, schedulers, "pods", "us per task", "of 10", "bytes per pod");
	for (size_t i = 0; i < ARRAY_SIZE(pods); i++) {
		struct answer a;

		measure(pods[i], tasks, schedulers, &a);
		first = i ? first : a;
		(void)printf("%8zu %14.1f %8.2f %14.0f\n", pods[i], a.us_per_task,
			     a.us_per_task / first.us_per_task, a.bytes_per_pod);
		(void)fflush(stdout);
	}
	return 0;
}
