/* SPDX-License-Identifier: Apache-2.0 */

/*
 * kiln-zygote-ruby.so: with kiln_zygote.rb beside the language files it makes of a Ruby that starts
 * the one that tasks are forked of (zygote.h). It is loaded in front of Ruby's own library and
 * stands in for two functions of libc.
 *
 * open: Ruby opens its program before it has started. Here it gets another file, since there is
 * none.
 *
 * fork: A Ruby that forks does more than that call, before and after. So it is told to fork by its
 * own means, and the call is a spawner from there on, which returns in each task.
 */

#include "base/str.h"
#include "sandbox/host.h"
#include "sandbox/protocol.h"
#include "sandbox/zygote.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define EXPORT	__attribute__((visibility("default")))
#define LIBRARY "KILN_ZYGOTE="

/* The control socket is moved there at first: the numbers of Ruby's own are to be as usual. */
enum { CONTROL_FD = 63, NUMBERS_MAX = 16 };

static int (*real_open)(const char *path, int flags, ...);
static pid_t (*real_fork)(void);
static const char *entry, *zygote_library;
static bool is_task;
static struct zygote_program program;
/* Ruby's: takes what follows the program's name. */
static void (*set_argv)(int argc, const char **argv);

static _Noreturn void refuse(const char *lack)
{
	struct sandbox_reply_error reply = {
		.h = {.magic = SANDBOX_MAGIC,
		      .version = SANDBOX_PROTOCOL_VERSION,
		      .type = SANDBOX_REPLY_ERROR},
		.request = SANDBOX_CONFIGURE,
		.error = EIO,
	};

	(void)snprintf(reply.message, sizeof(reply.message),
		       "Ruby could not become one to fork tasks of: it lacks %s", lack);
	(void)send(CONTROL_FD, &reply, sizeof(reply), MSG_NOSIGNAL);
	_exit(1);
}

static void find_real(void)
{
	void *found = dlsym(RTLD_NEXT, "open");

	memcpy(&real_open, &found, sizeof(found));
	found = dlsym(RTLD_NEXT, "fork");
	memcpy(&real_fork, &found, sizeof(found));
	if (!real_open || !real_fork)
		_exit(1);
}

__attribute__((constructor)) static void note(int argc, char **argv, char **envp)
{
	find_real();
	if (dup3(SANDBOX_CONTROL_FD, CONTROL_FD, O_CLOEXEC) < 0)
		_exit(1);
	(void)close(SANDBOX_CONTROL_FD);
	for (; *envp; envp++)
		if (str_has_prefix(*envp, LIBRARY))
			zygote_library = *envp + strlen(LIBRARY);
	entry = argc > 1 ? argv[argc - 1] : NULL;
}

/* ---- what a spawner must not have, and a Ruby does ---- */

struct kept {
	struct sigaction actions[NSIG];
	sigset_t mask;
	int fds[NUMBERS_MAX];
	size_t n_fds;
};

/* Numbers in a folder of /proc that are at least min. */
static size_t list_numbers(const char *path, uint64_t min, int numbers[static NUMBERS_MAX])
{
	DIR *d = opendir(path);
	struct dirent *one;
	size_t n = 0;

	while (d && (one = readdir(d))) {
		uint64_t number;

		if (str_to_u64(one->d_name, min, INT_MAX, &number) < 0 || (int)number == dirfd(d))
			continue;
		if (n == NUMBERS_MAX)
			refuse("room");
		numbers[n++] = (int)number;
	}
	if (!d)
		refuse("/proc");
	(void)closedir(d);
	return n;
}

static void check_threads(void)
{
	int threads[NUMBERS_MAX];

	if (list_numbers("/proc/self/task", 0, threads) > 1)
		refuse("a way to be alone: it has threads");
}

/* Ruby wakes itself by some, and closes those of its parent in a fork. */
static void close_descriptors(struct kept *k)
{
	k->n_fds = list_numbers("/proc/self/fd", SANDBOX_CONTROL_FD, k->fds);
	if (dup3(CONTROL_FD, SANDBOX_CONTROL_FD, 0) < 0)
		refuse("its place for a socket");
	for (size_t i = 0; i < k->n_fds; i++)
		if (k->fds[i] != SANDBOX_CONTROL_FD)
			(void)close(k->fds[i]);
}

