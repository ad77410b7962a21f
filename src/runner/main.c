/* SPDX-License-Identifier: Apache-2.0 */

/*
 * kiln-runner: takes tasks over a connection, runs them in sandboxes, tells the results. Started by
 * the local pod manager or as the program of a pod; see runner/runner.h.
 */

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "runner/derive.h"
#include "runner/key.h"
#include "runner/runner.h"
#include "runner/zygote.h"
#include "sandbox/client.h"
#include "sandbox/walls.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Who to become where there is no user "kiln-runner": an id that no distribution gives out. */
enum { FALLBACK_ID = 64701, DEFAULT_UID_BASE = 650000, PASSWD_MAX = 4 * 1024 * 1024 };

static const char usage_text[] =
	"usage: kiln-runner --listen ADDR:PORT --key-file FILE [options]\n"
	"       kiln-runner --connection-fd N [options]\n"
	"       kiln-runner derive-key --help\n"
	"\n"
	"Takes tasks from schedulers and runs them in sandboxes.\n"
	"\n"
	"  --listen ADDR:PORT      where schedulers connect, by TLS 1.3; any number may\n"
	"  --key-file FILE         who may: the key that `kiln runner-key NAME` wrote\n"
	"  --connection-fd N       instead: a connected stream socket to one scheduler\n"
	"  --name NAME             name of this runner (default: the key's, else local)\n"
	"  --slots N               tasks at the same time, 1 to 8 (default: 1)\n"
	"  --languages DIR         folder of the language files\n"
	"  --sandbox PATH          kiln-sandbox (default: beside this program)\n"
	"  --setup-dir DIR         folder for what languages make beforehand, such as precompiled\n"
	"                          headers; made where it is missing (default: none is made)\n"
	"  --user UID:GID          whom to become when started as root\n"
	"                          (default: user kiln-runner, else 64701:64701)\n"
	"  --uid-base N            first host id of the sandboxes, 64 are used (default: 650000)\n"
	"  --limits RUNG           auto, cgroup2, cgroup1 or rlimit (default: auto)\n"
	"  --min-isolation LIST    refuse to run without these: cgroup2, cgroup, userns, netns,\n"
	"                          seccomp, landlock, two-ids; or none (default: netns,seccomp,\n"
	"                          with pod isolation landlock,seccomp)\n"
	"  --isolation LEVEL       sandbox; pod, where no namespaces can be made: one task is "
	"run,\n"
	"                          then this program ends, and a pod with it; or auto, the first\n"
	"                          of these that works (default: sandbox)\n"
	"  --max-tasks N           end after so many tasks; 0, the default: any number\n"
	"  --compile-cache-bytes N size of the compile cache (default: 256MiB)\n"
	"  --share-compile-cache   tenants share what was compiled\n"
	"  --standby-bytes N       memory for interpreters that are started beforehand, by what\n"
	"                          language files say that one costs; 0, the default: none\n"
	"  --fork-bytes N          memory for interpreters that tasks are forked of, by what "
	"language\n"
	"                          files say that a fork costs (default: 128MiB); 0: none\n"
	"  --fork-tasks N          tasks that are forked of one interpreter before another takes "
	"its\n"
	"                          place (default: 10000)\n"
	"  --resident-compilers N  compilers stay for up to N programs of one tenant, where the\n"
	"                          language has such; within --standby-bytes (default: 0, none)\n"
	"  --lease TIME            kill the tasks of a scheduler that is silent for so long,\n"
	"                          until it names a lease of its own (default: 15s)\n"
	"  --log-level LEVEL       debug, info, warn or error (default: info)\n"
	"  --help, --version\n";

