/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cmd.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"
#include "cmd/options.h"
#include "cmd/secret.h"
#include "wire/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const char cmd_runner_key_usage[] =
	"usage: kiln runner-key NAME --secret-file FILE [--out FILE]\n"
	"\n"
	"Makes the key of one runner from the secret of the cluster. The runner needs its key and\n"
	"nothing else (`kiln-runner --key-file`), the schedulers need the secret\n"
	"(`cluster_secret_file`): a runner that is broken into gives away no other's key.\n"
	"\n"
	"  --secret-file FILE  the secret: `openssl rand -hex 32 > FILE`, readable by its owner\n"
	"                      alone\n"
	"  --out FILE          where to write the key, readable by its owner alone; it must not\n"
	"                      be there yet (default: to standard output)\n";

struct key_options {
	const char *name, *secret_file, *out;
};

static const char *take_value(int argc, char **argv, int *i, const char *name)
{
	size_t len = strlen(name);

	if (strncmp(argv[*i], name, len) != 0)
		return NULL;
	if (argv[*i][len] == '=')
		return argv[*i] + len + 1;
	return argv[*i][len] == '\0' && *i + 1 < argc ? argv[++*i] : NULL;
}

static int parse(int argc, char **argv, struct key_options *o, struct err *e)
{
	for (int i = 1; i < argc; i++) {
		const char *value;

		if ((value = take_value(argc, argv, &i, "--secret-file")))
			o->secret_file = value;
		else if ((value = take_value(argc, argv, &i, "--out")))
			o->out = value;
		else if (argv[i][0] != '-' && !o->name)
			o->name = argv[i];
		else
			return err_set(e, -EINVAL, "unexpected argument \"%s\"", argv[i]);
	}
	if (!o->name || !o->secret_file)
		return err_set(e, -EINVAL, "the name of a runner and --secret-file are required");
	if (strcspn(o->name, " \t\r\n@,#") != strlen(o->name))
		return err_set(e, -EINVAL,
			       "the name of a runner has no blanks, \"@\", \",\" or \"#\"");
	return 0;
}

static int write_key(const char *path, const char *line, struct err *e)
{
	AUTO_FD int fd = -EBADF;
	int r;

	if (!path)
		return fputs(line, stdout) < 0 ? err_set(e, -EIO, "could not write the key") : 0;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, -errno, "could not make \"%s\"", path);
	r = fs_write_all(fd, line, strlen(line));
	return r < 0 ? err_errno(e, r, "could not write \"%s\"", path) : 0;
}

static int make_key(const struct key_options *o, struct err *e)
{
	uint8_t key[TLS_KEY_SIZE];
	char hex[2 * TLS_KEY_SIZE + 1], line[sizeof hex + TLS_IDENTITY_MAX + 32];
	struct buf secret;
	int r;

	buf_init(&secret, SECRET_FILE_MAX);
	r = secret_read(o->secret_file, &secret, e);
	if (r == 0)
		r = tls_derive_key(secret.data, secret.len, o->name, key, e);
	if (r == 0) {
		hex_encode(key, sizeof key, hex);
		(void)snprintf(line, sizeof line, "kiln-runner-key %s %s\n", o->name, hex);
		r = write_key(o->out, line, e);
		explicit_bzero(line, sizeof line);
		explicit_bzero(hex, sizeof hex);
		explicit_bzero(key, sizeof key);
	}
	secret_fini(&secret);
	return r;
}

int cmd_runner_key(int argc, char **argv)
{
	struct key_options o = {0};
	struct err e = {""};

	if (parse(argc, argv, &o, &e) < 0)
		return cmd_fail(EXIT_WRONG_USE, &e);
	return make_key(&o, &e) < 0 ? cmd_fail(EXIT_FAILED, &e) : EXIT_OK;
}
