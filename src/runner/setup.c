/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/setup.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "runner/environment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	ID_BYTES = 8,
	NAME_MAX_LEN = TASK_LANGUAGE_MAX + 1 + 2 * ID_BYTES,
	MAKE_MS = 5 * 60 * 1000, /* for all commands of one language */
	STALE_S = 3600,		 /* nobody works longer than that in a folder */
	NICE = 19,
};

enum item_state {
	ITEM_UNKNOWN, /* its language is not installed, or its toolchain cannot be told */
	ITEM_WANTED,
	ITEM_MAKING,
	ITEM_READY,
	ITEM_FAILED, /* with this identity: not tried again */
};

/* The files of one language. */
struct item {
	struct language *language;
	enum item_state state;
	bool asked; /* a task could have used it: it comes before the others */
	uint8_t identity[DIGEST_SIZE];
	char name[NAME_MAX_LEN + 1];
	char path[sizeof(SETUP_TARGET) + 1 + NAME_MAX_LEN];
};

struct setup {
	uv_loop_t *loop;
	struct probe *probe;
	struct item *making;				      /* one at a time */
	char work[NAME_MAX_LEN + 32], out[NAME_MAX_LEN + 32]; /* its folders, on the way */
	char **envp;
	size_t command; /* of making, that runs */
	int64_t began_us;
	uv_process_t process;
	int64_t exit_status;
	int signal;
	uv_timer_t timer;
	uv_work_t finish;
	int finish_result;
	int handles; /* and requests that are open */
	bool freed;
	size_t n_items;
	struct item items[];
};

static void make_next(struct setup *s);

/* ---- files ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	(void)remove(path);
	return 0;
}

static void remove_tree(const char *path)
{
	(void)nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int make_parents(const char *path)
{
	char part[PATH_MAX];

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		(void)snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static int join(char *path, const char *folder, const char *name)
{
	return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int write_file(const char *folder, const struct language_file *f)
{
	char path[PATH_MAX];
	AUTO_FD int fd = -EBADF;
	int r = join(path, folder, f->name);

	if (r == 0)
		r = make_parents(path);
	if (r < 0)
		return r;
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
	return fd < 0 ? -errno : fs_write_all(fd, f->text, strlen(f->text));
}

/* Moves one file to where all can read it, and onto the disk. */
static int take_product(const char *work, const char *out, const char *name)
{
	char from[PATH_MAX], to[PATH_MAX];
	AUTO_FD int fd = -EBADF;
	int r = join(from, work, name);

	if (r == 0)
		r = join(to, out, name);
	if (r == 0)
		r = make_parents(to);
	if (r < 0)
		return r;
	fd = open(from, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0644) < 0 || fsync(fd) < 0 || rename(from, to) < 0)
		return -errno;
	return 0;
}

/* On a thread of the loop's, since it waits for the disk. */
static void finish_work(uv_work_t *work)
{
	struct setup *s = work->data;
	const struct item *i = s->making;
	char *const *produces = i->language->setup.produces;
	int r = mkdir(s->out, 0755) < 0 ? -errno : 0;

	for (size_t k = 0; r == 0 && produces[k]; k++)
		r = take_product(s->work, s->out, produces[k]);
	/* Another runner may have been faster: what it made is as good. */
	if (r == 0 && rename(s->out, i->name) < 0 && errno != EEXIST && errno != ENOTEMPTY)
		r = -errno;
	remove_tree(s->out);
	remove_tree(s->work);
	s->finish_result = r;
}

static bool is_older(const char *name, time_t seconds)
{
	struct stat st;

	return lstat(name, &st) == 0 && st.st_mtim.tv_sec + seconds < time(NULL);
}

/* Whether a name is that of another toolchain's files of the same language. */
static bool is_predecessor(const struct item *i, const char *name)
{
	size_t len = strlen(i->language->name) + 1;

	return strncmp(name, i->name, len) == 0 && strlen(name) == strlen(i->name) &&
	       !str_eq(name, i->name);
}

/* Takes away what runners left that died, and what this item takes the place of. Whoever still uses
 * it goes on without. */
static void remove_stale(const struct item *i)
{
	DIR *d = opendir(".");

	if (!d)
		return;
	for (struct dirent *ent; (ent = readdir(d));) {
		const char *name = ent->d_name;

		if (str_eq(name, ".") || str_eq(name, "..") ||
		    (name[0] != '.' && !is_predecessor(i, name)))
			continue;
		if (is_older(name, STALE_S))
			remove_tree(name);
	}
	(void)closedir(d);
}

/* Has the kernel read what is on disk on this process's account, not on that of the first task. */
static bool is_made(const struct item *i)
{
	for (char *const *p = i->language->setup.produces; *p; p++) {
		char path[PATH_MAX];
		AUTO_FD int fd = join(path, i->name, *p) < 0
					 ? -EBADF
					 : open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

		if (fd < 0)
			return false;
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
	}
	return true;
}

