/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/secret.h"

#include "base/fs.h"
#include "wire/tls.h"

#include <errno.h>
#include <string.h>

int secret_read(const char *path, struct buf *ret_secret, struct err *e)
{
	struct buf b;
	int r;

	buf_init(&b, SECRET_FILE_MAX);
	r = fs_read_secret(path, &b, e);
	while (r == 0 && b.len && strchr(" \t\r\n", b.data[b.len - 1]))
		b.data[--b.len] = '\0';
	if (r == 0 && b.len < TLS_SECRET_MIN)
		r = err_set(
			e, -EINVAL,
			"the secret in \"%s\" has %zu bytes, and needs %d at least: make one with "
			"\"openssl rand -hex 32\"",
			path, b.len, TLS_SECRET_MIN);
	if (r < 0) {
		secret_fini(&b);
		return r;
	}
	buf_fini(ret_secret);
	*ret_secret = b;
	return 0;
}

void secret_fini(struct buf *secret)
{
	if (secret->data)
		explicit_bzero(secret->data, secret->len);
	buf_fini(secret);
}
