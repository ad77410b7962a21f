/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cmd.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/priv.h"
#include "base/str.h"
#include "base/url.h"
#include "cmd/server.h"
#include "config/config.h"
#include "pods/keeper.h"
#include "task/language.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

const char cmd_serve_usage[] =
	"usage: kiln serve [--listen ADDR:PORT] [--data-dir DIR] [--slots N] [--KEY=VALUE...]\n"
	"\n"
	"Starts a server on one machine: the HTTP API, the scheduler, a local runner with its\n"
	"sandboxes, and a store that survives a restart.\n"
	"\n"
	"  --listen ADDR:PORT  where to serve the API (default: 127.0.0.1:8080)\n"
	"  --data-dir DIR      where tasks and results are kept (default: /var/lib/kiln for\n"
	"                      root, else ~/.local/share/kiln)\n"
	"  --slots N           tasks that run at one time (default: the number of CPUs)\n"
	"  --config FILE       a YAML file with any of the keys\n"
	"  --open              serve other machines without API keys: anybody may run code\n"
	"\n"
	"Every key can be given in the file, as KILN_KEY in the environment, or as a flag, in\n"
	"rising order. `kiln config --keys` explains all keys, `kiln config` prints what is in\n"
	"force. Started as root, everything but the part that starts runners gives up root\n"
	"before it listens. SIGTERM and Ctrl-C let tasks finish that run.\n";

/* Ids for hosts where no users were made for Kiln: above what adduser gives out, below the range of
 * nobody and of user namespaces. */
enum { FALLBACK_UID = 64700, FALLBACK_RUNNER_UID = 64701, DEFAULT_UID_BASE = 650000 };

/* Everything that is the data folder's own goes to the user that will write it. Links are not
 * followed; folders below are not entered, since Kiln makes none. */
