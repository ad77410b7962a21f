/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The list of runners that others have started: NAME@HOST:PORT of each. Private to this folder. */

#include "base/err.h"
#include "pods/pods.h"

#include <stddef.h>

enum { REMOTE_MAX = 4096, REMOTE_HOST_MAX = 254, REMOTE_LIST_BYTES_MAX = 1024 * 1024 };

struct remote_address {
	char name[POD_NAME_MAX];
	char host[REMOTE_HOST_MAX]; /* a name or a numeric address, without the brackets of IPv6 */
	char port[6];
};

struct remote_list {
	struct remote_address *all; /* n of them, the caller's to free */
	size_t n;
};

/* Words between commas, or, of a file, lines; there "#" begins a comment. -EINVAL naming the word
 * that is none, and a name that comes twice. An empty list is an error but in a file. */
int remote_list_parse(const char *text, bool file, struct remote_list *ret_list, struct err *e);
