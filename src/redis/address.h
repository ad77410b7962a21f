/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * redis://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/DB]
 *
 * USER may be empty; bytes that mean something in a URL are written %XX in both. HOST is a name or
 * an address, IPv6 in brackets; several are tried in turn. PORT is 6379 and DB 0 where not given.
 */

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { REDIS_HOSTS_MAX = 8, REDIS_DB_MAX = 1023 };

struct redis_host {
	char name[256];
	uint16_t port;
};

struct redis_address {
	struct redis_host hosts[REDIS_HOSTS_MAX];
	size_t n_hosts;
	char user[128];
	char password[512]; /* empty: none */
	unsigned db;
};

/* -EINVAL. The message never has the password in it. */
int redis_address_parse(const char *url, struct redis_address *ret_address, struct err *e);