static int give_data_dir(const char *path, uid_t uid, gid_t gid, struct err *e)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	const struct dirent *entry;
	DIR *dir;
	int r = 0;

	if (fd < 0)
		return err_errno(e, -errno, "could not open the folder \"%s\"", path);
	if (fchown(fd, uid, gid) < 0)
		return err_errno(e, -errno, "could not give \"%s\" to user %u", path,
				 (unsigned)uid);
	dir = fdopendir(fd);
	if (!dir)
		return err_errno(e, -errno, "could not read the folder \"%s\"", path);
	(void)TAKE_FD(fd);
	while ((entry = readdir(dir))) {
		if (!str_has_prefix(entry->d_name, "kiln."))
			continue;
		if (fchownat(dirfd(dir), entry->d_name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
			r = err_errno(e, -errno, "could not give \"%s/%s\" to user %u", path,
				      entry->d_name, (unsigned)uid);
	}
	(void)closedir(dir);
	return r;
}

/* Two servers on one data folder would both take its tasks for their own. The lock is held by the
 * keeper and all that it forks, and goes with the last of them. */
static int lock_data_dir(const char *path, int *ret_fd, struct err *e)
{
	char file[PATH_MAX];
	AUTO_FD int fd = -EBADF;

	if ((size_t)snprintf(file, sizeof file, "%s/kiln.lock", path) >= sizeof file)
		return err_set(e, -ENAMETOOLONG, "the path of the data folder is too long");
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, -errno, "could not open \"%s\"", file);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return err_set(e, -EBUSY,
				       "another server uses the data folder \"%s\": stop it, or "
				       "give this one another with --data-dir",
				       path);
		return err_errno(e, -errno, "could not lock \"%s\"", file);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* A folder that belongs to the user is of no use below one that the user may not enter. */
static int check_reach(const char *path, uid_t uid, gid_t gid, struct err *e)
{
	int r = 0, fd;

	(void)setfsgid(gid);
	(void)setfsuid(uid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		r = err_set(
			e, -errno,
			"user %u, which the server becomes, cannot reach \"%s\": a folder above "
			"it is private; choose another with --data-dir",
			(unsigned)uid, path);
	else
		(void)close(fd);
	(void)setfsuid(0);
	(void)setfsgid(0);
	return r;
}

static int prepare_data_dir(const struct config *cfg, uid_t uid, gid_t gid, int *ret_lock_fd,
			    struct err *e)
{
	int r = fs_make_dirs(cfg->data_dir, 0700, e);

	if (r < 0)
		return err_wrap(e, r, "the data folder");
	r = lock_data_dir(cfg->data_dir, ret_lock_fd, e);
	if (r < 0 || geteuid() != 0)
		return r;
	r = give_data_dir(cfg->data_dir, uid, gid, e);
	return r < 0 ? r : check_reach(cfg->data_dir, uid, gid, e);
}

/* Each connection and each run needs descriptors; the soft limit of most systems is 1024. */
static void raise_open_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* The runner's command line, except what the keeper appends for each one. */
struct runner_command {
	char program[PATH_MAX];
	char sandbox[PATH_MAX];
	char user[32];
	char cache_bytes[24];
	char *argv[32];
};

static int make_runner_command(const struct config *cfg, uid_t uid, gid_t gid,
			       struct runner_command *c, struct err *e)
{
	AUTO_FREE char *dir = fs_self_dir();
	size_t n = 0;

	if (!dir)
		return err_set(e, -ENOENT, "could not find the folder of this program");
	(void)snprintf(c->program, sizeof c->program, "%s/kiln-runner", dir);
	(void)snprintf(c->sandbox, sizeof c->sandbox, "%s/kiln-sandbox", dir);
	for (int i = 0; i < 2; i++) {
		const char *path = i ? c->sandbox : c->program;

		if (access(path, X_OK) < 0)
			return err_errno(e, -errno, "could not find the program \"%s\"", path);
	}
	(void)snprintf(c->user, sizeof c->user, "%u:%u", (unsigned)uid, (unsigned)gid);
	(void)snprintf(c->cache_bytes, sizeof c->cache_bytes, "%lld",
		       (long long)cfg->compile_cache_bytes);
	const char *const args[] = {
		c->program,
		"--languages",
		cfg->languages,
		"--sandbox",
		c->sandbox,
		"--user",
		c->user,
		"--limits",
		cfg->sandbox_limits,
		"--min-isolation",
		cfg->sandbox_min_isolation,
		"--compile-cache-bytes",
		c->cache_bytes,
		"--log-level",
		log_level_name(cfg->log_level),
	};
	_Static_assert(ARRAY_SIZE(args) < ARRAY_SIZE(c->argv), "more arguments than room");
	for (size_t i = 0; i < ARRAY_SIZE(args); i++)
		c->argv[n++] = (char *)(uintptr_t)args[i];
	c->argv[n] = NULL;
	return 0;
}

/* In the child of the keeper: give up root, then serve. */
static int serve_roles(const struct config *cfg, struct language_registry *languages, uid_t uid,
		       gid_t gid, int keeper_fd, struct err *e)
{
	int r = priv_drop(uid, gid, e);

	return r < 0 ? r : server_run(cfg, languages, keeper_fd, e);
}

static int serve(const struct config *cfg, int *ret_status, struct err *e)
{
	AUTO(language_registry_free) struct language_registry *languages = NULL;
	struct runner_command command = {0};
	struct keeper_config kc = {
		.runner_argv = command.argv,
		.max_runners = KEEPER_RUNNERS_MAX,
		.max_slots = (unsigned)cfg->slots_per_runner,
		.uid_base =
			cfg->sandbox_uid_base ? (uint32_t)cfg->sandbox_uid_base : DEFAULT_UID_BASE,
	};
	uid_t uid, runner_uid;
	gid_t gid, runner_gid;
	AUTO_FD int lock_fd = -EBADF;
	int keeper_fd = -EBADF, r;

	priv_lookup(*cfg->user ? cfg->user : "kiln", FALLBACK_UID, &uid, &gid);
	priv_lookup(*cfg->runner_user ? cfg->runner_user : "kiln-runner", FALLBACK_RUNNER_UID,
		    &runner_uid, &runner_gid);
	r = language_registry_load(cfg->languages, &languages, e);
	if (r == 0)
		r = make_runner_command(cfg, runner_uid, runner_gid, &command, e);
	if (r == 0)
		r = prepare_data_dir(cfg, uid, gid, &lock_fd, e);
	if (r < 0)
		return r;
	raise_open_files();
	r = keeper_split(&kc, &keeper_fd, ret_status, e);
	if (r != 0)
		return r < 0 ? r : 0; /* the keeper, at its end */
	r = serve_roles(cfg, languages, uid, gid, keeper_fd, e);
	*ret_status = 0;
	return r;
}

int cmd_serve(int argc, char **argv)
{
	AUTO(config_free) struct config *cfg = NULL;
	struct err e = {0};
	int status = 1;

	if (config_load(argc, argv, environ, &cfg, &e) < 0) {
		(void)fprintf(stderr, "kiln serve: %s\n", e.msg);
		return EXIT_WRONG_USE;
	}
	log_set_level(cfg->log_level);
	if (serve(cfg, &status, &e) < 0) {
		(void)fprintf(stderr, "kiln serve: %s\n", e.msg);
		return EXIT_FAILED;
	}
	return status;
}
