/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a sandbox costs, through the same client that the runner uses: from START to EXITED in a
 * prepared box, from PREPARE to PREPARED, from EXITED to RELEASED, and the CPU time per task of the
 * spawner and everything in its boxes.
 *
 *	bench-sandbox KILN_SANDBOX COUNT BOXES RUNG PROGRAM [full]
 *
 * BOXES boxes are kept prepared; one task runs at a time, and the next when all are ready again, as
 * under a load below saturation. With "full" the next one does not wait for that. PROGRAM is put
 * into the work directory; with a leading "=" it is run from where it is.
 */

#include "base/cleanup.h"
#include "samples.h"
#include "sandbox/client.h"
#include "sandbox/seccomp.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

static struct sandbox_limits limits = {
	.cpu_usec = 5000000, .wall_usec = 15000000, .memory_bytes = 256u << 20, .processes = 64};

/* CPU time of the spawner, which has ended, and of all that it waited for. */
static double children_ms(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_CHILDREN, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

static int write_job(const char *program, int *ret_fd, struct err *e)
{
	static const char *const envp[] = {NULL};
	const char *const argv[] = {program[0] == '=' ? program + 1 : "./program", NULL};
	const struct job_spec spec = {.argv = argv, .envp = envp};
	AUTO_FD int fd = open(argv[0][0] == '.' ? program : argv[0], O_RDONLY | O_CLOEXEC);
	struct archive_entry entry = {.name = "program", .name_len = 7, .mode = 0755};
	struct stat st;
	void *data;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, -errno, "could not open \"%s\"", program);
	if (program[0] == '=')
		return job_write(&spec, NULL, 0, ret_fd, e);
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return err_errno(e, -errno, "could not map \"%s\"", program);
	entry.data = data;
	entry.size = (uint64_t)st.st_size;
	r = job_write(&spec, &entry, 1, ret_fd, e);
	(void)munmap(data, (size_t)st.st_size);
	return r;
}

static int await(struct sandbox_client *c, union sandbox_event *event, struct err *e)
{
	for (;;) {
		struct pollfd p = {.fd = sandbox_client_fd(c), .events = POLLIN};
		int r = sandbox_client_receive(c, event, e);

		if (r < 0)
			return r;
		if (r > 0 && event->h.type == SANDBOX_REPLY_ERROR)
			return err_set(e, -event->error.error, "%s", event->error.message);
		if (r > 0)
			return 0;
		(void)poll(&p, 1, -1);
	}
}

struct state {
	bool ready[SANDBOX_BOXES_MAX];
	int64_t at[SANDBOX_BOXES_MAX];
	struct samples prepare, run, release;
};

/* Runs until the box has reached type. */
static int run_until(struct sandbox_client *c, struct state *s, unsigned int box, unsigned int type,
		     struct err *e)
{
	for (;;) {
		union sandbox_event event;
		int r = await(c, &event, e);
		unsigned int b = event.h.box;

		if (r < 0)
			return r;
		switch (event.h.type) {
		case SANDBOX_EVENT_PREPARED:
			s->ready[b] = true;
			r = samples_add(&s->prepare, now_ns() - s->at[b]);
			break;
		case SANDBOX_EVENT_EXITED:
			if (event.exited.outcome != SANDBOX_EXITED || event.exited.code != 0)
				return err_set(e, -EPROTO, "outcome %u, step %s, error %s",
					       event.exited.outcome,
					       sandbox_step_name(event.exited.step),
					       err_text(event.exited.error));
			r = samples_add(&s->run, now_ns() - s->at[b]);
			s->at[b] = now_ns();
			break;
		case SANDBOX_EVENT_RELEASED:
			r = samples_add(&s->release, now_ns() - s->at[b]);
			s->at[b] = now_ns();
			s->ready[b] = false;
			if (r == 0)
				r = sandbox_client_prepare(c, b, 1, &limits, e);
			break;
		default:
			break;
		}
		if (r < 0)
			return r;
		if (event.h.type == type && b == box)
			return 0;
	}
}