enum option_id {
	OPT_CONNECTION_FD = 256,
	OPT_LISTEN,
	OPT_KEY_FILE,
	OPT_NAME,
	OPT_SLOTS,
	OPT_LANGUAGES,
	OPT_SANDBOX,
	OPT_SETUP_DIR,
	OPT_USER,
	OPT_UID_BASE,
	OPT_LIMITS,
	OPT_MIN_ISOLATION,
	OPT_ISOLATION,
	OPT_MAX_TASKS,
	OPT_CACHE_BYTES,
	OPT_SHARE_CACHE,
	OPT_STANDBY_BYTES,
	OPT_FORK_BYTES,
	OPT_FORK_TASKS,
	OPT_RESIDENT_COMPILERS,
	OPT_LEASE,
	OPT_LOG_LEVEL,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{"connection-fd", required_argument, NULL, OPT_CONNECTION_FD},
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"key-file", required_argument, NULL, OPT_KEY_FILE},
	{"name", required_argument, NULL, OPT_NAME},
	{"slots", required_argument, NULL, OPT_SLOTS},
	{"languages", required_argument, NULL, OPT_LANGUAGES},
	{"sandbox", required_argument, NULL, OPT_SANDBOX},
	{"setup-dir", required_argument, NULL, OPT_SETUP_DIR},
	{"user", required_argument, NULL, OPT_USER},
	{"uid-base", required_argument, NULL, OPT_UID_BASE},
	{"limits", required_argument, NULL, OPT_LIMITS},
	{"min-isolation", required_argument, NULL, OPT_MIN_ISOLATION},
	{"isolation", required_argument, NULL, OPT_ISOLATION},
	{"max-tasks", required_argument, NULL, OPT_MAX_TASKS},
	{"compile-cache-bytes", required_argument, NULL, OPT_CACHE_BYTES},
	{"share-compile-cache", no_argument, NULL, OPT_SHARE_CACHE},
	{"standby-bytes", required_argument, NULL, OPT_STANDBY_BYTES},
	{"fork-bytes", required_argument, NULL, OPT_FORK_BYTES},
	{"fork-tasks", required_argument, NULL, OPT_FORK_TASKS},
	{"resident-compilers", required_argument, NULL, OPT_RESIDENT_COMPILERS},
	{"lease", required_argument, NULL, OPT_LEASE},
	{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{NULL, 0, NULL, 0},
};

static int number(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *e)
{
	int r = str_to_u64(text, min, max, ret);

	return r < 0 ? err_set(e, -EINVAL, "\"%s\" is not a number from %llu to %llu", text,
			       (unsigned long long)min, (unsigned long long)max)
		     : 0;
}

static int size(const char *text, size_t *ret_size, struct err *e)
{
	uint64_t n;

	if (str_to_bytes(text, &n) < 0 || n > SIZE_MAX / 2)
		return err_set(e, -EINVAL, "\"%s\" is not a size", text);
	*ret_size = (size_t)n;
	return 0;
}

static int parse_user(const char *text, struct runner_options *o, struct err *e)
{
	char uid[16];
	size_t len = strcspn(text, ":");
	uint64_t u, g;
	int r;

	if (len >= sizeof(uid) || text[len] != ':')
		return err_set(e, -EINVAL, "\"%s\" is not UID:GID", text);
	memcpy(uid, text, len);
	uid[len] = '\0';
	r = number(uid, 1, UINT32_MAX - 1, &u, e);
	if (r == 0)
		r = number(text + len + 1, 1, UINT32_MAX - 1, &g, e);
	if (r < 0)
		return r;
	o->uid = (uid_t)u;
	o->gid = (gid_t)g;
	return 0;
}

static int parse_rung(const char *text, enum sandbox_rung *ret_rung, struct err *e)
{
	if (sandbox_rung_parse(text, ret_rung) == 0)
		return 0;
	return err_set(e, -EINVAL, "\"%s\" is not auto, cgroup2, cgroup1 or rlimit", text);
}

static int parse_level(const char *text, enum runner_level *ret_level, struct err *e)
{
	static const char *const names[] = {[RUNNER_LEVEL_SANDBOX] = "sandbox",
					    [RUNNER_LEVEL_POD] = "pod",
					    [RUNNER_LEVEL_AUTO] = "auto"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(text, names[i])) {
			*ret_level = (enum runner_level)i;
			return 0;
		}
	}
	return err_set(e, -EINVAL, "\"%s\" is not sandbox, pod or auto", text);
}

static int parse_log_level(const char *text, struct err *e)
{
	enum log_level level;

	if (log_level_parse(text, &level) < 0)
		return err_set(e, -EINVAL, "\"%s\" is not debug, info, warn or error", text);
	log_set_level(level);
	return 0;
}

