/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The floor: what it costs this machine to start a program, read what it prints, and wait for its
 * end, with nothing around it. posix_spawn (vfork inside), one pipe, a clean environment.
 *
 *	floor [--dir DIR] SECONDS EXPECT PROGRAM [ARGUMENT...]
 *
 * Prints one JSON object: latency percentiles, runs per second, CPU milliseconds per run. A run
 * that prints something else than EXPECT and a newline ends the measurement: it would not be the
 * same program.
 */

#include "base/cleanup.h"
#include "base/str.h"
#include "samples.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

static char *const clean_env[] = {
	(char[]){"PATH=/usr/local/bin:/usr/bin:/bin"},
	(char[]){"LANG=C.UTF-8"},
	NULL,
};

/* Reads to the end of file; the length, at most cap - 1, with a NUL behind. */
static ssize_t read_all(int fd, char *dst, size_t cap)
{
	size_t len = 0;

	for (;;) {
		ssize_t n = read(fd, dst + len, cap - 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += (size_t)n;
		if (n == 0 || len == cap - 1)
			break;
	}
	dst[len] = '\0';
	return (ssize_t)len;
}

static int run_once(const char *dir, const char *expect, char *const *argv)
{
	posix_spawn_file_actions_t actions;
	AUTO_FD int reader = -EBADF;
	AUTO_FD int writer = -EBADF;
	char text[256];
	int pipes[2], status, err;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return -errno;
	reader = pipes[0];
	writer = pipes[1];
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_adddup2(&actions, writer, STDOUT_FILENO);
	if (dir)
		(void)posix_spawn_file_actions_addchdir_np(&actions, dir);
	err = posix_spawn(&pid, argv[0], &actions, NULL, argv, clean_env);
	(void)posix_spawn_file_actions_destroy(&actions);
	if (err)
		return -err;
	cleanup_close(&writer);
	(void)read_all(reader, text, sizeof text);
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	text[strcspn(text, "\n")] = '\0';
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 && strcmp(text, expect) == 0
		       ? 0
		       : -EBADMSG;
}

static double children_cpu_ms(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_CHILDREN, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

int main(int argc, char **argv)
{
	struct samples samples = {0};
	const char *dir = NULL;
	int64_t ms, begin, end;
	double cpu_ms;
	int r = 0;

	if (argc > 2 && strcmp(argv[1], "--dir") == 0) {
		dir = argv[2];
		argv += 2;
		argc -= 2;
	}
	if (argc < 4 || str_seconds_to_ms(argv[1], 3600000, &ms) < 0) {
		(void)fputs("usage: floor [--dir DIR] SECONDS EXPECT PROGRAM [ARGUMENT...]\n",
			    stderr);
		return 2;
	}
	for (int i = 0; r == 0 && i < 3; i++) /* files into the page cache */
		r = run_once(dir, argv[2], argv + 3);
	cpu_ms = children_cpu_ms();
	begin = now_ns();
	end = begin + ms * 1000000;
	for (int64_t at = begin; r == 0 && at < end; at = now_ns()) {
		r = run_once(dir, argv[2], argv + 3);
		if (r == 0)
			r = samples_add(&samples, now_ns() - at);
	}
	if (r < 0) {
		(void)fprintf(stderr, "floor: could not run \"%s\": error %d\n", argv[3], -r);
		samples_fini(&samples);
		return 1;
	}
	cpu_ms = children_cpu_ms() - cpu_ms;
	(void)printf("{\"rps\": %.2f, \"cpu_ms\": %.4f, ",
		     (double)samples.n * 1e9 / (double)(now_ns() - begin),
		     cpu_ms / (double)samples.n);
	samples_print(&samples, stdout);
	(void)printf("}\n");
	samples_fini(&samples);
	return 0;
}
