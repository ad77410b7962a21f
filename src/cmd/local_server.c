/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/local_server.h"

#include "base/clock.h"
#include "base/str.h"
#include "cmd/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { START_MS = 60000, STOP_MS = 20000, STEP_MS = 50 };

struct local_server {
	char dir[64]; /* "" until it is made */
	char url[48];
	pid_t pid; /* 0: not running */
};

/* A port that was free a moment ago. */
static int free_port(int *ret_port, struct err *e)
{
	AUTO_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return err_errno(e, -errno, "could not find a free port");
	*ret_port = ntohs(a.sin_port);
	return 0;
}

static int spawn(struct local_server *s, int port, const char *languages_dir, struct err *e)
{
	char listen[32], data[96], log[96], languages[PATH_MAX + 16];
	char self[] = "kiln", serve[] = "serve", slots[] = "--slots=2", open[] = "--open=false";
	char *argv[] = {self, serve, listen, data, languages, slots, open, NULL};
	posix_spawn_file_actions_t files;
	int r;

	(void)snprintf(listen, sizeof listen, "--listen=127.0.0.1:%d", port);
	(void)snprintf(data, sizeof data, "--data-dir=%s/data", s->dir);
	(void)snprintf(log, sizeof log, "%s/log", s->dir);
	(void)snprintf(languages, sizeof languages, "--languages=%s", languages_dir);
	if (posix_spawn_file_actions_init(&files))
		return err_errno(e, -ENOMEM, "could not start a server");
	r = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	if (!r)
		r = posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT, 0600);
	if (!r)
		r = posix_spawn_file_actions_adddup2(&files, 1, 2);
	if (!r)
		r = posix_spawn(&s->pid, "/proc/self/exe", &files, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&files);
	return r ? err_errno(e, -r, "could not start a server") : 0;
}

static bool is_ready(const struct local_server *s)
{
	AUTO(client_free) struct client *c = NULL;
	struct client_answer answer = {0};
	bool ready;

	if (client_new(&(struct client_options){.server = s->url}, &c, NULL) < 0)
		return false;
	buf_init(&answer.body, 65536);
	ready = client_call(c, "GET", "/readyz", NULL, NULL, &answer, NULL) >= 0 &&
		answer.status == 200;
	buf_fini(&answer.body);
	return ready;
}

static bool has_ended(struct local_server *s)
{
	if (s->pid && waitpid(s->pid, NULL, WNOHANG) == s->pid)
		s->pid = 0;
	return !s->pid;
}

static void show_log(const struct local_server *s)
{
	char path[96], line[1024];
	FILE *f;

	(void)snprintf(path, sizeof path, "%s/log", s->dir);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		(void)fputs(line, stderr);
	if (f)
		(void)fclose(f);
}

int local_server_start(const char *languages_dir, struct local_server **ret_server, struct err *e)
{
	AUTO(local_server_stop) struct local_server *s = calloc(1, sizeof *s);
	int64_t end = clock_monotonic_us() + START_MS * INT64_C(1000);
	int port = 0, r;

	if (!s)
		return err_errno(e, -ENOMEM, "could not start a server");
	(void)str_copy(s->dir, sizeof s->dir, "/tmp/kiln-XXXXXX");
	if (!mkdtemp(s->dir)) {
		s->dir[0] = '\0';
		return err_errno(e, -errno, "could not make a temporary folder");
	}
	/* A server that drops root goes through it to its data. */
	if (chmod(s->dir, 0711) < 0)
		return err_errno(e, -errno, "could not make a temporary folder");
	r = free_port(&port, e);
	if (r >= 0) {
		(void)snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", port);
		r = spawn(s, port, languages_dir, e);
	}
	while (r >= 0 && !is_ready(s)) {
		if (has_ended(s) || clock_monotonic_us() > end) {
			show_log(s);
			r = err_set(e, -EIO, "the server for the check did not start");
		}
		(void)poll(NULL, 0, STEP_MS);
	}
	if (r < 0)
		return r;
	*ret_server = TAKE_PTR(s);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st;
	(void)kind;
	(void)where;
	(void)remove(path);
	return 0;
}

void local_server_stop(struct local_server *s)
{
	if (!s)
		return;
	if (s->pid)
		(void)kill(s->pid, SIGTERM);
	for (int ms = 0; !has_ended(s) && ms < STOP_MS; ms += STEP_MS)
		(void)poll(NULL, 0, STEP_MS);
	if (s->pid && kill(s->pid, SIGKILL) == 0)
		(void)waitpid(s->pid, NULL, 0);
	if (s->dir[0])
		(void)nftw(s->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(s);
}

const char *local_server_url(const struct local_server *s)
{
	return s->url;
}