/* ---- making ---- */

static void setup_release(struct setup *s)
{
	if (!s->freed || s->handles > 0)
		return;
	environment_free(s->envp);
	free(s);
}

/* The item at hand is over, well or not; the next one follows. */
static void make_over(struct setup *s, const char *reason, int64_t detail)
{
	struct item *i = s->making;

	s->making = NULL;
	(void)uv_timer_stop(&s->timer);
	environment_free(TAKE_PTR(s->envp));
	if (s->freed)
		return;
	if (reason) {
		remove_tree(s->work);
		i->state = ITEM_FAILED;
		log_warn("runner", "the setup of a language failed: it will be slower",
			 LOG_STR("language", i->language->name), LOG_STR("reason", reason),
			 LOG_INT("command", s->command), LOG_INT("detail", detail));
	} else {
		i->state = is_made(i) ? ITEM_READY : ITEM_FAILED;
		log_info("runner", "the setup of a language is made",
			 LOG_STR("language", i->language->name),
			 LOG_INT("ms", (clock_monotonic_us() - s->began_us) / 1000));
		remove_stale(i);
	}
	make_next(s);
}

static void finish_done(uv_work_t *work, int status)
{
	struct setup *s = work->data;

	s->handles--;
	if (status < 0)
		s->finish_result = status;
	make_over(s, s->finish_result < 0 ? err_text(s->finish_result) : NULL, 0);
	setup_release(s);
}

static void run_command(struct setup *s);

static void process_closed(uv_handle_t *h)
{
	struct setup *s = h->data;

	s->handles--;
	if (s->freed) {
		remove_tree(s->work);
		setup_release(s);
		return;
	}
	if (s->signal != 0) {
		make_over(s, "a command was killed", s->signal);
	} else if (s->exit_status != 0) {
		make_over(s, "a command failed", s->exit_status);
	} else {
		s->command++;
		run_command(s);
	}
}

static void on_exit_of(uv_process_t *process, int64_t exit_status, int signal)
{
	struct setup *s = process->data;

	s->exit_status = exit_status;
	s->signal = signal;
	uv_close((uv_handle_t *)process, process_closed);
}

static void timed_out(uv_timer_t *timer)
{
	struct setup *s = timer->data;

	if (uv_is_active((uv_handle_t *)&s->process))
		(void)uv_process_kill(&s->process, SIGKILL);
}

static void finish(struct setup *s)
{
	(void)uv_timer_stop(&s->timer);
	s->finish.data = s;
	if (uv_queue_work(s->loop, &s->finish, finish_work, finish_done) < 0)
		make_over(s, "could not queue its end", 0);
	else
		s->handles++;
}

/* The command that is next, or the end. */
static void run_command(struct setup *s)
{
	char **argv = s->making->language->setup.commands[s->command];
	uv_process_options_t options = {
		.exit_cb = on_exit_of,
		.env = s->envp,
		.cwd = s->work,
	};
	int r;

	if (!argv) {
		finish(s);
		return;
	}
	options.file = argv[0];
	options.args = argv;
	s->process.data = s;
	s->handles++;
	r = uv_spawn(s->loop, &s->process, &options);
	if (r < 0) {
		s->exit_status = r;
		s->signal = 0;
		uv_close((uv_handle_t *)&s->process, process_closed);
		return;
	}
	(void)setpriority(PRIO_PROCESS, (id_t)s->process.pid, NICE);
}

static int make_work(struct setup *s)
{
	const struct item *i = s->making;
	const struct language_setup *l = &i->language->setup;
	int r;

	(void)snprintf(s->work, sizeof(s->work), ".%s.%d.work", i->name, (int)getpid());
	(void)snprintf(s->out, sizeof(s->out), ".%s.%d.out", i->name, (int)getpid());
	remove_tree(s->work);
	remove_tree(s->out);
	r = mkdir(s->work, 0755) < 0 ? -errno : 0;
	for (size_t k = 0; r == 0 && k < l->n_files; k++)
		r = write_file(s->work, &l->files[k]);
	if (r == 0)
		r = environment_new(i->language, &s->envp, NULL);
	return r;
}

static void make_next(struct setup *s)
{
	int r;

	if (s->making || s->freed)
		return;
	for (size_t k = 0; k < s->n_items; k++) {
		struct item *i = &s->items[k];

		if (i->state == ITEM_WANTED && (!s->making || (i->asked && !s->making->asked)))
			s->making = i;
	}
	if (!s->making)
		return;
	s->making->state = ITEM_MAKING;
	s->began_us = clock_monotonic_us();
	s->command = 0;
	r = make_work(s);
	if (r < 0) {
		make_over(s, err_text(r), 0);
		return;
	}
	(void)uv_timer_start(&s->timer, timed_out, MAKE_MS, 0);
	run_command(s);
}