/* Whatever they are, but the control socket's second number. */
static void open_descriptors(const struct kept *k)
{
	for (size_t i = 0; i < k->n_fds; i++) {
		int fd;

		if (k->fds[i] == CONTROL_FD)
			continue;
		fd = real_open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd >= 0 && fd != k->fds[i]) {
			(void)dup3(fd, k->fds[i], O_CLOEXEC);
			(void)close(fd);
		}
	}
}

/* The numbers that libc keeps for itself are refused. */
static void keep_signals(struct kept *k)
{
	for (int sig = 1; sig < NSIG; sig++)
		(void)sigaction(sig, NULL, &k->actions[sig]);
	(void)sigprocmask(SIG_SETMASK, NULL, &k->mask);
}

static void restore_signals(const struct kept *k)
{
	for (int sig = 1; sig < NSIG; sig++)
		(void)sigaction(sig, &k->actions[sig], NULL);
	(void)sigprocmask(SIG_SETMASK, &k->mask, NULL);
}

/* ---- a fork that is a task ---- */

static void *find(void *library, const char *name)
{
	void *found = dlsym(library, name);

	if (!found)
		refuse(name);
	return found;
}

static void replace_environment(void)
{
	(void)clearenv();
	for (const char **env = program.envp; *env; env++) {
		char *text = strdup(*env);

		if (!text || putenv(text) != 0)
			_exit(1);
	}
}

static void replace_arguments(void)
{
	const char **argv = program.argv;
	int argc = 0;

	while (*argv && strcmp(*argv, entry) != 0)
		argv++;
	if (*argv)
		argv++;
	while (argv[argc])
		argc++;
	set_argv(argc, argv);
}

/* Its first line may have options for a Ruby, which has read its own already. */
static void execute_script(void)
{
	int fd = real_open(entry, O_RDONLY | O_CLOEXEC);
	char start[2] = "";

	if (fd < 0)
		return;
	if (read(fd, start, sizeof(start)) == sizeof(start) && memcmp(start, "#!", 2) == 0) {
		(void)execve(program.argv[0], (char **)(uintptr_t)program.argv,
			     (char **)(uintptr_t)program.envp);
		_exit(1);
	}
	(void)close(fd);
}

static void become_task(void)
{
	void *loaded = zygote_library ? dlopen(zygote_library, RTLD_NOW | RTLD_LOCAL) : NULL;
	void *found = loaded ? find(loaded, "kiln_zygote_serve") : NULL;
	void (*serve)(int control_fd, struct zygote_program *ret_program);
	static struct kept kept;

	if (!found || !entry)
		refuse("a library");
	memcpy(&serve, &found, sizeof(found));
	found = find(RTLD_DEFAULT, "ruby_set_argv");
	memcpy(&set_argv, &found, sizeof(found));
	check_threads();
	keep_signals(&kept);
	close_descriptors(&kept);
	serve(SANDBOX_CONTROL_FD, &program);
	execute_script();
	open_descriptors(&kept);
	restore_signals(&kept);
	replace_environment();
	replace_arguments();
}

EXPORT pid_t fork(void)
{
	if (is_task)
		return real_fork();
	is_task = true;
	become_task();
	return 0;
}

/* ---- the program ---- */

/* By the names that Ruby's library may ask for, of which headers make one here. */
EXPORT int open_file(const char *path, int flags, ...) __asm__("open");
EXPORT int open_file64(const char *path, int flags, ...) __asm__("open64")
	__attribute__((alias("open")));

int open_file(const char *path, int flags, ...)
{
	int mode = 0;

	if (!real_open)
		find_real(); /* other libraries may open files before we are told of our start */
	if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {
		va_list args;

		va_start(args, flags);
		mode = va_arg(args, int);
		va_end(args);
	}
	/* One that has something in it and begins with no "#", which would have a meaning. */
	if (!is_task && entry && strcmp(path, entry) == 0)
		return real_open("/proc/self/exe", flags);
	return real_open(path, flags, mode);
}
