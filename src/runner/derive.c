/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/derive.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"
#include "runner/key.h"
#include "runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage_text[] =
	"usage: kiln-runner derive-key --key-file FILE --name NAME --out FILE\n"
	"\n"
	"Makes the key of one pod from the key of its pool, for PodTemplates with kiln/key: pod.\n"
	"\n"
	"  --key-file FILE   the pool's, which `kiln runner-key POOL` wrote\n"
	"  --name NAME       the pod's\n"
	"  --out FILE        is made, readable by its owner alone\n";

struct wish {
	const char *key_file, *name, *out;
};

static int parse(int argc, char **argv, struct wish *w, struct err *e)
{
	static const struct option options[] = {{"key-file", required_argument, NULL, 'k'},
						{"name", required_argument, NULL, 'n'},
						{"out", required_argument, NULL, 'o'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int id;

	opterr = 0;
	while ((id = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (id) {
		case 'k':
			w->key_file = optarg;
			break;
		case 'n':
			w->name = optarg;
			break;
		case 'o':
			w->out = optarg;
			break;
		case 'h':
			return 1;
		default:
			return err_set(e, -EINVAL, "unknown or incomplete option \"%s\"",
				       argv[optind - 1]);
		}
	}
	if (optind < argc || !w->key_file || !w->name || !w->out)
		return err_set(e, -EINVAL, "--key-file, --name and --out are required");
	if (!*w->name || strlen(w->name) >= TLS_IDENTITY_MAX || strpbrk(w->name, " \t\r\n"))
		return err_set(e, -EINVAL, "\"%.80s\" cannot be the name of a pod", w->name);
	return 0;
}

static int write_key(const char *path, const char *name, const uint8_t key[TLS_KEY_SIZE],
		     struct err *e)
{
	AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	char hex[2 * TLS_KEY_SIZE + 1], line[sizeof hex + TLS_IDENTITY_MAX + 32];
	int r;

	if (fd < 0)
		return err_errno(e, -errno, "could not make \"%s\"", path);
	hex_encode(key, TLS_KEY_SIZE, hex);
	(void)snprintf(line, sizeof line, "kiln-runner-key %s %s\n", name, hex);
	r = fs_write_all(fd, line, strlen(line));
	explicit_bzero(line, sizeof line);
	explicit_bzero(hex, sizeof hex);
	return r < 0 ? err_errno(e, r, "could not write \"%s\"", path) : 0;
}

int derive_key(int argc, char **argv)
{
	struct tls_psk pool;
	uint8_t key[TLS_KEY_SIZE];
	struct wish w = {0};
	struct err e;
	int r = parse(argc, argv, &w, &e);

	if (r > 0) {
		(void)fputs(usage_text, stdout);
		return RUNNER_EXIT_OK;
	}
	if (r < 0) {
		(void)fprintf(stderr, "kiln-runner: %s\n", e.msg);
		return RUNNER_EXIT_USAGE;
	}
	r = key_read(w.key_file, &pool, &e);
	if (r == 0)
		r = tls_derive_key(pool.key, sizeof pool.key, w.name, key, &e);
	if (r == 0)
		r = write_key(w.out, w.name, key, &e);
	explicit_bzero(&pool, sizeof pool);
	explicit_bzero(key, sizeof key);
	if (r < 0)
		(void)fprintf(stderr, "kiln-runner: %s\n", e.msg);
	return r < 0 ? RUNNER_EXIT_FAILED : RUNNER_EXIT_OK;
}
