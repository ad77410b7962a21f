/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/key.h"

#include "base/fs.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { KEY_FILE_MAX = 1024 };

static int parse(const char *text, struct tls_psk *ret_psk)
{
	char name[TLS_IDENTITY_MAX], hex[TLS_KEY_SIZE * 2 + 1];
	int end = 0;
	_Static_assert(TLS_IDENTITY_MAX == 64 && TLS_KEY_SIZE == 32, "the format below");

	if (sscanf(text, "kiln-runner-key %63s %64s %n", name, hex, &end) != 2 || text[end] ||
	    strlen(hex) + 1 != sizeof hex || hex_decode(hex, strlen(hex), ret_psk->key) < 0)
		return -EINVAL;
	(void)str_copy(ret_psk->identity, sizeof ret_psk->identity, name);
	return 0;
}

int key_read(const char *path, struct tls_psk *ret_psk, struct err *e)
{
	struct buf b;
	int r;

	buf_init(&b, KEY_FILE_MAX);
	r = fs_read_secret(path, &b, e);
	if (r == 0 && (strlen(b.data) != b.len || parse(b.data, ret_psk) < 0))
		r = err_set(e, -EINVAL,
			    "\"%s\" is no key of a runner: make one with \"kiln "
			    "runner-key\"",
			    path);
	if (b.data)
		explicit_bzero(b.data, b.len);
	buf_fini(&b);
	return r;
}