static int set_number(int id, struct runner_options *o, struct err *e)
{
	uint64_t n;
	int r;

	switch (id) {
	case OPT_CONNECTION_FD:
		r = number(optarg, 0, INT_MAX, &n, e);
		if (r == 0)
			o->connection_fd = (int)n;
		return r;
	case OPT_SLOTS:
		r = number(optarg, 1, RUNNER_SLOTS_MAX, &n, e);
		if (r == 0)
			o->slots = (unsigned)n;
		return r;
	case OPT_RESIDENT_COMPILERS:
		r = number(optarg, 0, RUNNER_RESIDENT_MAX, &n, e);
		if (r == 0)
			o->resident_compilers = (unsigned)n;
		return r;
	case OPT_UID_BASE:
		r = number(optarg, 0, UINT32_MAX - 1024, &n, e);
		if (r == 0)
			o->uid_base = (unsigned)n;
		return r;
	case OPT_MAX_TASKS:
		return number(optarg, 0, INT64_MAX, &o->max_tasks, e);
	case OPT_FORK_TASKS:
		return number(optarg, 1, INT32_MAX, &o->fork_tasks, e);
	case OPT_CACHE_BYTES:
		return size(optarg, &o->cache_bytes, e);
	case OPT_STANDBY_BYTES:
		return size(optarg, &o->standby_bytes, e);
	case OPT_FORK_BYTES:
		return size(optarg, &o->fork_bytes, e);
	default:
		if (str_to_ms(optarg, &o->lease_ms) < 0 || o->lease_ms < 1)
			return err_set(e, -EINVAL, "\"%s\" is not a time", optarg);
		return 0;
	}
}

static int set_option(int id, struct runner_options *o, struct err *e)
{
	switch (id) {
	case OPT_LISTEN:
		o->listen = optarg;
		return 0;
	case OPT_KEY_FILE:
		o->key_file = optarg;
		return 0;
	case OPT_NAME:
		o->name = optarg;
		return 0;
	case OPT_LANGUAGES:
		o->languages = optarg;
		return 0;
	case OPT_SANDBOX:
		o->sandbox = optarg;
		return 0;
	case OPT_SETUP_DIR:
		o->setup_dir = optarg;
		return 0;
	case OPT_USER:
		return parse_user(optarg, o, e);
	case OPT_LIMITS:
		return parse_rung(optarg, &o->rung, e);
	case OPT_ISOLATION:
		return parse_level(optarg, &o->level, e);
	case OPT_MIN_ISOLATION:
		o->walls_given = true;
		return sandbox_walls_parse(optarg, &o->walls, e);
	case OPT_SHARE_CACHE:
		o->share_cache = true;
		return 0;
	case OPT_LOG_LEVEL:
		return parse_log_level(optarg, e);
	default:
		return set_number(id, o, e);
	}
}

/* Ids of a user from /etc/passwd. By hand, since libc's own reading loads libraries, which a static
 * program cannot. False where there is no such user. */
static bool find_user(const char *name, struct runner_options *o)
{
	struct buf b;
	bool found = false;
	size_t len = strlen(name);
	struct err e;

	buf_init(&b, PASSWD_MAX);
	if (fs_read_file(AT_FDCWD, "/etc/passwd", &b, &e) < 0)
		buf_clear(&b);
	for (const char *line = b.data; line && *line && !found;) {
		const char *end = line + strcspn(line, "\n");
		unsigned uid, gid;

		/* name:x:UID:GID:... */
		if (strncmp(line, name, len) == 0 && line[len] == ':' &&
		    sscanf(line + len, ":%*[^:]:%u:%u:", &uid, &gid) == 2 && uid > 0 && gid > 0) {
			o->uid = uid;
			o->gid = gid;
			found = true;
		}
		line = *end ? end + 1 : end;
	}
	buf_fini(&b);
	return found;
}

/* An inherited socket: must be one, and stay out of every program that is started. */
static int check_connection(int fd, struct err *e)
{
	int type;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return err_errno(e, -errno, "descriptor %d cannot be the connection", fd);
	if (type != SOCK_STREAM)
		return err_set(e, -EINVAL, "descriptor %d is not a stream socket", fd);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return err_errno(e, -errno, "could not set up descriptor %d", fd);
	return 0;
}

