/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/start.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/priv.h"
#include "base/signals.h"
#include "base/str.h"
#include "base/url.h"
#include "cmd/cmd.h"
#include "cmd/data_dir.h"
#include "cmd/secret.h"
#include "pods/keeper.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Ids for hosts where no users were made for Kiln: above what adduser gives out, below the range of
 * nobody and of user namespaces. */
enum { FALLBACK_UID = 64700, FALLBACK_RUNNER_UID = 64701, DEFAULT_UID_BASE = 650000 };

/* Each connection and each run needs descriptors; the soft limit of most systems is 1024. */
static void raise_open_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* What several processes share must be where all of them reach it. */
static int check_shared(const struct config *cfg, struct err *e)
{
	const struct {
		const char *key, *url, *instead;
	} parts[] = {
		{"store", cfg->store, "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"},
		{"queue", cfg->queue, "amqp://USER:PASSWORD@HOST:PORT/VHOST"},
		{"cache", cfg->cache, "redis://HOST:PORT/DB"},
	};
	char shown[URL_SHOWN_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const char *url = parts[i].url;

		if (!url_scheme_is(url, "memory", NULL) && !url_scheme_is(url, "sqlite", NULL))
			continue;
		(void)url_show(url, shown, sizeof shown);
		return err_set(e, -EINVAL,
			       "the %s is \"%s\", which no other process can use: name one that "
			       "all processes of the cluster share with --%s=%s, or start "
			       "\"kiln serve\", which is all in one",
			       parts[i].key, shown, parts[i].key, parts[i].instead);
	}
	return 0;
}

/* The runner's command line, except what the keeper appends for each one. */
struct runner_command {
	char program[PATH_MAX];
	char sandbox[PATH_MAX];
	char user[32];
	char cache_bytes[24];
	char standby_bytes[24], fork_bytes[24];
	char residents[24];
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
	(void)snprintf(c->standby_bytes, sizeof c->standby_bytes, "%lld",
		       (long long)cfg->standby_bytes);
	(void)snprintf(c->fork_bytes, sizeof c->fork_bytes, "%lld", (long long)cfg->fork_bytes);
	(void)snprintf(c->residents, sizeof c->residents, "%lld",
		       (long long)cfg->resident_compilers);
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
		"--standby-bytes",
		c->standby_bytes,
		"--fork-bytes",
		c->fork_bytes,
		"--resident-compilers",
		c->residents,
		"--log-level",
		log_level_name(cfg->log_level),
	};
	_Static_assert(ARRAY_SIZE(args) + 3 < ARRAY_SIZE(c->argv), "more arguments than room");
	for (size_t i = 0; i < ARRAY_SIZE(args); i++)
		c->argv[n++] = (char *)(uintptr_t)args[i];
	if (!str_eq(cfg->setup_dir, "none")) {
		c->argv[n++] = (char *)(uintptr_t) "--setup-dir";
		c->argv[n++] = cfg->setup_dir;
	}
	if (cfg->compile_cache_shared)
		c->argv[n++] = (char *)(uintptr_t) "--share-compile-cache";
	c->argv[n] = NULL;
	return 0;
}

/* In the process that serves: give up root, then serve. */
static int serve(const struct start *how, const struct config *cfg,
		 struct language_registry *languages, const struct buf *secret, int keeper_fd,
		 uid_t uid, gid_t gid, struct err *e)
{
	const struct roles_config rc = {
		.cfg = cfg,
		.roles = how->roles,
		.languages = languages,
		.secret = secret->data,
		.secret_len = secret->len,
		.keeper_fd = keeper_fd,
	};
	int r = priv_drop(uid, gid, e);

	return r < 0 ? r : roles_run(&rc, e);
}

/* Splits off the keeper, who starts local runners. As keeper_split. */
static int split(const struct config *cfg, char *const *runner_argv, int *ret_keeper_fd,
		 int *ret_status, struct err *e)
{
	const struct keeper_config kc = {
		.runner_argv = runner_argv,
		.max_runners = KEEPER_RUNNERS_MAX,
		.max_slots = (unsigned)cfg->slots_per_runner,
		.uid_base =
			cfg->sandbox_uid_base ? (uint32_t)cfg->sandbox_uid_base : DEFAULT_UID_BASE,
	};

	return keeper_split(&kc, ret_keeper_fd, ret_status, e);
}

static int start(const struct start *how, const struct config *cfg, int *ret_status, struct err *e)
{
	bool keeper = (how->roles & ROLE_SCHEDULER) && url_scheme_is(cfg->pods, "local", NULL);
	AUTO(language_registry_free) struct language_registry *languages = NULL;
	struct runner_command command = {0};
	AUTO_FD int lock_fd = -EBADF;
	struct buf secret;
	uid_t uid, runner_uid;
	gid_t gid, runner_gid;
	int keeper_fd = -EBADF, r;

	priv_lookup(*cfg->user ? cfg->user : "kiln", FALLBACK_UID, &uid, &gid);
	priv_lookup(*cfg->runner_user ? cfg->runner_user : "kiln-runner", FALLBACK_RUNNER_UID,
		    &runner_uid, &runner_gid);
	buf_init(&secret, SECRET_FILE_MAX);
	r = signals_ignore_pipe(e);
	if (r == 0 && how->apart)
		r = check_shared(cfg, e);
	if (r == 0)
		r = language_registry_load(cfg->languages, &languages, e);
	if (r == 0 && keeper)
		r = make_runner_command(cfg, runner_uid, runner_gid, &command, e);
	if (r == 0 && !how->apart)
		r = data_dir_prepare(cfg->data_dir, uid, gid, &lock_fd, e);
	if (r == 0 && (how->roles & ROLE_SCHEDULER) && *cfg->cluster_secret_file)
		r = secret_read(cfg->cluster_secret_file, &secret, e);
	if (r < 0) {
		secret_fini(&secret);
		return r;
	}
	raise_open_files();
	r = keeper ? split(cfg, command.argv, &keeper_fd, ret_status, e) : 0;
	if (r == 0) {
		r = serve(how, cfg, languages, &secret, keeper_fd, uid, gid, e);
		*ret_status = 0;
	}
	secret_fini(&secret);
	return r < 0 ? r : 0; /* 1: the keeper, at its end */
}

int start_process(const struct start *how, int argc, char **argv)
{
	AUTO(config_free) struct config *cfg = NULL;
	struct err e = {0};
	int status = EXIT_FAILED;

	if (config_load(argc, argv, environ, &cfg, &e) < 0) {
		(void)fprintf(stderr, "kiln %s: %s\n", how->name, e.msg);
		return EXIT_WRONG_USE;
	}
	log_set_level(cfg->log_level);
	if (start(how, cfg, &status, &e) < 0) {
		(void)fprintf(stderr, "kiln %s: %s\n", how->name, e.msg);
		return EXIT_FAILED;
	}
	return status;
}