/* ---- what is there ---- */

static int name_item(struct item *i)
{
	uint8_t id[DIGEST_SIZE];
	char hex[2 * ID_BYTES + 1];
	struct digest *d = digest_new();
	int r = d ? digest_add_field(d, i->identity, DIGEST_SIZE) : -ENOMEM;

	if (r == 0)
		r = digest_add_field(d, i->language->revision, strlen(i->language->revision));
	if (r < 0) {
		digest_free(d);
		return r;
	}
	r = digest_finish(d, id);
	if (r < 0)
		return r;
	hex_encode(id, ID_BYTES, hex);
	(void)snprintf(i->name, sizeof(i->name), "%s-%s", i->language->name, hex);
	(void)snprintf(i->path, sizeof(i->path), "%s/%s", SETUP_TARGET, i->name);
	return 0;
}

/* Takes what is there, or asks for it to be made. */
static void item_look(struct item *i, const uint8_t *identity)
{
	memcpy(i->identity, identity, DIGEST_SIZE);
	if (name_item(i) < 0)
		i->state = ITEM_FAILED;
	else
		i->state = is_made(i) ? ITEM_READY : ITEM_WANTED;
}

void setup_begin(struct setup *s)
{
	for (size_t k = 0; k < s->n_items; k++) {
		struct item *i = &s->items[k];
		uint8_t identity[DIGEST_SIZE];

		if (i->language->installed && probe_identity(s->probe, i->language, identity))
			item_look(i, identity);
	}
	make_next(s);
}

const char *setup_making(const struct setup *s)
{
	return s->making ? s->making->language->name : NULL;
}

const char *setup_path(struct setup *s, const struct language *l,
		       const uint8_t identity[static DIGEST_SIZE])
{
	struct item *i = NULL;

	for (size_t k = 0; !i && k < s->n_items; k++) {
		if (s->items[k].language == l)
			i = &s->items[k];
	}
	if (!i || i->state == ITEM_UNKNOWN || i->state == ITEM_MAKING)
		return NULL;
	if (memcmp(i->identity, identity, DIGEST_SIZE) != 0) {
		item_look(i, identity);
		make_next(s);
	}
	i->asked = true;
	return i->state == ITEM_READY ? i->path : NULL;
}

/* ---- life cycle ---- */

static int check_folder(int fd, const char *dir, uid_t uid, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(e, -errno, "could not look at \"%s\"", dir);
	if (st.st_uid != uid || st.st_mode & (S_IWGRP | S_IWOTH))
		return err_set(e, -EPERM,
			       "the setup folder \"%s\" must belong to user %u, and be writable by "
			       "nobody else",
			       dir, (unsigned)uid);
	return 0;
}

int setup_enter(const char *dir, uid_t uid, gid_t gid, char **ret_path, struct err *e)
{
	bool root = geteuid() == 0;
	AUTO_FREE char *path = NULL;
	AUTO_FD int fd = -EBADF;
	bool made;
	int r;

	made = mkdir(dir, 0755) == 0;
	if (!made && errno != EEXIST)
		return err_errno(e, -errno, "could not make the setup folder \"%s\"", dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	path = realpath(dir, NULL);
	if (fd < 0 || !path)
		return err_errno(e, -errno, "could not open the setup folder \"%s\"", dir);
	if (made && (fchmod(fd, 0755) < 0 || (root && fchown(fd, uid, gid) < 0)))
		return err_errno(e, -errno, "could not give \"%s\" to user %u", dir, (unsigned)uid);
	r = check_folder(fd, dir, root ? uid : geteuid(), e);
	if (r < 0)
		return r;
	if (fchdir(fd) < 0)
		return err_errno(e, -errno, "could not enter \"%s\"", dir);
	*ret_path = TAKE_PTR(path);
	return 0;
}

int setup_new(uv_loop_t *loop, struct language_registry *languages, struct probe *probe,
	      struct setup **ret_setup, struct err *e)
{
	size_t n = language_count(languages);
	struct setup *s = calloc(1, sizeof(*s) + n * sizeof(s->items[0]));

	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->loop = loop;
	s->probe = probe;
	for (size_t k = 0; k < n; k++) {
		struct language *l = language_at(languages, k);

		if (l->setup.commands)
			s->items[s->n_items++] = (struct item){.language = l};
	}
	(void)uv_timer_init(loop, &s->timer);
	s->timer.data = s;
	s->handles = 1;
	*ret_setup = s;
	return 0;
}

static void timer_closed(uv_handle_t *h)
{
	struct setup *s = h->data;

	s->handles--;
	setup_release(s);
}

void setup_free(struct setup *s)
{
	if (!s || s->freed)
		return;
	s->freed = true;
	timed_out(&s->timer);
	uv_close((uv_handle_t *)&s->timer, timer_closed);
}