/* 1: an answer was printed and there is nothing more to do. */
static int parse_options(int argc, char **argv, struct runner_options *o, struct err *e)
{
	int id, r = 0;

	opterr = 0;
	while (r == 0 && (id = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		switch (id) {
		case '?':
			return err_set(e, -EINVAL, "unknown option \"%s\"", argv[optind - 1]);
		case ':':
			return err_set(e, -EINVAL, "option \"%s\" needs a value", argv[optind - 1]);
		case OPT_HELP:
			(void)fputs(usage_text, stdout);
			return 1;
		case OPT_VERSION:
			(void)puts("kiln-runner " KILN_VERSION);
			return 1;
		default:
			r = set_option(id, o, e);
		}
	}
	if (r == 0 && optind < argc)
		r = err_set(e, -EINVAL, "unexpected argument \"%s\"", argv[optind]);
	return r;
}

/* One of the two ways to schedulers; with the name that goes with it. */
static int complete_way(struct runner_options *o, struct tls_psk *key, struct err *e)
{
	int r;

	if ((o->connection_fd >= 0) == (o->listen != NULL))
		return err_set(e, -EINVAL, "one of --listen and --connection-fd is required");
	if (!o->listen && o->key_file)
		return err_set(e, -EINVAL, "--key-file is for --listen");
	if (!o->listen) {
		o->name = o->name ? o->name : "local";
		return check_connection(o->connection_fd, e);
	}
	if (!o->key_file)
		return err_set(e, -EINVAL,
			       "--listen needs --key-file: make it with \"kiln runner-key NAME "
			       "--secret-file SECRET --out FILE\"");
	r = key_read(o->key_file, key, e);
	if (r < 0)
		return r;
	if (o->name && !str_eq(o->name, key->identity))
		return err_set(e, -EINVAL, "\"%s\" is the key of runner \"%s\", not of \"%s\"",
			       o->key_file, key->identity, o->name);
	o->name = key->identity;
	o->key = key;
	return 0;
}

static int complete_options(struct runner_options *o, struct tls_psk *key, char **ret_sandbox,
			    struct err *e)
{
	AUTO_FREE char *dir = NULL;
	int r = complete_way(o, key, e);

	if (r < 0)
		return r;
	if (!o->languages)
		return err_set(e, -EINVAL, "--languages is required");
	if (o->uid == 0 && !find_user("kiln-runner", o))
		o->uid = o->gid = FALLBACK_ID;
	if (o->sandbox)
		return 0;
	dir = fs_self_dir();
	if (!dir || asprintf(ret_sandbox, "%s/kiln-sandbox", dir) < 0) {
		*ret_sandbox = NULL;
		return err_set(e, -ENOENT, "could not find kiln-sandbox, use --sandbox");
	}
	o->sandbox = *ret_sandbox;
	return 0;
}

int main(int argc, char **argv)
{
	AUTO_FREE char *sandbox = NULL;
	struct tls_psk key = {.server = true};
	struct runner_options o = {
		.connection_fd = -EBADF,
		.slots = 1,
		.fork_bytes = (size_t)128 << 20,
		.fork_tasks = ZYGOTE_FORKS_MAX,
		.uid_base = DEFAULT_UID_BASE,
		.cache_bytes = (size_t)256 << 20,
		.lease_ms = 15000,
	};
	enum runner_exit code = RUNNER_EXIT_USAGE;
	struct err e;
	int r;

	if (argc > 1 && str_eq(argv[1], "derive-key"))
		return derive_key(argc - 1, argv + 1);
	r = parse_options(argc, argv, &o, &e);
	if (r > 0)
		return RUNNER_EXIT_OK;
	if (r == 0)
		r = complete_options(&o, &key, &sandbox, &e);
	if (r == 0) {
		code = RUNNER_EXIT_FAILED;
		r = runner_run(&o, &code, &e);
	}
	if (r < 0)
		(void)fprintf(stderr, "kiln-runner: %s\n", e.msg);
	return (int)code;
}