static int measure(struct sandbox_client *c, const struct sandbox_task *task, unsigned int count,
		   unsigned int boxes, bool full, struct state *s, struct err *e)
{
	int r = 0;

	for (unsigned int b = 0; r == 0 && b < boxes; b++) {
		s->at[b] = now_ns();
		r = sandbox_client_prepare(c, b, 1, &limits, e);
	}
	for (unsigned int i = 0; r == 0 && i < count; i++) {
		unsigned int b = i % boxes;

		if (i == count / 10)
			s->prepare.n = s->run.n = s->release.n = 0;
		for (unsigned int k = 0; k < boxes; k++)
			while (r == 0 && !s->ready[k] && (!full || k == b))
				r = run_until(c, s, k, SANDBOX_EVENT_PREPARED, e);
		s->ready[b] = false;
		s->at[b] = now_ns();
		if (r == 0)
			r = sandbox_client_start(c, b, 1, task, e);
		if (r == 0)
			r = run_until(c, s, b, SANDBOX_EVENT_EXITED, e);
	}
	return r;
}

static int bench(const char *program, unsigned int count, unsigned int boxes,
		 enum sandbox_rung rung, const char *payload, bool full, struct err *e)
{
	static const uint8_t targets[] = {1};
	AUTO(sandbox_client_free) struct sandbox_client *c = NULL;
	AUTO_FREE struct sandbox_bind *binds = NULL;
	AUTO_FD int filter = -EBADF;
	AUTO_FD int job = -EBADF;
	AUTO_FD int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct sandbox_client_options o = {.program = program, .boxes = boxes, .rung = rung};
	struct sandbox_task task = {.limits = limits,
				    .output_fd = -EBADF,
				    .map_fds = &null,
				    .map_targets = targets,
				    .map_count = 1};
	struct state s = {0};
	int64_t began = 0;
	int r = sandbox_profile_default(&binds, &o.bind_count, e);

	o.binds = binds;
	if (r == 0)
		r = sandbox_seccomp_compile(SANDBOX_IN_NAMESPACES, &filter, e);
	o.seccomp_fd = filter;
	if (r == 0)
		r = write_job(payload, &job, e);
	task.job_fd = job;
	if (r == 0)
		r = sandbox_client_new(&o, &c, e);
	began = now_ns();
	if (r == 0)
		r = measure(c, &task, count, boxes, full, &s, e);
	if (r == 0) {
		double seconds = (double)(now_ns() - began) / 1e9;

		rung = sandbox_client_in_force(c)->rung;
		sandbox_client_free(TAKE_PTR(c));
		(void)printf("{\"rung\": \"%s\", \"per_second\": %.0f, \"cpu_ms_per_task\": %.3f, "
			     "\"start_to_exited\": {",
			     sandbox_rung_name(rung), count / seconds, children_ms() / count);
		samples_print(&s.run, stdout);
		(void)printf("}, \"prepare\": {");
		samples_print(&s.prepare, stdout);
		(void)printf("}, \"release\": {");
		samples_print(&s.release, stdout);
		(void)printf("}}\n");
	}
	samples_fini(&s.run);
	samples_fini(&s.prepare);
	samples_fini(&s.release);
	return r;
}

int main(int argc, char **argv)
{
	struct err e = {0};
	unsigned int count, boxes, rung = SANDBOX_RUNG_AUTO;

	if (argc < 6 || sscanf(argv[2], "%u", &count) != 1 || sscanf(argv[3], "%u", &boxes) != 1 ||
	    count < 10 || boxes < 1 || boxes > SANDBOX_BOXES_MAX) {
		(void)fprintf(
			stderr,
			"usage: bench-sandbox KILN_SANDBOX COUNT BOXES RUNG PROGRAM [full]\n");
		return 2;
	}
	for (unsigned int i = 0; i < _SANDBOX_RUNG_MAX; i++)
		if (strcmp(argv[4], sandbox_rung_name(i)) == 0)
			rung = i;
	if (bench(argv[1], count, boxes, (enum sandbox_rung)rung, argv[5], argc > 6, &e) < 0) {
		(void)fprintf(stderr, "bench-sandbox: %s\n", e.msg);
		return 1;
	}
	return 0;
}
